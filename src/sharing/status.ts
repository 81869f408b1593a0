/**
 * The states of shared pools and ledgers, in plain numbers.
 */
import type { Stored } from "./models.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import { type DimensionStatus, dimensionsOf, type KnownFigure, knownOf } from "../pacing/status.ts"
import * as Ledger from "./ledger.ts"
import { ledgers } from "./ledgers.ts"
import { pools } from "./pools.ts"
import * as Processes from "./processes.ts"
import * as LedgerText from "./ledgerText.ts"
import * as State from "./state.ts"
import * as Text from "./text.ts"
import { utcAt } from "./utc.ts"

export { nameOf as ledgerOf } from "./ledgerText.ts"

/**
 * One process, at its last commit.
 *
 * @stability unstable
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
  /** The amounts that the first call in its queue asks for; `undefined` if none waits. */
  readonly waiting: Limits.Usage | undefined
}

/**
 * One pool. If the store has no clock, this is its state at the last commit of any process.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface SharedPoolStatus {
  readonly pool: string
  readonly dimensions: { readonly [D in Limits.Dimension]?: DimensionStatus }
  /** The known limits of the provider, with their sources and ages. */
  readonly known: ReadonlyArray<KnownFigure>
  readonly inFlight: number
  /** The limit of calls in flight, of all processes together. */
  readonly allowed: number
  readonly pause: { readonly reason: "rateLimit" | "ramp" | "overload"; readonly leftMillis: number } | undefined
  readonly processes: ReadonlyArray<ProcessStatus>
  /** Why the stored state cannot be read. Nothing else is known in that case: delete the key of the pool. */
  readonly damaged?: string | undefined
}

/**
 * A cap in dollars that processes share. If the store has no clock, this is its state at the last commit of any process.
 *
 * @stability unstable
 * @category models
 * @since 0.4.0
 */
export interface SharedCapStatus {
  /** The name of the purse, or the id of the cap of a gateway. */
  readonly cap: string
  /** The amount spent in the period of the cap. */
  readonly spent: number
  /** The amount reserved for running calls. */
  readonly held: number
  /** The cap; undefined if the purse only counts. */
  readonly limit: number | undefined
  /** When the period ends, or the first part of its window, in milliseconds since the epoch; undefined if never. */
  readonly until: number | undefined
  /** Why the stored state cannot be read. Nothing else is known in that case. */
  readonly damaged?: string | undefined
}

/** A state, or why it cannot be read. */
const decoded = <S>(decode: (text: string) => S, value: string): S | string => {
  try {
    return decode(value)
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** The status of a ledger from its stored state; `undefined` if the key is that of something else. */
export const capOf = (key: string, { ageMillis = 0, utc, value }: Stored): SharedCapStatus | undefined => {
  const cap = LedgerText.nameOf(key)
  if (cap === undefined) return undefined
  const state = decoded(LedgerText.decode, value)
  if (typeof state === "string") return { cap, spent: 0, held: 0, limit: undefined, until: undefined, damaged: state }
  const time = state.time + Math.max(0, ageMillis)
  // What dead processes held counts as spent.
  Processes.absorb(ledgers, state, utc ?? utcAt(state, time), time)
  const { held, limit, spent, until } = Ledger.statusOf(state, time)
  return { cap, spent, held, limit, until }
}

/** The status of a pool from its stored state; `undefined` if it is the state of another version. */
export const statusOf = (key: string, { ageMillis = 0, value }: Stored): SharedPoolStatus | undefined => {
  const pool = State.poolOf(key)
  if (pool === undefined) return undefined
  const state = decoded(Text.decode, value)
  if (typeof state === "string") {
    return { pool, dimensions: {}, known: [], inFlight: 0, allowed: 0, pause: undefined, processes: [], damaged: state }
  }
  const { config, law, members } = state
  const time = state.time + Math.max(0, ageMillis)
  // As the next commit will find it: without the calls of processes that are considered dead by now.
  Processes.absorb(pools, state, 0, time)
  pools.complete(state)
  const dimensions = dimensionsOf(law, time)
  const limited = (charge: Amounts.Whole): Amounts.Charge =>
    Amounts.mapDimensions(charge, (amount, dimension) => (dimensions[dimension] === undefined ? undefined : amount))
  const left = law.gate.until - time
  return {
    pool,
    dimensions,
    known: knownOf(law, time),
    inFlight: law.inFlight,
    allowed: Math.min(config.concurrency, law.window.size),
    pause: left > 0 ? { reason: law.gate.reason, leftMillis: left } : undefined,
    processes: Object.values(members)
      .filter((member) => !member.hasLeft && !Processes.isDead(member, time))
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
