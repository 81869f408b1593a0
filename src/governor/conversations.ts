/**
 * What conversations came to that the provider stores: a call that continues one sends only what is new, and its prompt is
 * the whole.
 */
import type * as Accounting from "../Accounting.ts"
import * as Recency from "../input/recency.ts"
import { bytesPerToken } from "../protocol/requestSize.ts"
import type { Call } from "./models.ts"

/** The conversations that are remembered. An id and a number are about 200 bytes. */
const most = 10_000

export interface Conversations {
  /** Remembers how long a conversation is, once an answer has told it. */
  readonly remember: (continuation: string | undefined, actual: Accounting.Actual) => void
  /** The tokens of the whole prompt of a call; undefined where it continues nothing, or nothing that is remembered. */
  readonly promptOf: (call: Call) => number | undefined
}

export const make = (): Conversations => {
  const lengths = new Map<string, number>()
  return {
    remember: (continuation, { cacheCreationTokens = 0, cacheReadTokens = 0, inputTokens, outputTokens }) => {
      const prompt = inputTokens + cacheCreationTokens + cacheReadTokens
      if (continuation !== undefined && prompt > 0) {
        Recency.put(lengths, continuation, prompt + outputTokens, most)
      }
    },
    promptOf: ({ bytes, continues }) => {
      const before = continues === undefined ? undefined : lengths.get(continues)
      return before === undefined ? undefined : before + Math.ceil(bytes / bytesPerToken)
    }
  }
}
