/**
 * Gemini's embeddings: embedContent, and batchEmbedContents, each item of which counts as a request.
 *
 * Sources:
 *
 * - https://ai.google.dev/api/embeddings
 * - https://ai.google.dev/gemini-api/docs/rate-limits
 */
import { gemini } from "./gemini.ts"
import { amountOf, at, isRecord, listOf, nameOf } from "./json.ts"
import { errorIn } from "./openai.ts"
import {
  type Answer,
  decodeSegment,
  emptyAnswer,
  type Protocol,
  type Route,
  withCounts,
  withVersion
} from "./protocol.ts"
import { add, jsonBytes, sizeOf, type Sum } from "./requestSize.ts"

/** `models/M:embedContent`, also of Vertex AI's own models. */
const embed = /\/models\/(?<model>[^/:]+):(?:embedContent|batchEmbedContents)$/

const matchRoute = (method: string, path: string): Route | undefined => {
  const { model } = embed.exec(path)?.groups ?? {}
  if (model === undefined) return undefined
  return {
    operation: method === "POST" ? "embed" : "passThrough",
    model: decodeSegment(model),
    path: withVersion(path, "v1beta")
  }
}

/** Adds the content of a request to embed. Its other properties are settings. */
const addContent = (sum: Sum, request: unknown): void => {
  add(sum, at(request, "content"))
  add(sum, at(request, "title"))
}

const describe: Protocol["describe"] = (body, route) => {
  if (!isRecord(body)) return undefined
  const items = listOf(body["requests"])
  const sum: Sum = { text: 0, files: 0 }
  if (items.length > 0) for (const item of items) addContent(sum, item)
  else if (body["content"] === undefined) sum.text = jsonBytes(body)
  else addContent(sum, body)
  return {
    ...sizeOf(sum),
    model: route.model,
    requests: Math.max(1, items.length),
    maxTokens: 0,
    thinking: false,
    stream: false,
    continues: undefined,
    stored: sum.stored === true,
    needsUsageRequest: false
  }
}

/** Older models do not report their usage. */
const readAnswer = (body: unknown): Answer => {
  const error = errorIn(body)
  const isWhole = isRecord(body) && error === undefined
  const inputTokens = amountOf(at(body, "usageMetadata", "promptTokenCount"))
  const answer = { ...emptyAnswer, model: nameOf(at(body, "modelVersion")), started: isWhole, complete: isWhole, error }
  return inputTokens === undefined ? answer : withCounts(answer, { inputTokens, outputTokens: 0 })
}

/**
 * Gemini's embedContent and batchEmbedContents, in the Gemini API and on Vertex AI.
 *
 * **Example** (The requests of a batch)
 *
 * ```ts doctest
 * import { geminiEmbeddings } from "floodgate/protocol"
 *
 * const route = geminiEmbeddings.match("POST", "/v1beta/models/gemini-embedding-001:batchEmbedContents")!
 * const content = { parts: [{ text: "Hello" }] }
 *
 * geminiEmbeddings.describe({ requests: [{ content }, { content }, { content }] }, route)?.requests // => 3
 * ```
 *
 * @category protocols
 * @since 0.4.0
 */
export const geminiEmbeddings: Protocol = {
  name: "gemini-embeddings",
  provider: "gcp.gemini",
  match: matchRoute,
  describe,
  agentOf: gemini.agentOf,
  answer: readAnswer,
  // Embeddings are never streamed.
  observe: (answer) => answer,
  limits: gemini.limits,
  failure: gemini.failure,
  refuse: gemini.refuse,
  refuseInStream: gemini.refuseInStream,
  keepAlive: gemini.keepAlive
}
