/** The port of a pool or a ledger that belongs to one process: a `Ref`, and a timer for the first waiting call. */
import * as Effect from "effect/Effect"
import { constVoid } from "effect/Function"
import * as Ref from "effect/Ref"
import type { After, Decided, QueueDecision, Done, Port, StateStep } from "./port.ts"
import type * as State from "./state.ts"

export class LocalPort<S = State.PoolState> implements Port<S> {
  readonly id: string
  readonly batch = 1
  readonly lag = 0
  readonly isStored = true
  readonly outlives = false
  readonly close = Effect.sync(() => this.stop())
  readonly now: () => number
  private readonly after: After
  private readonly ref: Ref.Ref<S>
  private readonly copy: (state: S, onto?: S) => S
  /** The state before, if nobody outside has it: the next draft is written onto it. */
  private spare: S | undefined = undefined
  /** Whether somebody outside has the state, as whoever opened the port does. */
  private isOut = true
  private timer: { readonly at: number; readonly cancel: () => void } | undefined = undefined

  /** `copy` may write onto a state that nobody needs any longer. */
  constructor(copy: (state: S, onto?: S) => S, id: string, state: S, now: () => number, after: After) {
    this.copy = copy
    this.id = id
    this.now = now
    this.after = after
    this.ref = Ref.makeUnsafe(state)
  }

  /** A port of its own to a state in which waiting calls go on when others end, so that nothing is done at a time. */
  static untimed<S>(copy: (state: S) => S, state: S, now: () => number): LocalPort<S> {
    return new LocalPort(copy, "here", state, now, () => constVoid)
  }

  get state(): S {
    this.isOut = true
    return this.current
  }

  get current(): S {
    return Ref.getUnsafe(this.ref)
  }

  transact<A>(observation: StateStep<A, S>): A
  transact<A extends Decided>(decision: QueueDecision<A, S>, done: Done<A, S>): void
  transact<A extends Decided>(step: QueueDecision<A, S>, done?: Done<A, S>): A | void {
    if (done === undefined) return this.modify(step)
    let answer: A
    do answer = this.modify(step)
    while (done(answer, this, false))
    if (answer.blocked !== undefined) this.decideIn(answer.blocked.millis, step, done)
  }

  /** Cancels the timer. */
  stop(): void {
    this.timer?.cancel()
    this.timer = undefined
  }

  /** Plays a step on a draft and publishes that. A fiber for `Ref.set` only is cheaper than one that runs the step, too. */
  private modify<A>(step: QueueDecision<A & Decided, S> | StateStep<A, S>): A {
    const { current, spare } = this
    this.spare = undefined
    const draft = this.copy(current, spare)
    const answer = step(draft, this.now(), this.batch)
    Effect.runFork(Ref.set(this.ref, draft))
    this.spare = this.isOut ? undefined : current
    this.isOut = false
    return answer
  }

  /** An earlier timer stays: when it fires, it decides and sleeps again. */
  private decideIn<A extends Decided>(millis: number, decision: QueueDecision<A, S>, done: Done<A, S>): void {
    const sleep = Math.ceil(millis)
    const at = this.now() + sleep
    if (millis === Infinity || at >= (this.timer?.at ?? Infinity)) return
    this.timer?.cancel()
    const wake = Effect.sync(() => {
      this.timer = undefined
      this.transact(decision, done)
    })
    this.timer = { at, cancel: this.after(sleep, wake) }
  }
}
