/**
 * One budget for many processes: a `BudgetStore` whose buckets live in Redis.
 *
 * Limits belong to an organisation, not to a process. Under this store all processes that name the same prefix and pool
 * share one set of levels, cooldowns, learned limits, quotas and calls in flight. Everything else of a budget, its queue
 * and its options, stays as it was.
 *
 * **Details**
 *
 * One Lua script applies the same steps as the memory store, by Redis's own clock. Only the head of a process's queue
 * waits in Redis, in its fair place among the heads of other processes; a message tells it when its turn has come. A
 * process has at most one request per pool under way. Processes hold leases: what a dead one had in flight returns when
 * its lease is over.
 *
 * **Gotchas**
 *
 * - Redis must run scripts: any server from version 6.2, Valkey, or a cluster (each pool lies on one node of it).
 * - Give the server `maxmemory-policy noeviction`: a state that is evicted starts again from empty levels.
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
import { randomBytes } from "node:crypto"
import { hostname } from "node:os"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { BudgetStore } from "../BudgetStore.ts"
import { finiteOf, onlyKnown } from "../internal/invalid.ts"
import * as Client from "./client.ts"
import * as Connection from "./connection.ts"
import type * as Line from "./line.ts"
import * as Store from "./store.ts"

export * from "./status.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * What a budget does while Redis does not answer.
 *
 * - `"fail"`: a caller fails at once with `StoreUnavailable`
 * - `{ wait }`: a caller waits until Redis is back, at most this long after it went away; then it fails
 * - `"degrade"`: callers are served from this process's share: the limits divided by the number of processes that Redis
 *   last knew. A process that has never reached Redis knows no share, and fails.
 *
 * @category options
 * @since 0.1.0
 */
export type WhenAway = "fail" | "degrade" | { readonly wait: Duration.Input }

/**
 * How the store behaves.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
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
   * What happens while Redis is away.
   *
   * @default { wait: "30 seconds" }: a server that restarts costs nobody a job
   */
  readonly whenAway?: WhenAway | undefined
  /**
   * After how long without a sign of life a process is taken for dead. While it lives, it gives one
   * before half of this is over.
   *
   * @default "20 seconds": longer than a garbage collection or a paused machine, shorter than a person's patience
   */
  readonly lease?: Duration.Input | undefined
  /**
   * What becomes of the estimates that a dead process held. Its permits return in either case.
   *
   * - `"keep"`: they count as used, because the provider may have counted them; a late settlement still corrects them
   * - `"refund"`: they are given back
   *
   * @default "keep"
   */
  readonly lost?: "keep" | "refund" | undefined
  /**
   * After how long without a reply Redis counts as away.
   *
   * @default "2 seconds"
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * What this process is called in the status.
   *
   * @default the name of the host
   */
  readonly name?: string | undefined
}

const parse = (options: Options): Store.Settings & { readonly prefix: string; readonly lost: "keep" | "refund" } => {
  onlyKnown("Redis.layerStore", options, {
    prefix: true,
    whenAway: true,
    lease: true,
    lost: true,
    timeout: true,
    name: true
  })
  const { lease = "20 seconds", lost = "keep", prefix = "floodgate", timeout = "2 seconds" } = options
  const whenAway = options.whenAway ?? { wait: "30 seconds" }
  const positive = (option: string, value: Duration.Input): number =>
    Duration.toMillis(finiteOf(`Redis.layerStore: ${option}`, value))
  return {
    prefix,
    lost,
    leaseMillis: positive("lease", lease),
    timeoutMillis: positive("timeout", timeout),
    whenAway: typeof whenAway === "string" ? whenAway : "wait",
    patienceMillis: typeof whenAway === "string" ? 0 : positive("whenAway.wait", whenAway.wait)
  }
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

const makeWith = Effect.fnUntraced(function* (
  options: Options,
  connection: Client.Connection
): Effect.fn.Return<BudgetStore, never, Scope.Scope> {
  const { leaseMillis, lost, prefix, ...settings } = parse(options)
  // Not from Random: two processes with the same seed must not take each other for themselves.
  const process = `${encodeURIComponent(options.name ?? hostname())}-${randomBytes(6).toString("hex")}`
  const wakes = new Map<string, Line.Wake>()
  let opened = 0
  yield* Connection.listen(connection, prefix, process, (owner, millis, head) => wakes.get(owner)?.(millis, head))
  return {
    open: (pool, poolOptions) => {
      const owner = `${process}/${++opened}`
      const keys = Connection.keysOf(prefix, pool)
      return Store.open(
        pool,
        poolOptions,
        { ...settings, leaseMillis },
        (request) => Connection.send(connection, { keys, owner, request, leaseMillis, lost }),
        (wake) =>
          Effect.asVoid(
            Effect.acquireRelease(
              Effect.sync(() => wakes.set(owner, wake)),
              () => Effect.sync(() => wakes.delete(owner))
            )
          )
      )
    }
  }
})

/**
 * Makes the store on a `Redis` service. It lasts as long as its scope.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when a duration is not finite and above zero, or an option is unknown.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): Effect.Effect<BudgetStore, never, Redis.Redis | Scope.Scope> =>
  Effect.flatMap(Redis.Redis, (redis) => makeWith(options, Effect.succeed(redis)))

// -----------------------------------------------------------------------------
// Layers
// -----------------------------------------------------------------------------

/**
 * The store on a `Redis` service, such as `NodeRedis.layer` of `@effect/platform-node`.
 *
 * **Gotchas**
 *
 * Let the client fail while it is not connected (`disableOfflineQueue: true` in node-redis); otherwise an outage is
 * noticed by the timeout only. In a cluster let it be one of the whole cluster: pools of another node fail.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerStore = (options: Options = {}): Layer.Layer<never, never, Redis.Redis> =>
  Layer.effect(BudgetStore, make(options))

/**
 * The store on the Redis server at an address, or on the cluster that the server belongs to. A server that is not there is
 * away: the layer is built all the same.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when the address is none, and where `make` does.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerStoreUrl = ({ url, ...options }: Options & { readonly url: string }): Layer.Layer<never> =>
  Layer.effect(
    BudgetStore,
    Effect.flatMap(Client.connect(url), (connection) => makeWith(options, connection))
  )

const Address = Schema.String.check(
  Schema.makeFilter(Client.isAddress, { expected: "an address such as redis://127.0.0.1:6379" })
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
      const prefix = yield* Config.withDefault(Config.String("FLOODGATE_REDIS_PREFIX"), "floodgate")
      return layerStoreUrl({ ...options, prefix: options.prefix ?? prefix, url: Redacted.value(url) })
    })
  )
