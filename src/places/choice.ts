/**
 * Chooses the places in whose queues a call waits, from a prediction for each place. Pure.
 */
import type { PlacePolicy } from "./models.ts"

/** The prediction for a call at a place. Times are in milliseconds. */
export interface Candidate {
  /** How long the call would wait there; infinite if it would be refused. */
  readonly wait: number
  /** The expected cost of the call; infinite if the price is unknown. */
  readonly cost: number
  /** How long an answer takes, cautiously, and how long it takes to learn that there will be none. */
  readonly answers: number
  readonly fails: number
  /** How much sooner another place must start the call for it to leave this one; 0 unless its prompt is cached here. */
  readonly stay: number
  /** Whether the call has failed there, and not at every place since. */
  readonly hasFailed: boolean
}

/** The calls of a conversation move only for at least this long. */
export const minStay = 1_000

/** The candidates in whose queues the call waits. `left` is the time until its deadline. */
export const chosen = <C extends Candidate>(
  candidates: ReadonlyArray<C>,
  policy: PlacePolicy,
  left: number
): ReadonlyArray<C> => (policy === "soonest" ? soonest(candidates) : cheapest(candidates, left))

/** All. If its prompt is cached at one place that takes calls, that one and those where it would start that much sooner. */
const soonest = <C extends Candidate>(candidates: ReadonlyArray<C>): ReadonlyArray<C> => {
  const cachedAt = candidates.find(({ stay }) => stay > 0)
  if (cachedAt === undefined || cachedAt.wait === Infinity) return candidates
  return candidates.filter((each) => each === cachedAt || cachedAt.wait - each.wait > cachedAt.stay)
}

/** The cheapest that answers in time, and those that are cheaper, where it may be lucky. */
const cheapest = <C extends Candidate>(candidates: ReadonlyArray<C>, left: number): ReadonlyArray<C> => {
  let max = Infinity
  for (const each of candidates) {
    if (each.wait < Infinity && each.cost < max && isInTime(each, candidates, left)) max = each.cost
  }
  return candidates.filter(({ cost }) => cost <= max)
}

/** Whether a call answers in time at a place, or else another place still answers in time after it has failed there. */
const isInTime = (place: Candidate, all: ReadonlyArray<Candidate>, left: number): boolean => {
  if (place.wait + place.answers > left) return false
  const others = all.filter((each) => each !== place && each.cost > place.cost && each.wait < Infinity)
  const isSafe = (each: Candidate): boolean => Math.max(place.wait + place.fails, each.wait) + each.answers <= left
  // If no other place could answer in time even now, there is nothing to save.
  return others.some(isSafe) || !others.some((each) => each.wait + each.answers <= left)
}

/**
 * The candidates in the order in which they are tried: the first to start, those where the call has not failed, then the cheapest,
 * then the first named.
 */
export const inOrder = <C extends Candidate>(
  candidates: ReadonlyArray<C>,
  waitOf = ({ wait }: Candidate): number => wait
): ReadonlyArray<C> => {
  // With an unknown price, only their order tells which place is preferred.
  const isPriced = candidates.every(({ cost }) => cost < Infinity)
  return candidates.toSorted((one, other) => {
    const isFailed = Number(one.hasFailed) - Number(other.hasFailed)
    return compare(waitOf(one), waitOf(other)) || isFailed || (isPriced ? compare(one.cost, other.cost) : 0)
  })
}

/** Infinite values are equal. */
const compare = (a: number, b: number): number => (a === b ? 0 : a - b)
