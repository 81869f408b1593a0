/**
 * Gemini's Interactions, in the Gemini API and on Vertex AI.
 *
 * Source: https://ai.google.dev/api/interactions-api
 */
import { gemini } from "./gemini.ts"
import { amountOf, at, characters, isRecord, listOf, nameOf, parseJson, textOf } from "./json.ts"
import { errorIn, tierOf } from "./openai.ts"
import { type Answer, emptyAnswer, type Protocol, type Route, withCounts, withVersion } from "./protocol.ts"
import { type Refusal, refusalResponse, sseEvent } from "./refusal.ts"
import { add, addSchema, newSum, sizeOf } from "./requestSize.ts"

const interactions = /^(?:|\/(?:.*\/)?v\d[a-z\d]*|\/.*\/locations\/[^/]+)\/interactions(?<rest>\/.*)?$/

const matchRoute = (method: string, path: string): Route | undefined => {
  const found = interactions.exec(path)
  if (found === null) return undefined
  // To read, cancel or delete an interaction costs nothing.
  const isCall = method === "POST" && found.groups?.["rest"] === undefined
  return { operation: isCall ? "generate" : "passThrough", path: withVersion(path, "v1beta") }
}

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** Fields of a conversation that the provider stores, or that belongs to an agent. */
const storedParts = ["cached_content", "continuation_token", "agent", "environment"]

const describe: Protocol["describe"] = (body, route) => {
  if (!isRecord(body)) return undefined
  const config = body["generation_config"]
  const sum = newSum()
  add(sum, body["system_instruction"])
  add(sum, body["input"])
  addSchema(sum, body["tools"])
  addSchema(sum, body["response_format"])
  const continues = nameOf(body["previous_interaction_id"])
  const thinking = textOf(at(config, "thinking_level"))
  return {
    ...sizeOf(sum),
    model: route.model ?? nameOf(body["model"]) ?? nameOf(body["agent"]),
    maxTokens: amountOf(at(config, "max_output_tokens")),
    thinking: thinking !== undefined && thinking !== "minimal",
    stream: body["stream"] === true,
    ...(body["background"] === true && { background: true }),
    ...tierOf(body["service_tier"]),
    continues,
    stored: continues !== undefined || sum.stored === true || storedParts.some((name) => body[name] !== undefined),
    needsUsageRequest: false
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/** The count of the prompt includes what was read from the cache. What tools have read and thinking are counted apart. */
const withUsage = (answer: Answer, usage: unknown): Answer => {
  const prompt = amountOf(at(usage, "total_input_tokens"))
  const output = amountOf(at(usage, "total_output_tokens"))
  if (prompt === undefined && output === undefined) return answer
  const count = (name: string): number => amountOf(at(usage, name)) ?? 0
  const cacheReadTokens = Math.min(prompt ?? 0, count("total_cached_tokens"))
  return withCounts(answer, {
    inputTokens: (prompt ?? 0) - cacheReadTokens + count("total_tool_use_tokens"),
    cacheReadTokens,
    outputTokens: (output ?? 0) + count("total_thought_tokens")
  })
}

/** The statuses of an interaction that goes on without this request, or has not begun. */
const isOpen = (status: string | undefined): boolean => status === "in_progress" || status === "queued"

const withInteraction = (answer: Answer, interaction: unknown): Answer => {
  const id = nameOf(at(interaction, "id"))
  const status = textOf(at(interaction, "status"))
  const hasFailed = status === "failed"
  const [error = { code: "server_error" }] = listOf(at(interaction, "errors"))
  return {
    ...withUsage(answer, at(interaction, "usage")),
    id: id ?? answer.id,
    continuation: id ?? answer.continuation,
    model: nameOf(at(interaction, "model")) ?? answer.model,
    finishReason: isOpen(status) ? answer.finishReason : (status ?? answer.finishReason),
    error: hasFailed ? { error } : answer.error
  }
}

const readAnswer = (body: unknown): Answer => {
  const answer = withInteraction(emptyAnswer, body)
  const error = answer.error ?? errorIn(body)
  const isWhole = error === undefined && isRecord(body) && !isOpen(textOf(body["status"]))
  return { ...answer, error, started: isWhole, complete: isWhole }
}

/** Characters of output in a delta: a text, a summary of thoughts, or the arguments of a tool. */
const lengthOf = (delta: unknown): number =>
  characters(at(delta, "text")) +
  characters(at(delta, "arguments")) +
  characters(at(delta, "partial_arguments")) +
  characters(at(delta, "content", "text"))

const step = (answer: Answer, event: unknown): Answer => {
  switch (at(event, "event_type")) {
    case "interaction.created":
      return withInteraction(answer, at(event, "interaction"))
    case "step.start":
      return { ...answer, started: true }
    case "step.delta": {
      const uncounted = answer.uncounted + lengthOf(at(event, "delta"))
      return withUsage({ ...answer, started: true, uncounted }, at(event, "metadata", "total_usage"))
    }
    case "step.stop":
    case "interaction.status_update":
      return withUsage(answer, at(event, "usage"))
    case "interaction.completed":
      return { ...withInteraction(answer, at(event, "interaction")), started: true, complete: true }
    case "error":
      return { ...answer, error: event }
    default:
      return answer
  }
}

const observe: Protocol["observe"] = (answer, { data, name }) => {
  if (data === "" || data === "[DONE]") return answer
  const event = parseJson(data)
  return name === "error" ? { ...answer, error: event ?? data } : step(answer, event)
}

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

/** Here a code is a text. */
const errorOf = ({ kind, message }: Refusal) => ({
  code: kind.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
  message
})

/**
 * Gemini's Interactions, in the Gemini API and on Vertex AI.
 *
 * **Details**
 *
 * An interaction that names an earlier one contains only the new input, and the model also reads everything before it. One in the
 * background has no usage yet, so its call keeps its estimate. The name of an agent stands for that of a model.
 *
 * **Example** (What an interaction used)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const { counts } = protocols.geminiInteractions.answer({
 *   id: "i1",
 *   status: "completed",
 *   usage: { total_input_tokens: 90, total_cached_tokens: 60, total_output_tokens: 5, total_thought_tokens: 7 }
 * })
 *
 * counts.inputTokens // => 30
 * counts.outputTokens // => 12
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.5.0
 */
export const geminiInteractions: Protocol = {
  ...gemini,
  name: "gemini-interactions",
  match: matchRoute,
  describe,
  answer: readAnswer,
  observe,
  streamFormat: undefined,
  refuse: (refusal) => refusalResponse(refusal, { error: errorOf(refusal) }),
  refuseInStream: (refusal) => sseEvent("error", { event_type: "error", error: errorOf(refusal) })
}
