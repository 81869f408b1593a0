/**
 * How long a caller will wait, if everybody uses what was estimated and nothing fails: the law is played ahead.
 */
import type { FairQueue, Flow } from "../admission/fairQueue.ts"
import * as Law from "../admission/law.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import type { Queueing, Waiter } from "./waiter.ts"

/** A caller that waits, and for how long still. */
export interface Expected {
  readonly waiter: Waiter
  readonly expectedMillis: number
  readonly dimension: Limits.Dimension | undefined
}

/** The calls that may be in flight, those that are, and how long one takes. */
export interface Slots {
  readonly most: number
  readonly inFlight: number
  readonly answerMillis: number
}

/** A prediction looks at no more than this many agents, and calls of each: the rest is like those. */
const mostAgents = 256
const mostCalls = 32
/** It plays no more than this many calls, each of which then stands for several. */
const mostPlayed = 64
/** A wait that grows less than this with each look ends: then a limit is too small to ever hold the charge. */
const mostLooks = 64

/** A law that is played ahead. */
class Play {
  private readonly law: Law.Pool
  private readonly slots: Slots
  private readonly now: number
  private entered = 0
  at: number
  dimension: Limits.Dimension | undefined = undefined

  constructor(law: Law.Pool, slots: Slots, now: number) {
    this.law = Law.preview(law)
    this.slots = slots
    this.now = now
    this.at = Math.max(now, law.gate.until)
  }

  /** So many calls enter, which take this much together. */
  enter(charge: Amounts.Whole, calls = 1): void {
    this.entered += calls
    const { answerMillis, inFlight, most } = this.slots
    const beyond = this.entered - Math.max(0, most - inFlight)
    if (beyond > 0) this.at = Math.max(this.at, this.now + (beyond * answerMillis) / most)
    for (let looks = 0; looks < mostLooks; looks++) {
      const blocked = Law.decide(this.law, charge, this.at)
      if (blocked === undefined || blocked.millis === Infinity) break
      this.at += Math.max(0.01, blocked.millis)
      this.dimension = blocked.dimension
    }
    Law.take(this.law, charge, this.at)
  }
}

/** The first callers in the order of service. */
export const first = (
  law: Law.Pool,
  waiters: Iterable<Waiter>,
  count: number,
  slots: Slots,
  now: number
): ReadonlyArray<Expected> => {
  const play = new Play(law, slots, now)
  const found: Array<Expected> = []
  for (const waiter of waiters) {
    if (found.length === count) break
    play.dimension = undefined
    play.enter(waiter.charge)
    const dimension = play.dimension ?? waiter.binding
    found.push({ waiter, expectedMillis: play.at - now, dimension })
  }
  return found
}

/** How long a caller waits, and for what last. */
export interface Foreseen {
  readonly millis: number
  readonly dimension: Limits.Dimension | undefined
}

/** A caller that would come now. */
export const newcomer = (
  law: Law.Pool,
  queue: FairQueue<Waiter>,
  slots: Slots,
  charge: Amounts.Whole,
  how: Queueing,
  now: number
): Foreseen => {
  const before = { calls: 0, requests: 0, inputTokens: 0, outputTokens: 0, tokens: 0 }
  const part = queue.ahead(how, mostAgents, (flow, upTo) => addBacklog(before, flow, upTo))
  const calls = Math.round(before.calls / part)
  const play = new Play(law, slots, now)
  const steps = Math.min(calls, mostPlayed)
  for (let step = 0; step < steps; step++) play.enter(scaled(before, 1 / part / steps), calls / steps)
  play.enter(charge)
  return { millis: play.at - now, dimension: play.dimension }
}

interface Backlog {
  calls: number
  requests: number
  inputTokens: number
  outputTokens: number
  tokens: number
}

const scaled = ({ inputTokens, outputTokens, requests, tokens }: Amounts.Whole, factor: number): Amounts.Whole => ({
  requests: requests * factor,
  inputTokens: inputTokens * factor,
  outputTokens: outputTokens * factor,
  tokens: tokens * factor
})

/** Adds the calls of a flow with no more than `upTo` of its backlog in front of them. */
const addBacklog = (before: Backlog, flow: Flow<Waiter>, upTo: number): void => {
  const all = Math.min(upTo, flow.backlog)
  let looked = 0
  let calls = 0
  const own = { requests: 0, inputTokens: 0, outputTokens: 0, tokens: 0 }
  for (let waiter = flow.head; waiter !== undefined && looked <= all && calls < mostCalls; waiter = waiter.next) {
    calls++
    for (const dimension of Amounts.dimensions) own[dimension] += waiter.charge[dimension]
    looked += waiter.cost / waiter.weight
  }
  const factor = Math.max(1, all / looked)
  before.calls += calls * factor
  for (const dimension of Amounts.dimensions) before[dimension] += own[dimension] * factor
}
