/** What an answer says of its prompt: to the memory of prompts, to the history on which advice is based, and to the budget. */
import type * as Accounting from "../Accounting.ts"
import type * as Budget from "../Budget.ts"
import * as Amounts from "../domain/amounts.ts"
import type * as Limits from "../Limits.ts"
import type { GovernorParts } from "./parts.ts"
import type { PoolRecord } from "./pool.ts"
import * as Usage from "./usage.ts"

/** A call whose answer has begun. */
interface BegunCall extends Usage.HeldCall {
  readonly parts: Pick<GovernorParts, "conversations" | "history">
  readonly pool: Pick<PoolRecord, "name">
  readonly now: number
}

/** What the answer to one attempt has said of its prompt so far. Changed in place. */
export class BegunTurn {
  private isRemembered = false
  /** The tokens of the prompt. */
  private prompt = 0

  /** Remembers the prefixes of a prompt once the provider has counted it, and how its conversation grows. Returns whether it does so now. */
  began(call: BegunCall, actual: Accounting.Actual | undefined, sentAt: number): boolean {
    if (this.isRemembered || actual === undefined) return false
    const { known, now, parts, pool } = call
    const turn = parts.conversations.began(known, actual, sentAt, now)
    if (turn === undefined) return false
    parts.history?.prompted(pool.name, turn, turn.prompt - (Usage.counted(call, actual).inputTokens ?? 0))
    return (this.isRemembered = true)
  }

  /**
   * What the budget learns from an answer that goes on: what it has used, if its prompt is larger than it said before. It looks at its
   * first waiting call again, which may begin with the same prefix, which is in the cache now.
   */
  news(call: BegunCall, actual: Accounting.Actual | undefined, sentAt: number): Budget.Observation | undefined {
    const isNew = this.began(call, actual, sentAt)
    const soFar = this.grown(call, actual)
    return isNew || soFar !== undefined ? { dimensions: {}, soFar } : undefined
  }

  private grown(call: BegunCall, actual: Accounting.Actual | undefined): Limits.Usage | undefined {
    const prompt = actual === undefined ? 0 : Amounts.promptTokens(actual)
    if (!Amounts.isAmount(prompt) || prompt <= this.prompt) return undefined
    this.prompt = prompt
    try {
      return Usage.soFar(call, actual!)
    } catch {
      // The accounting is the caller's. If it throws, the call keeps its estimate until its end.
      return undefined
    }
  }
}
