/** The flags for a shared budget in Redis, and its store. */
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { StoreError } from "floodgate/BudgetStore"
import { RedisAddress } from "floodgate/internal"
import { innermost } from "./errors.ts"
import * as Exit from "./exit.ts"
import * as Flags from "./flags.ts"
import * as Optional from "./optional.ts"

/** The address of Redis. */
export const url = (description: string): Flag.Flag<string> =>
  Flag.String("redis").pipe(
    Flag.withMetavar("<url>"),
    Flag.filter(
      (text) => RedisAddress.isAddress(text),
      () => RedisAddress.expected
    ),
    Flag.withDescription(description)
  )

/** The prefix of the budget. */
export const prefix: Flag.Flag<string> = Flag.String("redis-prefix").pipe(
  Flag.withMetavar("<name>"),
  Flag.filter(
    (name) => name !== "",
    () => "a name"
  ),
  Flags.byDefault("The name of the budget in Redis; runs with the same name share it", "floodgate")
)

/** An address without user, password and query, for messages. */
export const shown = (address: string): string => {
  if (RedisAddress.isAddress(address)) return RedisAddress.shown(address)
  const { host, pathname, protocol } = new URL(address)
  return `${protocol}//${host}${pathname === "/" ? "" : pathname}`
}

/** Matches an answer of a server, which begins with a code. */
const isAnswer = /^[A-Z]{2,} /
const isLogin = /^(WRONGPASS|NOAUTH) /
const isPermission = /^NOPERM /

/** Whether a permission is missing. */
export const isForbidden = ({ cause }: StoreError): boolean =>
  cause instanceof Error && isPermission.test(cause.message)

/** The problem with the Redis at an address, and what to do. */
const problemOf = (at: string, cause: unknown): string => {
  const { message } = cause instanceof Error ? cause : new Error("")
  if (isLogin.test(message)) {
    return `Redis at ${at} refuses the user or the password of the address (${message}); correct --redis`
  }
  if (isPermission.test(message)) {
    return `the user of the address lacks a permission in Redis at ${at} (${message}); docs/guides/many-processes.md lists all that are needed`
  }
  if (isAnswer.test(message)) return `Redis at ${at} answers, but cannot keep a budget (${message})`
  return `no Redis answers at ${at} (${innermost(cause)}); start one there, or correct --redis`
}

/** The store says so, and what to install. */
const isWithoutClient = /^no client is installed/

/** The error of a store for people. */
export const explained =
  (address: string) =>
  ({ cause }: StoreError) =>
    cause instanceof Error && isWithoutClient.test(cause.message)
      ? Exit.failure("usage", `a budget in Redis needs a client, and ${cause.message}`)
      : Exit.failure("network", problemOf(shown(address), cause))

/** The package of the store, which only a shared budget needs. */
const loaded = Optional.load(
  { use: "a budget in Redis", name: "@floodgate/redis", install: "@floodgate/redis redis" },
  () => import("@floodgate/redis")
)

/** The store of a run at an address, after a check of the server there. */
const store = Effect.fnUntraced(function* (at: { readonly url: string; readonly prefix: string }) {
  const FloodgateRedis = yield* loaded
  yield* Effect.mapError(FloodgateRedis.check(at), explained(at.url))
  return FloodgateRedis.layerStoreUrl(at)
})

/** The flags of a command that can share its budget. */
export const flags = {
  redis: url("Keep the budget in this Redis, so that several runs share one limit (default: not shared)").pipe(
    Flag.optional
  ),
  redisPrefix: prefix
}

/** The store of the flags; undefined if there is none. */
export const storeOf = (given: { readonly redis: Option.Option<string>; readonly redisPrefix: string }) =>
  Option.isNone(given.redis) ? Effect.undefined : store({ url: given.redis.value, prefix: given.redisPrefix })
