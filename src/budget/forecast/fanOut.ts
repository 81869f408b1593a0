/**
 * Simulates a fan-out without a clock: calls of known usage and duration go through the budget's own queue and law. Pure.
 *
 * Times are milliseconds from the start. It runs in steps, so that the caller can do something else between two of them.
 */
import type { Blocked, Obstacle } from "../../admission/blocked.ts"
import { FairQueue, type Flow, type Queued, unqueued } from "../../admission/fairQueue.ts"
import * as Heap from "../../admission/heap.ts"
import type * as Limits from "../../Limits.ts"
import * as Amounts from "../../domain/amounts.ts"
import * as Rules from "../../domain/rules.ts"
import * as Law from "../../pacing/law.ts"
import * as Preview from "../../pacing/preview.ts"

/** What a call is charged, what it then uses, and how long it takes. */
export interface ForecastCall {
  readonly charge: Amounts.Whole
  readonly used: Amounts.Whole
  readonly millis: number
}

export interface ForecastAgent {
  readonly name: string
  readonly startsAt: number
  readonly calls: ReadonlyArray<ForecastCall>
}

export interface Setup {
  readonly limits: Limits.Limits
  /** What is left of each limit at the start; a dimension that is left out starts full. */
  readonly levels: Limits.Usage
  readonly concurrency: number
}

/** The times of one call. */
export interface Served {
  readonly agent: ForecastAgent
  readonly askedAt: number
  readonly admittedAt: number
  readonly endsAt: number
}

export interface Played {
  readonly served: ReadonlyArray<Served>
  /** Calls that are never admitted, because they are larger than a limit or a quota is used up. Their agents stop there. */
  readonly refused: ReadonlyArray<Amounts.Misfit & { readonly agent: ForecastAgent }>
  readonly endsAt: number
  /** How long the head of the queue waited for what. */
  readonly blocked: { readonly [O in Obstacle]?: number }
}

/** An agent, and its next calls. */
interface Player {
  readonly agent: ForecastAgent
  readonly calls: Iterator<ForecastCall, undefined>
}

/** A call in the queue. */
interface AskedCall extends Queued {
  readonly player: Player
  readonly call: ForecastCall
  readonly askedAt: number
  flow: Flow<this> | undefined
}

/** An agent starts, or one of its calls ends; then it makes its next call. */
interface Due extends Heap.Item {
  readonly at: number
  readonly turn: number
  readonly player: Player
  readonly ended: { readonly waiting: AskedCall; readonly admission: Law.Admission } | undefined
}

const byTime = (a: Due, b: Due): boolean => a.at < b.at || (a.at === b.at && a.turn < b.turn)

/** A computation in steps. */
export type Steps<A> = Generator<undefined, A, undefined>

/** Events in one step, which takes milliseconds. */
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
export const play = (agents: ReadonlyArray<ForecastAgent>, setup: Setup): Steps<Played> =>
  new FanOut(agents, setup).run()

class FanOut {
  private readonly maxInFlight: number
  private readonly rules: Rules.Rules
  private readonly law: Law.Pacer
  private readonly queue = new FairQueue<AskedCall>()
  private readonly due: Array<Due> = []
  private scheduled = 0
  private readonly served: Array<Served> = []
  private readonly refused: Array<Played["refused"][number]> = []
  private endsAt = 0

  constructor(agents: ReadonlyArray<ForecastAgent>, { concurrency, levels, limits }: Setup) {
    this.maxInFlight = concurrency
    this.rules = Rules.resolve(limits)
    this.law = Law.make(this.rules, {}, 0)
    // The limits of the forecast are complete, so there is nothing to learn.
    this.law.opening = undefined
    for (const dimension of Amounts.dimensions) {
      const cap = this.law.caps[dimension]
      if (cap !== undefined) cap.level = Math.min(cap.level, levels[dimension] ?? Infinity)
    }
    for (const agent of agents) this.schedule(agent.startsAt, { agent, calls: agent.calls.values() }, undefined)
  }

  *run(): Steps<Played> {
    const blocked: { [O in Obstacle]?: number } = {}
    let now = 0
    let done = 0
    for (;;) {
      while (this.happen(now)) if (++done % atOnce === 0) yield
      let answer = this.admit(now)
      while (answer === "decided") {
        if (++done % atOnce === 0) yield
        answer = this.admit(now)
      }
      // As in the budget itself, the queue forgets its history when nobody waits.
      if (answer === undefined) this.queue.forget()
      const wake = Math.min(this.due[0]?.at ?? Infinity, now + (answer?.millis ?? Infinity))
      if (wake === Infinity) return { served: this.served, refused: this.refused, endsAt: this.endsAt, blocked }
      if (answer !== undefined) blocked[answer.by] = (blocked[answer.by] ?? 0) + wake - now
      now = wake
    }
  }

  private schedule(at: number, player: Player, ended: Due["ended"]): void {
    Heap.push(this.due, { at, turn: this.scheduled++, player, ended, place: -1 }, byTime)
  }

  /** Handles the next event that is due. False if none is. */
  private happen(now: number): boolean {
    const due = this.due[0]
    if (due === undefined || due.at > now) return false
    Heap.remove(this.due, due, byTime)
    if (due.ended !== undefined) this.end(due.ended, now)
    this.ask(due.player, now)
    return true
  }

  private end({ admission, waiting }: NonNullable<Due["ended"]>, now: number): void {
    const { used } = waiting.call
    const asked = waiting.cost
    if (asked > 0) this.queue.correct(waiting, Amounts.dominantShare(used, this.rules) / asked)
    Law.accept(this.law, admission)
    Law.settle(this.law, admission, used, now)
  }

  private ask(player: Player, now: number): void {
    const call = player.calls.next().value
    if (call === undefined) {
      this.endsAt = now
      return
    }
    const misfit = Amounts.neverFits(call.charge, this.rules)
    if (misfit !== undefined) return this.refuse(player, misfit, now)
    const { name: agent } = player.agent
    const cost = Amounts.dominantShare(call.charge, this.rules)
    this.queue.push({ agent, priority: 0, weight: 1, cost, player, call, askedAt: now, ...unqueued })
  }

  private refuse({ agent }: Player, misfit: Amounts.Misfit, now: number): void {
    this.refused.push({ agent, ...misfit })
    this.endsAt = now
  }

  /** Admits or refuses the head of the queue; otherwise returns what it waits for. */
  private admit(now: number): "decided" | Blocked | undefined {
    const head = this.queue.peek()
    if (head === undefined) return undefined
    const { askedAt, call, player } = head
    const answer = Preview.admit(this.law, this.maxInFlight, call.charge, now)
    if ("at" in answer) {
      this.queue.serve(head)
      const endsAt = now + call.millis
      this.served.push({ agent: player.agent, askedAt, admittedAt: now, endsAt })
      this.schedule(endsAt, player, { waiting: head, admission: answer })
      return "decided"
    }
    const quota = Preview.exhaustedBy(answer)
    if (quota === undefined) return answer
    this.queue.remove(head)
    const misfit = { dimension: quota, asked: call.charge[quota], limit: this.law.caps[quota]!.level }
    this.refuse(player, misfit, now)
    return "decided"
  }
}
