/** Gemini's generateContent and streamGenerateContent. */
import type {
  ContentBlockParam,
  Message,
  MessageParam,
  RawMessageStreamEvent,
  ToolUnion
} from "@anthropic-ai/sdk/resources/messages/messages"
import type * as Limits from "../../../Limits.ts"
import { gemini as protocol } from "../../../protocol/gemini.ts"
import { at, isRecord, listOf, parseJson, textOf } from "../../../protocol/json.ts"
import type { Route } from "../../../protocol/protocol.ts"
import * as Request from "../request.ts"
import {
  addition,
  type Body,
  type Dialect,
  type AnswerContext,
  type DialectFailure,
  type ReadRequest,
  unlimited
} from "./dialect.ts"
import * as OpenAi from "./openai.ts"
import type { StreamWriter } from "./dialect.ts"

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** Google's JSON may have names in camel case or in snake case. */
const either = (value: unknown, camel: string, snake: string): unknown => at(value, camel) ?? at(value, snake)

const blockOf = (part: unknown): ContentBlockParam => {
  const text = textOf(at(part, "text"))
  if (text !== undefined) return { type: "text", text }
  const file = either(part, "inlineData", "inline_data")
  const data = textOf(at(file, "data"))
  if (data !== undefined) {
    const isImage = textOf(either(file, "mimeType", "mime_type"))?.startsWith("image/") === true
    return isImage
      ? { type: "image", source: { type: "url", url: "" } }
      : { type: "document", source: { type: "base64", media_type: "application/pdf", data } }
  }
  return { type: "text", text: JSON.stringify(part ?? null) }
}

const turnOf = (content: unknown): MessageParam => ({
  role: at(content, "role") === "model" ? "assistant" : "user",
  content: listOf(at(content, "parts")).map(blockOf)
})

const maxTokensOf = (body: Body): number | Request.ApiError => {
  const value = either(either(body, "generationConfig", "generation_config"), "maxOutputTokens", "max_output_tokens")
  if (value === undefined || value === null) return unlimited
  return typeof value === "number" && Number.isInteger(value) && value > 0
    ? value
    : Request.invalid("generationConfig.maxOutputTokens: expected an integer above 0")
}

const read = (body: Body, { model = "" }: Route): ReadRequest | Request.ApiError => {
  const problem = OpenAi.listProblem(body["contents"], "contents")
  if (problem !== undefined) return problem
  const maxTokens = maxTokensOf(body)
  if (typeof maxTokens !== "number") return maxTokens
  const system = listOf(at(either(body, "systemInstruction", "system_instruction"), "parts"))
  const params = {
    model,
    max_tokens: maxTokens,
    system: system.map((part) => textOf(at(part, "text")) ?? "").join("\n"),
    messages: listOf(body["contents"]).map(turnOf),
    tools: listOf(body["tools"]) as unknown as Array<ToolUnion>
  }
  return { params, stores: false }
}

/** A request to count tokens has contents, or a whole request. */
const readCount = (body: Body, route: Route): ReadRequest | Request.ApiError => {
  const request = either(body, "generateContentRequest", "generate_content_request")
  return read(isRecord(request) ? request : body, route)
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

const usageOf = (message: Pick<Message, "usage">) => {
  const { cached, input, output, total } = OpenAi.usageOf(message)
  return {
    promptTokenCount: input,
    candidatesTokenCount: output,
    totalTokenCount: total,
    // Google's JSON leaves out what is 0.
    ...(cached === 0 ? {} : { cachedContentTokenCount: cached })
  }
}

type Part = { readonly text: string } | { readonly functionCall: { readonly name: string; readonly args: unknown } }

const answerOf = (message: Message, parts: ReadonlyArray<Part>, usage: Message["usage"], isLast: boolean) => {
  const finishReason = message.stop_reason === "max_tokens" ? "MAX_TOKENS" : "STOP"
  return {
    candidates: [{ content: { parts, role: "model" }, ...(isLast ? { finishReason } : {}), index: 0 }],
    usageMetadata: usageOf({ usage }),
    modelVersion: message.model,
    responseId: message.id
  }
}

const whole = (message: Message) => {
  const parts = message.content.flatMap((block): ReadonlyArray<Part> => {
    if (block.type === "text") return [{ text: block.text }]
    return block.type === "tool_use" ? [{ functionCall: { name: block.name, args: block.input } }] : []
  })
  return answerOf(message, parts, message.usage, true)
}

/** With `alt=sse` each answer is an event. Otherwise all of them are one JSON list, which is sent as it grows. */
const framing = (query: URLSearchParams) => {
  if (query.get("alt") === "sse") {
    const frame = (answer: unknown) => `data: ${JSON.stringify(answer)}\r\n\r\n`
    return { contentType: "text/event-stream", frame, end: "" }
  }
  let isFirst = true
  const frame = (answer: unknown): string => {
    const before = isFirst ? "[" : ",\n"
    isFirst = false
    return before + JSON.stringify(answer)
  }
  return { contentType: "application/json; charset=UTF-8", frame, end: "]" }
}

const stream = (_: AnswerContext, query: URLSearchParams): StreamWriter => {
  const { contentType, end, frame } = framing(query)
  let message: Message | undefined
  /** The function call that is being written. It is sent when it is complete. */
  let call: { readonly name: string; text: string } | undefined
  const send = (parts: ReadonlyArray<Part>, isLast = false): string =>
    frame(answerOf(message!, parts, message!.usage, isLast))
  const write = (event: RawMessageStreamEvent): string => {
    switch (event.type) {
      case "message_start":
        message = event.message
        return ""
      case "content_block_start":
        if (event.content_block.type === "tool_use") call = { name: event.content_block.name, text: "" }
        return ""
      case "content_block_delta": {
        const text = addition(event.delta)
        if (call === undefined) return send([{ text }])
        call.text += text
        return ""
      }
      case "content_block_stop": {
        if (call === undefined) return ""
        const { name, text } = call
        call = undefined
        return send([{ functionCall: { name, args: parseJson(text) ?? {} } }])
      }
      case "message_delta": {
        const { stop_reason } = event.delta
        message = { ...message!, stop_reason, usage: { ...message!.usage, output_tokens: event.usage.output_tokens } }
        return send([{ text: "" }], true)
      }
      case "message_stop":
        return end
    }
  }
  return { contentType, write }
}

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

const statuses: Readonly<Record<number, { readonly code: number; readonly status: string }>> = {
  400: { code: 400, status: "INVALID_ARGUMENT" },
  401: { code: 401, status: "UNAUTHENTICATED" },
  404: { code: 404, status: "NOT_FOUND" },
  413: { code: 413, status: "INVALID_ARGUMENT" },
  429: { code: 429, status: "RESOURCE_EXHAUSTED" },
  500: { code: 500, status: "INTERNAL" },
  504: { code: 504, status: "DEADLINE_EXCEEDED" },
  529: { code: 503, status: "UNAVAILABLE" }
}

/** The names of Google's quotas. There is none for output alone. */
const quotas: { readonly [D in Limits.Dimension]?: string } = {
  requests: "GenerateRequestsPerMinutePerProjectPerModel",
  inputTokens: "GenerateContentInputTokensPerMinutePerProjectPerModel",
  tokens: "GenerateTokensPerMinutePerProjectPerModel"
}

const violationOf = ({
  errorCode,
  limit
}: DialectFailure): { readonly quotaId: string; readonly quotaValue?: string } | undefined => {
  // A quota that lasts until tomorrow is Google's counterpart of a spend limit.
  if (errorCode === "enforced_spend_limit_reached") return { quotaId: "GenerateRequestsPerDayPerProjectPerModel" }
  const quotaId = limit && quotas[limit.dimension]
  return quotaId === undefined ? undefined : { quotaId, quotaValue: `${limit!.perMinute}` }
}

const google = "type.googleapis.com/google.rpc."

const failure: Dialect["failure"] = (failed) => {
  const { code, status } = statuses[failed.status] ?? { code: failed.status, status: "UNKNOWN" }
  const violation = violationOf(failed)
  const { retryAfterMillis } = failed
  const details = [
    ...(violation === undefined ? [] : [{ "@type": `${google}QuotaFailure`, violations: [violation] }]),
    ...(retryAfterMillis === undefined
      ? []
      : [{ "@type": `${google}RetryInfo`, retryDelay: `${retryAfterMillis / 1_000}s` }])
  ]
  return {
    status: code,
    body: { error: { code, message: failed.message, status, ...(details.length === 0 ? {} : { details }) } }
  }
}

/** Writes the messages of the simulation as Gemini's answers. */
export const gemini: Dialect = {
  protocol,
  // Its limits are in the bodies of errors.
  limitHeaders: undefined,
  requestIdHeader: undefined,
  read,
  readCount,
  counted: (tokens) => ({ totalTokens: tokens }),
  whole,
  stream,
  stored: () => [],
  failure
}
