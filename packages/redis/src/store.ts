/**
 * The store in Redis: one hash per pool or ledger, and a script that replaces it if its version is the expected one.
 */
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import { type Store, StoreError, type Stored } from "floodgate/BudgetStore"

/** Sends a command to the node that serves a key. */
export type SendCommand = (key: string, words: ReadonlyArray<string>) => Effect.Effect<unknown, StoreError>

/**
 * Replaces the value of the key `KEYS[1]` if its version is the expected one. The arguments are the expected version (empty for
 * none), the next version, its value, and for how many milliseconds it is kept. Returns the time if it has replaced the value,
 * otherwise what is stored, its age and the time. Without arguments it only reads.
 */
export const script = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stored = redis.call('HMGET', KEYS[1], 'version', 'at')
if ARGV[1] ~= (stored[1] or '') then
  return { stored[1], redis.call('HGET', KEYS[1], 'value'), now - (stored[2] or now), now }
end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'value', ARGV[3], 'at', now)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return now
`
const sha = createHash("sha1").update(script).digest("hex")

/** Quotes a part of a key, so that it contains no pattern characters of `SCAN`. */
const quote = (text: string): string => encodeURIComponent(text.toWellFormed()).replaceAll("*", "%2A")
export const keyOf = (prefix: string, name: string): string => `${quote(prefix)}:${quote(name)}`
export const pattern = (prefix: string): string => `${quote(prefix)}:*`
/** The name in a key; undefined if the key has another form. */
export const nameOf = (prefix: string, key: string): string | undefined => {
  try {
    return decodeURIComponent(key.slice(quote(prefix).length + 1))
  } catch {
    return undefined
  }
}

/** Reads a reply of the script. Fails if the hash lacks a field. */
const storedOf = (key: string, reply: unknown): Effect.Effect<Stored | undefined, StoreError> => {
  const [version, value, ageMillis, utc] = Array.isArray(reply) && reply.length === 4 ? reply : [0, 0, 0, 0]
  if (version === null && value === null) return Effect.undefined
  if (typeof version === "string" && typeof value === "string" && typeof ageMillis === "number") {
    return Effect.succeed({ version, value, ageMillis, utc })
  }
  return Effect.fail(
    new StoreError({
      cause: new Error(
        `"${key}" in Redis is not the hash of a pool or a ledger, with a version, a value and an age: delete it`
      )
    })
  )
}

const isUnknownScript = ({ cause }: StoreError): boolean =>
  cause instanceof Error && cause.message.startsWith("NOSCRIPT")

export const make = (prefix: string, send: SendCommand): Store => {
  const run = (name: string, words: ReadonlyArray<string>): Effect.Effect<unknown, StoreError> => {
    const key = keyOf(prefix, name)
    return Effect.catchIf(send(key, ["EVALSHA", sha, "1", key, ...words]), isUnknownScript, () =>
      send(key, ["EVAL", script, "1", key, ...words])
    )
  }
  return {
    read: (name) => Effect.flatMap(run(name, []), (reply) => storedOf(keyOf(prefix, name), reply)),
    swap: (name, expected, next, keepMillis) =>
      Effect.flatMap(run(name, [expected ?? "", next.version, next.value, String(keepMillis)]), (reply) =>
        typeof reply === "number" ? Effect.succeed({ ...next, utc: reply }) : storedOf(keyOf(prefix, name), reply)
      )
  }
}
