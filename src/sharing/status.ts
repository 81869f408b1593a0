/**
 * The state of a shared pool, in plain numbers.
 */
import type { Stored } from "./models.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import { type DimensionStatus, dimensionsOf } from "../pacing/status.ts"
import * as Members from "./members.ts"
import * as State from "./state.ts"
import * as Text from "./text.ts"

export type { DimensionStatus } from "../pacing/status.ts"

/**
 * One process, at its last commit.
 *
 * @category models
 * @since 0.1.0
 */
export interface ProcessStatus {
  readonly name: string
  /** The time since its last commit. */
  readonly silentMillis: number
  /** The time without a commit after which it is considered dead. */
  readonly leaseMillis: number
  readonly inFlight: number
  /** The sum of what its calls in flight have reserved, in the dimensions that the pool limits. */
  readonly held: Limits.Usage
  /** What the first call in its queue asks for; `undefined` if none waits. */
  readonly waiting: Limits.Usage | undefined
}

/**
 * One pool. If the store has no clock, this is its state at the last commit of any process.
 *
 * @category models
 * @since 0.1.0
 */
export interface SharedPoolStatus {
  readonly pool: string
  readonly dimensions: { readonly [D in Limits.Dimension]?: DimensionStatus }
  readonly inFlight: number
  /** The limit of calls in flight, of all processes together. */
  readonly allowed: number
  readonly pause: { readonly reason: "rateLimit" | "ramp" | "overload"; readonly leftMillis: number } | undefined
  readonly processes: ReadonlyArray<ProcessStatus>
  /** Why the stored state cannot be read. Nothing else is known in that case: delete the key of the pool. */
  readonly damaged?: string | undefined
}

/** The status of a pool from its stored state; `undefined` if it is the state of another version. */
export const statusOf = (key: string, { ageMillis = 0, value }: Stored): SharedPoolStatus | undefined => {
  const pool = State.poolOf(key)
  if (pool === undefined) return undefined
  let state: State.PoolState
  try {
    state = Text.decode(value)
  } catch (error) {
    const damaged = error instanceof Error ? error.message : String(error)
    return { pool, dimensions: {}, inFlight: 0, allowed: 0, pause: undefined, processes: [], damaged }
  }
  const { config, law, members } = state
  const time = state.time + Math.max(0, ageMillis)
  // As the next commit will find it: without the calls of processes that are considered dead by now.
  Members.absorb(state, time)
  Members.count(state)
  const dimensions = dimensionsOf(law, time)
  const limited = (charge: Amounts.Whole): Amounts.Charge =>
    Amounts.mapDimensions(charge, (amount, dimension) => (dimensions[dimension] === undefined ? undefined : amount))
  const left = law.gate.until - time
  return {
    pool,
    dimensions,
    inFlight: law.inFlight,
    allowed: Math.min(config.concurrency, law.window.size),
    pause: left > 0 ? { reason: law.gate.reason, leftMillis: left } : undefined,
    processes: Object.values(members)
      .filter((member) => !member.hasLeft && !Members.isDead(member, time))
      .map(({ at, head, held, inFlight, leaseMillis, name }) => ({
        name,
        silentMillis: time - at,
        leaseMillis,
        inFlight,
        held: limited(held),
        waiting: head && limited(head.charge)
      }))
      .sort((a, b) => (a.name < b.name ? -1 : 1))
  }
}
