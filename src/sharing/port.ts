/**
 * The port to the state of a pool, and the one way to change it: `transact`.
 *
 * A step is a pure function of a draft of the state and a time; the draft becomes the new state, and a `state` that was read is
 * never changed afterwards. An observation (`transact(step)`) takes effect at once. A decision on waiting calls
 * (`transact(decision, done)`) takes effect when it is stored. If the state belongs to one process, that is at once. If processes
 * share it, that is the next commit, and the decision is played again whenever another process was faster. A caller need not know
 * which port it has.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type { Blocked } from "../admission/blocked.ts"
import type { PlaceExchange, PlaceLearner } from "../domain/placeCalls.ts"
import type { Store } from "./models.ts"
import type { LedgerState } from "./ledger.ts"
import type { Config, PoolState } from "./state.ts"
import type { TreeState } from "./tree.ts"
import type { OpenedWindows, WindowsOptions } from "./toldWindows.ts"

/** Changes only the draft. */
export type StateStep<A, S = PoolState> = (draft: S, now: number) => A

/** The facts about a decision that a port needs. */
export interface Decided {
  /** Whether a call was admitted or refused. */
  readonly isNews: boolean
  /** Why the first call that still waits has to wait. */
  readonly blocked: Blocked | undefined
}

/** Decides on up to `max` of the first waiting calls. It may be played more often than it is stored. */
export type QueueDecision<A extends Decided, S = PoolState> = (draft: S, now: number, max: number) => A

/**
 * Called when a decision is stored, with its answer and the port that has charged the admitted calls. If `isLate`, these calls
 * would be sent later than other processes assume. Returns whether there is more to decide.
 */
export type Done<A, S = PoolState> = (answer: A, by: ChargedPort<S>, isLate: boolean) => boolean

/** The port that has charged a call. Events of the call are reported to it. */
export interface ChargedPort<S = PoolState> extends Pick<Port<S>, "id" | "transact"> {}

export interface Port<S = PoolState> {
  /** The name of this process in the state. */
  readonly id: string
  /** How many calls are decided on together. */
  readonly batch: number
  /** How late `done` may be called, in milliseconds. If 0, it is called before `transact` returns. */
  readonly lag: number
  /** Milliseconds of the clock that the state is kept by. */
  readonly now: () => number
  /** The state with everything that is known here, stored or not. */
  readonly state: S
  /** The same, for a look that ends before the next step: a later one may write its draft onto it. */
  readonly current: S
  readonly transact: {
    <A>(observation: StateStep<A, S>): A
    /** Plays the decision again, without being asked, when the first waiting call may be admitted. */
    <A extends Decided>(decision: QueueDecision<A, S>, done: Done<A, S>): void
  }
  /** Whether everything that happened here is stored. */
  readonly isStored: boolean
  /** Whether the state outlives this port, because a store has it. */
  readonly outlives: boolean
  /** Tells the other processes that this one has left. */
  readonly close: Effect.Effect<void>
}

/** How old the state behind a status may be, in milliseconds. */
const lookMillis = 5_000

/** Reads the state of a port for its status: as of the last exchange with the store. If the last look is long ago, another one follows. */
export class Looks {
  private lookedAt = -Infinity

  look<S>(port: Pick<Port<S>, "lag" | "now" | "state" | "transact">): S {
    if (port.lag > 0 && port.now() > this.lookedAt + lookMillis) {
      this.lookedAt = port.now()
      port.transact(() => undefined)
    }
    return port.state
  }
}

/** Runs an effect after this many milliseconds. Calling the result cancels it. */
export type After = (millis: number, then: Effect.Effect<void>) => () => void

// -----------------------------------------------------------------------------
// Opening a port
// -----------------------------------------------------------------------------

/** The options of the port of a shared pool or ledger. */
export interface PortOptions<G = Config> {
  readonly name: string
  /** The name of this process in the state. No other process may have it. */
  readonly id: string
  /** The configuration that it is started with. */
  readonly config: G
  readonly clock: Clock.Clock
  readonly after: After
  /** Called when another process has changed the limits. */
  readonly configured: () => void
  /** Called when the store has failed for some time, and waiting calls can no longer be admitted in time. */
  readonly unreachable: (cause: unknown, failingFor: Duration.Duration) => void
}

/** A name of this process in the states, which no other has. */
export const newId = Effect.map(Effect.all([Random.nextInt, Random.nextInt]), (parts) => parts.join("."))

/** The options with which a process opens its ports: its name in the states, its clock, and timers that end with the scope. */
export const opener: Effect.Effect<Pick<PortOptions, "id" | "clock" | "after">, never, Scope.Scope> = Effect.gen(
  function* () {
    const runTimer = yield* FiberSet.makeRuntime<never>()
    return {
      id: yield* newId,
      clock: yield* Clock.Clock,
      after: (millis, then) => {
        const timer = runTimer(Effect.andThen(Effect.sleep(millis), then))
        return () => timer.interruptUnsafe()
      }
    }
  }
)

/** The options of an exchange of answers. */
export interface AnswersOptions extends Pick<PortOptions, "id" | "clock"> {
  readonly fork: (effect: Effect.Effect<void>) => unknown
  readonly learner: PlaceLearner
}

/**
 * A store, and how to open a port to a pool, a ledger or a tree in it. The layer of the store brings the code of shared states, so a
 * program without a store does not load it.
 */
export interface Sharing extends Store {
  readonly openPool: (options: PortOptions) => Port
  readonly openLedger: (options: PortOptions<LedgerState["config"]>) => Port<LedgerState>
  readonly openTree: (options: PortOptions<TreeState["config"]>) => Port<TreeState>
  readonly openWindows: (options: WindowsOptions & Pick<PortOptions, "after" | "clock" | "id">) => OpenedWindows
  readonly openAnswers: (options: AnswersOptions) => PlaceExchange
}

/** The store that a budget shares with other processes. Without one, the budget is kept in the memory of this process. */
export const BudgetStore = Context.Reference<Sharing | undefined>("floodgate/BudgetStore", {
  defaultValue: () => undefined
})
