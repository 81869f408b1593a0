/** Common parts of the embeddings of all providers: they have input and no output, and are never streamed. */
import { amountOf, nameOf } from "./json.ts"
import { outcomeOf } from "./openai.ts"
import { type Answer, type Description, emptyAnswer, type Protocol, withCounts } from "./protocol.ts"

/** The part of a description that is the same for all embeddings. */
export const withoutOutput = {
  maxTokens: 0,
  thinking: false,
  stream: false,
  continues: undefined,
  needsUsageRequest: false
} as const satisfies Partial<Description>

/** Reads an answer, whose error is like OpenAI's. Some services do not report their usage. */
export const readAnswer = (body: unknown, model: unknown, inputTokens: unknown): Answer => {
  const answer = { ...emptyAnswer, model: nameOf(model), ...outcomeOf(body) }
  const counted = amountOf(inputTokens)
  return counted === undefined ? answer : withCounts(answer, { inputTokens: counted, outputTokens: 0 })
}

/** There is no stream to observe. */
export const observe: Protocol["observe"] = (answer) => answer
