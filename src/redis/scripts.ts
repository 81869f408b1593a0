/**
 * The one script of the store: it runs a list of operations on one pool, atomically, by the server's clock.
 *
 * A request carries everything that a process has to say at that moment, so a process costs one round trip at a time
 * however many callers it has. The script mirrors `src/internal/ledger.ts` step by step, and tests compare the two on
 * random histories.
 */
import { bucket } from "./lua/bucket.ts"
import { fleet } from "./lua/fleet.ts"
import { ledger } from "./lua/ledger.ts"
import { operations } from "./lua/operations.ts"
import { request } from "./lua/request.ts"

/** Milliseconds since the epoch by the server's clock. */
const serverClock = `
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + t[2] / 1000
end
`

/** The script with a clock of its own: tests read the time from a key, so that the pure step can be given the same. */
export const withClock = (clock: string): string => [clock, bucket, ledger, fleet, operations, request].join("\n")

/** The script of the store. */
export const source: string = withClock(serverClock)
