/** The options of a pool, and the port that it opens with them. */
import type * as Clock from "effect/Clock"
import * as Memory from "../pacing/memory.ts"
import { LocalPort } from "../sharing/local.ts"
import type { After, Port, PortOptions, Sharing } from "../sharing/port.ts"
import * as State from "../sharing/state.ts"
import type { Event } from "../Events.ts"
import { monotonic } from "../domain/input/clock.ts"
import type * as Limits from "../Limits.ts"
import type { InFlightLimit } from "../domain/concurrency.ts"
import * as Rules from "../domain/rules.ts"
import type { PoolCounts } from "./metrics.ts"
import type { ClosedPool } from "./closedPools.ts"
import type { Wake } from "../line/waker.ts"

export interface PoolOptions {
  readonly name: string
  /** Its name without the account. Pools of one kind have the same limits. */
  readonly kind: string
  readonly limits: Limits.Limits
  readonly concurrency: InFlightLimit
  readonly maxQueued: number
  readonly order?: "fair" | "finish" | "finish-trusted" | undefined
  readonly counts: PoolCounts
  readonly clock: Clock.Clock
  /** The store that processes share; undefined if the pool belongs to this process. */
  readonly sharing: Sharing | undefined
  /** The unique name of this process in a shared state. */
  readonly id: string
  /** Runs an effect in the budget's scope after this many milliseconds. Calling the result cancels it. */
  readonly after: After
  /** Resumes a caller in a later task. */
  readonly wake: Wake
  /** Called when a status would show a change. */
  readonly changed: () => void
  /** Gets each event. */
  readonly observer: ((event: Event) => void) | undefined
  /** The memory of an earlier pool of its name. A store knows more than that. */
  readonly earlier?: ClosedPool | undefined
  /** Called when a call ends and the provider has refused the credential of every call so far. */
  readonly denied?: (() => void) | undefined
  /** Called when no call runs or waits any longer. */
  readonly idled?: (() => void) | undefined
}

/** The port of a pool: to the store that processes share, or to a state of its own. */
export const portOf = (
  { after, clock, concurrency, id, limits, name, earlier, sharing }: PoolOptions,
  called: Pick<PortOptions, "configured" | "unreachable">
): Port => {
  const rules = Rules.resolve(limits, earlier?.counting)
  const config = { rules, shares: Rules.shares(limits), concurrency: concurrency.max }
  if (sharing !== undefined) return sharing.openPool({ name, id, config, clock, after, ...called })
  const now = monotonic(clock)
  const state = State.make(config, now(), id)
  if (earlier !== undefined) Memory.resume(state.law, earlier.snapshot, now())
  return new LocalPort(State.copy, id, state, now, after)
}
