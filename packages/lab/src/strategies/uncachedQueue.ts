/** The reference for sessions: a queue that knows what each call reads from the cache. */
import * as Scenarios from "../scenario.ts"
import type { Strategy } from "../strategy.ts"
import { bucketClient } from "./handWritten.ts"

/**
 * First come, first served, from a bucket of its own that is charged with the tokens that count if the cache forgets nothing. Unlike the
 * oracle it does not see the provider: it is wrong where a prefix has expired, or is not yet in the cache.
 */
export const uncachedQueue: Strategy = {
  name: "uncached-queue",
  summary:
    "first come, first served, from a bucket of its own, and knows the uncached tokens of each call in advance; 10 attempts with full jitter",
  settings: "as hand-written, with the uncached tokens of each call",
  why: "No real program knows this before a call. It shows what knowing the cache is worth.",
  client: bucketClient(Scenarios.countedInput, (_, call) => call.outputTokens)
}
