/**
 * The store in Redis: one hash a pool, and a script that replaces it if nobody else did.
 */
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import { type Store, StoreError, type Stored } from "../BudgetStore.ts"

/** Sends a command to the node that serves a key. */
export type Send = (key: string, words: ReadonlyArray<string>) => Effect.Effect<unknown, StoreError>

/**
 * `KEYS[1]` is the pool; the arguments are the version that is expected (empty for none), the next one, its value and how
 * many milliseconds it is kept. Returns nothing where it was replaced, else what is stored.
 */
export const script = `
local stored = redis.call('HGET', KEYS[1], 'version')
if (stored or '') ~= ARGV[1] then
  return redis.call('HMGET', KEYS[1], 'version', 'value')
end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'value', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return false
`
const sha = createHash("sha1").update(script).digest("hex")

/** The key of a pool. A name may hold anything but what is a pattern to `SCAN`. */
const quote = (text: string): string => encodeURIComponent(text).replaceAll("*", "%2A")
export const keyOf = (prefix: string, name: string): string => `${quote(prefix)}:${quote(name)}`
export const pattern = (prefix: string): string => `${quote(prefix)}:*`
/** The name in a key; `undefined` where it is none of ours. */
export const nameOf = (prefix: string, key: string): string | undefined => {
  try {
    return decodeURIComponent(key.slice(quote(prefix).length + 1))
  } catch {
    return undefined
  }
}

/** A hash without one of the two fields is none of ours, and so is anything else that lies there. */
export const storedOf = (reply: unknown): Effect.Effect<Stored | undefined, StoreError> => {
  const [version, value] = Array.isArray(reply) && reply.length === 2 ? reply : [0, 0]
  if (version === null && value === null) return Effect.undefined
  if (typeof version === "string" && typeof value === "string") return Effect.succeed({ version, value })
  return Effect.fail(new StoreError({ cause: new Error("the reply of Redis is no version and value") }))
}

const isUnknownScript = ({ cause }: StoreError): boolean =>
  cause instanceof Error && cause.message.startsWith("NOSCRIPT")

export const make = (prefix: string, send: Send): Store => ({
  read: (name) => {
    const key = keyOf(prefix, name)
    return Effect.flatMap(send(key, ["HMGET", key, "version", "value"]), storedOf)
  },
  swap: (name, expected, next, keepMillis) => {
    const key = keyOf(prefix, name)
    const words = ["1", key, expected ?? "", next.version, next.value, String(keepMillis)]
    return send(key, ["EVALSHA", sha, ...words]).pipe(
      Effect.catchIf(isUnknownScript, () => send(key, ["EVAL", script, ...words])),
      Effect.flatMap((reply) => (reply === null ? Effect.succeed(next) : storedOf(reply)))
    )
  }
})
