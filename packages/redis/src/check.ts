/** Tries what a process needs of Redis, before it starts. */
import * as Effect from "effect/Effect"
import { StoreError } from "floodgate/BudgetStore"
import * as RedisClient from "./client.ts"
import * as RedisStore from "./store.ts"

/** Tries each command of the store's script on a key that expires at once, and returns the errors. */
const script = `
local failed = {}
local function try(name, ...)
  local reply = redis.pcall(name, ...)
  if type(reply) ~= 'table' or reply.err == nil then return true end
  failed[#failed + 1] = name
  failed[#failed + 1] = reply.err
end
try('TIME')
try('HMGET', KEYS[1], 'version', 'at')
try('HGET', KEYS[1], 'value')
if try('PEXPIRE', KEYS[1], '1') then
  try('HSET', KEYS[1], 'version', 'check')
  try('PEXPIRE', KEYS[1], '1')
end
return failed
`

const isPermission = /^NOPERM|ACL failure|can't run this command/

/** The command that an error of Redis refuses. */
const commandOf = (message: string): string | undefined => /^NOPERM .*run the '([^'|]+)/.exec(message)?.[1]

const lacks = (commands: ReadonlyArray<string>): Error =>
  new Error(
    `NOPERM the user may not run ${commands.join(", ")}: allow it ${commands.map((name) => `+${name}`).join(" ")}`
  )

/** An error that names the missing permission, if that is what an error of Redis is about. */
const named = (prefix: string, error: StoreError): StoreError => {
  const { message } = error.cause as Error
  const command = commandOf(message)
  if (command !== undefined) return new StoreError({ cause: lacks([command]) })
  if (!/^NOPERM .* key/.test(message)) return error
  return new StoreError({ cause: new Error(`${message}: allow the user ~${RedisStore.pattern(prefix)}`) })
}

/** How long all of it may take: as much as five requests of a store, which may take 2 s each. */
const timeout = "10 seconds"

/**
 * Checks that Redis answers at an address, that it takes writes, and that the user of the address may do all that a process
 * needs. It leaves nothing behind.
 *
 * Fails with a `StoreError`, whose cause says what is wrong: no server answers within 10 seconds, the password is wrong, a
 * permission is missing (the message begins with `NOPERM` and names it), or the server is a replica.
 *
 * **Example** (Checking before a service starts)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as FloodgateRedis from "@floodgate/redis"
 *
 * const error = await Effect.runPromise(Effect.flip(FloodgateRedis.check({ url: "redis://127.0.0.1:1" })))
 *
 * error._tag // => "StoreError"
 * ```
 *
 * @stability unstable
 * @category combinators
 * @since 0.5.0
 */
export const check = Effect.fnUntraced(
  function* ({ prefix = "floodgate", url }: { readonly url: string; readonly prefix?: string | undefined }) {
    const { send } = yield* RedisClient.connect(url)
    const key = RedisStore.keyOf(prefix, "check")
    const reply = yield* send(key, ["EVAL", script, "1", key])
    const failed = Array.isArray(reply) ? reply.map(String) : []
    const pairs = failed.flatMap((name, i) => (i % 2 === 0 ? [[name.toLowerCase(), failed[i + 1] ?? ""] as const] : []))
    const [other] = pairs.filter(([, error]) => !isPermission.test(error))
    if (other !== undefined) return yield* new StoreError({ cause: new Error(other[1]) })
    if (pairs.length > 0) {
      return yield* new StoreError({ cause: lacks([...new Set(pairs.map(([name]) => name))]) })
    }
    // The script of the store is sent by its hash first.
    yield* RedisStore.make(prefix, send).read("nothing")
  },
  (self, { prefix = "floodgate" }) => Effect.mapError(self, (error) => named(prefix, error)),
  Effect.scoped,
  (self): Effect.Effect<void, StoreError> =>
    Effect.timeoutOrElse(self, {
      duration: timeout,
      orElse: () => Effect.fail(new StoreError({ cause: new Error(`no answer within ${timeout}`) }))
    })
)
