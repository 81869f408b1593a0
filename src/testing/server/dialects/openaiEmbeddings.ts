/** OpenAI's embeddings, which have input and no output. Equal texts have equal vectors; otherwise vectors are random. */
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages"
import { nameOf } from "../../../protocol/json.ts"
import { openaiEmbeddings as protocol } from "../../../protocol/openaiEmbeddings.ts"
import type { Route } from "../../../protocol/protocol.ts"
import * as Seeded from "../../seeded.ts"
import * as Request from "../request.ts"
import type { Body, Dialect, AnswerContext, ReadRequest } from "./dialect.ts"
import * as OpenAi from "./openai.ts"

/** The number of dimensions of `text-embedding-3-small`. */
const usualDimensions = 1_536
const maxDimensions = 4_096

/** The texts of a request, which has one or several. A list of tokens is read as a text of as many short words. */
const textsOf = (input: unknown): ReadonlyArray<string> | undefined => {
  if (typeof input === "string") return [input]
  if (!Array.isArray(input) || input.length === 0) return undefined
  const isTokens = (one: unknown): boolean => Array.isArray(one) && one.every((token) => typeof token === "number")
  if (isTokens(input)) return [wordsOf(input)]
  if (!input.every((one) => typeof one === "string" || isTokens(one))) return undefined
  return input.map((one: unknown) => (typeof one === "string" ? one : wordsOf(one as ReadonlyArray<number>)))
}

const wordsOf = (tokens: ReadonlyArray<number>): string => tokens.map((token) => `${token} `.padStart(4)).join("")

const dimensionsOf = (body: Body): number | undefined => {
  const { dimensions = usualDimensions } = body
  const isValid =
    typeof dimensions === "number" && Number.isInteger(dimensions) && dimensions > 0 && dimensions <= maxDimensions
  return isValid ? dimensions : undefined
}

const read = (body: Body, route: Route): ReadRequest | Request.ApiError => {
  const model = route.model ?? nameOf(body["model"])
  if (model === undefined) return Request.invalid("model: expected a string")
  const texts = textsOf(body["input"])
  if (texts === undefined) return Request.invalid("input: expected a text, a list of texts, or lists of tokens")
  if (dimensionsOf(body) === undefined) return Request.invalid(`dimensions: expected 1 to ${maxDimensions}`)
  const content = texts.map((text) => ({ type: "text" as const, text }))
  return { params: { model, max_tokens: 0, messages: [{ role: "user", content }] }, stores: false }
}

/** A vector of length 1. */
const vectorOf = (text: string, dimensions: number): Float32Array => {
  const seed = Seeded.hashText(text)
  const vector = Float32Array.from({ length: dimensions }, (_, index) => Seeded.unit(seed, index) - 0.5)
  const length = Math.hypot(...vector)
  return vector.map((value) => value / length)
}

const whole = (message: Message, { body }: AnswerContext) => {
  const dimensions = dimensionsOf(body) ?? usualDimensions
  const { input } = OpenAi.usageOf(message)
  const data = (textsOf(body["input"]) ?? []).map((text, index) => {
    const vector = vectorOf(text, dimensions)
    const embedding =
      body["encoding_format"] === "base64" ? Buffer.from(vector.buffer).toString("base64") : Array.from(vector)
    return { object: "embedding", index, embedding }
  })
  return { object: "list", data, model: message.model, usage: { prompt_tokens: input, total_tokens: input } }
}

/** Writes the messages of the simulation as embeddings. */
export const openaiEmbeddings: Dialect = {
  ...OpenAi.common,
  protocol,
  read,
  readCount: read,
  counted: () => ({}),
  whole,
  // Embeddings are never streamed.
  stream: () => ({ contentType: "text/event-stream", write: () => "" })
}
