/**
 * Simulates a fan-out without a clock: calls of known usage and duration go through the budget's own queue and law. Pure.
 *
 * It starts from full limits, or from the state of a running pool with the agents that use it. Times are milliseconds from the
 * start. It runs in steps, so that the caller can do something else between two of them.
 */
import type { Blocked, Obstacle } from "../../admission/blocked.ts"
import { FairQueue, Queued, type CallOwner } from "../../admission/fairQueue.ts"
import * as Heap from "../../admission/heap.ts"
import * as Amounts from "../../domain/amounts.ts"
import type * as Rules from "../../domain/rules.ts"
import type { Stepwise } from "../../domain/stepwise.ts"
import * as Pacer from "../../pacing/pacer.ts"
import * as Preview from "../../pacing/preview.ts"

/** The charge of a call, its actual usage, and how long it takes. */
export interface ForecastCall {
  readonly charge: Amounts.Whole
  readonly used: Amounts.Whole
  readonly millis: number
  /** Before it, from the end of the agent's last call. */
  readonly pauseMillis: number
  /** The sub-agents that start when it ends. */
  readonly subAgents: ReadonlyArray<ForecastAgent>
}

export interface ForecastAgent {
  readonly name: string
  readonly startsAt: number
  readonly calls: ReadonlyArray<ForecastCall>
  /** How many calls the agent that started it makes before it waits for its end. */
  readonly turnsMeanwhile: number
}

/** An agent that uses the pool already. It competes with the others; its own end matters only if there are no others. */
export interface PresentAgent extends CallOwner {
  readonly calls: ReadonlyArray<ForecastCall>
  /** When its call in flight ends, on the clock of the law; undefined if none of its calls is in flight. */
  readonly busyUntil: number | undefined
  /** When it makes its next call otherwise. */
  readonly asksAt: number
}

/** A valid workload and its conditions. */
export interface Setup {
  readonly agents: ReadonlyArray<ForecastAgent>
  /** The simulation changes it. */
  readonly law: Pacer.Pacer
  readonly rules: Rules.Rules
  /** Calls in flight at once. */
  readonly concurrency: number
  /** Agents that run at once, with those that are present. */
  readonly maxAgents: number
  /** The job of the agents, and the priority of their calls. */
  readonly owner: Omit<CallOwner, "agent">
  /** When it begins, on the clock of the law. */
  readonly at: number
  /** The agents that use the pool already, in the order of service. */
  readonly present: ReadonlyArray<PresentAgent>
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
  /** When each agent had ended, with its sub-agents; one that a call stopped has no entry. */
  readonly ends: ReadonlyMap<ForecastAgent, number>
  /** How long the head of the queue waited for what. */
  readonly blocked: { readonly [O in Obstacle]?: number }
}

/** An agent, and its next calls. It is mutable. */
interface Player extends CallOwner {
  readonly calls: ReadonlyArray<ForecastCall>
  /** The index of its next call. */
  next: number
  /** The agent of the workload; undefined if it was present before. */
  readonly own: ForecastAgent | undefined
  /** The agent that started it; undefined if the workload did. */
  readonly parent: Player | undefined
  /** Its sub-agents that run, each with the index of the call that waits for its end. */
  readonly subAgents: Map<Player, number>
  /** Whether it waits for sub-agents. */
  isWaiting: boolean
}

const playerOf = (agent: CallOwner & Pick<PresentAgent, "calls">, own?: ForecastAgent, parent?: Player): Player => ({
  ...agent,
  next: 0,
  own,
  parent,
  subAgents: new Map(),
  isWaiting: false
})

/** A call in the queue. */
class AskedCall extends Queued {
  readonly player: Player
  readonly call: ForecastCall
  readonly askedAt: number

  constructor(player: Player, call: ForecastCall, cost: number, askedAt: number) {
    super(player, cost)
    this.player = player
    this.call = call
    this.askedAt = askedAt
  }
}

/** An agent starts, or one of its calls ends; then it makes its next call. */
interface Due extends Heap.Item {
  readonly at: number
  readonly turn: number
  readonly player: Player
  /** The call that has ended then: one of the simulation, or one that was in flight at its start. */
  readonly ended: { readonly waiting: AskedCall; readonly admission: Pacer.Admission } | "present" | undefined
}

const byTime = (a: Due, b: Due): boolean => a.at < b.at || (a.at === b.at && a.turn < b.turn)

/** Events in one step, which takes milliseconds. */
const chunk = 1_000

/** Simulates all agents to their ends. */
export const play = (setup: Setup): Stepwise<Played> => new FanOut(setup).run()

class FanOut {
  private readonly setup: Setup
  private readonly law: Pacer.Pacer
  private readonly queue = new FairQueue<AskedCall>()
  private readonly due: Array<Due> = []
  private scheduled = 0
  private readonly served: Array<Served> = []
  private readonly refused: Array<Played["refused"][number]> = []
  /** The agents that have not started yet, the next one last. */
  private readonly unstarted: Array<ForecastAgent>
  /** The agents that have started, with those that were present. */
  private active = 0
  /** The agents whose ends matter and that have not ended: those of the workload, or those that are present if it is empty. */
  private open: number
  private endsAt = 0
  private readonly ends = new Map<ForecastAgent, number>()

  constructor(setup: Setup) {
    const { agents, law, present } = setup
    this.setup = setup
    this.law = law
    this.open = agents.length === 0 ? present.length : agents.length
    this.unstarted = agents.toSorted((a, b) => a.startsAt - b.startsAt).reverse()
    for (const { asksAt, busyUntil, ...agent } of present) {
      this.active++
      const player = playerOf(agent)
      this.schedule(busyUntil ?? asksAt, player, busyUntil === undefined ? undefined : "present")
    }
  }

  *run(): Stepwise<Played> {
    const blocked: { [O in Obstacle]?: number } = {}
    let now = this.setup.at
    let done = 0
    while (this.fill(now)) if (++done % chunk === 0) yield
    for (;;) {
      while (this.happen(now)) if (++done % chunk === 0) yield
      let answer = this.admit(now)
      while (answer === "decided") {
        if (++done % chunk === 0) yield
        answer = this.admit(now)
      }
      // As in the budget itself, the queue forgets its history when nobody waits.
      if (answer === undefined) this.queue.forget()
      const wake = Math.min(this.due[0]?.at ?? Infinity, now + (answer?.millis ?? Infinity))
      if (wake === Infinity || this.open === 0) {
        return { served: this.served, refused: this.refused, endsAt: this.endsAt, ends: this.ends, blocked }
      }
      if (answer !== undefined) blocked[answer.by] = (blocked[answer.by] ?? 0) + wake - now
      now = wake
    }
  }

  private schedule(at: number, player: Player, ended: Due["ended"]): void {
    Heap.push(this.due, { at, turn: this.scheduled++, player, ended, place: -1 }, byTime)
  }

  /** Starts the next agent if one more may run. */
  private fill(now: number): boolean {
    const { at, maxAgents, owner } = this.setup
    const own = this.active < maxAgents ? this.unstarted.pop() : undefined
    if (own === undefined) return false
    this.active++
    this.start(own, Math.max(now, at + own.startsAt), owner)
    return true
  }

  private start(own: ForecastAgent, at: number, owner: Omit<CallOwner, "agent">, parent?: Player): Player {
    const { caller, callerWeight, job, jobWeight, priority } = owner
    const { calls, name: agent } = own
    const player = playerOf({ agent, caller, callerWeight, job, jobWeight, priority, weight: 1, calls }, own, parent)
    this.schedule(at + (own.calls[0]?.pauseMillis ?? 0), player, undefined)
    return player
  }

  /** Handles the next event that is due. False if none is. */
  private happen(now: number): boolean {
    const due = this.due[0]
    if (due === undefined || due.at > now) return false
    Heap.remove(this.due, due, byTime)
    const { ended, player } = due
    if (ended === undefined) {
      this.ask(player, now)
      return true
    }
    this.end(ended, now)
    if (ended !== "present") this.startSubAgents(player, ended.waiting.call, now)
    const pause = player.calls[player.next]?.pauseMillis ?? 0
    if (pause > 0) this.schedule(now + pause, player, undefined)
    else this.ask(player, now)
    return true
  }

  private startSubAgents(player: Player, { subAgents }: ForecastCall, now: number): void {
    for (const agent of subAgents) {
      const started = this.start(agent, now + agent.startsAt, player, player)
      player.subAgents.set(started, player.next + agent.turnsMeanwhile)
    }
  }

  /** Whether the next call of an agent, or its end, waits for one of its sub-agents. */
  private waitsForOthers({ calls, next, subAgents }: Player): boolean {
    if (subAgents.size === 0) return false
    return next >= calls.length || [...subAgents.values()].some((index) => index <= next)
  }

  private end(ended: NonNullable<Due["ended"]>, now: number): void {
    if (ended === "present") return void this.law.inFlight--
    const { admission, waiting } = ended
    const { used } = waiting.call
    const asked = waiting.cost
    if (asked > 0) this.queue.correct(waiting, Amounts.dominantShare(used, this.setup.rules) / asked)
    Pacer.accept(this.law, admission)
    Pacer.settle(this.law, admission, used, now)
  }

  private ask(player: Player, now: number): void {
    const { rules } = this.setup
    player.isWaiting = this.waitsForOthers(player)
    if (player.isWaiting) return
    const call = player.calls[player.next++]
    if (call === undefined) {
      if (player.own !== undefined) this.ends.set(player.own, now - this.setup.at)
      return this.leave(player, now)
    }
    const misfit = Amounts.neverFits(call.charge, rules)
    if (misfit !== undefined) return this.refuse(player, misfit, now)
    this.queue.push(new AskedCall(player, call, Amounts.dominantShare(call.charge, rules), now))
  }

  private refuse(player: Player, misfit: Amounts.Misfit, now: number): void {
    if (player.own !== undefined) this.refused.push({ agent: player.own, ...misfit })
    this.leave(player, now)
  }

  /** An agent has ended, so that another may start, or the one that it worked for may go on. */
  private leave(player: Player, now: number): void {
    const { own, parent } = player
    if (parent !== undefined) {
      parent.subAgents.delete(player)
      if (parent.isWaiting) this.ask(parent, now)
      return
    }
    this.active--
    if (own !== undefined || this.setup.agents.length === 0) {
      this.open--
      this.endsAt = now - this.setup.at
    }
    this.fill(now)
  }

  /** Admits or refuses the head of the queue; otherwise returns what it waits for. */
  private admit(now: number): "decided" | Blocked | undefined {
    const head = this.queue.peek()
    if (head === undefined) return undefined
    const { askedAt, call, player } = head
    const answer = Preview.admit(this.law, this.setup.concurrency, call.charge, now)
    if ("at" in answer) {
      this.queue.serve(head)
      const endsAt = now + call.millis
      if (player.own !== undefined) {
        const { at } = this.setup
        this.served.push({ agent: player.own, askedAt: askedAt - at, admittedAt: now - at, endsAt: endsAt - at })
      }
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
