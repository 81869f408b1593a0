/**
 * Ollama's own API: chats, completions and embeddings.
 *
 * Source: https://docs.ollama.com/api
 */
import { bytesPerToken } from "../domain/amounts.ts"
import { failureOf } from "./errors.ts"
import { withoutOutput } from "./embeddings.ts"
import { amountOf, at, characters, isRecord, listOf, nameOf } from "./json.ts"
import { errorIn, outcomeOf, reasons } from "./openai.ts"
import {
  type Answer,
  emptyAnswer,
  limitsInHeaders,
  observeJson,
  type Protocol,
  type Route,
  withCounts
} from "./protocol.ts"
import { jsonWhitespace, refusalResponse } from "./refusal.ts"
import { agentInHeaders } from "./lineage.ts"
import { add, addSchema, imageBytes, jsonBytes, newSum, sizeOf, type Sum } from "./requestSize.ts"

// -----------------------------------------------------------------------------
// Routes
// -----------------------------------------------------------------------------

const endpoints = /^(?:\/.*)?\/api\/(?<endpoint>chat|generate|embed|embeddings)$/
/** Requests about models, which no model answers. */
const others = /^(?:\/.*)?\/api\/(?:tags|ps|show|version|pull|push|create|copy|delete|blobs\/[^/]+)$/

const matchRoute = (method: string, path: string): Route | undefined => {
  const { endpoint } = endpoints.exec(path)?.groups ?? {}
  if (endpoint === undefined) return others.test(path) ? { operation: "passThrough", path } : undefined
  if (method !== "POST") return { operation: "passThrough", path }
  return { operation: endpoint.startsWith("embed") ? "embed" : "generate", path }
}

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** Adds a message. Its pictures are in base64. */
const addMessage = (sum: Sum, message: unknown): void => {
  if (!isRecord(message)) return
  const { images, ...rest } = message
  add(sum, rest)
  sum.files += imageBytes * listOf(images).length
}

const describe: Protocol["describe"] = (body, route) => {
  if (!isRecord(body)) return undefined
  const model = nameOf(body["model"])
  // Programs have paths such as `/api/chat` of their own.
  if (model === undefined) return undefined
  const sum = newSum()
  if (route.operation === "embed") {
    for (const name of ["input", "prompt"]) add(sum, body[name])
    if (sum.text === 0) sum.text = jsonBytes(body)
    return { ...sizeOf(sum), ...withoutOutput, model, stored: false }
  }
  for (const message of listOf(body["messages"])) addMessage(sum, message)
  addMessage(sum, { system: body["system"], prompt: body["prompt"], suffix: body["suffix"], images: body["images"] })
  sum.text += bytesPerToken * listOf(body["context"]).length
  addSchema(sum, body["tools"])
  addSchema(sum, body["format"])
  return {
    ...sizeOf(sum),
    model,
    // A negative number allows any output.
    maxTokens: amountOf(at(body, "options", "num_predict")),
    thinking: body["think"] === true || reasons(body["think"]),
    stream: body["stream"] !== false,
    continues: undefined,
    stored: false,
    needsUsageRequest: false
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

const withUsage = (answer: Answer, body: unknown, outputTokens: number | undefined): Answer =>
  withCounts(answer, { inputTokens: amountOf(at(body, "prompt_eval_count")), outputTokens })

/** Characters of output: a text, a thought, or a call of a tool. */
const lengthOf = (body: unknown): number => {
  const message = at(body, "message") ?? body
  const tools = listOf(at(message, "tool_calls"))
  const length =
    characters(at(message, "content")) + characters(at(message, "response")) + characters(at(message, "thinking"))
  return tools.length === 0 ? length : length + jsonBytes(tools)
}

/** Takes in a line of a stream. The last one has the counts. */
const step = (answer: Answer, line: unknown): Answer => {
  const error = errorIn(line)
  if (error !== undefined) return { ...answer, error }
  const isLast = at(line, "done") === true
  const length = lengthOf(line)
  const next = {
    ...answer,
    model: nameOf(at(line, "model")) ?? answer.model,
    finishReason: nameOf(at(line, "done_reason")) ?? answer.finishReason,
    uncounted: answer.uncounted + length,
    started: answer.started || length > 0 || isLast,
    complete: answer.complete || isLast
  }
  return isLast ? withUsage(next, line, amountOf(at(line, "eval_count"))) : next
}

/** A whole answer, or embeddings, which have no output. */
const readAnswer = (body: unknown): Answer => {
  const isEmbedding = at(body, "embeddings") !== undefined || at(body, "embedding") !== undefined
  const answer = withUsage(emptyAnswer, body, isEmbedding ? 0 : amountOf(at(body, "eval_count")))
  return {
    ...answer,
    model: nameOf(at(body, "model")),
    finishReason: nameOf(at(body, "done_reason")),
    ...outcomeOf(body)
  }
}

/**
 * Ollama's own API: `/api/chat`, `/api/generate`, `/api/embed` and `/api/embeddings`, under any base URL.
 *
 * **Details**
 *
 * Answers are streamed unless the request says `stream: false`. A stream consists of JSON objects on lines, the last of which has the
 * counts. A request without a model is no call, because programs have such paths of their own.
 *
 * **Example** (The end of a stream)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const lines = ['{"message":{"content":"Hello"},"done":false}', '{"done":true,"prompt_eval_count":9,"eval_count":1}']
 * const answer = lines.reduce((answer, data) => protocols.ollama.observe(answer, { name: undefined, data }), protocols.ollama.answer(undefined))
 *
 * answer.complete // => true
 * answer.counts.inputTokens // => 9
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.5.0
 */
export const ollama: Protocol = {
  name: "ollama",
  provider: "ollama",
  match: matchRoute,
  describe,
  agentOf: agentInHeaders,
  answer: readAnswer,
  observe: observeJson(step),
  limits: limitsInHeaders,
  failure: failureOf,
  refuse: (refusal) => refusalResponse(refusal, { error: refusal.message }),
  refuseInStream: ({ message }) => `${JSON.stringify({ error: message })}\n`,
  streamFormat: () => "lines",
  // Space before an object on its line. An empty line would not be JSON.
  keepAlive: { stream: jsonWhitespace, whole: jsonWhitespace }
}
