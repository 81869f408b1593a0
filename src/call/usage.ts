/**
 * What a call is expected to use, what it is settled to, and what it is billed for. Pure.
 *
 * An error says what its call used by Anthropic's rules. The accounting turns that into what the provider has counted:
 * one that charges a request when it arrives gives nothing back, whatever came of it.
 */
import * as Predicate from "effect/Predicate"
import type * as Accounting from "../Accounting.ts"
import type * as Estimator from "../Estimator.ts"
import * as Lru from "../domain/input/lru.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import { bytesPerToken } from "../protocol/requestSize.ts"
import type { Call, Failure } from "./models.ts"
import type { Pool } from "./pool.ts"

/** A call as it is estimated and paid for. */
export interface Known extends Estimator.Call, Pick<Call, "model" | "textBytes" | "choices" | "fast" | "priceFactor"> {
  /** The tokens of a conversation that the provider adds to it, and of the call. */
  readonly continued?: number | undefined
}

/** A call of an agent, as it is estimated and paid for now. */
export const known = (call: Call, agent: string, pool: Pool, conversations: Conversations): Known => {
  const { bytes, continues, inputTokens, kind, maxTokens } = call
  const isContinued = inputTokens === undefined && continues !== undefined
  const continued = isContinued ? conversations.promptOf(continues, bytes) : undefined
  return {
    ...call,
    // The provider rejects an invalid number.
    maxTokens: Amounts.isAmount(maxTokens) ? maxTokens : undefined,
    inputTokens: inputTokens ?? continued,
    continued,
    pool: pool.name,
    kind: kind ?? agent,
    together: pool.usual
  }
}

/** A call that holds its reservation. */
export interface Held {
  readonly accounting: Accounting.Accounting
  readonly known: Known
  readonly estimate: Limits.Estimate
  /** The usage that was observed so far. */
  readonly observed: Accounting.Actual | undefined
}

// -----------------------------------------------------------------------------
// What it is expected to use
// -----------------------------------------------------------------------------

/** By how much a guess of the input may be too high: 2.7 bytes a token are assumed at first, and more than 4 occur. */
const guessedTooHigh = 1.6

/**
 * The least that a call can take of a limit, however wrong the guesses in its estimate are. What was learned of prompts is
 * such a guess, too: of another call with a short body and a long document, for example. So are pictures, of any size, and
 * documents, whose data may be text or pictures of pages.
 */
const leastOf = (
  accounting: Accounting.Accounting,
  call: Known,
  { inputTokens = Infinity, outputTokens = 0 }: Limits.Estimate,
  dimension: Limits.Dimension
): number => {
  const least = accounting.estimate({
    inputTokens:
      call.inputTokens ?? Math.min(inputTokens, (call.textBytes ?? call.bytes) / bytesPerToken) / guessedTooHigh,
    cachedTokens: 0,
    outputTokens: outputTokens === call.maxTokens ? outputTokens : 0,
    maxTokens: call.maxTokens
  })
  return Amounts.whole(least)[dimension]
}

/**
 * What to reserve instead of an estimate that is larger than a limit: all that the limit holds. A guess may be larger than the
 * limit although the call is not. Undefined if the call is too large for certain.
 */
export const within = (
  { dimension, limit }: { readonly dimension: Limits.Dimension; readonly limit: number },
  accounting: Accounting.Accounting,
  call: Known,
  estimate: Limits.Estimate
): Limits.Estimate | undefined =>
  leastOf(accounting, call, estimate, dimension) <= limit ? { ...estimate, [dimension]: limit } : undefined

/**
 * The prompt as it was estimated: the input without the output that some hold against it. NaN, which is no usage, where the
 * estimate says no input.
 */
export const promptOf = ({
  accounting,
  estimate,
  known: { maxTokens }
}: Pick<Held, "accounting" | "estimate"> & { readonly known: Pick<Known, "maxTokens"> }): number => {
  const { inputTokens = NaN, outputTokens = 0 } = estimate
  const output = accounting.estimate({ inputTokens: 0, cachedTokens: 0, outputTokens, maxTokens })
  return inputTokens - (output.inputTokens ?? 0)
}

/** The usage that the estimate expects; the rest of the prompt is read from a cache. */
export const expected = (held: Omit<Held, "observed">): Accounting.Actual => {
  const { bytes, continued, inputTokens } = held.known
  const prompt = inputTokens ?? continued ?? bytes / bytesPerToken
  const reserved = promptOf(held)
  const uncached = Math.min(Number.isNaN(reserved) ? prompt : reserved, Math.max(prompt, 0))
  return {
    inputTokens: uncached,
    cacheReadTokens: prompt - uncached,
    outputTokens: held.estimate.outputTokens ?? 0
  }
}

// -----------------------------------------------------------------------------
// What it is settled to
// -----------------------------------------------------------------------------

const rejected = (pushback: Failure["pushback"]): boolean => pushback === "rateLimit" || pushback === "ramp"

const unanswered: Accounting.Actual = { inputTokens: 0, outputTokens: 0 }

/**
 * The usage to settle a call to. No prompt is empty: one of which nothing was counted, because no answer came or a gateway
 * does not count, is spent as it was estimated.
 */
export const counted = (held: Held, actual = held.observed ?? unanswered): Limits.Usage => {
  const known = Amounts.promptTokens(actual) > 0 ? actual : { ...actual, inputTokens: promptOf(held) }
  return held.accounting.usage(known, held.known.maxTokens)
}

/**
 * The usage to settle a failed call to, according to its error. A dimension that is left out keeps its estimate. An error
 * without a valid usage keeps the whole estimate.
 */
export const afterFailure = (
  held: Held,
  pushback: Failure["pushback"],
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

// -----------------------------------------------------------------------------
// What it is billed for
// -----------------------------------------------------------------------------

/**
 * What a call is billed for that was answered, or whose outcome is unknown. No prompt is empty: one of which nothing was
 * counted is billed as it was expected.
 */
export const billed = (held: Held, actual = held.observed ?? unanswered): Accounting.Actual =>
  Amounts.promptTokens(actual) > 0 ? actual : { ...expected(held), outputTokens: actual.outputTokens }

/**
 * What a failed call is billed for; undefined where that is nothing: providers do not bill what they reject, or what fails
 * before it is answered. An error without a usage counts as expected.
 */
export const billedAfterFailure = (
  held: Held,
  pushback: Failure["pushback"],
  usage: Limits.Usage | undefined
): Accounting.Actual | undefined => {
  if (held.observed !== undefined) return billed(held)
  if (!Predicate.isObjectKeyword(usage)) return expected(held)
  if (rejected(pushback) || usage.requests === 0) return undefined
  const { inputTokens, outputTokens } = usage
  if (inputTokens === 0 && outputTokens === 0) return undefined
  return billed(held, {
    inputTokens: inputTokens ?? 0,
    outputTokens: outputTokens ?? held.estimate.outputTokens ?? 0
  })
}

// -----------------------------------------------------------------------------
// Conversations that the provider stores
// -----------------------------------------------------------------------------

/** The conversations that are remembered. An id and a number are about 200 bytes. */
const mostConversations = 10_000

/** The lengths of conversations, in tokens: a call that continues one sends only what is new, and its prompt is the whole. */
export class Conversations {
  private readonly lengths = new Map<string, number>()

  /** Remembers how long a conversation is, once an answer has told it. */
  remember(continuation: string, actual: Accounting.Actual): void {
    const prompt = Amounts.promptTokens(actual)
    if (prompt > 0) Lru.put(this.lengths, continuation, prompt + actual.outputTokens, mostConversations)
  }

  /** The tokens of the whole prompt of a call; undefined if the conversation is not remembered. */
  promptOf(continues: string, bytes: number): number | undefined {
    const before = this.lengths.get(continues)
    return before === undefined ? undefined : before + Math.ceil(bytes / bytesPerToken)
  }
}
