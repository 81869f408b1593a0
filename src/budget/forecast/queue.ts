/**
 * Simulates a fan-out without a clock, with the budget's own queue and buckets, and calls of known duration. Pure.
 *
 * Times are milliseconds from the start. It runs in steps, so that the caller can do something else between two of them.
 */
import type * as Limits from "../../Limits.ts"
import * as Amounts from "../../domain/amounts.ts"
import * as Rules from "../../domain/rules.ts"
import { type Entry, FairQueue, type Flow, type Service } from "../../admission/fairQueue.ts"
import * as Ahead from "../../pacing/ahead.ts"
import * as Heap from "../../admission/heap.ts"
import * as Law from "../../pacing/law.ts"

export interface Call {
  readonly estimate: Limits.Estimate
  /** Its actual usage. What was reserved beyond that is refunded at its end. */
  readonly usage: Omit<Amounts.Whole, "tokens">
  readonly millis: number
}

export interface Agent {
  readonly name: string
  readonly startsAt: number
  readonly calls: ReadonlyArray<Call>
}

export interface Setup {
  readonly limits: Limits.Limits
  /** What is left of each limit at the start; full if it is left out. */
  readonly levels: Limits.Usage
  readonly concurrency: number
}

/** The times of one call. */
export interface Served {
  readonly agent: Agent
  readonly askedAt: number
  readonly admittedAt: number
  readonly endsAt: number
}

/** A call that is never admitted: it is larger than a limit, or a quota is used up. Its agent stops there. */
interface Refused extends Amounts.Misfit {
  readonly agent: Agent
}

/** Nothing pauses a forecast. */
export type Obstacle = Exclude<Ahead.Obstacle, "pause">

export interface Outcome {
  readonly served: ReadonlyArray<Served>
  readonly refused: ReadonlyArray<Refused>
  readonly endsAt: number
  /** What the head of the queue waited for, and how long. */
  readonly blocked: { readonly [O in Obstacle]?: number }
}

/** An agent that is simulated. */
interface Player {
  readonly agent: Agent
  /** Its remaining calls. */
  readonly calls: Iterator<Call, undefined>
}

interface Waiting extends Entry {
  readonly player: Player
  readonly call: Call
  readonly charge: Amounts.Whole
  readonly askedAt: number
  flow: Flow<this> | undefined
}

/** An admitted call, and what it will have used. */
interface Running {
  readonly service: Service
  readonly ticket: Law.Ticket
  readonly used: Amounts.Charge
}

/** A call ends, or an agent starts; then the agent makes its next call. */
interface Due extends Heap.Item {
  readonly at: number
  readonly turn: number
  readonly player: Player
  readonly ends: Running | undefined
}

const byTime = (a: Due, b: Due): boolean => a.at < b.at || (a.at === b.at && a.turn < b.turn)

/** A computation in steps. */
export type Steps<A> = Generator<undefined, A, undefined>

/** The number of events in one step, which take milliseconds. */
const atOnce = 1_000

/** Maps many items in steps. */
export function* mapped<A, B>(items: ReadonlyArray<A>, f: (item: A) => B): Steps<ReadonlyArray<B>> {
  const all: Array<B> = []
  for (const item of items) {
    all.push(f(item))
    if (all.length % atOnce === 0) yield
  }
  return all
}

/** Simulates all agents to their ends. */
export function* play(agents: ReadonlyArray<Agent>, setup: Setup): Steps<Outcome> {
  const fanOut = new FanOut(setup)
  for (const agent of agents) fanOut.start(agent)
  return yield* fanOut.run()
}

class FanOut {
  private readonly concurrency: number
  private readonly rules: Rules.Rules
  private readonly law: Law.Pacer
  private readonly queue = new FairQueue<Waiting>()
  private readonly due: Array<Due> = []
  private scheduled = 0
  private readonly served: Array<Served> = []
  private readonly refused: Array<Refused> = []
  private endsAt = 0

  constructor({ concurrency, levels, limits }: Setup) {
    this.concurrency = concurrency
    this.rules = Rules.resolve(limits)
    this.law = Law.preview(Law.make(this.rules, {}, 0))
    for (const dimension of Amounts.dimensions) {
      const cap = this.law.caps[dimension]
      if (cap !== undefined) cap.level = Math.min(cap.level, levels[dimension] ?? Infinity)
    }
  }

  start(agent: Agent): void {
    this.schedule(agent.startsAt, { agent, calls: agent.calls.values() }, undefined)
  }

  *run(): Steps<Outcome> {
    const blocked: { [O in Obstacle]?: number } = {}
    let now = 0
    let done = 0
    for (;;) {
      while (this.happen(now)) if (++done % atOnce === 0) yield
      let obstacle = this.admit(now)
      while (obstacle === "admitted") {
        if (++done % atOnce === 0) yield
        obstacle = this.admit(now)
      }
      // As in the budget itself, the queue forgets its history when nobody waits.
      if (obstacle === undefined) this.queue.forget()
      const wake = Math.min(this.due[0]?.at ?? Infinity, now + (obstacle?.millis ?? Infinity))
      if (wake === Infinity) return { served: this.served, refused: this.refused, endsAt: this.endsAt, blocked }
      if (obstacle !== undefined) {
        const by = obstacle.by as Obstacle
        blocked[by] = (blocked[by] ?? 0) + wake - now
      }
      now = wake
    }
  }

  private schedule(at: number, player: Player, ends: Running | undefined): void {
    Heap.push(this.due, { at, turn: this.scheduled++, player, ends, place: -1 }, byTime)
  }

  /** Handles the next event that is due. Returns false if there is none. */
  private happen(now: number): boolean {
    const due = this.due[0]
    if (due === undefined || due.at > now) return false
    Heap.remove(this.due, due, byTime)
    if (due.ends !== undefined) this.end(due.ends, now)
    this.ask(due.player, now)
    return true
  }

  private end({ service, ticket, used }: Running, now: number): void {
    const asked = Amounts.dominantShare(ticket.charge, this.rules)
    if (asked > 0) this.queue.correct(service, Amounts.dominantShare(used, this.rules) / asked)
    Law.accept(this.law, ticket)
    Law.settle(this.law, ticket, used, now)
  }

  private ask(player: Player, now: number): void {
    const call = player.calls.next().value
    if (call === undefined) {
      this.endsAt = now
      return
    }
    const charge = Amounts.wholeOf(call.estimate)
    const never = Amounts.neverFits(charge, this.rules)
    if (never !== undefined) return this.refuse(player, never, now)
    this.queue.push({
      agent: player.agent.name,
      priority: 0,
      weight: 1,
      cost: Amounts.dominantShare(charge, this.rules),
      player,
      call,
      charge,
      askedAt: now,
      flow: undefined,
      previous: undefined,
      next: undefined
    })
  }

  private refuse({ agent }: Player, misfit: Amounts.Misfit, now: number): void {
    this.refused.push({ agent, ...misfit })
    this.endsAt = now
  }

  /** Admits the head of the queue if it fits; otherwise returns what it waits for, and how long if nothing else happens. */
  private admit(now: number): "admitted" | Ahead.Wait | undefined {
    const head = this.queue.peek()
    if (head === undefined) return undefined
    const answer = Ahead.admit(this.law, this.concurrency, head.charge, now)
    if ("at" in answer) {
      this.serve(head, this.queue.shift()!, answer)
      return "admitted"
    }
    const quota = Ahead.exhaustedBy(answer)
    if (quota === undefined) return answer
    this.queue.remove(head)
    const limit = this.law.caps[quota]!.level
    this.refuse(head.player, { dimension: quota, asked: head.charge[quota], limit }, now)
    return "admitted"
  }

  private serve({ askedAt, call, charge, player }: Waiting, service: Service, ticket: Law.Ticket): void {
    const now = ticket.at
    const endsAt = now + call.millis
    this.served.push({ agent: player.agent, askedAt, admittedAt: now, endsAt })
    this.schedule(endsAt, player, { service, ticket, used: Amounts.used(charge, call.usage, call.estimate) })
  }
}
