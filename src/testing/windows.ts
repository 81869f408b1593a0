/**
 * The long windows of a subscription, as the simulated provider counts them: in dollars at published prices. A window begins with its
 * first call and has a fixed length. A call counts when it ends. Windows are changed in place.
 */
import type { Actual } from "../Accounting.ts"
import * as Prices from "../Prices.ts"
import type { Options, Stats } from "./models.ts"

const hour = 3_600_000
const lengths = { "5h": 5 * hour, "7d": 7 * 24 * hour } as const

/** The name of a long window. */
export type WindowName = keyof typeof lengths

/** How many earlier windows are remembered. */
const maxEnded = 1_000
/** Sums of costs are rounded products. */
const epsilon = 1e-9

/** One long window. Times are in milliseconds since the provider started. */
export interface ProviderWindow {
  readonly name: WindowName
  readonly millis: number
  /** The amount that it holds, in dollars. */
  readonly dollars: number
  /** The fraction that is spent; more than 1 if running calls have exceeded it. */
  used: number
  /** Undefined before its first call. */
  endsAt: number | undefined
  /** The fractions that were spent when earlier windows ended. */
  ended: Array<number>
}

/** The windows of a provider that starts. One that is used already has begun just now. */
export const make = (options: NonNullable<Options["windows"]>): ReadonlyArray<ProviderWindow> =>
  (Object.keys(lengths) as ReadonlyArray<WindowName>).flatMap((name) => {
    const given = options[name]
    if (given === undefined) return []
    const { dollars, used = 0 } = given
    const millis = lengths[name]
    return [{ name, millis, dollars, used, endsAt: used === 0 ? undefined : millis, ended: [] }]
  })

/** Ends a window that is over. */
const renew = (window: ProviderWindow, now: number): void => {
  if (window.endsAt === undefined || now < window.endsAt) return
  window.ended.push(window.used)
  if (window.ended.length > maxEnded) window.ended.shift()
  window.used = 0
  window.endsAt = undefined
}

/** A call arrives: a window that has not begun begins. */
export const begin = (windows: ReadonlyArray<ProviderWindow>, now: number): void => {
  for (const window of windows) window.endsAt ??= now + window.millis
}

/** Advances the windows from `from` to `to`. A neighbour spends this share of each, evenly over its length, and only what is left. */
export const flow = (windows: ReadonlyArray<ProviderWindow>, from: number, to: number, share: number): void => {
  for (const window of windows) {
    for (let at = from; at < to;) {
      if (share > 0) window.endsAt ??= at + window.millis
      const until = Math.min(to, window.endsAt ?? Infinity)
      const spent = (share * (until - at)) / window.millis
      window.used += Math.min(spent, Math.max(0, 1 - window.used))
      renew(window, until)
      at = until
    }
  }
}

/** Counts what a call has used. A model without a published price costs nothing. */
export const spend = (windows: ReadonlyArray<ProviderWindow>, model: string, used: Actual, now: number): void => {
  if (windows.length === 0) return
  const price = Prices.find(model)
  if (price === undefined) return
  begin(windows, now)
  for (const window of windows) window.used += Prices.cost(price, used) / window.dollars
}

/** Milliseconds until no window is used up. */
export const waitMillis = (windows: ReadonlyArray<ProviderWindow>, now: number): number =>
  windows.reduce((wait, { endsAt, used }) => (used + epsilon < 1 ? wait : Math.max(wait, endsAt! - now)), 0)

export const statusOf = (windows: ReadonlyArray<ProviderWindow>): Stats["windows"] =>
  Object.fromEntries(
    windows.map(({ ended, endsAt, name, used }) => [name, { used, endsAt, ended: [...ended] }] as const)
  )
