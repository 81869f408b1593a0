/**
 * What a pool knows: the provider's buckets, the user's limits, and the evidence of what the provider does.
 *
 * A pool is mutable and has one owner.
 */
import type { Dimension, PerDimension, Whole } from "../limits/amounts.ts"
import * as Cap from "./cap.ts"
import type { Gate } from "./gate.ts"
import * as Meter from "./meter.ts"
import type * as Verdicts from "./verdicts.ts"
import * as Window from "./window.ts"

/** While no limit is known: the round of verdicts that is under way, and how many calls it may have. */
export interface Opening {
  readonly at: number
  /** Calls sent when it began. */
  readonly since: number
  /** Calls of the last round, and how many this one may have. */
  readonly last: number
  readonly allowed: number
}

export interface Pool {
  /** The provider's buckets. */
  readonly meters: Array<Meter.Meter>
  /** The user's limits. */
  readonly caps: { [D in Dimension]?: Cap.Cap }
  /** The part that is ours of limits that only headers name. */
  shares: PerDimension<number>
  gate: Gate
  window: Window.Window
  opening: Opening | undefined
  /** The test for an empty bucket, the random rate of rejections, and the safe calls that it was learned from. */
  bucketTest: Verdicts.Test
  random: number
  learnedFrom: number
  /** The test for an outage, and the random rate of overloads. */
  outageTest: Verdicts.Test
  randomOverload: number
  /** Calls sent, in all and while the bucket could not be empty. */
  sent: number
  safe: number
  inFlight: number
  /** Calls that failed by an overload, and how many had been accepted by the last one that an outage did not explain. */
  failed: number
  failedUpTo: number
  /** Calls sent up to some time ago, and up to the time before it. */
  block: { readonly at: number; readonly sent: number; readonly before: number }
  rejectMillis: number
  overloadMillis: number
  answerMillis: number
  distrustUntil: number
  rampAt: number
  /** How much later than it is admitted a call may go out, where processes share the pool. */
  lag: number
}

/** What a call carries from its admission to its end. */
export interface Ticket {
  readonly at: number
  readonly charge: Whole
  readonly number: number
  readonly inFlight: number
  /** Whether it was sent while the bucket could not be empty, and how many were by then. */
  readonly isSafe: boolean
  readonly safe: number
  /** Calls sent so far that found about as many in flight as ever. */
  readonly crowded: number
  /** Calls sent long enough before that they would have failed earlier. */
  readonly earlier: number
  /** For each meter in order what had been sent by then, and what of it had been rejected. */
  readonly sums: ReadonlyArray<number>
}

/**
 * A copy: what happens to one changes nothing in the other. It is made for each event, so properties are named, which is
 * faster than spreading; meters and caps are copied, and everything else is a value that both share.
 */
export const copy = (pool: Pool): Pool => ({
  meters: pool.meters.map(Meter.copy),
  caps: copyCaps(pool.caps),
  shares: pool.shares,
  gate: pool.gate,
  window: pool.window,
  opening: pool.opening,
  bucketTest: pool.bucketTest,
  random: pool.random,
  learnedFrom: pool.learnedFrom,
  outageTest: pool.outageTest,
  randomOverload: pool.randomOverload,
  sent: pool.sent,
  safe: pool.safe,
  inFlight: pool.inFlight,
  failed: pool.failed,
  failedUpTo: pool.failedUpTo,
  block: pool.block,
  rejectMillis: pool.rejectMillis,
  overloadMillis: pool.overloadMillis,
  answerMillis: pool.answerMillis,
  distrustUntil: pool.distrustUntil,
  rampAt: pool.rampAt,
  lag: pool.lag
})

const copyCaps = (caps: Pool["caps"]): Pool["caps"] => {
  const { inputTokens, outputTokens, requests, tokens } = caps
  const copies: Pool["caps"] = {}
  if (requests !== undefined) copies.requests = Cap.copy(requests)
  if (inputTokens !== undefined) copies.inputTokens = Cap.copy(inputTokens)
  if (outputTokens !== undefined) copies.outputTokens = Cap.copy(outputTokens)
  if (tokens !== undefined) copies.tokens = Cap.copy(tokens)
  return copies
}

/** A copy to play ahead with: as if nothing failed from now on, and no call were in flight. */
export const preview = (pool: Pool): Pool => ({
  ...copy(pool),
  gate: { ...pool.gate, misses: 0 },
  window: Window.make(),
  opening: undefined,
  inFlight: 0
})
