/**
 * One budget for many processes, in Redis or Valkey.
 *
 * Limits belong to an organisation, not to a process. With this store, all processes with the same prefix and pool share levels,
 * pauses, learned limits, quotas and calls in flight. Each process keeps its own queue and options.
 *
 * **Details**
 *
 * A pool is one hash. A process replaces it atomically, unless another process was faster (see `BudgetStore`). Processes hold
 * leases: the calls of a dead process end with its lease. The time of a pool is kept by the processes, so setting the clock of
 * the server does no harm.
 *
 * **Gotchas**
 *
 * - Redis must run scripts: any server from version 6.2, Valkey, a cluster (each pool is on one of its nodes), or a master with
 *   Sentinels.
 * - Effect marks its `Redis` service unstable: this package is made for `effect` `~4.1`.
 * - Set `maxmemory-policy noeviction` on the server: a pool starts anew if its state is evicted and no process knows it.
 *
 * **Example** (a budget in Redis)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as FloodgateRedis from "@floodgate/redis"
 *
 * const shared = Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } }).pipe(
 *   Layer.provide(FloodgateRedis.layerStoreConfig({ whenAway: { wait: "30 seconds" } }))
 * )
 *
 * const program = Effect.provide(Budget.consume(1_000), shared)
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
import { hostname } from "node:os"
import { pid } from "node:process"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as BudgetStore from "floodgate/BudgetStore"
import { Input, RedisAddress, storeChecks } from "floodgate/internal"
import * as RedisClient from "./client.ts"
import * as RedisStore from "./store.ts"

export { check } from "./check.ts"

/**
 * Which processes share a budget, and how.
 *
 * @stability unstable
 * @category options
 * @since 0.1.0
 */
export interface Options extends BudgetStore.Options {
  /**
   * The beginning of all keys in Redis. Processes with the same prefix share their budgets.
   *
   * Set it if programs with different limits use one Redis: with the same prefix, two programs that each have one set of limits
   * share the pool "default".
   *
   * @default "floodgate"
   */
  readonly prefix?: string | undefined
  /**
   * The name of this process in a status.
   *
   * @default the name of the host and the number of the process, such as `"vm/13010"`
   */
  readonly name?: string | undefined
}

const defaultPrefix = "floodgate"

const shared: Input.Checks<Options> = { ...storeChecks, prefix: Input.text }
const checkShared = Input.options(shared)
const checkUrl = Input.options<Options & { readonly url: string }>({ url: RedisAddress.check, ...shared }, "url")

const sharing = (
  { name = `${hostname()}/${pid}`, prefix = defaultPrefix, ...options }: Options,
  send: RedisStore.SendCommand
) => BudgetStore.layer(RedisStore.make(prefix, send), { ...options, name })

/**
 * The store on a `Redis` service, such as `NodeRedis.layer` of `@effect/platform-node`.
 *
 * **Gotchas**
 *
 * Configure the client to fail while it is not connected. Otherwise only the timeout notices an outage. For a cluster, use a
 * client of the whole cluster: pools on other nodes fail.
 *
 * Throws a `RangeError` if a duration is not finite or not above zero.
 *
 * **Example** (Over the client of @effect/platform-node)
 *
 * ```ts
 * import * as NodeRedis from "@effect/platform-node/NodeRedis"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as FloodgateRedis from "@floodgate/redis"
 *
 * const shared = Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } }).pipe(
 *   Layer.provide(FloodgateRedis.layerStore({ prefix: "production" })),
 *   Layer.provide(NodeRedis.layer({ enableOfflineQueue: false }))
 * )
 * ```
 *
 * @stability unstable
 * @category layers
 * @since 0.1.0
 */
export const layerStore = (options: Options = {}): Layer.Layer<never, never, Redis.Redis> => {
  Input.check("FloodgateRedis.layerStore", checkShared, options)
  return Layer.unwrap(
    Effect.map(Redis.Redis, ({ send }) =>
      sharing(options, (_, [command = "", ...words]) =>
        Effect.mapError(send(command, ...words), ({ cause }) => new BudgetStore.StoreError({ cause }))
      )
    )
  )
}

/**
 * The store on the Redis server at an address, or on the cluster that the server belongs to. It uses the installed client,
 * `redis` or else `ioredis`. The layer is built even if the server cannot be reached.
 *
 * The address also may name several nodes of one cluster, `redis://host:6379,host:6379`, of which one must be alive when the
 * process starts; or Sentinels, `redis+sentinel://host:26379,host:26379/master-name`, which name the master. In both cases, what
 * replaces a dead server is found by itself.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` if the address is invalid, or if a duration is not finite or not above zero.
 *
 * **Example** (Using a part of the limits while Redis cannot be reached)
 *
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as FloodgateRedis from "@floodgate/redis"
 *
 * const store = FloodgateRedis.layerStoreUrl({ url: "redis://127.0.0.1:6379", whenAway: "degrade" })
 * const shared = Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } }).pipe(Layer.provide(store))
 * ```
 *
 * @stability unstable
 * @category layers
 * @since 0.1.0
 */
export const layerStoreUrl = (given: Options & { readonly url: string }): Layer.Layer<never> => {
  Input.check("FloodgateRedis.layerStoreUrl", checkUrl, given)
  const { url, ...options } = given
  return Layer.unwrap(Effect.map(RedisClient.connect(url), ({ send }) => sharing(options, send)))
}

const Address = Schema.String.check(Schema.makeFilter(RedisAddress.isAddress, { expected: RedisAddress.expected }))

/**
 * The store on the server from the configuration: `REDIS_URL`, and `FLOODGATE_REDIS_PREFIX` unless the options have a prefix.
 * Fails with a `ConfigError` if there is no address.
 *
 * **Example** (Without an address)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as ConfigProvider from "effect/ConfigProvider"
 * import * as Layer from "effect/Layer"
 * import * as FloodgateRedis from "@floodgate/redis"
 *
 * const store = FloodgateRedis.layerStoreConfig().pipe(Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({}))))
 *
 * const error = await Effect.runPromise(Effect.flip(Effect.provide(Effect.void, store)))
 *
 * error._tag // => "ConfigError"
 * ```
 *
 * @stability unstable
 * @category layers
 * @since 0.1.0
 */
export const layerStoreConfig = (options: Options = {}): Layer.Layer<never, Config.ConfigError> => {
  Input.check("FloodgateRedis.layerStoreConfig", checkShared, options)
  return Layer.unwrap(
    Effect.gen(function* () {
      const url = yield* Config.schema(Schema.Redacted(Address), "REDIS_URL")
      const prefix = yield* Config.withDefault(Config.String("FLOODGATE_REDIS_PREFIX"), defaultPrefix)
      return layerStoreUrl({ ...options, prefix: options.prefix ?? prefix, url: Redacted.value(url) })
    })
  )
}
