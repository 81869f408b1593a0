/**
 * How the store reaches Redis: the script, and the channel on which a process hears that its turn has come.
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
import { source } from "./scripts.ts"

/** The service of Redis, or why there is none yet. */
export type Connection = Effect.Effect<Redis.Redis["Service"], Redis.RedisError>

/** One request of one process about one pool. */
export interface Call {
  readonly keys: Keys
  /** Empty for somebody who only looks. */
  readonly owner: string
  readonly request: string
  readonly leaseMillis: number
  readonly lost: "keep" | "refund"
}

/** Names of one pool in Redis. All keys lie in one slot. */
export interface Keys {
  readonly pool: string
  readonly all: ReadonlyArray<string>
  readonly channels: string
}

/** Names may hold anything but what ends a hash tag. */
const quote = (name: string): string => encodeURIComponent(name)

export const keysOf = (prefix: string, pool: string): Keys => {
  const tag = `{${quote(prefix)}:${quote(pool)}}`
  return {
    pool,
    all: ["state", "open", "lost", "seen"].map((part) => `${tag}:${part}`),
    channels: `${quote(prefix)}:wake:`
  }
}

/** All pools under a prefix: a pattern for their states, and the pool of such a key. */
export const statePattern = (prefix: string): string => `{${quote(prefix)}:*}:state`

export const poolOfKey = (prefix: string, key: string): string =>
  decodeURIComponent(key.slice(`{${quote(prefix)}:`.length, -"}:state".length))

const scriptOf = (lua: string) =>
  Redis.script(
    ({ keys, leaseMillis, lost, owner, request }: Call) => [
      ...keys.all,
      owner,
      request,
      keys.channels,
      quote(keys.pool),
      leaseMillis,
      lost
    ],
    { lua, numberOfKeys: ({ keys }) => keys.all.length }
  ).withReturnType<string>()

const script = scriptOf(source)
const farewellMillis = 500

export const send = (connection: Connection, call: Call): Effect.Effect<string, Redis.RedisError> =>
  Effect.flatMap(connection, (redis) => redis.eval(script)(call))

/** Subscribes a process to its channel for as long as the scope lasts, through every interruption. */
export const listen = (
  connection: Connection,
  prefix: string,
  process: string,
  heard: (owner: string, millis: number, head: number) => void
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.flatMap(connection, (redis) => redis.subscribe(`${keysOf(prefix, "").channels}${process}`)).pipe(
    Effect.flatMap((queue) =>
      Effect.forever(
        Effect.map(Queue.take(queue), ({ message }) => {
          const [owner = "", , millis = "0", head = "0"] = message.split(" ")
          heard(owner, Number(millis), Number(head))
        })
      )
    ),
    Effect.scoped,
    Effect.sandbox,
    Effect.retry(Schedule.spaced(500)),
    Effect.ignore,
    Effect.forkScoped,
    Effect.asVoid
  )

/** A client waits at its end for the replies that it is owed; a server that is away will not give them. */
const hangUp = (client: NodeRedis.NodeRedis["Service"]["client"]): Effect.Effect<void> =>
  Effect.timeoutOrElse(Effect.ignoreCause(Effect.promise(() => client.close())), {
    duration: farewellMillis,
    orElse: () => Effect.sync(() => (client.isOpen ? client.destroy() : undefined))
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
    throw new RangeError(
      "Redis: url: expected an address such as redis://127.0.0.1:6379, got something else (not shown)"
    )
  }
  const scope = yield* Effect.scope
  let current: Exit.Exit<Redis.Redis["Service"], Redis.RedisError> | undefined
  const layer = NodeRedis.layer({ url, disableOfflineQueue: true })
  const attempt = Effect.gen(function* () {
    const own = yield* Scope.fork(scope)
    const exit = yield* Effect.exit(Layer.buildWithScope(layer, own))
    current = Exit.map(exit, (context) => Context.get(context, Redis.Redis))
    if (Exit.isFailure(exit)) yield* Scope.close(own, exit)
    else yield* Scope.addFinalizer(own, hangUp(Context.get(exit.value, NodeRedis.NodeRedis).client))
    yield* current
  })
  yield* Effect.catchCause(attempt, () => Effect.forkScoped(Effect.ignore(Effect.retry(attempt, Schedule.spaced(500)))))
  return Effect.suspend(() => current!)
})
