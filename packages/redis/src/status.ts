/** Reads the shared pools and caps in Redis, without changing them. */
import * as Effect from "effect/Effect"
import type { Stored, StoreError } from "floodgate/BudgetStore"
import { SharedStatus } from "floodgate/internal"
import * as RedisClient from "./client.ts"
import * as RedisStore from "./store.ts"

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

/** Where Redis has a state. */
type KeyedState = { readonly key: string }

/** Shows up to `max` of the states under a prefix, and says how many there are: those of ledgers, or all others. */
const look = Effect.fnUntraced(function* <A extends object>(
  { prefix = "floodgate", url }: StatusOptions,
  isLedger: boolean,
  show: (name: string, stored: Stored) => A | undefined,
  max = Infinity
) {
  const client = yield* RedisClient.connect(url)
  const store = RedisStore.make(prefix, client.send)
  const keys = yield* client.keys(RedisStore.pattern(prefix))
  const names = keys
    .flatMap((key) => RedisStore.nameOf(prefix, key) ?? [])
    .filter((name) => (SharedStatus.ledgerOf(name) !== undefined) === isLedger)
  const found: Array<A & KeyedState> = []
  for (const name of names.sort().slice(0, max)) {
    const stored = yield* store.read(name)
    const shown = stored && show(name, stored)
    if (shown !== undefined) found.push({ ...shown, key: RedisStore.keyOf(prefix, name) })
  }
  return { found, count: names.length }
}, Effect.scoped)

/**
 * All pools under a prefix: their levels, and what each process holds and waits for. It only reads.
 *
 * **Example** (Calls in flight of each process)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as FloodgateRedis from "@floodgate/redis/internal"
 *
 * const program = Effect.gen(function* () {
 *   const pools = yield* FloodgateRedis.status({ url: "redis://127.0.0.1:6379" })
 *   for (const { pool, processes } of pools) yield* Effect.log(pool, processes.map(({ inFlight, name }) => [name, inFlight]))
 * })
 * ```
 *
 * @stability unstable
 * @category combinators
 * @since 0.1.0
 */
export const status = (
  options: StatusOptions
): Effect.Effect<ReadonlyArray<SharedStatus.SharedPoolStatus & KeyedState>, StoreError> =>
  Effect.map(look(options, false, SharedStatus.statusOf), ({ found }) => found)

/** The most caps that are read: callers of a gateway can invent agents, and each agent has a cap. */
const maxCaps = 1_000

/** The part of a cap that is used. */
const usedOf = ({ held, limit = Infinity, spent }: SharedStatus.SharedCapStatus): number => (spent + held) / limit

/**
 * The caps in dollars under a prefix, those that are used most first, and how many were left out. It only reads, at most 1,000 of them.
 *
 * **Example** (What is left of each cap)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as FloodgateRedis from "@floodgate/redis/internal"
 *
 * const program = Effect.gen(function* () {
 *   const { caps } = yield* FloodgateRedis.caps({ url: "redis://127.0.0.1:6379" })
 *   for (const { cap, limit, spent } of caps) yield* Effect.log(`${cap}: $${spent} of $${limit}`)
 * })
 * ```
 *
 * @stability unstable
 * @category combinators
 * @since 0.4.0
 */
export const caps = (
  options: StatusOptions
): Effect.Effect<
  { readonly caps: ReadonlyArray<SharedStatus.SharedCapStatus & KeyedState>; readonly more: number },
  StoreError
> =>
  Effect.map(look(options, true, SharedStatus.capOf, maxCaps), ({ count, found }) => ({
    caps: found.sort((a, b) => usedOf(b) - usedOf(a)),
    more: Math.max(0, count - maxCaps)
  }))
