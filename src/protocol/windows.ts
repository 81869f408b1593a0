/**
 * Reads the long windows of subscriptions from the headers of a response: Anthropic's `anthropic-ratelimit-unified-*` and Codex's
 * `x-codex-*`, with the body of its rejections. Neither is documented, and both get new windows, so any name that says how long its window
 * is will do, and what cannot be read counts as absent.
 */
import type * as Signal from "../domain/signal.ts"
import { nameOf, parseName } from "../domain/spending/windows.ts"
import { dateOf, epochMillis, namesOf, numberOf } from "./headerValues.ts"
import { amountOf, at as get } from "./json.ts"
import type { HeaderReader } from "./models.ts"

type Windows = NonNullable<Signal.Signal["windows"]>

/** More windows than an account has. */
const maxWindows = 16
/** A fraction above this is none: running calls exceed a window by a few percent. */
const maxFraction = 2

const minute = 60_000

// -----------------------------------------------------------------------------
// Anthropic
// -----------------------------------------------------------------------------

const unified = "anthropic-ratelimit-unified"
/** Responses to subscriptions have one of these. */
const signs = ["status", "5h-utilization", "7d-utilization", "7d_oi-utilization"].map((name) => `${unified}-${name}`)
const told = /^anthropic-ratelimit-unified-([a-z0-9_]{2,40})-(?:utilization|status)$/

/** Headers that cannot be listed may have these. */
const usual = ["5h", "7d"]

/** The suffixes that name a family of models. Windows with any other suffix concern the models in whose responses they are told. */
const families = ["fable", "haiku", "opus", "sonnet"]

const modelsOf = (suffix: string | undefined): ReadonlyArray<string> | undefined => {
  if (suffix === undefined) return undefined
  return families.includes(suffix) ? [suffix] : []
}

const anthropic = (header: HeaderReader): Windows => {
  const found: Record<string, Signal.WindowSignal> = {}
  if (signs.every((name) => header(name) == null)) return found
  const isRejecting = (header(`${unified}-status`) ?? "rejected") === "rejected" && !offersSlowLane(header)
  const seen = new Set([...usual, ...namesOf(header).flatMap((name) => told.exec(name)?.[1] ?? [])])
  for (const label of Array.from(seen).slice(0, maxWindows)) {
    const parsed = parseName(label)
    const resetsAt = epochMillis(header(`${unified}-${label}-reset`))
    if (parsed === undefined || resetsAt === undefined) continue
    const status = header(`${unified}-${label}-status`)
    const used = numberOf(header(`${unified}-${label}-utilization`)) ?? (status === "rejected" ? 1 : Infinity)
    if (used > maxFraction) continue
    const isRejected =
      isRejecting && (status == null ? isClaimed(header, parsed.millis, parsed.suffix, used) : status === "rejected")
    const models = modelsOf(parsed.suffix)
    found[parsed.name] = {
      used: Math.min(1, used),
      resetsAt,
      ...(isRejected && !isOverage(header) && { isRejected }),
      ...(models !== undefined && { models })
    }
  }
  return found
}

const isOverage = (header: HeaderReader): boolean => header(`${unified}-overage-status`) === "allowed"

const numbers = [
  "zero",
  "one",
  "two",
  "three",
  "four",
  "five",
  "six",
  "seven",
  "eight",
  "nine",
  "ten",
  "eleven",
  "twelve"
]

/** The name of a window in the header `representative-claim`, such as `"seven_day_sonnet"`. */
export const claimOf = (millis: number, suffix: string | undefined): string => {
  const hours = millis / 3_600_000
  const [count, unit] = hours % 24 === 0 ? [hours / 24, "day"] : [hours, "hour"]
  const length = `${numbers[count]}_${unit}`
  return suffix === undefined ? length : `${length}_${suffix === "oi" ? "overage_included" : suffix}`
}

/** Whether a window without a status of its own is the one that is used up. */
const isClaimed = (header: HeaderReader, millis: number, suffix: string | undefined, used: number): boolean => {
  if (header(`${unified}-status`) == null) return false
  const claim = header(`${unified}-representative-claim`)
  return claim == null ? used >= 1 : claim === claimOf(millis, suffix)
}

/**
 * Whether a rejection offers a slower lane, which is open while the window is used up. The caller opts in with the header
 * `anthropic-usage-limit: slow` of its next request, as Claude Code does after it has asked its user. Each caller needs an offer of its
 * own, so such a rejection closes the window for nobody.
 */
export const offersSlowLane = (header: HeaderReader): boolean => header(`${unified}-slow-offer`) != null

/** Whether the caller has opted in to the slower lane. */
export const takesSlowLane = (header: HeaderReader): boolean => header("anthropic-usage-limit") === "slow"

// -----------------------------------------------------------------------------
// Codex
// -----------------------------------------------------------------------------

const percentUsed = /^x-codex-(?:([a-z0-9]{1,32})-)?(?:primary|secondary)-used-percent$/

const slots = ["x-codex-primary-used-percent", "x-codex-secondary-used-percent"]
const maxMinutes = 1_000_000

/** The length of a window. Some versions of Codex tell a minute less: 299 for 5 hours, 10,079 for 7 days. */
const lengthOf = (minutes: number): number => {
  const hours = Math.ceil(minutes / 60)
  return hours * 60 - minutes <= 1 ? hours * 60 * minute : Math.round(minutes) * minute
}

/**
 * Codex names its windows by two slots, of which each may hold any length, and `x-codex-NAME-...` has further ones for some models. A slot
 * that is not in use has 0 minutes.
 */
const codex = (header: HeaderReader): Windows => {
  const found: Record<string, Signal.WindowSignal> = {}
  if (header(slots[0]!) == null) return found
  const names = new Set([...slots, ...namesOf(header).filter((name) => percentUsed.test(name))])
  for (const name of Array.from(names).slice(0, maxWindows)) {
    const limit = percentUsed.exec(name)![1]
    const slot = name.slice(0, -"-used-percent".length)
    const used = (numberOf(header(name)) ?? Infinity) / 100
    const minutes = numberOf(header(`${slot}-window-minutes`)) ?? 0
    const resetsAt = resetOf(header, slot)
    if (used > maxFraction || minutes < 1 || minutes > maxMinutes || resetsAt === undefined) continue
    found[nameOf(lengthOf(minutes), limit)] = {
      used: Math.min(1, used),
      resetsAt,
      ...(limit !== undefined && { models: [] })
    }
  }
  return found
}

/** When a slot is reset: at a time, or some seconds after the response. */
const resetOf = (header: HeaderReader, slot: string): number | undefined => {
  const at = epochMillis(header(`${slot}-reset-at`))
  if (at !== undefined) return at
  const after = numberOf(header(`${slot}-reset-after-seconds`))
  const since = dateOf(header("date"))
  return after === undefined || since === undefined ? undefined : since + after * 1_000
}

/** When a rejection says that a window begins again: at a time, or so long after the response, in milliseconds. */
export interface Reset {
  readonly at: number | undefined
  readonly after: number | undefined
}

/** The reset in the error object of a spent window: `resets_at` and `resets_in_seconds`. */
export const resetIn = (error: unknown): Reset => {
  const [at, after] = ["resets_at", "resets_in_seconds"].map((name) => amountOf(get(error, name)))
  return { at: at && epochMillis(String(at)), after: after && after * 1_000 }
}

/** The time of a reset after a response of `now`; undefined if it is over, or is not told. */
export const resetTime = ({ after, at }: Reset, now: number): number | undefined => {
  const time = at ?? (after === undefined ? undefined : now + after)
  return time !== undefined && time > now && time - now <= maxMinutes * minute ? time : undefined
}

/** The name of a window of which only its reset is known. */
const unnamed = "usage limit"

/**
 * Adds to a signal that the account is rejected until a time: by the windows that end then, or else by those that are used up. If the
 * headers tell of neither, the window has no length.
 */
export const rejecting = (signal: Signal.Signal | undefined, resetsAt: number | undefined): typeof signal => {
  if (resetsAt === undefined) return signal
  const told = Object.entries(signal?.windows ?? {})
  const ending = told.filter(([, window]) => Math.abs(window.resetsAt - resetsAt) <= minute)
  const used = told.filter(([, window]) => window.used >= 1)
  const other = used.length > 0 ? used : [[unnamed, { used: 1, resetsAt }] as const]
  const spent = ending.length > 0 ? ending : other
  const rejected = spent.map(([name, window]) => [name, { ...window, isRejected: true }] as const)
  return { dimensions: {}, ...signal, windows: { ...signal?.windows, ...Object.fromEntries(rejected) } }
}

// -----------------------------------------------------------------------------
// Both
// -----------------------------------------------------------------------------

/**
 * The long windows of a subscription; undefined if there are none. The answers to accounts that pay for more than their windows (overage)
 * have no fractions.
 */
export const windowsOf = (header: HeaderReader): Signal.Signal["windows"] => {
  const found = { ...anthropic(header), ...codex(header) }
  return Object.keys(found).length === 0 ? undefined : found
}
