/**
 * A pacer: the user's limits of a pool, the provider's buckets, and the evidence of what the provider does.
 *
 * The numbers of a pacer, its meters and its caps are changed in place, and each copy has its own. Everything else is a value
 * that is replaced and never changed, so copies share it. The types say which is which.
 */
import type { Dimension, PerDimension, Whole } from "../domain/amounts.ts"
import * as Caps from "../admission/caps.ts"
import type { Gate } from "./gate.ts"
import * as Meter from "./meter.ts"
import type * as Verdicts from "./verdicts.ts"
import type * as Window from "./window.ts"

/** The current round of verdicts, while no limit is known. */
export interface Opening {
  /** When it began, and how many calls had been sent before. */
  readonly at: number
  readonly since: number
  /** The calls of the round before it, and how many it may have itself. */
  readonly last: number
  readonly allowed: number
  /** Whether headers have named the limits meanwhile. */
  readonly isNamed?: boolean | undefined
}

export interface Pacer {
  /** The provider's buckets. */
  readonly meters: Array<Meter.Meter>
  /** The user's limits. */
  readonly caps: Caps.Caps
  /** The user's shares of limits that only headers name. */
  shares: PerDimension<number>
  gate: Gate
  window: Window.Window
  opening: Opening | undefined
  /** The test for an empty bucket, the rate of random rejections, and how many safe calls taught that rate. */
  bucketTest: Verdicts.Test
  random: number
  learnedFrom: number
  /** The test for an outage, and the rate of random overloads. */
  outageTest: Verdicts.Test
  randomOverload: number
  /** The number of calls sent, and of those that were sent while the bucket could not be empty. */
  sent: number
  safe: number
  inFlight: number
  /** The number of calls that ended without having been accepted. */
  refused: number
  /** The number of calls that failed by an overload, and of those accepted before the last such call outside an outage. */
  failed: number
  failedUpTo: number
  /** The number of calls sent up to `at`, and up to the block before; `Admission.earlier` is counted in such blocks. */
  block: { readonly at: number; readonly sent: number; readonly before: number }
  /** The mean times to a rejection, to an overload, and to the end of an answer. */
  rejectMillis: number
  overloadMillis: number
  answerMillis: number
  /** Headers are ignored until then, because they showed room that did not exist. */
  distrustUntil: number
  /** When the provider last said that usage grows too fast. */
  rampAt: number
  /** How long after its admission a call may be sent; above 0 only if processes share the pool. */
  lag: number
}

/**
 * What is known of a call from its admission to its end. Properties that change when another pacer takes the call over are not
 * readonly.
 */
export interface Admission {
  /** When it was admitted, its charge, and the number of calls in flight with it. */
  readonly at: number
  readonly charge: Whole
  readonly inFlight: number
  /** Whether it was sent while the bucket could not be empty. */
  readonly isSafe: boolean
  /** The number of calls sent up to it, and of those that were sent while the bucket could not be empty. */
  number: number
  safe: number
  /** `Pacer.refused` when it was sent. */
  refused: number
  /** `Window.crowded` when it was sent. */
  crowded: number
  /** The number of calls sent so long before it that an overload would have failed them earlier. */
  earlier: number
  /** For each meter, in order: the sum of all charges sent by then, and of those that had been rejected. */
  sums: ReadonlyArray<number>
}

/** Whether neither the user nor headers have named the limits. */
export const isUnknown = ({ opening }: Pacer): boolean => opening !== undefined && opening.isNamed !== true

/** `Admission.sums` of a call that is sent now. */
export const sumsOf = ({ meters }: Pacer): ReadonlyArray<number> => {
  const sums: Array<number> = []
  for (const { rejected, sum } of meters) sums.push(sum, rejected)
  return sums
}

/** The meter of a dimension, if the pacer has one. */
export const meterOf = ({ meters }: Pacer, dimension: Dimension): Meter.Meter | undefined =>
  meters.find((meter) => meter.dimension === dimension)

/** A copy for an event to change. Every event needs one, and naming the properties is faster than spreading the pacer. */
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
  refused: pacer.refused,
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
