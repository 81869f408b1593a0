/**
 * What becomes of a reservation whose call did not succeed, and which limit a rejection hit. Pure.
 *
 * An error says what its call used by Anthropic's rules. The accounting turns that into what the provider has counted:
 * one that charges a request when it arrives gives nothing back, whatever came of it.
 */
import type * as Accounting from "../Accounting.ts"
import * as Limits from "../Limits.ts"
import type { Pushback } from "../LlmError.ts"
import { bytesPerToken } from "./requestSize.ts"

/** What an error says of its call. */
export interface Failure {
  readonly usage?: Limits.Usage | undefined
  readonly pushback?: Pushback | undefined
}

const rejected = (pushback: Pushback | undefined): boolean => pushback === "rateLimit" || pushback === "ramp"

/** What is known of a call before it is sent. */
interface Call {
  readonly bytes: number
  readonly inputTokens?: number | undefined
  readonly maxTokens?: number | undefined
}

/** The prompt as it was estimated. Where the output that is allowed is held against the input, too, it is no part of it. */
export const promptOf = (accounting: Accounting.Accounting, call: Call, estimate: Limits.Estimate): number => {
  if (estimate.inputTokens === undefined) return call.inputTokens ?? Math.ceil(call.bytes / bytesPerToken)
  const { inputTokens = 0 } = accounting.estimate({
    inputTokens: 0,
    cachedTokens: 0,
    outputTokens: estimate.outputTokens ?? 0,
    maxTokens: call.maxTokens
  })
  return estimate.inputTokens - inputTokens
}

/** Nothing was counted of an answer. */
export const unanswered: Accounting.Actual = { inputTokens: 0, outputTokens: 0 }

/**
 * The usage to settle a call to of which this was counted. No prompt is empty: one of which nothing was counted, as when no
 * answer came and behind some gateways, is spent as it was estimated.
 */
export const counted = (
  accounting: Accounting.Accounting,
  prompt: () => number,
  actual: Accounting.Actual
): Limits.Usage => {
  const { cacheCreationTokens = 0, cacheReadTokens = 0, inputTokens } = actual
  const isCounted = inputTokens + cacheCreationTokens + cacheReadTokens > 0
  return accounting.usage(isCounted ? actual : { ...actual, inputTokens: prompt() })
}

/** The usage to settle a failed call to; a dimension that is left out keeps its estimate. */
export const afterFailure = (
  accounting: Accounting.Accounting,
  prompt: () => number,
  { pushback, usage }: Failure,
  observed: Accounting.Actual | undefined
): Limits.Usage => {
  const unsent = usage?.requests === 0 && !rejected(pushback)
  if (unsent) return Limits.nothing
  if (accounting.rejections === "charged") return {}
  if (observed !== undefined) return counted(accounting, prompt, observed)
  if (usage === undefined) return {}
  const { inputTokens = prompt(), outputTokens, requests } = usage
  if (usage.tokens !== undefined || outputTokens === undefined) return usage
  return { ...accounting.usage({ inputTokens, outputTokens }), requests }
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
