/**
 * The state of a pool: the user's limits, the provider's buckets, and the evidence of what the provider does.
 *
 * The numbers of a pool, its meters and its caps change in place, and a copy has its own. Everything else that it refers to is
 * a value: it is replaced and never changed, so copies share it. The types say which is which.
 */
import type { PerDimension, Whole } from "../domain/amounts.ts"
import * as Caps from "../admission/caps.ts"
import type { Gate } from "./gate.ts"
import * as Meter from "./meter.ts"
import type * as Verdicts from "./verdicts.ts"
import type * as Window from "./window.ts"

/** While no limit is known: the current round of verdicts. */
export interface Opening {
  /** When it began, and how many calls had been sent by then. */
  readonly at: number
  readonly since: number
  /** Calls of the last round, and how many this one may have. */
  readonly last: number
  readonly allowed: number
}

export interface Pacer {
  /** The provider's buckets. */
  readonly meters: Array<Meter.Meter>
  /** The user's limits. */
  readonly caps: Caps.Caps
  /** The user's share of limits that only headers name. */
  shares: PerDimension<number>
  gate: Gate
  window: Window.Window
  opening: Opening | undefined
  /** The test for an empty bucket; the random rate of rejections, and how many safe calls it was learned from. */
  bucketTest: Verdicts.Test
  random: number
  learnedFrom: number
  /** The test for an outage; the random rate of overloads. */
  outageTest: Verdicts.Test
  randomOverload: number
  /** Calls sent in all, and those sent while the bucket could not be empty. */
  sent: number
  safe: number
  inFlight: number
  /** Calls that an overload failed; how many calls had been accepted by the last such call outside an outage. */
  failed: number
  failedUpTo: number
  /** Calls sent up to `at`, and up to the block before it: see `Ticket.earlier`. */
  block: { readonly at: number; readonly sent: number; readonly before: number }
  /** The mean times to a rejection, to an overload, and to the end of an answer. */
  rejectMillis: number
  overloadMillis: number
  answerMillis: number
  distrustUntil: number
  rampAt: number
  /** How much later than its admission a call may go out, if processes share the pool. */
  lag: number
}

/** What a call carries from its admission to its end. */
export interface Ticket {
  readonly at: number
  readonly charge: Whole
  readonly number: number
  readonly inFlight: number
  /** Whether it was sent while the bucket could not be empty, and how many such calls there were by then. */
  readonly isSafe: boolean
  readonly safe: number
  /** `Window.crowded` when it was sent. */
  readonly crowded: number
  /** Calls sent so long before it that an overload would have failed them earlier. */
  readonly earlier: number
  /** For each meter, in order: the charges sent by then, and those of them that had been rejected. */
  readonly sums: ReadonlyArray<number>
}

/**
 * A copy of the state, for an event to change. It is made for each event: naming the properties is faster than spreading
 * the pool.
 */
export const copy = (pacer: Pacer): Pacer => ({
  meters: pacer.meters.map(Meter.copy),
  caps: Caps.copy(pacer.caps),
  shares: pacer.shares,
  gate: pacer.gate,
  window: pacer.window,
  opening: pacer.opening,
  bucketTest: pacer.bucketTest,
  random: pacer.random,
  learnedFrom: pacer.learnedFrom,
  outageTest: pacer.outageTest,
  randomOverload: pacer.randomOverload,
  sent: pacer.sent,
  safe: pacer.safe,
  inFlight: pacer.inFlight,
  failed: pacer.failed,
  failedUpTo: pacer.failedUpTo,
  block: pacer.block,
  rejectMillis: pacer.rejectMillis,
  overloadMillis: pacer.overloadMillis,
  answerMillis: pacer.answerMillis,
  distrustUntil: pacer.distrustUntil,
  rampAt: pacer.rampAt,
  lag: pacer.lag
})
