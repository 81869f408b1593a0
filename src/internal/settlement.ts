/**
 * What becomes of a reservation whose call did not succeed, and which limit a rejection hit. Pure.
 *
 * An error says what its call used by Anthropic's rules. The accounting turns that into what the provider has counted:
 * one that charges a request when it arrives gives nothing back, whatever came of it.
 */
import type * as Accounting from "../Accounting.ts"
import * as Limits from "../Limits.ts"
import type { Pushback } from "../LlmError.ts"

/** What an error says of its call. */
export interface Failure {
  readonly usage?: Limits.Usage | undefined
  readonly pushback?: Pushback | undefined
}

const rejected = (pushback: Pushback | undefined): boolean => pushback === "rateLimit" || pushback === "ramp"

/** The request was sent, and nothing is known of an answer: input is spent, output is not. */
export const unanswered = (accounting: Accounting.Accounting, estimate: Limits.Estimate): Limits.Usage =>
  estimate.inputTokens === undefined ? {} : counted(accounting, estimate.inputTokens, 0)

const counted = (accounting: Accounting.Accounting, inputTokens: number, outputTokens: number): Limits.Usage =>
  accounting.usage({ inputTokens, outputTokens })

/** The usage to settle a failed call to; a dimension that is left out keeps its estimate. */
export const afterFailure = (
  accounting: Accounting.Accounting,
  estimate: Limits.Estimate,
  { pushback, usage }: Failure,
  observed: Accounting.Actual | undefined
): Limits.Usage => {
  const unsent = usage?.requests === 0 && !rejected(pushback)
  if (unsent) return Limits.nothing
  if (accounting.rejections === "charged") return {}
  if (observed !== undefined) return accounting.usage(observed)
  if (usage === undefined) return {}
  const inputTokens = usage.inputTokens ?? estimate.inputTokens
  if (usage.tokens !== undefined || usage.outputTokens === undefined || inputTokens === undefined) return usage
  return { ...counted(accounting, inputTokens, usage.outputTokens), requests: usage.requests }
}

/**
 * The limit that a rejection hit: of those with less left than the call asks for, the one that lacks most. Undefined when
 * all have room, as with limits on growth and on connections.
 */
export const limitHit = (
  signal: Limits.Signal | undefined,
  estimate: Limits.Estimate
): Limits.Dimension | undefined => {
  let hit: Limits.Dimension | undefined
  let least = 1
  const asked = Limits.whole(estimate)
  for (const dimension of Limits.dimensions) {
    const remaining = signal?.dimensions[dimension]?.remaining
    const needed = Math.max(1, asked[dimension])
    if (remaining === undefined || remaining / needed >= least) continue
    least = remaining / needed
    hit = dimension
  }
  return hit
}
