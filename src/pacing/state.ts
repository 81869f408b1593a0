/**
 * The state of a pacer: the user's limits of a pool, the provider's buckets, and the evidence of what the provider does.
 *
 * The numbers of a pacer, its meters and its caps are changed in place, and each copy has its own. Everything else is a value
 * that is replaced and never changed, so copies share it. The types say which is which.
 */
import type { Dimension, PerDimension, Whole } from "../domain/amounts.ts"
import * as Caps from "../admission/caps.ts"
import * as Gate from "./gate.ts"
import * as Meter from "./meter.ts"
import * as Verdicts from "./verdicts.ts"
import * as Window from "./window.ts"

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

/** The assumed time to a rejection and to an overload, until one has been measured. */
const firstRejectMillis = 200
const firstOverloadMillis = 1_000
/** The assumed time to the end of an answer, until one has been measured. */
const firstAnswerMillis = 2_000

/** A pacer that knows nothing yet, not even the user's limits. */
export const empty = (now: number) => ({
  /** The provider's buckets. */
  meters: [] as Array<Meter.Meter>,
  /** The user's limits. */
  caps: {} as Caps.Caps,
  /** The user's shares of limits that only headers name. */
  shares: {} as PerDimension<number>,
  gate: Gate.make(),
  window: Window.make(),
  opening: { at: now, since: 0, last: 1, allowed: 1 } as Opening | undefined,
  /** The test for an empty bucket, the rate of random rejections, and how many safe calls taught that rate. */
  bucketTest: Verdicts.makeTest(),
  random: Verdicts.minRandom,
  learnedFrom: 0,
  /** The test for an outage, and the rate of random overloads. */
  outageTest: Verdicts.makeTest(),
  randomOverload: Verdicts.minOverload,
  /** The number of calls sent, and of those that were sent while the bucket could not be empty. */
  sent: 0,
  safe: 0,
  inFlight: 0,
  /** The number of calls that ended without having been accepted. */
  refused: 0,
  /** The number of calls that failed by an overload, and of those accepted before the last such call outside an outage. */
  failed: 0,
  failedUpTo: 0,
  /** The number of calls sent up to `at`, and up to the block before; `Admission.earlier` is counted in such blocks. */
  block: { at: now, sent: 0, before: 0 },
  /** The mean times to a rejection, to an overload, and to the end of an answer. */
  rejectMillis: firstRejectMillis,
  overloadMillis: firstOverloadMillis,
  answerMillis: firstAnswerMillis,
  /** Headers are ignored until then, because they showed room that did not exist. */
  distrustUntil: -Infinity,
  /** When the provider last said that usage grows too fast. */
  rampAt: -Infinity,
  /** How long after its admission a call may be sent; above 0 only if processes share the pool. */
  lag: 0
})

export type Pacer = ReturnType<typeof empty>

/**
 * A call from its admission to its end. Properties that change when another pacer takes the call over are not
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
export const meterOf = ({ meters }: Pacer, dimension: Dimension): Meter.Meter | undefined => {
  for (const meter of meters) if (meter.dimension === dimension) return meter
  return undefined
}

/** Whether room is kept for a call of this size, because one was rejected. */
export const isKeptFor = ({ meters }: Pacer, charge: Whole, now: number): boolean =>
  meters.some((meter) => Meter.isKept(meter, now) && Meter.isAsLarge(meter, charge[meter.dimension]))

/** Whether the user describes the provider's bucket of a dimension, which a quota does not. */
export const isStated = ({ caps }: Pacer, dimension: Dimension): boolean => caps[dimension]?.rule.quota === false

/** A copy for an event to change. Its meters and caps are those of a pacer that nobody needs any longer, if there is one. */
export const copy = (
  pacer: Pacer,
  { caps, meters }: Pick<Pacer, "caps" | "meters"> = { caps: {}, meters: [] }
): Pacer => {
  for (let i = 0; i < pacer.meters.length; i++) meters[i] = Meter.copy(pacer.meters[i]!, meters[i])
  meters.length = pacer.meters.length
  return { ...pacer, meters, caps: Caps.copy(pacer.caps, caps) }
}
