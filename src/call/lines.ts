/** The lines in which a call must have a hold before it is queued in its pool. */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Budget from "../Budget.ts"
import type { Purse } from "../domain/spending/models.ts"
import type { Hold } from "../line/hold.ts"
import type { Paying } from "../money/paying.ts"

/**
 * A hold that the cost of its call settles, and the tokens that it used if it was made. Without a cost it is settled as it was reserved;
 * 0 without tokens gives it back.
 */
export interface CallHold extends Pick<Hold, "isOpen" | "listen" | "phase"> {
  readonly settle: (cost: number | undefined, tokens?: number) => void
}

/** A line as one call sees it. */
export interface CallLine {
  /** The refusal of the call, if it is known before it asks. */
  readonly refused: () => Budget.BudgetError | undefined
  readonly take: () => CallHold
  /** Why its hold was refused, or cannot wait any longer. */
  readonly ended: () => Budget.BudgetError
}

/** Finds the line of a call. */
export interface LineOf {
  (call: { readonly paying: Paying; readonly clock: Clock.Clock }): CallLine
  /** The starter of further agents, if the line counts agents. */
  readonly starter?: Starter | undefined
}

/** Starts agents where they are counted. */
export interface Starter<E = unknown> {
  /** The job that counts them. */
  readonly job: object
  readonly start: (key: string, context: Context.Context<never>) => StartedAgent<E>
}

/** A job that counts its agents, and what they spend. */
export interface CountedJob<E = unknown> {
  /** The purses from which all calls pay. */
  readonly purses: ReadonlyArray<Purse>
  /** Starts the agents that the job begins with. */
  readonly starter: Starter<E>
}

/** An agent that is counted as running until its end, or may not start. */
export interface StartedAgent<E = unknown> {
  /** The line of its calls. */
  readonly line: LineOf
  /** Waits until it may start, or fails with the reason why it may not. */
  readonly admitted: Effect.Effect<void, E>
  /** Ends it, or its wait. Only the first end counts. */
  readonly end: () => void
}

/** Lines for the calls of an effect, besides those of its accounts and purses. They are taken first, in this order. */
export const Lines: Context.Reference<ReadonlyArray<LineOf>> = Context.Reference<ReadonlyArray<LineOf>>(
  "floodgate/Governor/Lines",
  { defaultValue: () => [] }
)
