/**
 * The client that a store makes for an address: of one server, or of the cluster that the server belongs to.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { createClient, createCluster } from "redis"
import { invalid } from "../internal/invalid.ts"

/** What the store asks of a `Redis` service. */
export type Client = Pick<Redis.Redis["Service"], "send" | "subscribe">

/** A client, or why there is none yet. */
export type Connection = Effect.Effect<Client, Redis.RedisError>

/** So long may it take to connect and to hear who answers: a server may accept, and say nothing. */
const connectMillis = 2_000
/** A connection may die without a word. So each is asked for a sign of life, and one that is silent for so long replaced. */
const pingMillis = 2_000
const silenceMillis = 5_000
/** A node of a cluster that has gone may have been replaced: so long after it went, the others are asked. */
const askAroundMillis = 1_000

const attempt = <A>(promise: () => Promise<A>): Effect.Effect<A, Redis.RedisError> =>
  Effect.tryPromise({ try: promise, catch: (cause) => new Redis.RedisError({ cause }) })

const inTime = <A>(effect: Effect.Effect<A, Redis.RedisError>, otherwise: string) =>
  Effect.timeoutOrElse(effect, {
    duration: connectMillis,
    orElse: () => Effect.fail(new Redis.RedisError({ cause: new Error(otherwise) }))
  })

interface Destroyable {
  readonly destroy: () => void
  readonly on: (event: "connect" | "error", listener: () => void) => unknown
}

/** Makes a client whose scope ends it at once, whatever replies it is owed. */
const lasting = <A extends Destroyable>(make: () => A): Effect.Effect<A, Redis.RedisError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => {
        const client = make()
        // Whoever asks hears why there is no answer; the client would say it again at each attempt.
        client.on("error", () => {})
        return client
      },
      catch: (cause) => new Redis.RedisError({ cause })
    }),
    (client) =>
      Effect.sync(() => {
        // One whose socket is not connected yet does not hear it before that is.
        client.on("connect", () => client.destroy())
        client.destroy()
      })
  )

interface Sender {
  readonly isReady: boolean
  readonly ping: () => Promise<unknown>
  readonly connect: () => Promise<unknown>
  readonly destroy: () => void
}

/** Connects a client anew that is silent. What has no connection is tried again by the client itself. */
const wake = (client: Sender): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (!client.isReady) return Effect.void
    return Effect.timeoutOrElse(Effect.ignore(attempt(() => client.ping())), {
      duration: silenceMillis,
      orElse: () =>
        Effect.sync(() => {
          client.destroy()
          client.connect().catch(() => {})
        })
    })
  })

/** Sees to it that none of the clients stays silent. (The time of a socket itself begins anew with all that is sent.) */
const watch = (clients: () => ReadonlyArray<Sender>): Effect.Effect<unknown, never, Scope.Scope> =>
  Effect.suspend(() => Effect.forEach(clients(), wake, { concurrency: "unbounded", discard: true })).pipe(
    Effect.delay(pingMillis),
    Effect.forever,
    Effect.forkScoped
  )

/** The messages of a channel, from a subscription that ends with the scope. */
const messagesOf = Effect.fnUntraced(function* (
  channel: string,
  subscribe: (hear: (message: unknown) => void) => Effect.Effect<unknown, Redis.RedisError, Scope.Scope>
) {
  const queue = yield* Queue.unbounded<Redis.RedisMessage, Redis.RedisError>()
  const hear = (message: unknown) => void Queue.offerUnsafe(queue, { channel, message: String(message) })
  yield* Effect.catch(subscribe(hear), (error) => Queue.fail(queue, error))
  return queue
})

/** How long to wait before the next attempt to connect; at random, because a server loses all its clients at once. */
const pauseBefore = (attempts: number): Effect.Effect<number> =>
  Effect.map(Random.nextIntBetween(0, 200), (random) => random + Math.min(50 * 2 ** attempts, 2_000))

/** What holds for every connection. One that was there once is tried again and again. */
const optionsOf = (reconnectStrategy: (attempts: number, cause: Error) => number | Error) => ({
  disableOfflineQueue: true,
  socket: { connectTimeout: connectMillis, socketTimeout: silenceMillis, reconnectStrategy }
})

/** Where the first key of a command stands; -1 where it has none, and any node will do. */
const firstKeyAt = (command: string): number => (command === "EVAL" || command === "EVALSHA" ? 3 : -1)

/** A client that sends each script to the node that serves its keys, wherever they have moved. */
const openCluster = Effect.fnUntraced(function* (url: string): Effect.fn.Return<Client, Redis.RedisError, Scope.Scope> {
  const { password, protocol, username } = new URL(url)
  const runSync = Effect.runSyncWith(yield* Effect.context<never>())
  const { socket, ...options } = optionsOf((attempts) => runSync(pauseBefore(attempts)))
  const cluster = yield* lasting(() =>
    createCluster({
      rootNodes: [{ url }],
      // What the address says of one node holds for all of them.
      defaults: {
        ...options,
        // For the one that subscribes.
        pingInterval: pingMillis,
        ...(username !== "" && { username: decodeURIComponent(username) }),
        ...(password !== "" && { password: decodeURIComponent(password) }),
        socket: { ...socket, ...(protocol === "rediss:" && { tls: true as const }) }
      },
      topologyRefreshOnReconnectionAttemptStrategy: askAroundMillis
    })
  )
  // It connects to all masters, however long one takes; meanwhile that one may have been replaced.
  yield* inTime(
    attempt(() => cluster.connect()),
    "a master of the cluster does not answer"
  )
  yield* watch(() => cluster.masters.flatMap((node) => node.client ?? []))
  return {
    send: <A>(command: string, ...args: ReadonlyArray<string>) =>
      attempt(() => {
        const words = [command, ...args]
        return cluster.sendCommand(words[firstKeyAt(command)], false, words) as Promise<A>
      }),
    subscribe: (channel) =>
      messagesOf(channel, (hear) =>
        Effect.acquireRelease(
          attempt(() => cluster.subscribe(channel, hear)),
          () => Effect.ignore(attempt(() => cluster.unsubscribe(channel, hear)))
        )
      )
  }
})

/** A client of the server at an address, or of the cluster that the server says it belongs to. */
const open = Effect.fnUntraced(function* (url: string): Effect.fn.Return<Client, Redis.RedisError, Scope.Scope> {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const runSync = Effect.runSyncWith(yield* Effect.context<never>())
  let wasThere = false
  const options = optionsOf((attempts, cause) => (wasThere ? runSync(pauseBefore(attempts)) : cause))
  const client = yield* Scope.provide(
    lasting(() => createClient({ url, ...options })),
    scope
  )
  const { mode } = yield* inTime(
    attempt(async () => (await client.connect()).hello()),
    "the server does not answer"
  )
  if (mode === "cluster") {
    yield* Scope.close(scope, Exit.void)
    return yield* openCluster(url)
  }
  wasThere = true
  yield* watch(() => [client])
  return {
    send: <A>(command: string, ...args: ReadonlyArray<string>) =>
      attempt(() => client.sendCommand([command, ...args]) as Promise<A>),
    subscribe: (channel) =>
      messagesOf(channel, (hear) =>
        Effect.flatMap(
          lasting(() => client.duplicate({ pingInterval: pingMillis })),
          (subscriber) =>
            inTime(
              attempt(async () => (await subscriber.connect()).subscribe(channel, hear)),
              "the server does not answer"
            )
        )
      )
  }
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
