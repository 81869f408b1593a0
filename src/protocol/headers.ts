/**
 * Reads rate limits from the headers of a response.
 *
 * It understands Anthropic's `anthropic-ratelimit-*`, also the long windows of subscriptions, the `x-ratelimit-*` of OpenAI and
 * compatible services, and the IETF draft in its current and its older form. Values come from outside, so they are bounded: a
 * limit below 1 or above 10^12 and a negative number count as absent. The time of a reset is read only for the long windows, because
 * elsewhere providers mean different things by it, and the budget does not use it.
 *
 * Sources:
 *
 * - https://platform.claude.com/docs/en/api/rate-limits#response-headers
 * - https://developers.openai.com/api/docs/guides/rate-limits
 * - https://inference-docs.cerebras.ai/support/rate-limits
 * - https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
 */
import type * as Limits from "../Limits.ts"
import type * as Signal from "../domain/signal.ts"
import { dateOf, numberOf, timeOf } from "./headerValues.ts"
import { maxAmount } from "./json.ts"
import type { HeaderReader } from "./models.ts"
import { windowsOf } from "./windows.ts"

export { headerReader, timeOf } from "./headerValues.ts"
export type { HeaderReader } from "./models.ts"
export { offersSlowLane, takesSlowLane } from "./windows.ts"

const minute = 60_000
const hour = 3_600_000
const day = 86_400_000

// -----------------------------------------------------------------------------
// Values
// -----------------------------------------------------------------------------

const units: Readonly<Record<string, number>> = { d: day, h: hour, m: minute, s: 1_000, ms: 1 }

/** Milliseconds of a duration in Go's notation, such as `6m0s`, `2m59.56s`, `20ms` and Google's `36.4s`. */
export const durationMillis = (text: string): number | undefined => {
  if (!/^(\d{1,9}(\.\d{1,9})?(ms|[dhms]))+$/.test(text)) return undefined
  let millis = 0
  for (const [, value, unit = "s"] of text.matchAll(/(\d+(?:\.\d+)?)(ms|[dhms])/g)) {
    millis += Number(value) * (units[unit] ?? 0)
  }
  return millis
}

interface LimitFields {
  readonly limit: string | null | undefined
  readonly remaining: string | null | undefined
}

/** The names of a dimension's headers. They are made once, because that costs more than reading the headers. */
type Names = { readonly [F in keyof LimitFields]: string }

const named = (nameOf: (field: keyof LimitFields) => string): Names => ({
  limit: nameOf("limit"),
  remaining: nameOf("remaining")
})

const fieldsOf = (header: HeaderReader, names: Names): LimitFields | undefined => {
  const limit = header(names.limit)
  const remaining = header(names.remaining)
  return limit == null && remaining == null ? undefined : { limit, remaining }
}

/** A number from `min` to the largest amount that is believed. */
const amountIn = (text: string | null | undefined, min: number): number | undefined => {
  const value = numberOf(text)
  return value !== undefined && value >= min && value <= maxAmount ? value : undefined
}

/** One dimension; undefined if none of its fields is usable. */
const dimensionOf = (fields: LimitFields | undefined, roundedTo = 1): Signal.DimensionSignal | undefined => {
  if (fields === undefined) return undefined
  const limit = amountIn(fields.limit, 1)
  // A limit of 0, -1 or a word means that the provider does not count this dimension, so its other fields mean nothing.
  if (fields.limit != null && limit === undefined) return undefined
  const left = amountIn(fields.remaining, 0)
  const remaining = left === undefined ? undefined : Math.min(left, limit ?? left)
  if (limit === undefined && remaining === undefined) return undefined
  return { ...(limit !== undefined && { limit }), ...(remaining !== undefined && { remaining, roundedTo }) }
}

// -----------------------------------------------------------------------------
// Families
// -----------------------------------------------------------------------------

type Dimensions = { -readonly [D in Limits.Dimension]?: Signal.DimensionSignal | undefined }

/** Anthropic rounds tokens to the nearest thousand; requests are exact. */
const anthropicRounding = 1_000

const anthropicNames = (prefix: string) => {
  const names = (name: string): Names => named((field) => `${prefix}-${name}-${field}`)
  return {
    requests: names("requests"),
    inputTokens: names("input-tokens"),
    outputTokens: names("output-tokens"),
    tokens: names("tokens")
  }
}
const standard = anthropicNames("anthropic-ratelimit")
/**
 * The limits of the fast mode, which only answers in that mode have: https://platform.claude.com/docs/en/build-with-claude/fast-mode
 *
 * Those of the priority tier (`anthropic-priority-*`) are not read, because they never decide when a call may be sent: a call beyond
 * them is answered as a standard one, and a call within them also counts towards the standard limits.
 * Source: https://platform.claude.com/docs/en/api/service-tiers
 */
const fast = anthropicNames("anthropic-fast")

const anthropic = (header: HeaderReader): Dimensions => {
  const isFast = header(fast.inputTokens.limit) != null || header(fast.outputTokens.limit) != null
  const fields = isFast ? fast : standard
  const read = (name: Limits.Dimension, roundedTo?: number): Signal.DimensionSignal | undefined =>
    dimensionOf(fieldsOf(header, fields[name]), roundedTo)
  const inputTokens = read("inputTokens", anthropicRounding)
  const outputTokens = read("outputTokens", anthropicRounding)
  // The combined figure is the sum of both and hides the one that is exhausted: a real 429 had 80,000 "tokens" left and
  // no input token. It is used only when there are no separate figures.
  const separate = inputTokens !== undefined || outputTokens !== undefined
  return {
    requests: read("requests"),
    inputTokens,
    outputTokens,
    tokens: separate ? undefined : read("tokens", anthropicRounding)
  }
}

/** The limit with the least remaining, of several on the same dimension. */
const tightest = (...limits: ReadonlyArray<Signal.DimensionSignal | undefined>): Signal.DimensionSignal | undefined => {
  let result: Signal.DimensionSignal | undefined
  for (const limit of limits) {
    if (limit === undefined) continue
    if (result === undefined || (limit.remaining ?? Infinity) < (result.remaining ?? Infinity)) result = limit
  }
  return result
}

const openAiNames = (suffix: string): Names => named((field) => `x-ratelimit-${field}${suffix}`)
const openAiFields = {
  requests: openAiNames("-requests"),
  requestsMinute: openAiNames("-requests-minute"),
  bare: openAiNames(""),
  tokens: openAiNames("-tokens"),
  tokensMinute: openAiNames("-tokens-minute"),
  projectTokens: openAiNames("-project-tokens")
}

const openAi = (header: HeaderReader): Dimensions => {
  const read = (name: keyof typeof openAiFields): Signal.DimensionSignal | undefined =>
    dimensionOf(fieldsOf(header, openAiFields[name]))
  return {
    // Cerebras and Mistral put the window into the name. Only a minute is comparable with a limit per minute.
    requests: read("requests") ?? read("requestsMinute") ?? read("bare"),
    tokens: tightest(read("tokens") ?? read("tokensMinute"), read("projectTokens"))
  }
}

interface ListItem {
  readonly name: string
  readonly params: ReadonlyMap<string, string>
}

/** A structured-field list of strings or tokens with parameters, such as `"burst";q=100;w=60,"day";q=1000;w=86400`. */
const itemsOf = (text: string): ReadonlyArray<ListItem> =>
  text
    .slice(0, 2_000)
    .split(",")
    .map((part) => {
      const [name = "", ...params] = part.split(";").map((piece) => piece.trim())
      const pairs = params.flatMap((param) => {
        const equals = param.indexOf("=")
        return equals < 0 ? [] : [[param.slice(0, equals), param.slice(equals + 1).replaceAll('"', "")] as const]
      })
      return { name: name.replaceAll('"', ""), params: new Map(pairs) }
    })

const isMinute = (window: string | undefined): boolean => window === undefined || numberOf(window) === 60

/** The older drafts: `RateLimit-Limit: 100, 100;w=60`. */
const olderDraft = (header: HeaderReader): Signal.DimensionSignal | undefined => {
  const text = header("ratelimit-limit")
  const [limit, ...windows] = text == null ? [] : itemsOf(text)
  const window = windows.find((item) => item.name === limit?.name)?.params.get("w") ?? limit?.params.get("w")
  if (!isMinute(window)) return undefined
  return dimensionOf({ limit: limit?.name || undefined, remaining: header("ratelimit-remaining") })
}

/** Adds a limit of the current draft if its window is a minute, because a signal's limit is per minute. The first one counts. */
const addDraft = (result: Dimensions, { name, params }: ListItem, policies: ReadonlyArray<ListItem>): void => {
  const policy = policies.find((policy) => policy.name === name)?.params
  const window = policy?.get("w")
  const unit = policy?.get("qu") ?? "requests"
  if (!isMinute(window) || (unit !== "requests" && unit !== "tokens")) return
  const limit = window === undefined ? undefined : policy?.get("q")
  result[unit] ??= dimensionOf({ limit, remaining: params.get("r") })
}

const draft = (header: HeaderReader): Dimensions => {
  const result: Dimensions = {}
  const text = header("ratelimit")
  if (text != null) {
    const policies = itemsOf(header("ratelimit-policy") ?? "")
    for (const item of itemsOf(text)) addDraft(result, item, policies)
  }
  result.requests ??= olderDraft(header)
  return result
}

// -----------------------------------------------------------------------------
// Readers
// -----------------------------------------------------------------------------

const dimensions = ["requests", "inputTokens", "outputTokens", "tokens"] as const

/** The limits in the headers; undefined if there are none. */
export const signalOf = (header: HeaderReader): Limits.Signal | undefined => {
  const families = [anthropic(header), openAi(header), draft(header)]
  const result: { [D in Limits.Dimension]?: Signal.DimensionSignal } = {}
  for (const name of dimensions) {
    const value = families.find((family) => family[name] !== undefined)?.[name]
    if (value !== undefined) result[name] = value
  }
  const windows = windowsOf(header)
  if (windows !== undefined) return { dimensions: result, windows }
  return Object.keys(result).length === 0 ? undefined : { dimensions: result }
}

/** The longest pause that is believed, in milliseconds: a limit that is closed for longer is probed once an hour. */
export const maxRetryAfterMillis = hour

/**
 * The wait that the provider asks for, in milliseconds, above 0 and without an upper bound: `retry-after-ms`, or `retry-after` as
 * seconds or as an HTTP date. Zero, a date in the past and malformed values count as absent.
 *
 * Source: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
 */
export const statedWaitMillis = (header: HeaderReader, now: number): number | undefined => {
  const text = header("retry-after")
  const date = dateOf(text)
  return [
    numberOf(header("retry-after-ms")) ?? 0,
    (numberOf(text) ?? 0) * 1_000,
    date === undefined ? 0 : date - timeOf(header, now)
  ].find((millis) => millis > 0)
}

/** The wait to keep because the provider asks for it, in milliseconds, above 0 and at most an hour. */
export const retryAfterMillis = (header: HeaderReader, now: number): number | undefined => {
  const millis = statedWaitMillis(header, now)
  return millis === undefined ? undefined : Math.min(millis, maxRetryAfterMillis)
}
