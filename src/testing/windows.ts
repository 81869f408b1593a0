/**
 * The long windows of a subscription, as the simulated provider counts them: in dollars at published prices. A window begins with its
 * first call and has a fixed length. A call counts when it ends. Windows are changed in place.
 */
import type { Actual } from "../Accounting.ts"
import { concerns, parseName } from "../domain/spending/windows.ts"
import * as Prices from "../Prices.ts"
import type { Options, Stats } from "./models.ts"

/** How many earlier windows are remembered. */
const maxEnded = 1_000
/** Sums of costs are rounded products. */
const epsilon = 1e-9

/** One long window. Times are in milliseconds since the provider started. */
export interface ProviderWindow {
  readonly name: string
  readonly millis: number
  /** The part of its name after the length. */
  readonly suffix: string | undefined
  /** Parts of the names of the models that it concerns; undefined for all. */
  readonly models: ReadonlyArray<string> | undefined
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
  Object.entries(options).flatMap(([label, given]) => {
    const parsed = parseName(label)
    if (given === undefined || parsed === undefined) return []
    const { name, millis, suffix } = parsed
    const { dollars, models = suffix === undefined ? undefined : [suffix], used = 0 } = given
    return [{ name, millis, suffix, models, dollars, used, endsAt: used === 0 ? undefined : millis, ended: [] }]
  })

/** The windows that the calls of a model count towards. */
export const of = (windows: ReadonlyArray<ProviderWindow>, model: string): ReadonlyArray<ProviderWindow> =>
  windows.filter((window) => concerns(window, model))

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
export const spend = (all: ReadonlyArray<ProviderWindow>, model: string, used: Actual, now: number): void => {
  if (all.length === 0) return
  const price = Prices.find(model)
  if (price === undefined) return
  const windows = of(all, model)
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
