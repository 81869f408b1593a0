/**
 * Reads what a response's headers say about rate limits. Pure: the time is an argument, and no value throws.
 *
 * Understood are Anthropic's headers, OpenAI's and those of compatible servers, and the IETF draft in its present and its
 * older form. Values are bounded, because they come from outside: a limit below 1 or above 10^12, a remaining above it, a
 * negative number, or a reset outside of -1 minute to +1 day is as good as absent.
 */
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import * as Limits from "../Limits.ts"
import * as Believed from "./believed.ts"

/** Looks a header up by its lower-case name. */
export type Get = (name: string) => string | null | undefined

/** Looks up in a `Headers` object, or in a record with names in lower case. Values of other types are as good as absent. */
export const getterOf = (source: object): Get => {
  const own = source as { readonly get?: unknown } & Readonly<Record<string, unknown>>
  const textOf = (value: unknown): string | undefined => {
    if (Array.isArray(value)) return value.join(", ")
    return typeof value === "string" ? value : undefined
  }
  const { get } = own
  if (typeof get === "function") return (name) => textOf(get.call(own, name))
  return (name) => (Object.hasOwn(own, name) ? textOf(own[name]) : undefined)
}

const minute = 60_000
const day = 86_400_000

// -----------------------------------------------------------------------------
// Values
// -----------------------------------------------------------------------------

/** A plain decimal number that is neither negative nor absurd. */
const number = (text: string | null | undefined): number | undefined => {
  const trimmed = text?.trim() ?? ""
  if (!/^\d{1,16}(\.\d{1,9})?$/.test(trimmed)) return undefined
  const value = Number(trimmed)
  return value <= Believed.mostAmount * 10 ? value : undefined
}

const epochMillis = (text: string): number | undefined =>
  Option.getOrUndefined(Option.map(DateTime.make(text), DateTime.toEpochMillis))

const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/i
const httpDate = /^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/

const dateOf = (text: string | null | undefined): number | undefined => {
  const trimmed = text?.trim() ?? ""
  return httpDate.test(trimmed) ? epochMillis(trimmed) : undefined
}

/** The provider's own time of a response, so that its clock and ours need not agree; `now` where it gives none. */
export const timeOf = (get: Get, now: number): number => dateOf(get("date")) ?? now

const units: Readonly<Record<string, number>> = { d: day, h: 3_600_000, m: minute, s: 1_000, ms: 1 }
/** Go's durations, such as `6m0s`, `2m59.56s` and `20ms`. */
const duration = (text: string): number | undefined => {
  if (!/^(\d{1,9}(\.\d{1,9})?(ms|[dhms]))+$/.test(text)) return undefined
  let millis = 0
  for (const [, value, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|[dhms])/g)) millis += Number(value) * units[unit!]!
  return millis
}

/**
 * Milliseconds until a reset that is given as a time (RFC 3339, or seconds or milliseconds since the epoch) or as a span
 * (a Go duration, or seconds). A reset of the last minute is one of now; anything else outside of a day is ignored.
 */
const resetOf = (text: string | null | undefined, now: number): number | undefined => {
  const millis = untilReset(text?.trim() ?? "", now)
  return millis !== undefined && millis >= -minute && millis <= day ? Math.max(0, millis) : undefined
}

const untilReset = (text: string, now: number): number | undefined => {
  const bare = number(text)
  if (bare === undefined) return rfc3339.test(text) ? (epochMillis(text.toUpperCase()) ?? NaN) - now : duration(text)
  if (bare >= 1e12) return bare - now
  return bare >= 1e9 ? bare * 1_000 - now : bare * 1_000
}

/** One dimension; undefined when nothing of it is usable. */
const dimension = (
  limitText: string | null | undefined,
  remainingText: string | null | undefined,
  resetText: string | null | undefined,
  now: number,
  roundedTo = 1
): Limits.DimensionSignal | undefined => {
  const limit = number(limitText)
  // A limit of 0, -1 or a text says that the provider does not count this dimension, so its other figures mean nothing
  // either.
  if (limitText != null && !(limit !== undefined && limit >= 1 && limit <= Believed.mostAmount)) return undefined
  const left = number(remainingText)
  const remaining = left === undefined || left > Believed.mostAmount ? undefined : Math.min(left, limit ?? left)
  if (limit === undefined && remaining === undefined) return undefined
  const resetMillis = resetOf(resetText, now)
  return {
    ...(limit === undefined ? {} : { limit }),
    ...(remaining === undefined ? {} : { remaining, roundedTo }),
    ...(resetMillis === undefined ? {} : { resetMillis })
  }
}

// -----------------------------------------------------------------------------
// Families
// -----------------------------------------------------------------------------

type Dimensions = { -readonly [D in Limits.Dimension]?: Limits.DimensionSignal | undefined }

/** Anthropic rounds tokens to the nearest thousand; requests are exact. */
const anthropicRounding = 1_000
/** "Continuously replenished up to your maximum limit": https://platform.claude.com/docs/en/api/rate-limits (2026-08). */
const anthropicWindow = "bucket"

const anthropic = (get: Get, now: number): Dimensions => {
  const read = (name: string, roundedTo?: number) => {
    const prefix = `anthropic-ratelimit-${name}`
    const said = dimension(get(`${prefix}-limit`), get(`${prefix}-remaining`), get(`${prefix}-reset`), now, roundedTo)
    return said?.limit === undefined ? said : ({ ...said, window: anthropicWindow } as const)
  }
  const inputTokens = read("input-tokens", anthropicRounding)
  const outputTokens = read("output-tokens", anthropicRounding)
  // The combined figure is the sum of both and hides the one that binds: the real 429 of 2025 had 80,000 "tokens" left
  // and not one input token. It is used only where there is nothing better.
  const separate = inputTokens !== undefined || outputTokens !== undefined
  return {
    requests: read("requests"),
    inputTokens,
    outputTokens,
    tokens: separate ? undefined : read("tokens", anthropicRounding)
  }
}

/** The one that has less left. */
const binding = (
  left: Limits.DimensionSignal | undefined,
  right: Limits.DimensionSignal | undefined
): Limits.DimensionSignal | undefined =>
  (right?.remaining ?? Infinity) < (left?.remaining ?? Infinity) ? right : (left ?? right)

const openAi = (get: Get, now: number): Dimensions => {
  const read = (suffix: string) =>
    dimension(
      get(`x-ratelimit-limit${suffix}`),
      get(`x-ratelimit-remaining${suffix}`),
      get(`x-ratelimit-reset${suffix}`),
      now
    )
  return {
    requests: read("-requests") ?? read(""),
    tokens: binding(read("-tokens"), read("-project-tokens"))
  }
}

interface Item {
  readonly name: string
  readonly params: ReadonlyMap<string, string>
}

/** A structured-field list of strings or tokens with parameters, such as `"burst";q=100;w=60,"day";q=1000;w=86400`. */
const items = (text: string | null | undefined): ReadonlyArray<Item> =>
  (text ?? "")
    .slice(0, 2_000)
    .split(",")
    .map((part) => {
      const [name = "", ...params] = part.split(";").map((piece) => piece.trim())
      return {
        name: name.replaceAll('"', ""),
        params: new Map(
          params.flatMap((param) => {
            const at = param.indexOf("=")
            return at < 0 ? [] : [[param.slice(0, at), param.slice(at + 1).replaceAll('"', "")] as const]
          })
        )
      }
    })

/** The draft's policies; only those of one minute, because that is what a signal's limit means. */
const draft = (get: Get, now: number): Dimensions => {
  const result: Dimensions = {}
  const policies = items(get("ratelimit-policy"))
  for (const state of items(get("ratelimit"))) {
    const policy = policies.find((policy) => policy.name === state.name)
    const window = policy?.params.get("w")
    if (window !== undefined && number(window) !== 60) continue
    const unit = policy?.params.get("qu") ?? "requests"
    if ((unit !== "requests" && unit !== "tokens") || result[unit] !== undefined) continue
    const limit = window === undefined ? undefined : policy?.params.get("q")
    result[unit] = dimension(limit, state.params.get("r"), state.params.get("t"), now)
  }
  if (result.requests !== undefined) return result
  // Older drafts: `RateLimit-Limit: 100, 100;w=60`.
  const [limit, ...windows] = items(get("ratelimit-limit"))
  const window = windows.find((item) => item.name === limit?.name)?.params.get("w") ?? limit?.params.get("w")
  if (window !== undefined && number(window) !== 60) return result
  return {
    ...result,
    requests: dimension(limit?.name || undefined, get("ratelimit-remaining"), get("ratelimit-reset"), now)
  }
}

// -----------------------------------------------------------------------------
// Readers
// -----------------------------------------------------------------------------

/**
 * What the headers say about the limits; undefined when they say nothing usable.
 *
 * Resets are measured from the response's own `date`, so that the two clocks need not agree, and from `now` (milliseconds
 * since the epoch) where there is none.
 */
export const signal = (get: Get, now: number): Limits.Signal | undefined => {
  const date = dateOf(get("date"))
  const from = timeOf(get, now)
  const families = [anthropic(get, from), openAi(get, from), draft(get, from)]
  const dimensions: { [D in Limits.Dimension]?: Limits.DimensionSignal } = {}
  let found = false
  for (const name of Limits.dimensions) {
    const value = families.find((family) => family[name] !== undefined)?.[name]
    if (value === undefined) continue
    dimensions[name] = value
    found = true
  }
  if (!found) return undefined
  return date === undefined ? { dimensions } : { dimensions, date }
}

/**
 * How long the provider asks to wait, in milliseconds, above 0 and at most an hour: `retry-after-ms`,
 * or `retry-after` as seconds or as an HTTP date. Zero, a date that has passed and nonsense are as good as absent.
 */
export const retryAfterMillis = (get: Get, now: number): number | undefined => {
  const text = get("retry-after")
  const date = dateOf(text)
  const asked = [
    number(get("retry-after-ms")) ?? 0,
    (number(text) ?? 0) * 1_000,
    date === undefined ? 0 : date - timeOf(get, now)
  ].find((millis) => millis > 0)
  return asked === undefined ? undefined : Believed.pause(asked)
}
