/** What a pool and its exchange with a store need of each other. */
import type * as Clock from "effect/Clock"
import type * as Effect from "effect/Effect"
import type * as Law from "../admission/law.ts"
import type * as State from "./state.ts"

/** The caller at the front of the queue, and the weight of all that wait. */
export interface Front extends State.Head {
  readonly cost: number
}

/** Which callers are admitted or refused, in order, and what the next one waits for. */
export interface Plan<W> {
  readonly outcomes: ReadonlyArray<Outcome<W>>
  /** By how much the admitted callers advance the process's start tag. */
  readonly served: number
  readonly blocked: Law.Blocked | undefined
  /** The first caller that still waits. */
  readonly front: Front | undefined
}

/** The decision on a caller. */
export interface Outcome<W> {
  readonly waiter: W
  /** Its ticket; undefined if it is refused. */
  readonly ticket: Law.Ticket | undefined
}

/** What the exchange needs of its pool. */
export interface Host<W> {
  readonly name: string
  readonly config: State.Config
  readonly clock: Clock.Clock
  readonly front: () => Front | undefined
  /** Decides which callers are admitted, and charges the law for them. `decide` tells what a caller waits for after `served` more. */
  readonly plan: (
    law: Law.Pool,
    now: number,
    decide: (front: Front, served: number) => Law.Blocked | undefined
  ) => Plan<W>
  /** Admits or refuses a caller. Returns false if it no longer waits. */
  readonly carryOut: (outcome: Outcome<W>) => boolean
  /** Refuses all waiting callers, because the store cannot be reached. */
  readonly refuseAll: (cause: unknown) => void
  readonly configure: (config: State.Config) => void
  readonly drain: () => void
  readonly after: (millis: number, then: Effect.Effect<void>) => () => void
}
