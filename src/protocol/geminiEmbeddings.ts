/**
 * Gemini's embeddings: embedContent, and batchEmbedContents, each item of which counts as a request.
 *
 * Sources:
 *
 * - https://ai.google.dev/api/embeddings
 * - https://ai.google.dev/gemini-api/docs/rate-limits
 */
import { observe, readAnswer, withoutOutput } from "./embeddings.ts"
import { gemini } from "./gemini.ts"
import { at, isRecord, listOf } from "./json.ts"
import { decodeSegment, type Protocol, type Route, withVersion } from "./protocol.ts"
import { add, jsonBytes, newSum, sizeOf, type Sum } from "./requestSize.ts"

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
  const sum = newSum()
  if (items.length > 0) for (const item of items) addContent(sum, item)
  else if (body["content"] === undefined) sum.text = jsonBytes(body)
  else addContent(sum, body)
  return {
    ...sizeOf(sum),
    ...withoutOutput,
    model: route.model,
    requests: Math.max(1, items.length),
    stored: sum.stored === true
  }
}

/**
 * Gemini's embedContent and batchEmbedContents, in the Gemini API and on Vertex AI.
 *
 * **Example** (The requests of a batch)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const route = protocols.geminiEmbeddings.match("POST", "/v1beta/models/gemini-embedding-001:batchEmbedContents")!
 * const content = { parts: [{ text: "Hello" }] }
 *
 * protocols.geminiEmbeddings.describe({ requests: [{ content }, { content }, { content }] }, route)?.requests // => 3
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.4.0
 */
export const geminiEmbeddings: Protocol = {
  ...gemini,
  name: "gemini-embeddings",
  match: matchRoute,
  describe,
  answer: (body) => readAnswer(body, at(body, "modelVersion"), at(body, "usageMetadata", "promptTokenCount")),
  observe
}
