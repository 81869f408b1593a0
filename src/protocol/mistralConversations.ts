/**
 * Mistral's conversations, which share their paths with OpenAI's stored conversations. No model answers those.
 *
 * Source: https://docs.mistral.ai/api/endpoint/beta/conversations
 */
import { amountOf, at, isRecord, nameOf, parseJson, textOf } from "./json.ts"
import { errorBody, mistral } from "./mistral.ts"
import { countsOf, errorIn, outcomeOf, reasons } from "./openai.ts"
import { type Answer, emptyAnswer, type Protocol, type Route, withCounts } from "./protocol.ts"
import { refusalResponse, sseEvent, statusOf } from "./refusal.ts"
import { add, addSchema, newSum, sizeOf } from "./requestSize.ts"

const conversations = /^(?:|\/(?:.*\/)?v\d+)\/conversations(?:\/(?<id>[^/]+)(?<rest>\/restart)?)?$/

const matchRoute = (method: string, path: string): Route | undefined => {
  if (method !== "POST" || !conversations.test(path)) return undefined
  return { operation: "generate", path: path.startsWith("/conversations") ? `/v1${path}` : path }
}

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

const describe: Protocol["describe"] = (body, { path }) => {
  // OpenAI's have `items` and `metadata`.
  if (!isRecord(body)) return undefined
  const model = nameOf(body["model"]) ?? nameOf(body["agent_id"])
  const id = conversations.exec(path)?.groups?.["id"]
  if (body["inputs"] === undefined && model === undefined) return undefined
  const config = body["completion_args"]
  const sum = newSum()
  add(sum, body["instructions"])
  add(sum, body["inputs"])
  addSchema(sum, body["tools"])
  addSchema(sum, at(config, "response_format"))
  return {
    ...sizeOf(sum),
    model,
    maxTokens: amountOf(at(config, "max_tokens")),
    thinking: reasons(at(config, "reasoning_effort")),
    stream: body["stream"] === true,
    continues: nameOf(id),
    stored: id !== undefined || sum.stored === true || body["agent_id"] !== undefined,
    needsUsageRequest: false
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/** Connectors, such as a search of the web, add to the prompt, and their tokens are counted apart. */
const withUsage = (answer: Answer, usage: unknown): Answer => {
  if (!isRecord(usage)) return answer
  const counts = countsOf(usage["prompt_tokens"], usage["prompt_tokens_details"], usage["completion_tokens"])
  const connectors = amountOf(usage["connector_tokens"]) ?? 0
  const { inputTokens } = counts
  return withCounts(answer, inputTokens === undefined ? counts : { ...counts, inputTokens: inputTokens + connectors })
}

const withConversation = (answer: Answer, response: unknown): Answer => {
  const id = nameOf(at(response, "conversation_id"))
  return { ...answer, id: id ?? answer.id, continuation: id ?? answer.continuation }
}

const readAnswer = (body: unknown): Answer => ({
  ...withUsage(withConversation(emptyAnswer, body), at(body, "usage")),
  ...outcomeOf(body)
})

/** Characters of output: a text, a part with one, or the arguments of a function. */
const lengthOf = (event: unknown): number => {
  const content = at(event, "content")
  const text = textOf(content) ?? textOf(at(content, "text")) ?? textOf(at(event, "arguments"))
  return text?.length ?? 0
}

const step = (answer: Answer, type: string, event: unknown): Answer => {
  switch (type) {
    case "conversation.response.started":
      return withConversation(answer, event)
    case "conversation.response.done":
      return { ...withUsage(answer, at(event, "usage")), started: true, complete: true }
    case "conversation.response.error":
      return { ...answer, error: event }
    default:
      return { ...answer, started: true, uncounted: answer.uncounted + lengthOf(event) }
  }
}

const observe: Protocol["observe"] = (answer, { data, name }) => {
  const event = data === "" || data === "[DONE]" ? undefined : parseJson(data)
  if (!isRecord(event)) return answer
  const error = errorIn(event)
  return error === undefined ? step(answer, textOf(event["type"]) ?? name ?? "", event) : { ...answer, error }
}

/**
 * Mistral's conversations: to start one, to add to it, and to restart it.
 *
 * **Details**
 *
 * A conversation is stored, so a request that continues one contains only the new input. It may name no model, whose name is
 * then `unknown`. OpenAI's stored conversations have the same paths; they are told apart by their bodies, and are passed on.
 *
 * **Example** (A turn of a conversation)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const route = protocols.mistralConversations.match("POST", "/v1/conversations/conv_1")!
 *
 * protocols.mistralConversations.describe({ inputs: "And now?" }, route)?.continues // => "conv_1"
 * protocols.mistralConversations.describe({ metadata: { topic: "gates" } }, route) // => undefined
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.5.0
 */
export const mistralConversations: Protocol = {
  ...mistral,
  name: "mistral-conversations",
  match: matchRoute,
  describe,
  answer: readAnswer,
  observe,
  refuse: (refusal) => refusalResponse(refusal, errorBody(refusal)),
  refuseInStream: (refusal) => {
    const data = { type: "conversation.response.error", message: refusal.message, code: statusOf(refusal) }
    return sseEvent(data.type, data)
  }
}
