/**
 * Computes the expected usage of a call, the usage to which its reservation is settled, and its bill. Pure.
 *
 * An error reports usage by Anthropic's rules, and the accounting converts it to what this provider has counted. For example, a
 * provider that counts requests on arrival never takes a count back.
 */
import * as Predicate from "effect/Predicate"
import type * as Accounting from "../Accounting.ts"
import * as Amounts from "../domain/amounts.ts"
import * as PriceTable from "../domain/prices.ts"
import { perDollar } from "../domain/spending/ledger.ts"
import type * as Estimator from "../Estimator.ts"
import type * as Limits from "../Limits.ts"
import { ReadPrefixes } from "../protocol/prefixes.ts"
import type { CostAsked } from "../sharing/ledger.ts"
import type { Conversations, KnownPrefix, VerifiedPrefix } from "./conversations.ts"
import type { Call, CallOptions, FailureReport } from "./models.ts"
import type { PoolRecord } from "./pool.ts"
import { read, type ReportedUsage, unanswered } from "./reported.ts"

/** The properties of a call from which its estimate and its price are computed. */
export interface KnownCall
  extends
    Estimator.Call,
    Pick<
      Call,
      | "model"
      | "textBytes"
      | "choices"
      | "places"
      | "serverTools"
      | "slowLane"
      | "fast"
      | "flex"
      | "priceFactor"
      | "prefixes"
      | "continues"
    > {
  /** The scope of calls that may share a prefix with it: those of the same account, pool, model and caller. */
  readonly scope: string
  /** The owner of a share of the memory of prefixes: the caller of a gateway, otherwise the account. */
  readonly owner: string | undefined
  readonly prefix: KnownPrefix | undefined
  /** The prefix by whose tokens a cap in dollars bounds the cost of the call; undefined if there is none, or no such cap. */
  readonly verified: VerifiedPrefix | undefined
}

/** A call, as far as it tells what is known of it. */
interface AskingCall {
  readonly agent: string
  readonly isCapped: boolean
  /** The tokens of its prompt, if they were counted. */
  readonly counted: number | undefined
  readonly options: Pick<CallOptions, "caller">
  readonly now: number
  readonly parts: { readonly conversations: Conversations }
}

/** Gathers what is known of a call in a pool, from which its estimate is computed. `call` is the call as its place has it. */
export const known = (
  { agent, counted, isCapped, now, options, parts }: AskingCall,
  call: Call,
  { name: pool, usual: together }: PoolRecord
): KnownCall => {
  const { continues, inputTokens, kind = agent, maxTokens, model, prefixes } = call
  const caller = typeof options.caller === "object" ? options.caller.name : options.caller
  const scope = JSON.stringify([pool, model, caller])
  const verified = isCapped && isInRequest(call) ? parts.conversations.verified({ scope, prefixes }) : undefined
  const known: KnownCall & Pick<Call, "countTokens"> = {
    ...call,
    // The effect that counts a prompt keeps it in memory, and what is known is kept as long as the call.
    countTokens: undefined,
    inputTokens: counted ?? inputTokens,
    // The provider is going to reject an invalid number.
    maxTokens: Amounts.isAmount(maxTokens) ? maxTokens : undefined,
    pool,
    kind,
    together,
    scope,
    owner: caller ?? call.account,
    verified,
    prefix: parts.conversations.again(undefined, { scope, prefixes, continues }, now)
  }
  return known
}

/**
 * Whether all of a prompt is in its request, so that the same content has the same tokens. With a tool of the provider's, an answer reports
 * those of several prompts.
 */
const isInRequest = ({ continues, serverTools, stored }: Pick<Call, "continues" | "serverTools" | "stored">): boolean =>
  continues === undefined && serverTools !== true && stored !== true

/** Whether an answer tells the tokens of a prompt, so that a later prompt with it costs no more. Some services leave out what was cached. */
export const isTold = (known: KnownCall, tokens: number): boolean =>
  isInRequest(known) && tokens > 0 && tokens >= minTextOf(known)

/** A call with its prefix as it is now. It is the same call if that has not changed. */
export const withPrefix = (known: KnownCall, conversations: Conversations, now: number): KnownCall => {
  const prefix = conversations.again(known.prefix, known, now)
  return prefix === known.prefix ? known : { ...known, prefix }
}

/** A call that holds its reservation. */
export interface HeldCall {
  readonly accounting: Accounting.Accounting
  readonly known: KnownCall
  readonly estimate: Limits.Estimate
  /** The usage that was observed so far. */
  readonly observed: ReportedUsage | undefined
}

// -----------------------------------------------------------------------------
// Expected usage
// -----------------------------------------------------------------------------

/**
 * No text has more bytes per token than this. Usual text has 2.5 to 5; long words and the white space of indented code have more.
 */
const maxBytesPerToken = 8

/**
 * The tokens that a prompt has at least. A count is certain, and a text has at least a token for each {@link maxBytesPerToken}. All else
 * is a guess: what was learned about prompts may come from a call with a short body and a long document, the tokens of pictures and
 * documents are not known, and a provider may drop parts of a conversation that it stores.
 */
const minPromptOf = (known: KnownCall): number =>
  known.continues === undefined && known.inputTokens !== undefined ? known.inputTokens : minTextOf(known)

const minTextOf = ({ bytes, textBytes = bytes }: KnownCall): number => Math.floor(textBytes / maxBytesPerToken)

/**
 * The charge of a call even if every guess in its estimate is wrong: the output that the provider reserves, and the prompt, as read
 * from the cache unless the request does not ask for one. So a prompt counts only where cached tokens count as well, or where none can
 * be cached. A call that may be charged less than its limit is not refused.
 */
export const certain = (accounting: Accounting.Accounting, call: KnownCall, mayBeCached: boolean): Limits.Estimate => {
  const prompt = minPromptOf(call)
  const isCached = mayBeCached && call.caches !== false
  return accounting.estimate({
    inputTokens: isCached ? 0 : prompt,
    cachedTokens: isCached ? prompt : 0,
    outputTokens: 0,
    maxTokens: call.maxTokens
  })
}

/**
 * The estimated tokens of the prompt: the input without the output that some providers count as input in advance. NaN, which is
 * no usage, if the estimate has no input.
 */
export const promptOf = ({
  accounting,
  estimate,
  known: { maxTokens }
}: Pick<HeldCall, "accounting" | "estimate"> & { readonly known: Pick<KnownCall, "maxTokens"> }): number => {
  const { inputTokens = NaN, outputTokens = 0 } = estimate
  const output = accounting.estimate({ inputTokens: 0, cachedTokens: 0, outputTokens, maxTokens })
  return inputTokens - (output.inputTokens ?? 0)
}

/** The usage that the estimate expects. The part of the prompt that was not reserved is expected to be read from a cache. */
export const expected = (held: Omit<HeldCall, "observed">): Accounting.Actual => {
  const { bytes, inputTokens, prefix } = held.known
  const prompt =
    inputTokens ?? (prefix?.tokens ?? 0) + Math.max(0, bytes - (prefix?.bytes ?? 0)) / Amounts.bytesPerToken
  const reserved = promptOf(held)
  const uncached = Math.min(Number.isNaN(reserved) ? prompt : reserved, Math.max(prompt, 0))
  return {
    inputTokens: uncached,
    cacheReadTokens: prompt - uncached,
    outputTokens: held.estimate.outputTokens ?? 0
  }
}

// -----------------------------------------------------------------------------
// Settlement
// -----------------------------------------------------------------------------

const isRejection = (pushback: FailureReport["pushback"]): boolean => pushback === "rateLimit" || pushback === "ramp"

/** The usage to settle a call to. A prompt that nobody counted keeps its estimate. */
export const counted = (held: HeldCall, { actual, isCounted } = held.observed ?? unanswered): Limits.Usage => {
  const known = isCounted ? actual : { ...actual, inputTokens: promptOf(held) }
  return held.accounting.usage(known, held.known.maxTokens)
}

/**
 * The amounts that an answer that has begun takes from the limits: its prompt, and as much output as is expected. A usage that says
 * something of
 * all tokens says it of those so far.
 */
export const soFar = (held: HeldCall, reported: ReportedUsage): Limits.Usage => {
  const usage = counted(held, reported)
  const { outputTokens, tokens } = usage
  if (tokens !== undefined || outputTokens === undefined) return usage
  return { ...usage, outputTokens: Math.max(outputTokens, held.estimate.outputTokens ?? 0) }
}

/** A call as it is learned. The length of a truncated answer reflects its limit and not what the model would have written. */
export const learning = (
  known: KnownCall,
  { outputTokens }: Accounting.Actual,
  finishReason: string | undefined
): KnownCall =>
  finishReason === "max_tokens" || finishReason === "length" ? { ...known, maxTokens: outputTokens } : known

/**
 * The usage to settle a failed call to, according to its error. A dimension that is left out keeps its estimate. An error
 * without a valid usage keeps the whole estimate.
 */
export const afterFailure = (
  held: HeldCall,
  pushback: FailureReport["pushback"],
  usage: Limits.Usage | undefined
): Limits.Usage => {
  const unsent = usage?.requests === 0 && !isRejection(pushback)
  if (unsent) return Amounts.nothing
  if (held.accounting.rejections === "charged") return {}
  if (held.observed !== undefined) return counted(held)
  if (!Predicate.isObjectKeyword(usage)) return {}
  const { inputTokens = promptOf(held), outputTokens, requests } = usage
  if (usage.tokens !== undefined || outputTokens === undefined) return usage
  return { ...held.accounting.usage({ inputTokens, outputTokens }, held.known.maxTokens), requests }
}

/**
 * The limit that a rejection hit: among the limits with less left than the call needs, the one with the smallest fraction of
 * that left. Undefined if all of them have room, as after a limit on growth or on connections.
 */
export const limitHit = (
  signal: Limits.Signal | undefined,
  estimate: Limits.Estimate
): Limits.Dimension | undefined => {
  let hit: Limits.Dimension | undefined
  let minShare = 1
  const asked = Amounts.whole(estimate)
  for (const dimension of Amounts.dimensions) {
    const remaining = signal?.dimensions[dimension]?.remaining
    const needed = Math.max(1, asked[dimension])
    if (remaining === undefined || remaining / needed >= minShare) continue
    minShare = remaining / needed
    hit = dimension
  }
  return hit
}

// -----------------------------------------------------------------------------
// Bill
// -----------------------------------------------------------------------------

/** The bill of a call that was answered, or whose outcome is unknown. A prompt that nobody counted is billed as expected. */
export const billed = (held: HeldCall, { actual, isCounted } = held.observed ?? unanswered): Accounting.Actual =>
  isCounted ? actual : { ...expected(held), outputTokens: actual.outputTokens }

/**
 * The bill of a failed call; undefined if it is free. Providers do not bill calls that they reject, or that fail before they
 * answer. An error without a usage is billed as expected.
 */
export const billedAfterFailure = (
  held: HeldCall,
  pushback: FailureReport["pushback"],
  usage: Limits.Usage | undefined
): Accounting.Actual | undefined => {
  if (held.observed !== undefined) return billed(held)
  if (!Predicate.isObjectKeyword(usage)) return expected(held)
  if (isRejection(pushback) || usage.requests === 0) return undefined
  const { inputTokens, outputTokens } = usage
  if (inputTokens === 0 && outputTokens === 0) return undefined
  const usual = held.estimate.outputTokens ?? 0
  return billed(held, read({ inputTokens: inputTokens ?? 0, outputTokens: outputTokens ?? usual }))
}

/** No call costs more than this many dollars. Sums of larger amounts would not be exact. */
const maxDollars = 1e5

/** The cost of a usage, in whole billionths of a dollar. An amount that no provider bills, such as NaN, costs nothing. */
export const costOf = (price: PriceTable.Price, actual: Accounting.Actual): number => {
  const dollars = PriceTable.cost(price, actual)
  return dollars >= 0 ? Math.round(Math.min(dollars, maxDollars) * perDollar) : 0
}

/** The most that a call can cost, in whole billionths of a dollar. */
export const maxCostOf = (price: PriceTable.Price, known: KnownCall): number => {
  const { places, prefixes } = known
  // A place may add something to the request.
  const asksLong = places !== undefined || !(prefixes instanceof ReadPrefixes) || prefixes.asksLong
  return Math.ceil(PriceTable.bound(price, { ...known, asksLong }) * perDollar)
}

/** The input and output tokens of a usage. An amount that is no valid number, such as NaN, counts as 0. */
export const tokensOf = (actual: Accounting.Actual): number => {
  const tokens = Amounts.promptTokens(actual) + actual.outputTokens
  return tokens >= 0 ? Math.ceil(Math.min(tokens, maxTokens)) : 0
}

/** No call has more tokens. Sums of larger amounts would not be exact. */
const maxTokens = 1e9

/** The tokens that a call is expected to use, and the most; infinite if neither the request nor the price limits its output. */
export const tokensAsked = (price: PriceTable.Price | undefined, call: Omit<HeldCall, "observed">): CostAsked => ({
  expected: tokensOf(expected(call)),
  max: Math.ceil(PriceTable.maxPrompt(call.known) + PriceTable.maxOutput(price, call.known))
})
