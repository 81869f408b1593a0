/** The limit that a strategy with a single token bucket is configured with. */
import { LimitWords } from "floodgate/internal"
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages"
import type { Scenario } from "../scenario.ts"

/** The provider's limit on tokens. */
export const tokensOf = ({ limits }: Scenario) => {
  const limit = limits.tokens ?? limits.inputTokens
  if (limit === undefined) return { perSecond: 1e9, burst: 1e9 }
  const { amount, seconds } = LimitWords.rateOf(limit)
  return { perSecond: amount / seconds, burst: limit.burst ?? amount }
}

/** Whether that limit includes output. */
export const countsOutput = ({ limits }: Scenario): boolean => limits.tokens !== undefined

/** Computes what an answer counts against that limit, by its usage. */
export const usedOf = (scenario: Scenario): ((message: Message) => number) => {
  const countsAll = countsOutput(scenario)
  const countsReads = countsAll || scenario.provider.cache === "automatic"
  return ({ usage }) =>
    usage.input_tokens +
    (usage.cache_creation_input_tokens ?? 0) +
    (countsReads ? (usage.cache_read_input_tokens ?? 0) : 0) +
    (countsAll ? usage.output_tokens : 0)
}
