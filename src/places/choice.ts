/**
 * Chooses the places in whose queues a call waits, by when it is expected to end at each. Pure.
 */
import type { PlacePolicy } from "./models.ts"

/** The prediction for a call at a place. Times are in milliseconds. */
export interface Candidate {
  /** How long the call would wait there; infinite if it would be refused. */
  readonly wait: number
  /** How long its answer takes, and by how much that may be too short. */
  readonly answers: number
  readonly margin: number
  /** How long it takes to learn that there will be no answer. */
  readonly fails: number
  /** The expected cost of the call; infinite if the price is unknown. */
  readonly cost: number
  /** How much sooner another place must end the call for it to leave this one; 0 unless its prompt is cached here. */
  readonly stay: number
  /** Whether the call has failed there, and not at every place since. */
  readonly hasFailed: boolean
}

/** The calls of a conversation move only for at least this long. */
export const minStay = 1_000

/** A call goes where it ends at most this part, and this time, later than at the best place: what is foreseen is not exact. */
const nearPart = 0.25
const nearMillis = 1_000

/** When the call is expected to end, from now on. */
export const endOf = ({ answers, wait }: Candidate): number => wait + answers

/**
 * The candidates in whose queues the call waits. `left` is the time until its deadline. With a `slack` above 1, also those that are not
 * much slower: a call leaves a queue later than it would join it.
 */
export const chosen = <C extends Candidate>(
  candidates: ReadonlyArray<C>,
  policy: PlacePolicy,
  left: number,
  slack = 1
): ReadonlyArray<C> => (policy === "soonest" ? soonest(candidates, slack) : cheapest(candidates, left))

/**
 * Those where the call would end about as soon as at the best place if they started it now: a longer wait in a queue harms nobody, because
 * the first place that starts the call gets it. If its prompt is cached at one place that takes calls, only that one and those where it
 * would end that much sooner.
 */
const soonest = <C extends Candidate>(candidates: ReadonlyArray<C>, slack: number): ReadonlyArray<C> => {
  const best = Math.min(...candidates.map(endOf))
  const near = candidates.filter(({ answers }) => answers <= best + slack * (nearPart * best + nearMillis))
  const cachedAt = candidates.find(({ stay }) => stay > 0)
  if (cachedAt === undefined || cachedAt.wait === Infinity) return near
  const gain = (end: number): number => endOf(cachedAt) - end
  const stays = near.includes(cachedAt) || gain(best) <= cachedAt.stay
  const better = near.filter((each) => each !== cachedAt && gain(endOf(each)) > cachedAt.stay / slack)
  return stays ? [cachedAt, ...better] : better
}

/** The cheapest that answers in time, and those that are cheaper, where it may start sooner than is foreseen. */
const cheapest = <C extends Candidate>(candidates: ReadonlyArray<C>, left: number): ReadonlyArray<C> => {
  let max = Infinity
  for (const each of candidates) {
    if (each.wait < Infinity && each.cost < max && isInTime(each, candidates, left)) max = each.cost
  }
  return candidates.filter(({ cost }) => cost <= max)
}

/** Whether a call answers in time at a place, or else another place still answers in time after it has failed there. */
const isInTime = (place: Candidate, all: ReadonlyArray<Candidate>, left: number): boolean => {
  if (endOf(place) + place.margin > left) return false
  const others = all.filter((each) => each !== place && each.cost > place.cost && each.wait < Infinity)
  const isSafe = (each: Candidate): boolean =>
    Math.max(place.wait + place.fails, each.wait) + each.answers + each.margin <= left
  // If no other place could answer in time even now, there is nothing to save.
  return others.some(isSafe) || !others.some((each) => endOf(each) + each.margin <= left)
}

/** Whether the call goes elsewhere only because a place answers later than the quickest one does. */
export const isSlow = (
  place: Candidate,
  candidates: ReadonlyArray<Candidate>,
  policy: PlacePolicy,
  left: number
): boolean => {
  let { answers } = place
  for (const each of candidates) answers = Math.min(answers, each.answers)
  if (place.answers <= answers || place.wait === Infinity) return false
  if (chosen(candidates, policy, left).includes(place)) return false
  const quick = { ...place, wait: place.wait, answers }
  const others = candidates.map((each) => (each === place ? quick : each))
  return chosen(others, policy, left).includes(quick)
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
