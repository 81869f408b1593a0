/**
 * Where the state of a pool is, and the one way to change it: `transact`.
 *
 * A step is a pure function of a draft of the state and a time. What it leaves becomes the state; what was published is never
 * changed. An observation (`transact(step)`) takes effect at once. A decision on waiting calls (`transact(decision, done)`)
 * takes effect when it is stored: at once where the state is this process's own, and with the next commit where processes
 * share it, which play it again whenever another one was faster. Nobody asks which port it has.
 */
import type * as Effect from "effect/Effect"
import type * as Law from "../pacing/law.ts"
import type * as Memory from "../pacing/memory.ts"
import type * as State from "./state.ts"

/** Changes the draft that it is given, and nothing else. */
export type Step<A> = (draft: State.State, now: number) => A

/** What a port has to know of a decision. */
export interface Decided {
  /** Whether a call was admitted or refused. */
  readonly isNews: boolean
  /** What the first call that still waits waits for. */
  readonly blocked: Law.Blocked | undefined
}

/** Decides on the first waiting calls, on no more than `max`. It may be played more often than it is stored. */
export type Decision<A extends Decided> = (draft: State.State, now: number, max: number) => A

/**
 * Called with what a decision that took effect has answered, and the port that has the charges of the calls that it admitted.
 * `isLate`: they would go out later than others reckon with. Returns whether there is more to decide.
 */
export type Done<A> = (answer: A, by: Home, isLate: boolean) => boolean

/** Where the charge of a call is, so that what happens to the call is observed there. */
export interface Home extends Pick<Port, "id" | "transact"> {}

export interface Port {
  /** This process, as the state names it. */
  readonly id: string
  /** How many calls are decided on together. */
  readonly batch: number
  /** How late `done` may come, in milliseconds: at 0 it comes before `transact` returns. */
  readonly lag: number
  /** Milliseconds of the clock that the state is kept by. */
  readonly now: () => number
  /** What is known here: everything up to now, as if it were stored. */
  readonly state: State.State
  readonly transact: {
    <A>(observation: Step<A>): A
    /** A decision is asked for again by the port itself when its first call may go. */
    <A extends Decided>(decision: Decision<A>, done: Done<A>): void
  }
  /** Whether what happened here is stored. */
  readonly isStored: boolean
  /** What has to be kept for a port that is opened again; undefined where the store keeps it. */
  readonly rest: Memory.Rest | undefined
  /** Says that this process is gone. */
  readonly close: Effect.Effect<void>
}

/** Runs an effect after so many milliseconds, unless the result is called before. */
export type After = (millis: number, then: Effect.Effect<void>) => () => void
