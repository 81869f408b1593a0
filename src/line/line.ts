/**
 * A line: the queue of the calls that one law limits, and the port to the state that the law counts in.
 *
 * A call arrives, waits, is admitted in the order of the queue, and ends. Every event ends in `decide`, which asks the port to play the
 * decision: the law admits the first calls until one must wait. With a store the decision may be played more than once, and is carried
 * out when it is stored. All of it is synchronous and runs no code of a caller.
 */
import type { Blocked } from "../admission/blocked.ts"
import { FairQueue } from "../admission/fairQueue.ts"
import type { Decided, Done, ChargedPort, Port, QueueDecision } from "../sharing/port.ts"
import type { Hold, Terms } from "./hold.ts"
import { type Law, Refused } from "./law.ts"

/** Permits that belong to this process. They are taken before a decision, because it may be played more than once. */
export interface PermitGate {
  /** Those that were taken for the next decision. */
  inHand: number
  /** Takes one for each of the next calls, as long as there are any. */
  readonly take: (calls: number) => void
  /** A call that has one has ended. */
  readonly release: () => void
}

/** The events around a line. */
export interface LineEvents<H> {
  /** A call was admitted. */
  readonly granted: (hold: H) => void
  /** A call that waited is refused. */
  readonly refused?: ((hold: H) => void) | undefined
  /** The first calls in the order of service, at most about `max`. @default those of the queue */
  readonly heads?: ((max: number) => Iterable<H>) | undefined
  /** These calls are decided on next. */
  readonly deciding?: ((next: ReadonlyArray<H>) => void) | undefined
}

/** The decision on one of the first calls. */
interface Outcome<T extends Terms, H> {
  readonly hold: H
  /** The amount it asked for. It may be estimated again before a store has the decision. */
  readonly ask: T["ask"]
  readonly answer: T["grant"] | Refused<T["refusal"]>
}

interface LineDecision<T extends Terms, H> extends Decided {
  readonly outcomes: ReadonlyArray<Outcome<T, H>>
  /** The first call that must wait. */
  readonly head: H | undefined
}

export class Line<T extends Terms, H extends Hold<T>> {
  readonly queue: FairQueue<H>
  private readonly port: Port<T["state"]>
  private readonly law: Law<T, H>
  private readonly events: LineEvents<H>
  private readonly gate: PermitGate | undefined
  /** A call that arrives at an empty queue, until it is admitted or queued. */
  private arriving: H | undefined = undefined
  /** The first call of the queue, if it lacked a permit or the last decision let it wait, and nothing has changed since. */
  private blocked: H | undefined = undefined

  constructor(
    port: Port<T["state"]>,
    law: Law<T, H>,
    events: LineEvents<H>,
    queue = new FairQueue<H>(),
    gate?: PermitGate
  ) {
    this.port = port
    this.law = law
    this.events = events
    this.queue = queue
    this.gate = gate
  }

  // ---------------------------------------------------------------------------
  // Arrival
  // ---------------------------------------------------------------------------

  /** Admits a call at once, refuses it, or queues it. */
  ask(hold: H): H {
    this.arrive(hold)
    if (hold.phase === "waiting") {
      hold.since = this.port.now()
      this.join(hold)
    }
    return hold
  }

  /** Admits or refuses a call if nobody waits. Otherwise it must {@link join} the queue. */
  arrive(hold: H): void {
    if (this.queue.size > 0) return
    this.arriving = hold
    this.decide()
    this.arriving = undefined
  }

  /** Puts a call into the queue: behind its agent's other calls, or before them. */
  join(hold: H, front = false): void {
    this.queue.push(hold, front)
    if (this.queue.peek() !== this.blocked) this.decide()
  }

  /** Admits a call that nothing limits. */
  pass(hold: H, grant: T["grant"]): void {
    this.carryOut({ hold, ask: hold.ask, answer: grant }, this.port, false)
  }

  // ---------------------------------------------------------------------------
  // The decision
  // ---------------------------------------------------------------------------

  /** Decides on the first calls, because something has changed. */
  decide(): void {
    this.blocked = undefined
    if (this.prepare()) this.port.transact(this.play, this.played)
    else this.blocked = this.queue.peek()
  }

  /** Prepares a decision. False if no call waits, or there is no permit. */
  private prepare(): boolean {
    const { arriving, gate, queue } = this
    const waiting = arriving === undefined ? queue.size : 1
    if (gate === undefined) return waiting > 0
    const wanted = Math.min(waiting, this.port.batch)
    gate.take(wanted)
    if (wanted === 0 || gate.inHand <= 0) return false
    if (arriving === undefined) this.events.deciding?.(this.next)
    return true
  }

  /** The calls that are decided on next. */
  get next(): ReadonlyArray<H> {
    const next: Array<H> = []
    const max = this.gate?.inHand ?? 1
    for (const hold of this.heads(this.port.batch)) if (next.push(hold) >= max) break
    return next
  }

  /** The first calls in the order of service. */
  private heads(max: number): Iterable<H> {
    if (this.arriving !== undefined) return [this.arriving]
    return this.events.heads?.(max) ?? this.queue.inOrder()
  }

  private readonly play: QueueDecision<LineDecision<T, H>, T["state"]> = (draft, now, max) => {
    const { gate, law, port } = this
    const weight = this.arriving?.alone ?? this.queue.weight
    const outcomes: Array<Outcome<T, H>> = []
    let free = gate?.inHand ?? Infinity
    let head: H | undefined
    let blocked: Blocked | undefined
    for (const hold of this.heads(max)) {
      if (free <= 0 || outcomes.length >= max) break
      const { ask } = hold
      const answer: object = law.admit(draft, port.id, hold, weight, now)
      if ("by" in answer) {
        blocked = answer as Blocked
        head = hold
        break
      }
      if (!(answer instanceof Refused)) free--
      outcomes.push({ hold, ask, answer })
    }
    law.wait(draft, port.id, head, weight)
    return { outcomes, head, blocked, isNews: outcomes.length > 0 }
  }

  /** Carries out a decision. Charges of callers that have left, or that come too late, are given back. */
  private readonly played: Done<LineDecision<T, H>, T["state"]> = ({ blocked, head, outcomes }, by, late) => {
    const isLate = late && this.law.expires
    let settled = 0
    for (const outcome of outcomes) if (this.carryOut(outcome, by, isLate)) settled++
    if (blocked !== undefined) head!.stopped(blocked)
    this.blocked = head
    // Calls that would have been late still wait.
    if (isLate && outcomes.length > 0) this.decide()
    return settled > 0 && this.prepare()
  }

  private carryOut({ answer, ask, hold }: Outcome<T, H>, by: ChargedPort<T["state"]>, isLate: boolean): boolean {
    const isWaiting = hold.phase === "waiting"
    if (answer instanceof Refused) {
      if (isWaiting) this.refuse(hold, answer.reason)
      return isWaiting
    }
    const goes = isWaiting && !isLate && hold.claim?.isTaken !== true
    if (goes) this.grant(hold, ask, answer, by)
    else by.transact((draft, now) => this.law.release(draft, by.id, answer, now))
    return goes
  }

  private grant(hold: H, ask: T["ask"], grant: T["grant"], by: ChargedPort<T["state"]>): void {
    const { claim, flow } = hold
    if (claim !== undefined) claim.isTaken = true
    hold.phase = "held"
    hold.ask = ask
    hold.grant = grant
    hold.chargedPort = by
    if (this.gate !== undefined) this.gate.inHand--
    if (hold === this.arriving) this.arriving = undefined
    if (flow !== undefined) this.queue.serve(hold)
    this.events.granted(hold)
    if (!hold.isAwaited) this.queue.forget()
    hold.resolve()
  }

  // ---------------------------------------------------------------------------
  // Ends
  // ---------------------------------------------------------------------------

  /**
   * Ends a hold, and replaces its charge by what `settle` charges. That returns the part of its cost in the queue that it has used. False if
   * it is not held: only the first end counts.
   */
  end(hold: H, settle: (draft: T["state"], id: string, now: number) => number): boolean {
    if (!hold.isOpen) return false
    hold.phase = "ended"
    this.gate?.release()
    const { id } = hold.chargedPort!
    this.queue.correct(
      hold,
      hold.chargedPort!.transact((draft, now) => settle(draft, id, now))
    )
    return true
  }

  /** Ends a hold as {@link end} does, or removes it if it still waits, and decides on the next calls. False if it was not held. */
  settle(hold: H, settle: (draft: T["state"], id: string, now: number) => number): boolean {
    if (hold.phase === "waiting") this.leave(hold)
    if (!this.end(hold, settle)) return false
    this.decide()
    return true
  }

  /** Removes a call that waits. */
  leave(hold: H): void {
    const wasHead = this.queue.peek() === hold
    hold.phase = "ended"
    this.queue.remove(hold)
    if (wasHead) this.decide()
  }

  /** Refuses a call that waits. */
  refuse(hold: H, refusal: T["refusal"]): void {
    hold.refusal = refusal
    this.dismiss(hold)
    this.events.refused?.(hold)
  }

  /** Ends all waits: with a refusal, or without one if the line has closed. */
  clear(refusal?: T["refusal"]): void {
    const waiting = Array.from(this.queue.inOrder())
    if (this.arriving !== undefined) waiting.push(this.arriving)
    for (const hold of waiting) {
      if (refusal === undefined) this.dismiss(hold)
      else this.refuse(hold, refusal)
    }
  }

  private dismiss(hold: H): void {
    hold.phase = "ended"
    if (hold === this.arriving) this.arriving = undefined
    this.queue.remove(hold)
    hold.resolve()
  }
}
