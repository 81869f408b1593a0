/**
 * What the store says to Redis: the script, and the channel on which a process hears that its turn has come.
 */
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import { RedisError } from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Connection } from "./client.ts"
import { source } from "./scripts.ts"

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
  readonly all: ReadonlyArray<string>
  readonly channels: string
}

/** Names may hold anything but what ends a hash tag, or is a pattern to `SCAN`. */
const quote = (name: string): string => encodeURIComponent(name).replaceAll("*", "%2A")

/**
 * Which form it has that lies in Redis. It is part of the keys' names, so that processes of two versions do not take each
 * other's state for damaged: count it up with each change of what `lua/` writes.
 */
const form = 8

export const keysOf = (prefix: string, pool: string): Keys => {
  const tag = `{${quote(prefix)}:${quote(pool)}}`
  return {
    all: ["state", "open", "lost", "seen"].map((part) => `${tag}:${form}:${part}`),
    channels: `${quote(prefix)}:wake:`
  }
}

/** All pools under a prefix: a pattern for their states, and the pool of such a key; `undefined` where it is of none. */
export const statePattern = (prefix: string): string => `{${quote(prefix)}:*}:${form}:state`

export const poolOfKey = (prefix: string, key: string): string | undefined => {
  const name = key.slice(`{${quote(prefix)}:`.length, -`}:${form}:state`.length)
  try {
    return decodeURIComponent(name)
  } catch {
    return undefined
  }
}

const sha = createHash("sha1").update(source).digest("hex")

const startsWith =
  (code: string) =>
  ({ cause }: RedisError): boolean =>
    cause instanceof Error && cause.message.startsWith(code)

/** What to do where a client of one node is told that another serves these keys. */
const lead = (error: RedisError): RedisError =>
  startsWith("MOVED")(error)
    ? new RedisError({
        cause: new Error(
          `${(error.cause as Error).message}: another node of this cluster serves the pool. Use layerStoreUrl, or give layerStore a client of the whole cluster`
        )
      })
    : error

/** What a script may hear of a server that is full, or is no master for now. */
const passing = /\b(OOM|READONLY|MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|TRYAGAIN)\b/

const messageOf = (error: unknown): string =>
  error instanceof RedisError && error.cause instanceof Error ? error.cause.message : ""

/** Whether the same request will fail again: the script stumbled over it, or this client never comes to the right node. */
export const isHopeless = (error: unknown): boolean => {
  const message = messageOf(error)
  return /^MOVED|user_script/.test(message) && !passing.test(message)
}

/** Where a number is too low that a process has given its request: the last one known by its name; else -1. */
export const lastKnown = (error: unknown): number => {
  const message = messageOf(error)
  return Number(/^STALE request \d+ after (\d+)/.exec(message)?.[1] ?? -1)
}

/**
 * Runs the script. A server that has not seen it is given it together with the request, because that is the way to the
 * node that serves these keys; `SCRIPT LOAD` would go to any.
 */
export const send = (
  connection: Connection,
  { keys, leaseMillis, lost, owner, request }: Call
): Effect.Effect<string, RedisError> =>
  Effect.flatMap(connection, (client) => {
    const said = [...keys.all, owner, request, keys.channels, String(leaseMillis), lost]
    const run = (command: string, script: string) =>
      client.send<string>(command, script, String(keys.all.length), ...said)
    return Effect.catchIf(run("EVALSHA", sha), startsWith("NOSCRIPT"), () => run("EVAL", source))
  }).pipe(Effect.mapError(lead))

/** Subscribes a process to its channel for as long as the scope lasts, through every interruption. */
export const listen = (
  connection: Connection,
  prefix: string,
  process: string,
  heard: (owner: string, millis: number, head: number) => void
): Effect.Effect<void, never, Scope.Scope> => {
  const { channels } = keysOf(prefix, "")
  let isSaid = false
  const sayOnce = (error: RedisError): Effect.Effect<void> => {
    if (isSaid || !startsWith("NOPERM")(error)) return Effect.void
    isSaid = true
    return Effect.logWarning(
      `This user of Redis may not hear messages, so that who waits comes late: allow it the channels "${channels}*"`,
      error
    )
  }
  return Effect.flatMap(connection, (client) => client.subscribe(`${channels}${process}`)).pipe(
    Effect.flatMap((queue) =>
      Effect.forever(
        Effect.map(Queue.take(queue), ({ message }) => {
          const [owner = "", millis = "0", head = "0"] = message.split(" ")
          heard(owner, Number(millis), Number(head))
        })
      )
    ),
    Effect.scoped,
    Effect.tapError(sayOnce),
    Effect.sandbox,
    Effect.retry(Schedule.spaced(500)),
    Effect.ignore,
    Effect.forkScoped,
    Effect.asVoid
  )
}
