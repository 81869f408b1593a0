/**
 * A fan-out played through without a clock: the budget's own queue and buckets, and calls of known length. Pure.
 *
 * Times are milliseconds from the start.
 */
import * as Limits from "../Limits.ts"
import { type Entry, FairQueue, type Flow, type Turn } from "./fairQueue.ts"
import * as Heap from "./heap.ts"
import * as Ledger from "./ledger.ts"

interface Call {
  readonly estimate: Limits.Estimate
  /** What it does use: what was reserved beyond that is given back at its end. */
  readonly usage: Limits.Usage
  readonly millis: number
}

export interface Agent {
  readonly name: string
  readonly startsAt: number
  readonly calls: ReadonlyArray<Call>
}

export interface Setup {
  readonly limits: Limits.Limits
  /** What is left of each at the start; all of it where nothing is said. */
  readonly levels: Limits.Charge
  readonly headroom: number
  readonly concurrency: number
}

/** One call as it went. */
export interface Served {
  readonly agent: number
  readonly askedAt: number
  readonly admittedAt: number
  readonly endsAt: number
}

/** A call that is never admitted: it is larger than a limit, or a quota is used up. Its agent stops there. */
interface Refused extends Limits.Misfit {
  readonly agent: number
}

export type Obstacle = Limits.Dimension | "concurrency"

export interface Outcome {
  readonly served: ReadonlyArray<Served>
  readonly refused: ReadonlyArray<Refused>
  readonly endsAt: number
  /** How long the head of the queue waited for what. */
  readonly blocked: { readonly [O in Obstacle]?: number }
}

interface Due extends Heap.Item {
  readonly at: number
  readonly turn: number
  readonly agent: number
  /** The call that ends then; none where an agent starts. */
  readonly ends: { readonly turn: Turn<Waiting>; readonly held: Ledger.Held; readonly used: Limits.Charge } | undefined
}

interface Waiting extends Entry {
  readonly index: number
  readonly charge: Limits.Charge
  readonly usage: Limits.Usage
  readonly millis: number
  readonly askedAt: number
  flow: Flow<this> | undefined
}

const byTime = (a: Due, b: Due): boolean => a.at < b.at || (a.at === b.at && a.turn < b.turn)

/** Plays all agents to their ends. */
export const play = (agents: ReadonlyArray<Agent>, { concurrency, headroom, levels, limits }: Setup): Outcome => {
  const rules = Limits.resolve(limits)
  let ledger = Ledger.withLevels(Ledger.make(limits, 0, { headroom, ramp: undefined }), levels)
  const queue = new FairQueue<Waiting>()
  const due: Array<Due> = []
  const next = agents.map(() => 0)
  const served: Array<Served> = []
  const refused: Array<Refused> = []
  const blocked: { [O in Obstacle]?: number } = {}
  let scheduled = 0
  let inFlight = 0
  let endsAt = 0

  const schedule = (at: number, agent: number, ends: Due["ends"]): void =>
    Heap.push(due, { at, turn: scheduled++, agent, ends, place: -1 }, byTime)

  const ask = (now: number, index: number): void => {
    const agent = agents[index]!
    const call = agent.calls[next[index]!]
    next[index]!++
    if (call === undefined) {
      endsAt = Math.max(endsAt, now)
      return
    }
    const charge = Limits.charge(call.estimate, rules)
    const never = Limits.neverFits(charge, rules)
    if (never !== undefined) {
      refused.push({ agent: index, ...never })
      endsAt = Math.max(endsAt, now)
      return
    }
    queue.push({
      agent: agent.name,
      priority: 0,
      weight: 1,
      cost: Limits.dominantShare(charge, rules),
      index,
      charge,
      usage: call.usage,
      millis: call.millis,
      askedAt: now,
      flow: undefined,
      previous: undefined,
      next: undefined
    })
  }

  /** Admits all that fit; gives what the head waits for, and how long if nothing happens. */
  const admit = (now: number): { readonly by: Obstacle; readonly millis: number } | undefined => {
    ledger = Ledger.advance(ledger, now)
    for (;;) {
      const head = queue.peek()
      if (head === undefined) return undefined
      if (inFlight >= concurrency) return { by: "concurrency", millis: Infinity }
      const decision = Ledger.decide(ledger, head.charge, now)
      if (decision._tag === "Wait") return { by: decision.dimension!, millis: decision.millis }
      const turn = queue.shift()!
      if (decision._tag === "Exhausted") {
        const { asked, dimension, left } = decision
        refused.push({ agent: head.index, dimension, asked, limit: left })
        endsAt = Math.max(endsAt, now)
        continue
      }
      ledger = Ledger.take(ledger, head.charge, now)
      inFlight++
      const held: Ledger.Held = { id: served.length + 1, charge: head.charge, takenAt: now }
      const end = now + head.millis
      served.push({ agent: head.index, askedAt: head.askedAt, admittedAt: now, endsAt: end })
      schedule(end, head.index, { turn, held, used: Limits.used(head.charge, head.usage) })
    }
  }

  for (const [index, agent] of agents.entries()) schedule(agent.startsAt, index, undefined)
  let now = 0
  for (;;) {
    while (due.length > 0 && due[0]!.at <= now) {
      const event = due[0]!
      Heap.remove(due, event, byTime)
      if (event.ends !== undefined) {
        inFlight--
        const { held, turn, used } = event.ends
        const asked = Limits.dominantShare(held.charge, rules)
        if (asked > 0) queue.correct(turn, Limits.dominantShare(used, rules) / asked)
        ledger = Ledger.settle(Ledger.advance(ledger, now), held, used, now)
      }
      ask(now, event.agent)
    }
    const obstacle = admit(now)
    // Whoever did not have to wait is not remembered, as in the budget itself.
    if (obstacle === undefined) queue.forget()
    const wake = Math.min(due[0]?.at ?? Infinity, obstacle === undefined ? Infinity : now + obstacle.millis)
    if (wake === Infinity) break
    if (obstacle !== undefined) blocked[obstacle.by] = (blocked[obstacle.by] ?? 0) + wake - now
    now = wake
  }
  return { served, refused, endsAt, blocked }
}
