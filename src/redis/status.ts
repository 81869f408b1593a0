/**
 * Who holds what, across processes.
 */
import * as Effect from "effect/Effect"
import type { RedisError } from "effect/persistence/Redis"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { StoreUnavailable } from "../BudgetStore.ts"
import type { Snapshot } from "../BudgetStore.ts"
import type * as Limits from "../Limits.ts"
import * as Client from "./client.ts"
import * as Connection from "./connection.ts"
import type { Reply, SnapshotReply } from "./wire.ts"
import * as Wire from "./wire.ts"

/**
 * One process as Redis knows it.
 *
 * @category models
 * @since 0.1.0
 */
export interface ProcessStatus {
  readonly name: string
  /** Milliseconds until it is taken for dead, unless it gives a sign of life. */
  readonly leaseMillis: number
  readonly inFlight: number
  /** What it holds, in sum. */
  readonly held: Limits.Charge
  /** What the head of its queue waits for; `undefined` when nobody waits. */
  readonly waiting: Limits.Charge | undefined
}

/**
 * One pool as Redis knows it.
 *
 * @category models
 * @since 0.1.0
 */
export interface SharedPoolStatus {
  readonly pool: string
  readonly snapshot: Snapshot
  readonly processes: ReadonlyArray<ProcessStatus>
  readonly inFlight: number
  /** Calls that may be in flight in all processes together. */
  readonly allowed: number
  /** Calls of dead processes that nobody has settled. */
  readonly lost: number
  /**
   * How the state came to be: `"new"`; from empty levels because it was `"wiped"`; or `"damaged"`, where it could not be
   * read or reservations were missing, and processes said again what they hold.
   */
  readonly origin: "new" | "wiped" | "damaged"
}

/**
 * Where to look.
 *
 * @category options
 * @since 0.1.0
 */
export interface StatusOptions {
  readonly url: string
  /** @default "floodgate" */
  readonly prefix?: string | undefined
}

type HoldersReply = readonly [
  processes: ReadonlyArray<
    readonly [
      owner: string,
      lease: number,
      count: number,
      held: ReadonlyArray<number>,
      waiting: ReadonlyArray<number> | false
    ]
  >,
  inFlight: number,
  allowed: number,
  origin: SharedPoolStatus["origin"],
  lost: number
]

const some = (amounts: ReadonlyArray<number>): Limits.Charge =>
  Wire.toCharge(amounts.slice(0, 4).map((amount) => (amount < 0 ? false : amount)))

const poolStatus = (pool: string, [now, , , , , , , replies]: Reply): SharedPoolStatus => {
  const [processes, inFlight, allowed, origin, lost] = replies[1] as HoldersReply
  return {
    pool,
    snapshot: Wire.toSnapshot(replies[0] as SnapshotReply, now),
    processes: processes
      .map(([owner, leaseMillis, count, held, waiting]) => ({
        name: decodeURIComponent(owner),
        leaseMillis,
        inFlight: count,
        held: some(held),
        waiting: waiting === false ? undefined : some(waiting)
      }))
      .sort((a, b) => (a.name < b.name ? -1 : 1)),
    inFlight,
    allowed: allowed < 0 ? Infinity : allowed,
    origin,
    lost
  }
}

const scan = (client: Client.Client, pattern: string, cursor = "0"): Effect.Effect<Array<string>, RedisError> =>
  Effect.flatMap(
    client.send<[string, Array<string>]>("SCAN", cursor, "MATCH", pattern, "COUNT", "500"),
    ([next, keys]) =>
      next === "0" ? Effect.succeed(keys) : Effect.map(scan(client, pattern, next), (more) => [...keys, ...more])
  )

const look = (connection: Client.Connection, prefix: string) =>
  Effect.gen(function* () {
    const client = yield* connection
    const found = yield* scan(client, Connection.statePattern(prefix))
    const pools = [...new Set(found)].flatMap((key) => Connection.poolOfKey(prefix, key) ?? []).sort()
    const seen: Array<SharedPoolStatus> = []
    for (const pool of pools) {
      const text = yield* Connection.send(connection, {
        keys: Connection.keysOf(prefix, pool),
        owner: "",
        request: JSON.stringify([0, 0, 0, [["snapshot"], ["holders"]]]),
        leaseMillis: 1,
        lost: "keep"
      })
      const reply = JSON.parse(text) as Reply | readonly [number, 0]
      // Between the scan and the look it has gone.
      if (reply[1] !== 0) seen.push(poolStatus(pool, reply as Reply))
    }
    return seen
  }).pipe(Effect.mapError((cause) => new StoreUnavailable({ pool: "*", cause })))

/**
 * All pools under a prefix as they stand: levels, and who holds and waits for what in which process. It only looks.
 *
 * @category combinators
 * @since 0.1.0
 */
export const status = (options: StatusOptions): Effect.Effect<ReadonlyArray<SharedPoolStatus>, StoreUnavailable> =>
  Effect.scoped(
    Effect.flatMap(Client.connect(options.url), (connection) => look(connection, options.prefix ?? "floodgate"))
  )

/**
 * The status every `millis`, over one connection.
 *
 * @category combinators
 * @since 0.1.0
 */
export const watch = (
  options: StatusOptions & { readonly millis: number }
): Stream.Stream<ReadonlyArray<SharedPoolStatus>, StoreUnavailable> =>
  Stream.unwrap(
    Effect.map(Client.connect(options.url), (connection) =>
      Stream.fromEffectSchedule(look(connection, options.prefix ?? "floodgate"), Schedule.spaced(options.millis))
    )
  )
