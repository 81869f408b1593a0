/**
 * Reads the answers of language models for `ai/` and `aiSdk/`: `effect/ai` has the parts of the Vercel AI SDK, with a few names
 * of its own. Parts are read by their form, so that every version of the SDK's specification fits. Pure.
 */
import { amountOf, at, isRecord, nameOf, textOf } from "../protocol/json.ts"
import { type Answer, emptyAnswer, withCounts } from "../protocol/protocol.ts"

/**
 * The counts of a usage. Its tokens are objects in `effect/ai` and since version 3 of the SDK's specification, and plain numbers
 * before, where the input includes the cached input.
 */
const withUsage = (answer: Answer, usage: unknown): Answer => {
  const [input, output] = [at(usage, "inputTokens"), at(usage, "outputTokens")]
  const cacheReadTokens = amountOf(at(input, "cacheRead") ?? at(usage, "cachedInputTokens"))
  const cacheCreationTokens = amountOf(at(input, "cacheWrite"))
  const total = amountOf(isRecord(input) ? at(input, "total") : input)
  const cached = (cacheReadTokens ?? 0) + (cacheCreationTokens ?? 0)
  const uncached = amountOf(at(input, "noCache") ?? at(input, "uncached"))
  return withCounts(answer, {
    inputTokens: uncached ?? (total === undefined ? undefined : Math.max(0, total - cached)),
    cacheReadTokens,
    cacheCreationTokens,
    outputTokens: amountOf(isRecord(output) ? at(output, "total") : output)
  })
}

const finishReasonOf = (reason: unknown): string | undefined =>
  nameOf(at(reason, "raw")) ?? nameOf(at(reason, "unified")) ?? nameOf(reason)

/** An answer that came whole, as the AI SDK returns it. */
export const answerOf = (result: unknown): Answer => ({
  ...withUsage(emptyAnswer, at(result, "usage")),
  id: nameOf(at(result, "response", "id")),
  model: nameOf(at(result, "response", "modelId")),
  finishReason: finishReasonOf(at(result, "finishReason")),
  started: true,
  complete: true
})

/** Parts that come before any content, or that are no content. */
const silent: ReadonlySet<unknown> = new Set([
  "stream-start",
  "ping",
  "raw",
  "text-start",
  "text-end",
  "reasoning-start",
  "reasoning-end"
])

const withDelta = (answer: Answer, part: unknown): Answer => {
  const { length } = textOf(at(part, "delta")) ?? ""
  return { ...answer, started: answer.started || length > 0, uncounted: answer.uncounted + length }
}

const finished = (answer: Answer, part: unknown): Answer => ({
  ...withUsage(answer, at(part, "usage")),
  finishReason: finishReasonOf(at(part, "finishReason") ?? at(part, "reason")),
  started: true,
  complete: true
})

/** Adds one part to an answer. Parts after an error are ignored. */
export const step = (answer: Answer, part: unknown): Answer => {
  if (answer.error !== undefined) return answer
  const type = at(part, "type")
  switch (type) {
    case "response-metadata":
      return { ...answer, id: nameOf(at(part, "id")), model: nameOf(at(part, "modelId")) }
    case "text-delta":
    case "reasoning-delta":
    case "tool-input-delta":
    case "tool-params-delta":
      return withDelta(answer, part)
    case "finish":
      return finished(answer, part)
    case "error":
      return { ...answer, error: at(part, "error") ?? "an error without words" }
    default:
      return silent.has(type) ? answer : { ...answer, started: true }
  }
}
