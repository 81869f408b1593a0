/**
 * The long windows of a subscription, such as 5 hours and 7 days, as pure steps. A provider tells which fraction of a window is spent
 * and when the window ends, but not how large it is. The size is learned from how the costs of calls move the fraction.
 *
 * `spent` is what all calls of the account have cost here so far. A response tells the fraction at about the time when its call was
 * admitted, so it is compared with what was spent then.
 */
import type { WindowSignal } from "../signal.ts"

/** A window as far as it is known. Costs are in billionths of a dollar. */
export interface LongWindow {
  /** The fraction that was spent when `mark` had been spent here. */
  readonly base: number
  readonly mark: number
  /** When it ends, in milliseconds since the epoch; `Infinity` if it has ended and nothing was heard of the next one. */
  readonly resetsAt: number
  /** Whether the provider rejects calls until then. */
  readonly isRejected: boolean
  /** The cost of a whole window; undefined until the fraction has moved. */
  readonly size: number | undefined
  /** Where the measurement of the size began. */
  readonly from: { readonly used: number; readonly spent: number }
  /** Parts of the names of the models that it concerns; undefined for all models. */
  readonly models: ReadonlyArray<string> | undefined
}

// -----------------------------------------------------------------------------
// Names
// -----------------------------------------------------------------------------

const units = { m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 }
const form = /^([1-9]\d{0,4})([mhdw])(?:_([a-z0-9_]{1,32}))?$/

/** The name of a window by its length, such as `"5h"`, and by what it is restricted to, such as `"7d_sonnet"`. */
export const nameOf = (millis: number, suffix?: string): string => {
  const unit = (["d", "h"] as const).find((unit) => millis % units[unit] === 0) ?? "m"
  const length = `${Math.ceil(millis / units[unit])}${unit}`
  return suffix === undefined ? length : `${length}_${suffix}`
}

/** Reads a name; undefined if it is none. Windows of one length have one `name`, so "1w" and "168h" have that of "7d". */
export const parseName = (
  text: string
): { readonly name: string; readonly millis: number; readonly suffix: string | undefined } | undefined => {
  const [, count, unit, suffix] = form.exec(text) ?? []
  if (count === undefined) return undefined
  const millis = Number(count) * units[unit as keyof typeof units]
  return { name: nameOf(millis, suffix), millis, suffix }
}

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/** Names of models come with requests. */
const maxModels = 50

/** Whether the calls of a model count towards a window. */
export const concerns = ({ models }: Pick<LongWindow, "models">, model: string): boolean =>
  models === undefined || models.some((part) => model.includes(part))

/** The models that a window concerns after a response to a call of `model` has told it. */
const modelsAfter = (known: LongWindow | undefined, { models }: WindowSignal, model: string): LongWindow["models"] => {
  if (models === undefined || models.length > 0) return models
  const before = known?.models ?? []
  return before.includes(model) || before.length >= maxModels ? before : [...before, model]
}

// -----------------------------------------------------------------------------
// Steps
// -----------------------------------------------------------------------------

/** The fraction is rounded down to steps of this size. */
const step = 0.01
/** A movement of one step measures nothing, and only one of several steps replaces a size that is known already. */
const firstMove = 1.5 * step
const goodMove = 4.5 * step
/** A new size replaces a known one only if the cost is this many times what is in doubt. */
const goodCost = 3
/** Ends that differ by less than this are the same, because providers round them. */
const minute = 60_000

/** A window at its first response. Its size is that of the one before. */
export const begun = (
  signal: Pick<WindowSignal, "used" | "resetsAt" | "isRejected">,
  spent: number,
  size: number | undefined,
  models: LongWindow["models"]
): LongWindow => ({
  base: signal.used,
  mark: spent,
  resetsAt: signal.resetsAt,
  isRejected: signal.isRejected === true,
  size,
  from: { used: signal.used, spent },
  models
})

/** The state of a window at a time: after its end it is unused. */
export const at = (window: LongWindow, spent: number, now: number): LongWindow =>
  now < window.resetsAt ? window : begun({ used: 0, resetsAt: Infinity }, spent, window.size, window.models)

/** The fraction that is spent. */
export const usedAt = ({ base, mark, size }: LongWindow, spent: number): number =>
  size === undefined ? base : base + Math.max(0, spent - mark) / size

/**
 * Learns what a response says. `spent` is what had been spent when its call was admitted, and `doubt` what other calls may have
 * added until the provider made the response. `model` is that of the call.
 */
export const observe = (
  known: LongWindow | undefined,
  signal: WindowSignal,
  spent: number,
  doubt: number,
  now: number,
  model: string
): LongWindow => {
  const models = modelsAfter(known, signal, model)
  if (known === undefined) return begun(signal, spent, undefined, models)
  // A response that is late tells of a window that has ended.
  if (signal.resetsAt <= now) return known
  if (Math.abs(signal.resetsAt - known.resetsAt) > minute) return begun(signal, spent, known.size, models)
  const { base, from, mark, size } = known
  const isRejected = signal.isRejected === true
  const told = signal.used
  // An earlier call was answered later.
  if (spent < mark) return { ...known, isRejected, models, base: Math.max(base, told) }
  const used = size === undefined ? told : Math.min(Math.max(usedAt(known, spent), told), told + step)
  const next = { ...known, base: used, mark: spent, isRejected, models }
  // The provider has given some of it back, so the measurement begins anew.
  if (told < from.used) return { ...next, from: { used: told, spent } }
  const moved = told - from.used
  const cost = spent - from.spent
  const isMeasured =
    size === undefined ? moved > firstMove && cost > doubt : moved > goodMove && cost > goodCost * doubt
  return isMeasured ? { ...next, size: cost / moved } : next
}

/** Whether the provider rejects calls, or all is spent as far as it tells. */
export const isSpent = ({ base, isRejected }: LongWindow): boolean => isRejected || base >= 1

/** Whether a window has more room than it was known to have. */
export const hasOpened = (known: LongWindow, now: LongWindow): boolean =>
  (known.isRejected && !now.isRejected) || (isSpent(known) && !isSpent(now)) || now.base < known.base - step

/**
 * The least that a whole window can cost: what the calls here have cost moved the fraction by less than a step more than was told. If
 * others spend as well, it is less in proportion, so all of them together keep to what is left.
 */
const leastSize = ({ base, from, mark }: LongWindow): number => (mark - from.spent) / (base - from.used + step)

const part = (cost: number, size: number): number => (cost <= 0 ? 0 : cost / size)

/** The fraction that is spent at most, once running calls have cost `more`. */
export const expectedAt = (window: LongWindow, spent: number, more: number): number => {
  const { base, mark, size } = window
  const least = leastSize(window)
  const held = size === undefined || (least > 0 && least < size) ? least : size
  return base + part(spent - mark, size ?? least) + part(more, held)
}
