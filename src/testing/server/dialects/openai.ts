/** Shared by OpenAI's Chat Completions and Responses: content, tools, usage and errors. */
import type {
  ContentBlockParam,
  Message,
  MessageParam,
  StopReason,
  ToolUnion
} from "@anthropic-ai/sdk/resources/messages/messages"
import { at, isRecord, listOf, parseJson, textOf } from "../../../protocol/json.ts"
import * as Request from "../request.ts"
import { type Body, type Dialect, type DialectFailure, unlimited } from "./dialect.ts"

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** A part of a content as a block with the same number of tokens. */
const blockOf = (part: unknown): ContentBlockParam => {
  const text = textOf(at(part, "text")) ?? textOf(at(part, "refusal"))
  if (text !== undefined) return { type: "text", text }
  const type = at(part, "type")
  if (type === "image_url" || type === "input_image") return { type: "image", source: { type: "url", url: "" } }
  const data = textOf(at(part, "file_data")) ?? textOf(at(part, "file", "file_data"))
  if (data !== undefined) {
    return { type: "document", source: { type: "base64", media_type: "application/pdf", data } }
  }
  // Any other part counts by its length, as a text does in the simulation.
  return { type: "text", text: JSON.stringify(part ?? null) }
}

/** The blocks of a content, which is a text or a list of parts. */
export const contentOf = (content: unknown): Array<ContentBlockParam> => {
  if (typeof content === "string") return content === "" ? [] : [{ type: "text", text: content }]
  return listOf(content).map(blockOf)
}

/** A function call of the model in an earlier turn. */
export const callOf = (id: unknown, name: unknown, given: unknown): ContentBlockParam => ({
  type: "tool_use",
  id: textOf(id) ?? "call",
  name: textOf(name) ?? "tool",
  input: parseJson(textOf(given)) ?? {}
})

/** The result of a function. */
export const resultOf = (id: unknown, output: unknown): MessageParam => ({
  role: "user",
  content: [
    {
      type: "tool_result",
      tool_use_id: textOf(id) ?? "call",
      // The parts of a result are texts, pictures and files.
      content: contentOf(output) as Array<Extract<ContentBlockParam, { type: "text" | "image" | "document" }>>
    }
  ]
})

/** The tools of a request, which count by their length. */
export const toolsOf = (body: Body): Array<ToolUnion> => listOf(body["tools"]) as unknown as Array<ToolUnion>

/** The text of several contents. */
export const textOfAll = (contents: ReadonlyArray<unknown>): string =>
  contents
    .flatMap(contentOf)
    .flatMap((block) => (block.type === "text" ? [block.text] : []))
    .join("\n")

/** The limit on the output, if the request has a valid one. */
export const maxTokensOf = (body: Body, ...names: ReadonlyArray<string>): number | Request.ApiError => {
  for (const name of names) {
    const value = body[name]
    if (value === undefined || value === null) continue
    if (typeof value === "number" && Number.isInteger(value) && value > 0) return value
    return Request.invalid(`${name}: expected an integer above 0`)
  }
  return unlimited
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/** An id of an answer under another provider's prefix. */
export const idOf = (id: string, prefix: string): string => id.replace(/^[a-z]+(?=_)/, prefix)

/** The counts of a usage. The input includes cached tokens. */
export const usageOf = ({ usage }: Pick<Message, "usage">) => {
  const cached = usage.cache_read_input_tokens ?? 0
  const written = usage.cache_creation_input_tokens ?? 0
  const input = usage.input_tokens + cached + written
  return { cached, written, input, output: usage.output_tokens, total: input + usage.output_tokens }
}

/** Translates the reason why an answer ended into the words of another protocol. */
export const endOf = <A>(reason: StopReason | null, words: { readonly [R in StopReason]?: A }, otherwise: A): A =>
  (reason === null ? undefined : words[reason]) ?? otherwise

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

const overloaded = { status: 503, type: "service_unavailable_error", code: "server_is_overloaded" }

/** OpenAI's form of the errors that Anthropic answers with a status. */
const errors: Readonly<Record<number, { readonly status?: number; readonly type: string; readonly code?: string }>> = {
  400: { type: "invalid_request_error" },
  401: { type: "invalid_request_error", code: "invalid_api_key" },
  404: { type: "invalid_request_error" },
  413: { type: "invalid_request_error", code: "request_too_large" },
  429: { type: "tokens", code: "rate_limit_exceeded" },
  500: { type: "server_error" },
  504: { type: "server_error", code: "timeout" },
  529: overloaded
}

/** Error codes with the same meaning at both providers. */
const codes: Readonly<Record<string, { readonly status: number; readonly type: string; readonly code: string }>> = {
  enforced_spend_limit_reached: { status: 429, type: "insufficient_quota", code: "insufficient_quota" },
  ramp_limit_exceeded: { status: 503, type: "service_unavailable_error", code: "slow_down" }
}

const errorOf = ({ errorCode = "", limit, status }: DialectFailure) => {
  if (Object.hasOwn(codes, errorCode)) return codes[errorCode]!
  const error = errors[status] ?? { type: "server_error" }
  const type = limit?.dimension === "requests" ? "requests" : error.type
  return { status, ...error, type, ...(errorCode === "" ? {} : { code: errorCode }) }
}

/** An error in OpenAI's form. */
const failure: Dialect["failure"] = (failed) => {
  const { code = null, status = failed.status, type } = errorOf(failed)
  return { status, body: { error: { message: failed.message, type, param: null, code } } }
}

/** The common part of OpenAI's protocols. Only Responses are stored. */
export const common = {
  limitHeaders: "openai",
  requestIdHeader: "x-request-id",
  stored: () => [],
  failure
} satisfies Partial<Dialect>

/** The problem with a list of messages or items; undefined if there is none. */
export const listProblem = (value: unknown, name: string): Request.ApiError | undefined => {
  if (!Array.isArray(value)) return Request.invalid(`${name}: expected a list`)
  if (value.length === 0) return Request.invalid(`${name}: expected at least one item`)
  const wrong = value.findIndex((item) => !isRecord(item))
  return wrong < 0 ? undefined : Request.invalid(`${name}.${wrong}: expected an object`)
}
