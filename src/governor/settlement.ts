/**
 * What becomes of a reservation whose call did not succeed, and which limit a rejection hit. Pure.
 *
 * An error says what its call used by Anthropic's rules. The accounting turns that into what the provider has counted:
 * one that charges a request when it arrives gives nothing back, whatever came of it.
 */
import * as Predicate from "effect/Predicate"
import type * as Accounting from "../Accounting.ts"
import { promptTokens } from "../limits/actual.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import type { Pushback } from "../LlmError.ts"

/** What is known of a call that holds its reservation. */
export interface Held {
  readonly accounting: Accounting.Accounting
  readonly estimate: Limits.Estimate
  readonly known: { readonly maxTokens?: number | undefined }
  /** The usage that was observed so far. */
  readonly observed: Accounting.Actual | undefined
}

const rejected = (pushback: Pushback | undefined): boolean => pushback === "rateLimit" || pushback === "ramp"

/**
 * The prompt as it was estimated: the input without the output that some hold against it. NaN, which is no usage, where the
 * estimate says no input.
 */
export const promptOf = ({ accounting, estimate, known: { maxTokens } }: Omit<Held, "observed">): number => {
  const { inputTokens = NaN, outputTokens = 0 } = estimate
  const output = accounting.estimate({ inputTokens: 0, cachedTokens: 0, outputTokens, maxTokens })
  return inputTokens - (output.inputTokens ?? 0)
}

const unanswered: Accounting.Actual = { inputTokens: 0, outputTokens: 0 }

/**
 * The usage to settle a call to. No prompt is empty: one of which nothing was counted, because no answer came or a gateway
 * does not count, is spent as it was estimated.
 */
export const counted = (held: Held, actual = held.observed ?? unanswered): Limits.Usage => {
  const known = promptTokens(actual) > 0 ? actual : { ...actual, inputTokens: promptOf(held) }
  return held.accounting.usage(known, held.known.maxTokens)
}

/**
 * The usage to settle a failed call to, according to its error. A dimension that is left out keeps its estimate. An error
 * without a valid usage keeps the whole estimate.
 */
export const afterFailure = (
  held: Held,
  pushback: Pushback | undefined,
  usage: Limits.Usage | undefined
): Limits.Usage => {
  const unsent = usage?.requests === 0 && !rejected(pushback)
  if (unsent) return Amounts.nothing
  if (held.accounting.rejections === "charged") return {}
  if (held.observed !== undefined) return counted(held)
  if (!Predicate.isObjectKeyword(usage)) return {}
  const { inputTokens = promptOf(held), outputTokens, requests } = usage
  if (usage.tokens !== undefined || outputTokens === undefined) return usage
  return { ...held.accounting.usage({ inputTokens, outputTokens }, held.known.maxTokens), requests }
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
  const asked = Amounts.whole(estimate)
  for (const dimension of Amounts.dimensions) {
    const remaining = signal?.dimensions[dimension]?.remaining
    const needed = Math.max(1, asked[dimension])
    if (remaining === undefined || remaining / needed >= least) continue
    least = remaining / needed
    hit = dimension
  }
  return hit
}
