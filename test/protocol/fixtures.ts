/** Answers of the four protocols as their providers send them, whole and streamed. */
import type { BetaMessage, BetaRawMessageStreamEvent } from "@anthropic-ai/sdk/resources/beta/messages/messages"
import type { ChatCompletion, ChatCompletionChunk } from "openai/resources/chat/completions"
import type { Response, ResponseStreamEvent } from "openai/resources/responses/responses"

/** Part of a value, as much as a test needs; its keys are type-checked. */
type Part<A> =
  A extends ReadonlyArray<infer B>
    ? ReadonlyArray<Part<B>>
    : A extends object
      ? { readonly [K in keyof A]?: Part<A[K]> | undefined }
      : A

const frame = (name: string | undefined, data: unknown): string =>
  `${name === undefined ? "" : `event: ${name}\n`}data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`

// -----------------------------------------------------------------------------
// Anthropic
// -----------------------------------------------------------------------------

const anthropicEvents: ReadonlyArray<Part<BetaRawMessageStreamEvent> & { readonly type: string }> = [
  {
    type: "message_start",
    message: {
      id: "msg_01A",
      type: "message",
      role: "assistant",
      model: "claude-sonnet-5-20260901",
      content: [],
      stop_reason: null,
      usage: {
        input_tokens: 2_679,
        cache_creation_input_tokens: 300,
        cache_read_input_tokens: 12_000,
        output_tokens: 1
      }
    }
  },
  { type: "content_block_start", index: 0, content_block: { type: "thinking", thinking: "", signature: "" } },
  { type: "content_block_delta", index: 0, delta: { type: "thinking_delta", thinking: "A bucket refills." } },
  { type: "content_block_delta", index: 0, delta: { type: "signature_delta", signature: "c2lnbmF0dXJl" } },
  { type: "content_block_stop", index: 0 },
  { type: "content_block_start", index: 1, content_block: { type: "text", text: "", citations: null } },
  { type: "content_block_delta", index: 1, delta: { type: "text_delta", text: "Ein Eimer, der sich füllt: 漢字 👍🏽" } },
  { type: "content_block_stop", index: 1 },
  {
    type: "content_block_start",
    index: 2,
    content_block: { type: "tool_use", id: "toolu_1", name: "fill", input: {} }
  },
  { type: "content_block_delta", index: 2, delta: { type: "input_json_delta", partial_json: '{"liters": 5}' } },
  { type: "content_block_stop", index: 2 },
  {
    type: "message_delta",
    delta: { stop_reason: "tool_use", stop_sequence: null },
    usage: {
      input_tokens: 10_682,
      cache_creation_input_tokens: null,
      cache_read_input_tokens: null,
      output_tokens: 510
    }
  },
  { type: "message_stop" }
]

/** With the ping that follows the first content, as Anthropic sends it. */
export const anthropicStream = anthropicEvents
  .map((event, index) => frame(event.type, event) + (index === 1 ? frame("ping", { type: "ping" }) : ""))
  .join("")

export const anthropicMessage: Part<BetaMessage> = {
  id: "msg_01B",
  type: "message",
  role: "assistant",
  model: "claude-sonnet-5-20260901",
  content: [{ type: "text", text: "Hello" }],
  stop_reason: "end_turn",
  usage: { input_tokens: 25, cache_creation_input_tokens: 5, cache_read_input_tokens: 1_000, output_tokens: 12 }
}

// -----------------------------------------------------------------------------
// Chat Completions
// -----------------------------------------------------------------------------

const chunk = (part: Part<ChatCompletionChunk>): Part<ChatCompletionChunk> => ({
  id: "chatcmpl-1",
  object: "chat.completion.chunk",
  created: 1_795_521_600,
  model: "gpt-6-2026-08-01",
  service_tier: "default",
  ...part
})

const chatChunks = (usage: { readonly usage?: null }): ReadonlyArray<Part<ChatCompletionChunk>> => [
  chunk({
    choices: [{ index: 0, delta: { role: "assistant", content: "", refusal: null }, finish_reason: null }],
    ...usage
  }),
  chunk({ choices: [{ index: 0, delta: { content: "Ein Eimer 👍🏽" }, finish_reason: null }], ...usage }),
  chunk({
    choices: [
      {
        index: 0,
        delta: {
          tool_calls: [{ index: 0, id: "call_1", type: "function", function: { name: "fill", arguments: "{}" } }]
        },
        finish_reason: null
      }
    ],
    ...usage
  }),
  chunk({ choices: [{ index: 0, delta: {}, finish_reason: "tool_calls" }], ...usage })
]

export const chatUsage = {
  prompt_tokens: 2_006,
  completion_tokens: 300,
  total_tokens: 2_306,
  prompt_tokens_details: { cached_tokens: 1_920, audio_tokens: 0 },
  completion_tokens_details: { reasoning_tokens: 256, audio_tokens: 0 }
}

const usageChunk = frame(undefined, chunk({ choices: [], usage: chatUsage }))
const done = frame(undefined, "[DONE]")

/** Without usage: the request did not ask for it. */
export const chatStreamPlain =
  chatChunks({})
    .map((chunk) => frame(undefined, chunk))
    .join("") + done

const withNulls = chatChunks({ usage: null })
  .map((chunk) => frame(undefined, chunk))
  .join("")

export const chatStream = withNulls + usageChunk + done
/** What a caller who did not ask for usage receives of {@link chatStream}. */
export const chatStreamFiltered = withNulls + done

export const chatCompletion: Part<ChatCompletion> = {
  id: "chatcmpl-2",
  object: "chat.completion",
  model: "gpt-6-2026-08-01",
  choices: [{ index: 0, message: { role: "assistant", content: "Hello", refusal: null }, finish_reason: "stop" }],
  usage: chatUsage
}

// -----------------------------------------------------------------------------
// Responses
// -----------------------------------------------------------------------------

export const responsesUsage = {
  input_tokens: 1_000,
  input_tokens_details: { cached_tokens: 600, cache_write_tokens: 100 },
  output_tokens: 250,
  output_tokens_details: { reasoning_tokens: 200 },
  total_tokens: 1_250
}

export const response: Part<Response> = {
  id: "resp_1",
  object: "response",
  status: "completed",
  error: null,
  incomplete_details: null,
  model: "gpt-6-2026-08-01",
  output: [{ id: "msg_1", type: "message", role: "assistant", status: "completed", content: [] }],
  usage: responsesUsage
}

const unfinished: Part<Response> = { ...response, status: "in_progress", output: [], usage: undefined }

export const responsesEvents: ReadonlyArray<Part<ResponseStreamEvent> & { readonly type: string }> = [
  { type: "response.created", sequence_number: 0, response: unfinished },
  { type: "response.in_progress", sequence_number: 1, response: unfinished },
  {
    type: "response.output_item.added",
    sequence_number: 2,
    output_index: 0,
    item: { id: "msg_1", type: "message", role: "assistant", status: "in_progress", content: [] }
  },
  {
    type: "response.output_text.delta",
    sequence_number: 3,
    item_id: "msg_1",
    output_index: 0,
    content_index: 0,
    delta: "Ein Eimer, der sich füllt 👍🏽"
  },
  {
    type: "response.output_text.done",
    sequence_number: 4,
    item_id: "msg_1",
    output_index: 0,
    content_index: 0,
    text: "Ein Eimer, der sich füllt 👍🏽"
  },
  { type: "response.completed", sequence_number: 5, response }
]

export const responsesStream = responsesEvents.map((event) => frame(event.type, event)).join("")

// -----------------------------------------------------------------------------
// Gemini
// -----------------------------------------------------------------------------

/** A `GenerateContentResponse` of @google/genai 3.3, as far as it is read. */
const geminiChunk = (text: string, counts: object, finishReason?: string) => ({
  candidates: [
    {
      content: { parts: [{ text }], role: "model" },
      index: 0,
      ...(finishReason !== undefined && { finishReason })
    }
  ],
  usageMetadata: {
    promptTokenCount: 1_500,
    cachedContentTokenCount: 1_024,
    toolUsePromptTokenCount: 40,
    promptTokensDetails: [{ modality: "TEXT", tokenCount: 1_500 }],
    ...counts
  },
  modelVersion: "gemini-3.8-flash",
  responseId: "r-abc"
})

const geminiChunks = [
  geminiChunk("Ein Eimer, ", { candidatesTokenCount: 4, thoughtsTokenCount: 90, totalTokenCount: 1_634 }),
  geminiChunk("der sich füllt 👍🏽", { candidatesTokenCount: 12, thoughtsTokenCount: 90, totalTokenCount: 1_642 }),
  geminiChunk("", { candidatesTokenCount: 14, thoughtsTokenCount: 90, totalTokenCount: 1_644 }, "STOP")
]

/** Google ends its lines with CRLF. */
export const geminiStream = geminiChunks.map((chunk) => frame(undefined, chunk).replaceAll("\n", "\r\n")).join("")

/** What `streamGenerateContent` answers without `alt=sse`. */
export const geminiList = geminiChunks

export const geminiResponse = geminiChunk(
  "Hello",
  { candidatesTokenCount: 2, thoughtsTokenCount: 90, totalTokenCount: 1_632 },
  "STOP"
)

/** The 429 of a limit per minute, and of a day's quota (github.com/diegosouzapw/OmniRoute/issues/9504 has both forms). */
export const geminiQuotaError = (quotaId: string, quotaValue: string | undefined, retryDelay: string | undefined) => ({
  error: {
    code: 429,
    message: "You exceeded your current quota, please check your plan and billing details.",
    status: "RESOURCE_EXHAUSTED",
    details: [
      {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        violations: [
          {
            quotaMetric: "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            quotaId,
            quotaDimensions: { location: "global", model: "gemini-3.8-flash" },
            ...(quotaValue !== undefined && { quotaValue })
          }
        ]
      },
      { "@type": "type.googleapis.com/google.rpc.Help", links: [] },
      ...(retryDelay === undefined ? [] : [{ "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay }])
    ]
  }
})
