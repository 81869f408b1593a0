/**
 * What a governor remembers between calls: of a pool, how many calls usually run together and whether its provider can be
 * reached; and the lengths of conversations that a provider stores.
 */
import type * as Accounting from "../Accounting.ts"
import { promptTokens } from "../limits/actual.ts"
import * as Recency from "../input/recency.ts"
import { bytesPerToken } from "../protocol/requestSize.ts"

// -----------------------------------------------------------------------------
// Pools
// -----------------------------------------------------------------------------

/** As slow as the estimator's own averages: the last ten admissions or so count. */
const weight = 1 / 8

/** Longer than a server that starts together with its clients needs. */
const refusedMillis = 60_000

/** How far a call got: to a provider that answered, to a name that does not exist, or to a refused connection. */
export type Reach = "answered" | "unknown" | "refused"

export class Pool {
  readonly name: string
  /** The name without an account. */
  readonly kind: string
  private open = 0
  private refusedSince: number | undefined = undefined
  /** How many calls usually run at the same time: a moving average over admissions, at least 1. */
  usual = 1
  /** Whether the provider has ever answered. */
  hasAnswered = false

  constructor(name: string, kind: string) {
    this.name = name
    this.kind = kind
  }

  began(): void {
    this.open++
    this.usual += (this.open - this.usual) * weight
  }

  ended(): void {
    this.open--
  }

  /**
   * Whether the address is wrong, after a call that failed. A provider that has answered before is down, and is waited for.
   * Before any answer, a name that does not exist is a wrong address, and so is one that has refused connections for a
   * minute. (A resolver that fails for the moment, `EAI_AGAIN`, is no wrong address.)
   */
  isWrongAddress(reach: Reach | undefined, now: number): boolean {
    if (reach === "answered") this.hasAnswered = true
    if (this.hasAnswered) return false
    if (reach !== "refused") return reach === "unknown"
    this.refusedSince ??= now
    return now - this.refusedSince >= refusedMillis
  }
}

// -----------------------------------------------------------------------------
// Conversations that the provider stores
// -----------------------------------------------------------------------------

/** The conversations that are remembered. An id and a number are about 200 bytes. */
const most = 10_000

/** The lengths of conversations, in tokens: a call that continues one sends only what is new, and its prompt is the whole. */
export class Conversations {
  private readonly lengths = new Map<string, number>()

  /** Remembers how long a conversation is, once an answer has told it. */
  remember(continuation: string, actual: Accounting.Actual): void {
    const prompt = promptTokens(actual)
    if (prompt > 0) Recency.put(this.lengths, continuation, prompt + actual.outputTokens, most)
  }

  /** The tokens of the whole prompt of a call; undefined if the conversation is not remembered. */
  promptOf(continues: string, bytes: number): number | undefined {
    const before = this.lengths.get(continues)
    return before === undefined ? undefined : before + Math.ceil(bytes / bytesPerToken)
  }
}
