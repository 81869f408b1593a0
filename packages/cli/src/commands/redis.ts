/** The flags for a shared budget in Redis, and its store. */
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { StoreError } from "floodgate/BudgetStore"
import { RedisAddress } from "floodgate/internal"
import * as FloodgateRedis from "@floodgate/redis"
import { hostname } from "node:os"
import { pid } from "node:process"
import { innermost } from "./errors.ts"
import * as Exit from "./exit.ts"
import * as Flags from "./flags.ts"

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
  const { host, pathname, protocol } = new URL(address)
  return `${protocol}//${host}${pathname === "/" ? "" : pathname}`
}

/** The error of a store for people. */
export const explained = (address: string) => (error: StoreError) =>
  Exit.failure(
    "network",
    `no Redis answers at ${shown(address)} (${innermost(error.cause)}); start one there, or correct --redis`
  )

/** The store of a run at an address, after a check that a server answers there. */
const store = Effect.fnUntraced(function* (at: { readonly url: string; readonly prefix: string }) {
  yield* Effect.mapError(FloodgateRedis.status(at), explained(at.url))
  // Distinguishes several runs on one machine.
  return FloodgateRedis.layerStoreUrl({ ...at, name: `${hostname()}/${pid}` })
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
