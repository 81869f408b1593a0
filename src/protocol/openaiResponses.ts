/**
 * OpenAI's Responses.
 *
 * Sources:
 *
 * - https://developers.openai.com/api/reference/resources/responses
 * - https://developers.openai.com/api/docs/guides/conversation-state
 */
import { failureOf } from "./errors.ts"
import { amountOf, at, characters, isRecord, nameOf, parseJson, textOf } from "./json.ts"
import { countsOf, deploymentOf, errorIn, errorOf, keptFor, tierOf, agentOfRequest, reasons } from "./openai.ts"
import {
  type Answer,
  emptyAnswer,
  limitsInHeaders,
  type Protocol,
  type Route,
  withCounts,
  withVersion
} from "./protocol.ts"
import { jsonWhitespace, type Refusal, refusalResponse, sseComment, sseEvent } from "./refusal.ts"
import { PrefixReader } from "./prefixes.ts"
import { add, sizeOf } from "./requestSize.ts"

// -----------------------------------------------------------------------------
// Routes
// -----------------------------------------------------------------------------

/** `/responses` at the root, after a version, or after `openai` as at Azure. */
const responses = /^(?:|\/(?:.*\/)?(?:v\d[a-z\d]*|openai))\/responses(?<rest>\/.*)?$/

const operations: ReadonlyMap<string, Route["operation"]> = new Map([
  ["", "generate"],
  // A model shortens a conversation, and reports its usage like any answer.
  ["/compact", "generate"],
  ["/input_tokens", "countTokens"]
])

/** The conversations that responses are added to. At OpenAI no model answers these requests; Mistral's of the same paths are calls. */
const conversations = /^\/(?:.*\/)?v\d+\/conversations(?:\/.*)?$/

const matchRoute = (method: string, path: string): Route | undefined => {
  const found = responses.exec(path)
  if (found === null) return conversations.test(path) ? { operation: "passThrough", path } : undefined
  const rest = found.groups?.["rest"] ?? ""
  return {
    operation: (method === "POST" ? operations.get(rest) : undefined) ?? "passThrough",
    model: deploymentOf(path),
    path: path.startsWith("/responses") ? withVersion(path, "v1") : path
  }
}

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** A conversation that OpenAI stores, by its id or in an object. */
const conversationOf = (body: unknown): string | undefined =>
  nameOf(at(body, "conversation")) ?? nameOf(at(body, "conversation", "id"))

const describe: Protocol["describe"] = (body, route) => {
  if (!isRecord(body)) return undefined
  const prompt = new PrefixReader()
  const { sum } = prompt
  prompt.schema(at(body, "text", "format"))
  prompt.schema(body["tools"])
  prompt.system(body["instructions"])
  prompt.setting(at(body, "prompt", "id"))
  const variables = at(body, "prompt", "variables")
  // The model does not see the names of variables.
  if (isRecord(variables)) add(sum, Object.values(variables))
  prompt.setting(variables)
  prompt.setting(body["context_management"])
  prompt.messages(body["input"])
  const continues = nameOf(body["previous_response_id"]) ?? conversationOf(body)
  return {
    ...sizeOf(sum),
    prefixes: prompt.prefixes(keptFor(body)),
    model: route.model ?? nameOf(body["model"]),
    maxTokens: amountOf(body["max_output_tokens"]),
    thinking: reasons(at(body, "reasoning", "effort")),
    stream: body["stream"] === true,
    ...(body["background"] === true && { background: true }),
    ...tierOf(body["service_tier"]),
    continues,
    stored: continues !== undefined || sum.stored === true || isRecord(body["prompt"]),
    needsUsageRequest: false
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/** Takes in a response object, from a body or an event. The answer is whole once its status is final. */
const withResponse = (answer: Answer, response: unknown): Answer => {
  const id = nameOf(at(response, "id"))
  const usage = at(response, "usage")
  const status = textOf(at(response, "status"))
  const counts = countsOf(at(usage, "input_tokens"), at(usage, "input_tokens_details"), at(usage, "output_tokens"))
  return {
    ...withCounts(answer, counts),
    id: id ?? answer.id,
    continuation: conversationOf(response) ?? id ?? answer.continuation,
    model: nameOf(at(response, "model")) ?? answer.model,
    finishReason:
      nameOf(at(response, "incomplete_details", "reason")) ?? (isEnd(status) ? status : answer.finishReason),
    complete: answer.complete || isEnd(status),
    error: status === "failed" ? (errorIn(response) ?? { error: { code: "server_error" } }) : answer.error
  }
}

/** One in the background ends with `cancelled` if somebody cancels it. */
const ends: ReadonlySet<unknown> = new Set(["completed", "incomplete", "cancelled"])
const isEnd = (status: string | undefined): boolean => ends.has(status)

const readAnswer = (body: unknown): Answer => {
  const answer = withResponse(emptyAnswer, body)
  const error = answer.error ?? errorIn(body)
  // A compacted conversation has no status; one in the background has not begun.
  const isWhole = error === undefined && (answer.complete || (isRecord(body) && body["status"] === undefined))
  return { ...answer, error, started: isWhole, complete: isWhole }
}

/** Events that come before any content. */
const preludes: ReadonlySet<unknown> = new Set(["response.created", "response.in_progress", "response.queued"])

/** Texts, arguments of tools and summaries of reasoning are in `delta`; sound and pictures are not counted by length. */
const lengthOf = (event: unknown, type: string): number =>
  type.endsWith(".delta") && type !== "response.audio.delta" ? characters(at(event, "delta")) : 0

const step = (answer: Answer, event: unknown): Answer => {
  const type = textOf(at(event, "type"))
  if (type === "error") return { ...answer, error: event }
  if (type === undefined || !type.startsWith("response.")) return answer
  if (isRecord(at(event, "response"))) {
    const next = withResponse(answer, at(event, "response"))
    return next.complete && !preludes.has(type) ? { ...next, started: true } : next
  }
  if (preludes.has(type)) return answer
  return { ...answer, started: true, uncounted: answer.uncounted + lengthOf(event, type) }
}

const observe: Protocol["observe"] = (answer, { data, name }) => {
  if (data === "") return answer
  const event = parseJson(data)
  if (name === "error" || errorIn(event) !== undefined) return { ...answer, error: event ?? data }
  return step(answer, event)
}

/** The openai SDK reads the error from the event itself, the AI SDK from its `error`. */
const errorEvent = (refusal: Refusal) => {
  const error = errorOf(refusal)
  const { code, message, param } = error
  return { type: "error", sequence_number: 0, code, message, param, error }
}

/**
 * OpenAI's Responses, including stored conversations.
 *
 * **Details**
 *
 * A request with `previous_response_id` or a `conversation` contains only the new input, and the model also reads everything
 * before it. So remember the usage of an answer by its {@link Answer.continuation}.
 *
 * **Example** (Usage with cached input)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const { counts } = protocols.openaiResponses.answer({
 *   id: "resp_1",
 *   status: "completed",
 *   usage: { input_tokens: 1_000, input_tokens_details: { cached_tokens: 600 }, output_tokens: 50 }
 * })
 *
 * counts.inputTokens // => 400
 * counts.cacheReadTokens // => 600
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.1.0
 */
/** A 402 becomes a 400, because Codex, which speaks this protocol, sends a call five times again after a 402. */
const unretried = (refusal: Refusal): Refusal =>
  refusal.kind === "spendLimited" ? { ...refusal, kind: "jobLimited" } : refusal

export const openaiResponses: Protocol = {
  name: "openai-responses",
  provider: "openai",
  match: matchRoute,
  describe,
  agentOf: agentOfRequest,
  answer: readAnswer,
  observe,
  limits: limitsInHeaders,
  // OpenAI adds codes for requests at fault, and a retry of one repeats the failure for minutes. So an unknown code is final.
  failure: (response, context) => failureOf(response, { ...context, isFinal: true }),
  refuse: (refusal) => refusalResponse(unretried(refusal), { error: errorOf(refusal) }),
  refuseInStream: (refusal) => sseEvent("error", errorEvent(refusal)),
  keepAlive: { stream: sseComment, whole: jsonWhitespace }
}
