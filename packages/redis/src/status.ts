/** Reads the shared pools in Redis, without changing them. */
import * as Effect from "effect/Effect"
import type { StoreError } from "floodgate/BudgetStore"
import { type SharedPoolStatus, sharedStatusOf } from "floodgate/internal"
import * as RedisClient from "./client.ts"
import * as RedisStore from "./store.ts"

export type { DimensionStatus, ProcessStatus, SharedPoolStatus } from "floodgate/internal"

/**
 * The Redis server, and the prefix of the pools.
 *
 * @category options
 * @since 0.1.0
 */
type StatusOptions = {
  readonly url: string
  /** @default "floodgate" */
  readonly prefix?: string | undefined
}

const look = Effect.fnUntraced(function* (client: RedisClient.RedisConnection, prefix: string) {
  const store = RedisStore.make(prefix, client.send)
  const pools: Array<SharedPoolStatus> = []
  for (const key of [...(yield* client.keys(RedisStore.pattern(prefix)))].sort()) {
    const name = RedisStore.nameOf(prefix, key)
    const stored = name === undefined ? undefined : yield* store.read(name)
    const pool = stored === undefined ? undefined : sharedStatusOf(name!, stored)
    if (pool !== undefined) pools.push(pool)
  }
  return pools
})

/**
 * All pools under a prefix: their levels, and what each process holds and waits for. It only reads.
 *
 * **Example** (Calls in flight of each process)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as FloodgateRedis from "@floodgate/redis"
 *
 * const program = Effect.gen(function* () {
 *   const pools = yield* FloodgateRedis.status({ url: "redis://127.0.0.1:6379" })
 *   for (const { pool, processes } of pools) yield* Effect.log(pool, processes.map(({ inFlight, name }) => [name, inFlight]))
 * })
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const status = (options: StatusOptions): Effect.Effect<ReadonlyArray<SharedPoolStatus>, StoreError> =>
  Effect.scoped(
    Effect.flatMap(RedisClient.connect(options.url), (client) => look(client, options.prefix ?? "floodgate"))
  )
