/**
 * Cohere's chat, embeddings and reranking. Jina, Voyage, vLLM and others rerank by the same form.
 *
 * Sources:
 *
 * - https://docs.cohere.com/reference/chat
 * - https://docs.cohere.com/reference/chat-stream
 * - https://docs.cohere.com/reference/embed
 * - https://docs.cohere.com/reference/rerank
 */
import { withoutOutput } from "./embeddings.ts"
import { failureOf } from "./errors.ts"
import { amountOf, at, characters, isRecord, listOf, nameOf, parseJson, textOf } from "./json.ts"
import { errorIn, outcomeOf } from "./openai.ts"
import { type Answer, emptyAnswer, limitsInHeaders, type Protocol, type Route, withCounts } from "./protocol.ts"
import { jsonWhitespace, type Refusal, refusalResponse, sseComment, sseEvent } from "./refusal.ts"
import { agentInHeaders } from "./lineage.ts"
import { add, addSchema, imageBytes, jsonBytes, newSum, sizeOf, type Sum } from "./requestSize.ts"

// -----------------------------------------------------------------------------
// Routes
// -----------------------------------------------------------------------------

const endpoints = /^(?:\/.*)?\/(?<endpoint>v2\/chat|v[12]\/embed|v[12]\/rerank)$/
/** Requests that cost nothing, and those whose usage is not read. */
const others =
  /^(?:\/.*)?\/(?:v1\/(?:chat|generate|classify|summarize|tokenize|detokenize|check-api-key|embed-jobs|datasets|connectors|finetuning)|v2\/parse)(?:\/.*)?$/

const matchRoute = (method: string, path: string): Route | undefined => {
  const { endpoint } = endpoints.exec(path)?.groups ?? {}
  if (endpoint === undefined) {
    return others.test(path) && !/\/v1\/chat\/./.test(path) ? { operation: "passThrough", path } : undefined
  }
  if (method !== "POST") return { operation: "passThrough", path }
  return { operation: endpoint === "v2/chat" ? "generate" : "embed", path }
}

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

const ofChat = (sum: Sum, body: Readonly<Record<string, unknown>>) => {
  add(sum, body["messages"])
  add(sum, body["documents"])
  addSchema(sum, body["tools"])
  addSchema(sum, body["response_format"])
  return {
    maxTokens: amountOf(body["max_tokens"]),
    thinking: at(body, "thinking", "type") === "enabled",
    stream: body["stream"] === true,
    continues: undefined,
    needsUsageRequest: false
  }
}

/** Cohere bills a search for each hundred chunks of at most 500 tokens. A token has at least a byte. */
const chunkBytes = 500
const chunksOfSearch = 100

const searchesOf = (documents: unknown): number => {
  const chunks = listOf(documents).reduce<number>((sum, each) => sum + Math.ceil((jsonBytes(each) + 1) / chunkBytes), 0)
  return Math.max(1, Math.ceil(chunks / chunksOfSearch))
}

const addTexts = (sum: Sum, body: Readonly<Record<string, unknown>>): void => {
  for (const name of ["texts", "inputs", "query", "documents"]) add(sum, body[name])
  sum.files += imageBytes * listOf(body["images"]).length
  if (sum.text + sum.files === 0) sum.text = jsonBytes(body)
}

const describe: Protocol["describe"] = (body, route) => {
  if (!isRecord(body)) return undefined
  const sum = newSum()
  let asked: ReturnType<typeof ofChat> | typeof withoutOutput = withoutOutput
  if (route.operation === "generate") asked = ofChat(sum, body)
  else if (route.path.endsWith("/v2/rerank")) sum.text = searchesOf(body["documents"])
  else addTexts(sum, body)
  return { ...sizeOf(sum), ...asked, model: nameOf(body["model"]), stored: sum.stored === true }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/** Adds what is billed, or else what was read. Searches take the place of tokens. Others than Cohere report one total. */
const withUsage = (answer: Answer, usage: unknown): Answer => {
  const billed = at(usage, "billed_units")
  const count = (name: string): number | undefined => amountOf(at(billed, name)) ?? amountOf(at(usage, "tokens", name))
  const input = count("input_tokens") ?? amountOf(at(billed, "search_units")) ?? amountOf(at(usage, "total_tokens"))
  const images = amountOf(at(billed, "image_tokens"))
  const outputTokens = count("output_tokens")
  if (input === undefined && images === undefined) return withCounts(answer, { outputTokens })
  return withCounts(answer, { inputTokens: (input ?? 0) + (images ?? 0), outputTokens: outputTokens ?? 0 })
}

const readAnswer = (body: unknown): Answer => ({
  ...withUsage(emptyAnswer, at(body, "meta") ?? at(body, "usage")),
  id: nameOf(at(body, "id")),
  model: nameOf(at(body, "model")),
  finishReason: nameOf(at(body, "finish_reason")),
  ...outcomeOf(body)
})

/** Characters of output in a delta: a text, a thought, a plan, or the arguments of a tool. */
const lengthOf = (message: unknown): number =>
  characters(at(message, "content", "text")) +
  characters(at(message, "content", "thinking")) +
  characters(at(message, "tool_plan")) +
  characters(at(message, "tool_calls", "function", "arguments"))

const step = (answer: Answer, event: unknown): Answer => {
  const delta = at(event, "delta")
  switch (at(event, "type")) {
    case "message-start":
      return { ...answer, id: nameOf(at(event, "id")) }
    case "message-end": {
      const error = textOf(at(delta, "error"))
      if (error !== undefined) return { ...answer, error: { message: error } }
      const finishReason = nameOf(at(delta, "finish_reason")) ?? answer.finishReason
      return { ...withUsage(answer, at(delta, "usage")), finishReason, complete: true }
    }
    case "content-start":
    case "content-delta":
    case "tool-plan-delta":
    case "tool-call-start":
    case "tool-call-delta":
      return { ...answer, started: true, uncounted: answer.uncounted + lengthOf(at(delta, "message")) }
    default:
      return answer
  }
}

const observe: Protocol["observe"] = (answer, { data }) => {
  if (data === "") return answer
  if (data === "[DONE]") return { ...answer, complete: true }
  const event = parseJson(data)
  const error = errorIn(event)
  return error === undefined ? step(answer, event) : { ...answer, error }
}

const ofEnd = ({ message }: Refusal) => ({ type: "message-end", delta: { error: message, finish_reason: "ERROR" } })

/**
 * Cohere's chat (`/v2/chat`), embeddings (`/v2/embed`, `/v1/embed`) and reranking (`/v2/rerank`, `/v1/rerank`), under any base URL.
 *
 * **Details**
 *
 * What is counted is what Cohere bills, in tokens. A reranking is billed by searches, which take the place of its tokens: a price of
 * 2 dollars for 1,000 searches is `{ input: 2_000, output: 0 }`. Services that report `usage.total_tokens` instead are counted by
 * those.
 *
 * **Example** (What a chat used)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const usage = { billed_units: { input_tokens: 12, output_tokens: 3 }, tokens: { input_tokens: 80, output_tokens: 3 } }
 *
 * protocols.cohere.match("POST", "/v2/chat")?.operation // => "generate"
 * protocols.cohere.answer({ id: "c1", finish_reason: "COMPLETE", usage }).counts.inputTokens // => 12
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.5.0
 */
export const cohere: Protocol = {
  name: "cohere",
  provider: "cohere",
  match: matchRoute,
  describe,
  agentOf: agentInHeaders,
  answer: readAnswer,
  observe,
  limits: limitsInHeaders,
  failure: failureOf,
  refuse: (refusal) => refusalResponse(refusal, { message: refusal.message }),
  refuseInStream: (refusal) => sseEvent("message-end", ofEnd(refusal)),
  keepAlive: { stream: sseComment, whole: jsonWhitespace }
}
