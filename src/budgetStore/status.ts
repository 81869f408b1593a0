/**
 * A pool as its store holds it, in plain numbers.
 */
import type { Stored } from "./models.ts"
import type { Pushback } from "../LlmError.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import { type DimensionStatus, dimensionsOf } from "../admission/status.ts"
import * as Fleet from "./fleet.ts"
import * as State from "./state.ts"

/**
 * One process, as of its last sign of life.
 *
 * @category models
 * @since 0.1.0
 */
export interface ProcessStatus {
  readonly name: string
  /** How long ago it gave its last sign of life. */
  readonly silentMillis: number
  /** After how long without one it is taken for dead. */
  readonly leaseMillis: number
  readonly inFlight: number
  /** What it holds of what the pool limits, in sum. */
  readonly held: Limits.Charge
  /** What the first of its queue waits for; `undefined` when nobody waits. */
  readonly waiting: Limits.Charge | undefined
}

/**
 * One pool as it stands; without a store's clock, as of the last sign of life of any process.
 *
 * @category models
 * @since 0.1.0
 */
export interface SharedPoolStatus {
  readonly pool: string
  readonly dimensions: Amounts.PerDimension<DimensionStatus>
  readonly inFlight: number
  /** Calls that may be in flight in all processes together. */
  readonly allowed: number
  readonly pause: { readonly reason: Pushback; readonly leftMillis: number } | undefined
  readonly processes: ReadonlyArray<ProcessStatus>
}

/** Reads the state of a pool under its key; `undefined` where it is of another version, or damaged. */
export const statusOf = (key: string, { ageMillis = 0, value }: Stored): SharedPoolStatus | undefined => {
  const pool = State.poolOf(key)
  if (pool === undefined) return undefined
  let state: State.State
  try {
    state = State.decode(value)
  } catch {
    return undefined
  }
  const { config, law, owners } = state
  const time = state.time + Math.max(0, ageMillis)
  // As the next process will find it: the calls of those that are taken for dead by then are over.
  Fleet.absorb(state, time)
  Fleet.count(state)
  const dimensions = dimensionsOf(law, time)
  const limited = (charge: Amounts.Whole): Limits.Charge =>
    Amounts.mapDimensions(charge, (amount, dimension) => (dimensions[dimension] === undefined ? undefined : amount))
  const left = law.gate.until - time
  return {
    pool,
    dimensions,
    inFlight: law.inFlight,
    allowed: Math.min(config.concurrency, law.window.size),
    pause: left > 0 ? { reason: law.gate.reason, leftMillis: left } : undefined,
    processes: Object.values(owners)
      .filter((owner) => !owner.hasLeft && !Fleet.isDead(owner, time))
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
