/**
 * Reads the details of Google's errors: which quota was exceeded, and when to try again.
 *
 * Source: https://ai.google.dev/gemini-api/docs/rate-limits for the limits, and
 * https://cloud.google.com/apis/design/errors for the form of `google.rpc.QuotaFailure` and `google.rpc.RetryInfo`.
 */
import type * as Limits from "../Limits.ts"
import type * as Signal from "../domain/signal.ts"
import { durationMillis } from "./headers.ts"
import { at, listOf, maxAmount, nameOf } from "./json.ts"

/** One limit that a request exceeded. */
interface Violation {
  /** Such as `GenerateRequestsPerMinutePerProjectPerModel-FreeTier`. */
  readonly quotaId: string
  /** The limit; undefined if it is not stated. */
  readonly limit: number | undefined
}

/** The limits that an error names, and the delay. */
export interface Quota {
  readonly violations: ReadonlyArray<Violation>
  /** How long to wait, in milliseconds: hours if the quota of a day is used up. */
  readonly retryDelayMillis: number | undefined
}

const hour = 3_600_000
/** No quota lasts longer than a month, and a much longer delay would not be a valid date. */
const maxDelay = 31 * 24 * hour

const limitOf = (value: unknown): number | undefined => {
  // 64-bit integers are strings in Google's JSON.
  const limit = typeof value === "string" && /^\d{1,13}$/.test(value) ? Number(value) : value
  return typeof limit === "number" && limit >= 0 && limit <= maxAmount ? limit : undefined
}

const violationsOf = (detail: unknown): ReadonlyArray<Violation> =>
  listOf(at(detail, "violations")).flatMap((violation) => {
    const quotaId = nameOf(at(violation, "quotaId"))
    return quotaId === undefined ? [] : [{ quotaId, limit: limitOf(at(violation, "quotaValue")) }]
  })

/** The quota in the `error` object of a body. */
export const quotaOf = (error: unknown): Quota => {
  const details = listOf(at(error, "details"))
  const delays = details.flatMap((detail) => durationMillis(nameOf(at(detail, "retryDelay")) ?? "") ?? [])
  const [delay] = delays
  return {
    violations: details.flatMap(violationsOf),
    retryDelayMillis: delay === undefined ? undefined : Math.min(delay, maxDelay)
  }
}

/**
 * Whether a wait does not help: the quota of a day is used up, or the model has no quota in this tier.
 *
 * Errors about a day's quota have been seen with delays of seconds and of hours. A delay of at most an hour is believed, so that
 * no call is lost if the limit reopens soon.
 */
export const isUsedUp = ({ retryDelayMillis, violations }: Quota): boolean => {
  if (violations.some(({ limit }) => limit === 0)) return true
  const isDaily = violations.some(({ quotaId }) => /PerDay/i.test(quotaId))
  return isDaily && (retryDelayMillis === undefined || retryDelayMillis > hour)
}

const dimensionOf = (quotaId: string): Limits.Dimension | undefined => {
  if (!/PerMinute/i.test(quotaId)) return undefined
  if (/Requests/i.test(quotaId)) return "requests"
  if (/InputToken/i.test(quotaId)) return "inputTokens"
  return /Token/i.test(quotaId) ? "tokens" : undefined
}

/** The limits per minute that a request exceeded, with nothing remaining; undefined if the error names none. */
export const signalOfQuota = ({ violations }: Quota): Limits.Signal | undefined => {
  const dimensions: { [D in Limits.Dimension]?: Signal.DimensionSignal } = {}
  for (const { limit, quotaId } of violations) {
    const dimension = dimensionOf(quotaId)
    if (dimension === undefined || limit === undefined || limit < 1) continue
    dimensions[dimension] = { limit, remaining: 0, roundedTo: 1 }
  }
  return Object.keys(dimensions).length === 0 ? undefined : { dimensions }
}
