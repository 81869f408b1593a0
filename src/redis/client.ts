/**
 * The client that a store makes for an address: of one server, or of the cluster that the server belongs to.
 */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { createCluster } from "redis"
import { invalid } from "../internal/invalid.ts"

/** What the store asks of a `Redis` service. */
export type Client = Pick<Redis.Redis["Service"], "send" | "subscribe">

/** A client, or why there is none yet. */
export type Connection = Effect.Effect<Client, Redis.RedisError>

const farewellMillis = 500
const connectMillis = 2_000
/** A node of a cluster that has gone may have been replaced: so long after it went, the others are asked. */
const askAroundMillis = 1_000

const attempt = <A>(promise: () => Promise<A>): Effect.Effect<A, Redis.RedisError> =>
  Effect.tryPromise({ try: promise, catch: (cause) => new Redis.RedisError({ cause }) })

/** A client waits at its end for the replies that it is owed; a server that is away will not give them. */
const hangUp = (client: {
  readonly isOpen: boolean
  readonly close: () => Promise<unknown>
  readonly destroy: () => void
}): Effect.Effect<void> =>
  Effect.timeoutOrElse(Effect.ignoreCause(Effect.promise(() => client.close())), {
    duration: farewellMillis,
    orElse: () => Effect.sync(() => (client.isOpen ? client.destroy() : undefined))
  })

/** Where the first key of a command stands; -1 where it has none, and any node will do. */
const firstKeyAt = (command: string): number => (command === "EVAL" || command === "EVALSHA" ? 3 : -1)

/** A client that sends each script to the node that serves its keys, wherever they have moved. */
const openCluster = Effect.fnUntraced(function* (url: string): Effect.fn.Return<Client, Redis.RedisError, Scope.Scope> {
  const { password, protocol, username } = new URL(url)
  const cluster = createCluster({
    rootNodes: [{ url }],
    // What the address says of one node holds for all of them.
    defaults: {
      disableOfflineQueue: true,
      ...(username !== "" && { username: decodeURIComponent(username) }),
      ...(password !== "" && { password: decodeURIComponent(password) }),
      ...(protocol === "rediss:" && { socket: { tls: true as const } })
    },
    topologyRefreshOnReconnectionAttemptStrategy: askAroundMillis
  })
  const runSync = Effect.runSyncWith(yield* Effect.context<never>())
  cluster.on("error", (cause) => runSync(Effect.logWarning("Redis cluster client error", cause)))
  yield* Effect.addFinalizer(() => hangUp(cluster))
  // It connects to all masters, however long one takes; meanwhile that one may have been replaced.
  yield* Effect.timeoutOrElse(
    attempt(() => cluster.connect()),
    {
      duration: connectMillis,
      orElse: () => Effect.fail(new Redis.RedisError({ cause: new Error("a master of the cluster does not answer") }))
    }
  )
  return {
    send: <A>(command: string, ...args: ReadonlyArray<string>) =>
      attempt(() => {
        const words = [command, ...args]
        return cluster.sendCommand(words[firstKeyAt(command)], false, words) as Promise<A>
      }),
    subscribe: Effect.fnUntraced(function* (channel) {
      const queue = yield* Queue.unbounded<Redis.RedisMessage, Redis.RedisError>()
      const hear = (message: unknown) => void Queue.offerUnsafe(queue, { channel, message: String(message) })
      yield* Effect.catch(
        Effect.acquireRelease(
          attempt(() => cluster.subscribe(channel, hear)),
          () => Effect.ignore(attempt(() => cluster.unsubscribe(channel, hear)))
        ),
        (error) => Queue.fail(queue, error)
      )
      return queue
    })
  }
})

/** A client of the server at an address, or of the cluster that the server says it belongs to. */
const open = Effect.fnUntraced(function* (url: string): Effect.fn.Return<Client, Redis.RedisError, Scope.Scope> {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const context = yield* Layer.buildWithScope(NodeRedis.layer({ url, disableOfflineQueue: true }), scope)
  const node = Context.get(context, NodeRedis.NodeRedis)
  yield* Scope.addFinalizer(scope, hangUp(node.client))
  const { mode } = yield* node.use((client) => client.hello())
  if (mode !== "cluster") return Context.get(context, Redis.Redis)
  yield* Scope.close(scope, Exit.void)
  return yield* openCluster(url)
})

/** Whether it is an address of Redis, with or without TLS. */
export const isAddress = (text: string): boolean => URL.canParse(text) && /^rediss?:$/.test(new URL(text).protocol)

/**
 * Connects to an address. A server that is not there yet is tried again and again; until then every call fails at once,
 * and the store's policy decides. What is no address will never answer, and is refused; it may hold a password, so that
 * the error does not repeat it.
 */
export const connect = Effect.fnUntraced(function* (url: string): Effect.fn.Return<Connection, never, Scope.Scope> {
  if (!isAddress(url)) {
    invalid("Redis: url", "an address such as redis://127.0.0.1:6379", "something else (not shown)")
  }
  const scope = yield* Effect.scope
  let current: Exit.Exit<Client, Redis.RedisError> | undefined
  const connectOnce = Effect.gen(function* () {
    const own = yield* Scope.fork(scope)
    current = yield* Effect.exit(Scope.provide(open(url), own))
    if (Exit.isFailure(current)) yield* Scope.close(own, current)
    yield* current
  })
  const again = Effect.ignore(Effect.retry(connectOnce, Schedule.spaced(500)))
  yield* Effect.catchCause(connectOnce, () => Effect.forkScoped(again))
  return Effect.suspend(() => current!)
})
