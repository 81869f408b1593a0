/**
 * One budget for many processes, in Redis or Valkey.
 *
 * Limits belong to an organisation, not to a process. Under this store all processes that name the same prefix and pool
 * share one set of levels, pauses, learned limits, quotas and calls in flight. Everything else of a budget, its queue and
 * its options, stays as it was.
 *
 * **Details**
 *
 * A pool is one hash, which a process replaces in one step, if no other did meanwhile (see `BudgetStore`). Processes hold
 * leases: what a dead one had in flight returns when its lease is over. The time of a pool is that of the processes, so
 * the clock of the server does not matter.
 *
 * **Gotchas**
 *
 * - Redis must run scripts: any server from version 6.2, Valkey, or a cluster (each pool lies on one node of it).
 * - Give the server `maxmemory-policy noeviction`: a pool whose state is evicted and that no process remembers starts anew.
 *
 * **Example** (a budget in Redis)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as FloodgateRedis from "floodgate/redis"
 *
 * const shared = Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } }).pipe(
 *   Layer.provide(FloodgateRedis.layerStoreConfig({ whenAway: { wait: "30 seconds" } }))
 * )
 *
 * const program = Effect.provide(Budget.consume(1_000), shared)
 * ```
 *
 * @since 0.1.0
 */
import { hostname } from "node:os"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as BudgetStore from "../BudgetStore.ts"
import { invalid } from "../input/arguments.ts"
import * as Client from "./client.ts"
import * as Store from "./store.ts"

export { type SharedPoolStatus, status, watch } from "./status.ts"

/**
 * How processes share, and which of them.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends BudgetStore.Options {
  /**
   * The start of all names in Redis: processes that name the same share their budgets.
   *
   * Set it where programs with different limits use one Redis. With the default, two of them that have one set of limits
   * each share the pool "default".
   *
   * @default "floodgate"
   */
  readonly prefix?: string | undefined
  /**
   * What this process is called in a status.
   *
   * @default the name of the host
   */
  readonly name?: string | undefined
}

const defaultPrefix = "floodgate"

const sharing = ({ name = hostname(), prefix = defaultPrefix, ...options }: Options, send: Store.Send) =>
  BudgetStore.make(Store.make(prefix, send), { ...options, name })

/**
 * The store on a `Redis` service, such as `NodeRedis.layer` of `@effect/platform-node`.
 *
 * **Gotchas**
 *
 * Let the client fail while it is not connected; otherwise an outage is noticed by the timeout only. In a cluster let it
 * be one of the whole cluster: pools of another node fail.
 *
 * Throws a `RangeError` when a duration is not finite and above zero.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerStore = (options: Options = {}): Layer.Layer<never, never, Redis.Redis> =>
  Layer.effect(
    BudgetStore.BudgetStore,
    Effect.map(Redis.Redis, ({ send }) =>
      sharing(options, (_, [command = "", ...words]) =>
        Effect.mapError(send(command, ...words), ({ cause }) => new BudgetStore.StoreError({ cause }))
      )
    )
  )

/**
 * The store on the Redis server at an address, or on the cluster that the server belongs to, by the client that is
 * installed: `redis`, else `ioredis`. A server that is not there is away: the layer is built all the same.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when the address is invalid, and when a duration is not finite and above zero.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerStoreUrl = ({ url, ...options }: Options & { readonly url: string }): Layer.Layer<never> => {
  // It may hold a password, so that the error does not repeat it.
  if (!isAddress(url)) invalid("Redis: url", "an address such as redis://127.0.0.1:6379", "something else (not shown)")
  return Layer.effect(
    BudgetStore.BudgetStore,
    Effect.map(Client.connect(url), ({ send }) => sharing(options, send))
  )
}

const isAddress = (text: string): boolean => /^rediss?:$/.test(URL.parse(text)?.protocol ?? "")

const Address = Schema.String.check(
  Schema.makeFilter(isAddress, { expected: "an address such as redis://127.0.0.1:6379" })
)

/**
 * The store on the server that the configuration names: `REDIS_URL`, and `FLOODGATE_REDIS_PREFIX` for the prefix where the
 * options give none. Fails with a `ConfigError` when there is no address.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerStoreConfig = (options: Options = {}): Layer.Layer<never, Config.ConfigError> =>
  Layer.unwrap(
    Effect.gen(function* () {
      const url = yield* Config.schema(Schema.Redacted(Address), "REDIS_URL")
      const prefix = yield* Config.withDefault(Config.String("FLOODGATE_REDIS_PREFIX"), defaultPrefix)
      return layerStoreUrl({ ...options, prefix: options.prefix ?? prefix, url: Redacted.value(url) })
    })
  )
