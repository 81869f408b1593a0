/** Caps and purses in their public form, and the purses of the context. */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Input from "../input/checks.ts"
import { type CapInUnits, type Kept, perDollar, type Period, uncapped } from "./ledger.ts"
import * as Months from "./months.ts"

// -----------------------------------------------------------------------------
// Caps
// -----------------------------------------------------------------------------

type MonthInput = "month" | `month ${"from" | "in"} ${string}`

/**
 * The most that may be spent.
 *
 * @stability stable
 * @category models
 * @since 0.2.0
 */
export interface Cap {
  /** US dollars, at most a million. */
  readonly dollars: number
  /**
   * `"day"` from midnight to midnight, UTC; `"month"` from its first day, or from another one, of a time zone or UTC, such as
   * `"month from 15 in Europe/Berlin"` (a month without that day begins on its last one); or a window of any length, such as
   * `"5 hours"`. A window is up to a sixtieth longer than stated, because costs are summed in 60 parts of it instead of being stored one
   * by one.
   *
   * @default in all
   */
  readonly per?: "day" | MonthInput | Duration.Input | undefined
  /**
   * The amount reserved for a running call. With `"most"`, the most that it can cost, the cap is never exceeded. With `"expected"`,
   * what it is expected to cost, running calls can exceed the cap by what they cost beyond that. Choose `"expected"` for clients
   * that set a `max_tokens` they never use: Claude Code's 128,000 cost dollars a call.
   *
   * @default "most"
   */
  readonly reserve?: "most" | "expected" | undefined
}

const maxDollars = 1e6

/** Checks an amount that a cap allows. */
export const dollars: Input.Check = Input.number(
  `a number > 0, at most ${maxDollars}`,
  (value) => value > 0 && value <= maxDollars
)

const monthOf = (per: unknown): Months.Month | undefined => (typeof per === "string" ? Months.parse(per) : undefined)

const period = Input.that(
  '"day", "month", "month from 15 in Europe/Berlin", or a finite duration > 0 such as "5 hours"',
  (value) => value === "day" || monthOf(value) !== undefined || Input.finiteSpan(value) === undefined
)

/** Checks a cap. */
export const check: Input.Check = Input.options<Cap>(
  { dollars, per: period, reserve: Input.oneOf("most", "expected") },
  "dollars"
)

const periodOf = (per: Cap["per"]): Period => {
  if (per === undefined) return { _tag: "Ever" }
  if (per === "day") return { _tag: "Day" }
  const month = monthOf(per)
  return month === undefined
    ? { _tag: "Window", millis: Input.millisOf(per as Duration.Input) }
    : { _tag: "Month", ...month }
}

/** A checked cap, with its limit in the units of a ledger. */
export const inUnits = (cap: Cap | undefined): CapInUnits =>
  cap === undefined
    ? uncapped
    : { limit: Math.round(cap.dollars * perDollar), period: periodOf(cap.per), reserve: cap.reserve ?? "most" }

// -----------------------------------------------------------------------------
// Purses
// -----------------------------------------------------------------------------

/**
 * The status of a purse, in dollars.
 *
 * @stability stable
 * @category models
 * @since 0.2.0
 */
export interface Status {
  /** The amount spent in the period of the cap. */
  readonly spent: number
  /** The amount spent in all. */
  readonly total: number
  /** The amount reserved for running calls. */
  readonly held: number
  /** The cap in force; undefined without one. */
  readonly limit: number | undefined
  /** The amount left of the cap, `held` included; undefined without a cap. */
  readonly left: number | undefined
  /** When the period ends, or the first part of its window, in milliseconds since the epoch; undefined if never. */
  readonly until: number | undefined
  /** Whether calls are refused because the cap is spent: since a refusal, until a call of that cost fits again. */
  readonly isReached: boolean
  /** The number of calls of this process that wait for what running calls have reserved. */
  readonly queued: number
  /** The first of them in the order of service, at most 32. */
  readonly waiting: ReadonlyArray<{
    readonly agent: string
    /** The amount that it asks for, in dollars. */
    readonly dollars: number
    readonly waitedMillis: number
  }>
  /** The number of calls of this process to models without a price, which are in none of these sums. */
  readonly unpriced: number
}

/**
 * Counts the costs of calls, up to a cap.
 *
 * @stability stable
 * @category models
 * @since 0.2.0
 */
export interface Purse {
  readonly name: string
  /** Whether it is in a store, where other processes pay from it too. */
  readonly isShared: boolean
  readonly status: Effect.Effect<Status>
  /** Changes or removes the cap while calls run. What was spent still counts, and calls that fit now stop waiting. */
  readonly resize: (cap: Cap | undefined) => Effect.Effect<void>
  /** Forgets what was spent in the period of the cap. What running calls reserve still counts. */
  readonly reset: Effect.Effect<void>
  /** The state to store for the next start of the process, as plain JSON. A purse in a store needs none. */
  readonly kept: Effect.Effect<Kept>
  /** The state that a governor charges; opaque to everybody else. A copy of a purse shares it. */
  readonly internals: unknown
}

/** The running ledger of a purse in its public form. */
export const ledgerOf = <A>(purse: { readonly internals: unknown }): A => purse.internals as A

/** The purses that the calls of an effect pay from. */
export const Purses: Context.Reference<ReadonlyArray<Purse>> = Context.Reference<ReadonlyArray<Purse>>(
  "floodgate/Spending/Purses",
  { defaultValue: () => [] }
)

// -----------------------------------------------------------------------------
// Resets
// -----------------------------------------------------------------------------

type OnReset = (wait: { readonly until: number; readonly message: string }) => void

/** Called for each call that waits for a reset. Without a function, such calls are refused. */
export const Resets: Context.Reference<OnReset | undefined> = Context.Reference<OnReset | undefined>(
  "floodgate/Spending/Resets",
  { defaultValue: () => undefined }
)
