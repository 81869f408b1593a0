/** Tells the memory of prompts, and the history on which advice is based, of a prompt that the provider has counted. */
import type * as Accounting from "../Accounting.ts"
import type { GovernorParts } from "./parts.ts"
import type { PoolRecord } from "./pool.ts"
import * as Usage from "./usage.ts"

/** A call whose answer has begun. */
interface BegunCall extends Usage.HeldCall {
  readonly parts: Pick<GovernorParts, "conversations" | "history">
  readonly pool: Pick<PoolRecord, "name">
  readonly now: number
}

/** Remembers the prefixes of a prompt, and how its conversation grows. Returns false if the provider has not counted it. */
export const began = (call: BegunCall, actual: Accounting.Actual | undefined, sentAt: number): boolean => {
  if (actual === undefined) return false
  const { known, now, parts, pool } = call
  const turn = parts.conversations.began(known, actual, sentAt, now)
  if (turn === undefined) return false
  parts.history?.prompted(pool.name, turn, turn.prompt - (Usage.counted(call, actual).inputTokens ?? 0))
  return true
}
