/** Calls of the providers' own APIs, with the answers that their documentation shows, and what each uses. */
import { crc32 } from "node:zlib"

/** A call, its answer, and the tokens that the answer reports. */
export interface ApiCall {
  readonly name: string
  /** The upstream by its name at a gateway. */
  readonly upstream: string
  readonly path: string
  readonly body: object
  readonly contentType: string
  /** The body of the answer, in the pieces in which it arrives. */
  readonly pieces: ReadonlyArray<string | Uint8Array>
  /** Input that no cache has provided, input from a cache, and output. */
  readonly used: readonly [input: number, cached: number, output: number]
}

const encoder = new TextEncoder()

const textHeader = (name: string, value: string): Uint8Array => {
  const head = Buffer.alloc(1 + name.length + 3)
  head[0] = name.length
  head.write(name, 1)
  head[1 + name.length] = 7
  head.writeUInt16BE(value.length, 2 + name.length)
  return Buffer.concat([head, Buffer.from(value)])
}

/** A frame of Amazon's event stream, with its checksums. */
export const frame = (headers: Readonly<Record<string, string>>, payload: unknown): Uint8Array => {
  const head = Buffer.concat(Object.entries(headers).map(([name, value]) => textHeader(name, value)))
  const body = Buffer.from(typeof payload === "string" ? payload : JSON.stringify(payload))
  const prelude = Buffer.alloc(12)
  prelude.writeUInt32BE(12 + head.length + body.length + 4, 0)
  prelude.writeUInt32BE(head.length, 4)
  prelude.writeUInt32BE(crc32(prelude.subarray(0, 8)), 8)
  const whole = Buffer.concat([prelude, head, body])
  const checksum = Buffer.alloc(4)
  checksum.writeUInt32BE(crc32(whole))
  return Buffer.concat([whole, checksum])
}

export const eventFrame = (type: string, payload: unknown): Uint8Array =>
  frame({ ":event-type": type, ":content-type": "application/json", ":message-type": "event" }, payload)

export const exceptionFrame = (type: string, message: string): Uint8Array =>
  frame({ ":exception-type": type, ":content-type": "application/json", ":message-type": "exception" }, { message })

/** Cuts pieces anew, so that no event ends where a piece ends. */
const cut = (pieces: ReadonlyArray<string | Uint8Array>, size: number): ReadonlyArray<Uint8Array> => {
  const all = Buffer.concat(pieces.map((piece) => (typeof piece === "string" ? encoder.encode(piece) : piece)))
  return Array.from({ length: Math.ceil(all.length / size) }, (_, at) => all.subarray(at * size, (at + 1) * size))
}

const sse = (event: object, name?: string): string =>
  `${name === undefined ? "" : `event: ${name}\n`}data: ${JSON.stringify(event)}\n\n`

const json = "application/json"
const events = "text/event-stream"
const messages = [{ role: "user", content: "What is a floodgate?" }]
const whole = (
  name: string,
  upstream: string,
  path: string,
  body: object,
  answer: object,
  used: ApiCall["used"]
): ApiCall => ({ name, upstream, path, body, contentType: json, pieces: [JSON.stringify(answer)], used })

const streamed = (
  name: string,
  upstream: string,
  path: string,
  body: object,
  pieces: ApiCall["pieces"],
  used: ApiCall["used"],
  contentType = events
): ApiCall => ({ name, upstream, path, body, contentType, pieces: cut(pieces, 23), used })

// -----------------------------------------------------------------------------
// Gemini
// -----------------------------------------------------------------------------

const interaction = { model: "gemini-3-pro", input: "What is a floodgate?" }
const interactionUsage = {
  total_input_tokens: 900,
  total_cached_tokens: 600,
  total_output_tokens: 20,
  total_thought_tokens: 13,
  total_tool_use_tokens: 7,
  total_tokens: 940
}
const ofInteraction = [307, 600, 33] as const

const gemini: ReadonlyArray<ApiCall> = [
  whole(
    "Gemini Interactions",
    "gemini",
    "/v1beta/interactions",
    interaction,
    { id: "i1", model: "gemini-3-pro", status: "completed", output_text: "A gate.", usage: interactionUsage },
    ofInteraction
  ),
  streamed(
    "Gemini Interactions",
    "gemini",
    "/v1beta/interactions",
    { ...interaction, stream: true },
    [
      sse({
        event_type: "interaction.created",
        interaction: { id: "i1", model: "gemini-3-pro", status: "in_progress" }
      }),
      sse({ event_type: "step.start", index: 0, step: { type: "model_output" } }),
      sse({ event_type: "step.delta", index: 0, delta: { type: "text", text: "A gate." } }),
      sse({ event_type: "step.stop", index: 0 }),
      sse({
        event_type: "interaction.completed",
        interaction: { id: "i1", model: "gemini-3-pro", status: "completed", usage: interactionUsage }
      }),
      "data: [DONE]\n\n"
    ],
    ofInteraction
  )
]

// -----------------------------------------------------------------------------
// Cohere
// -----------------------------------------------------------------------------

const cohereUsage = {
  billed_units: { input_tokens: 50, output_tokens: 9 },
  tokens: { input_tokens: 120, output_tokens: 9 },
  cached_tokens: 0
}
const chat = { model: "command-a-03-2025", messages }

const cohere: ReadonlyArray<ApiCall> = [
  whole(
    "Cohere chat",
    "cohere",
    "/v2/chat",
    chat,
    {
      id: "c1",
      finish_reason: "COMPLETE",
      message: { role: "assistant", content: [{ type: "text", text: "A gate." }] },
      usage: cohereUsage
    },
    [50, 0, 9]
  ),
  streamed(
    "Cohere chat",
    "cohere",
    "/v2/chat",
    { ...chat, stream: true },
    [
      sse({ type: "message-start", id: "c1", delta: { message: { role: "assistant" } } }, "message-start"),
      sse({ type: "content-start", index: 0, delta: { message: { content: { type: "text", text: "" } } } }),
      sse({ type: "content-delta", index: 0, delta: { message: { content: { text: "A gate." } } } }, "content-delta"),
      sse({ type: "content-end", index: 0 }),
      sse({ type: "message-end", id: "c1", delta: { finish_reason: "COMPLETE", usage: cohereUsage } }, "message-end")
    ],
    [50, 0, 9]
  ),
  whole(
    "Cohere embeddings",
    "cohere",
    "/v2/embed",
    { model: "embed-v4.0", texts: ["one", "two"], input_type: "search_document", embedding_types: ["float"] },
    { id: "e1", embeddings: { float: [[0.1], [0.2]] }, texts: [], meta: { billed_units: { input_tokens: 4 } } },
    [4, 0, 0]
  ),
  whole(
    "Cohere reranking",
    "cohere",
    "/v2/rerank",
    { model: "rerank-v4.0-pro", query: "gates", documents: ["one", "two"] },
    { id: "r1", results: [{ index: 0, relevance_score: 0.9 }], meta: { billed_units: { search_units: 1 } } },
    [1, 0, 0]
  )
]

// -----------------------------------------------------------------------------
// Mistral
// -----------------------------------------------------------------------------

const mistralUsage = { prompt_tokens: 70, completion_tokens: 11, total_tokens: 81 }
const completion = {
  id: "m1",
  object: "chat.completion",
  created: 1_764_547_200,
  model: "mistral-large-latest",
  choices: [{ index: 0, message: { role: "assistant", content: "A gate." }, finish_reason: "stop" }],
  usage: mistralUsage
}
const chunk = (delta: object, finish_reason: string | null, more: object = {}): string =>
  sse({ id: "m1", model: "mistral-large-latest", choices: [{ index: 0, delta, finish_reason }], ...more })
const completionEvents = [
  chunk({ role: "assistant", content: "" }, null),
  chunk({ content: "A gate." }, null),
  chunk({ content: "" }, "stop", { usage: mistralUsage }),
  "data: [DONE]\n\n"
]
const asked = { model: "mistral-large-latest", inputs: "What is a floodgate?" }
const conversationUsage = { prompt_tokens: 70, completion_tokens: 11, total_tokens: 111, connector_tokens: 30 }
const conversation = {
  object: "conversation.response",
  conversation_id: "conv_1",
  outputs: [{ type: "message.output", content: "A gate." }],
  usage: conversationUsage
}
const conversationEvents = [
  sse({ type: "conversation.response.started", conversation_id: "conv_1" }, "conversation.response.started"),
  sse({ type: "message.output.delta", output_index: 0, id: "o1", content: "A gate." }, "message.output.delta"),
  sse({ type: "conversation.response.done", usage: conversationUsage }, "conversation.response.done")
]
const fim = { model: "codestral-latest", prompt: "const gate = ", suffix: ";" }
const agent = { agent_id: "ag_1", messages }

const mistral: ReadonlyArray<ApiCall> = [
  whole("Mistral conversations", "mistral", "/v1/conversations", asked, conversation, [100, 0, 11]),
  streamed(
    "Mistral conversations",
    "mistral",
    "/v1/conversations",
    { ...asked, stream: true },
    conversationEvents,
    [100, 0, 11]
  ),
  whole(
    "Mistral conversations, continued",
    "mistral",
    "/v1/conversations/conv_1",
    { inputs: "And now?" },
    conversation,
    [100, 0, 11]
  ),
  whole(
    "Mistral conversations, restarted",
    "mistral",
    "/v1/conversations/conv_1/restart",
    { inputs: "Again?", from_entry_id: "e1" },
    conversation,
    [100, 0, 11]
  ),
  whole("Mistral agents", "mistral", "/v1/agents/completions", agent, completion, [70, 0, 11]),
  streamed(
    "Mistral agents",
    "mistral",
    "/v1/agents/completions",
    { ...agent, stream: true },
    completionEvents,
    [70, 0, 11]
  ),
  whole("Mistral FIM", "mistral", "/v1/fim/completions", fim, completion, [70, 0, 11]),
  streamed("Mistral FIM", "mistral", "/v1/fim/completions", { ...fim, stream: true }, completionEvents, [70, 0, 11]),
  whole(
    "Mistral OCR",
    "mistral",
    "/v1/ocr",
    { model: "mistral-ocr-latest", document: { type: "document_url", document_url: "https://example.com/a.pdf" } },
    { model: "mistral-ocr-latest", pages: [], usage_info: { pages_processed: 7, doc_size_bytes: 90_000 } },
    [7, 0, 0]
  )
]

// -----------------------------------------------------------------------------
// Bedrock
// -----------------------------------------------------------------------------

const claude = "anthropic.claude-sonnet-5-v1%3A0"
const converse = {
  system: [{ text: "Be brief." }, { cachePoint: { type: "default" } }],
  messages: [{ role: "user", content: [{ text: "What is a floodgate?" }] }],
  inferenceConfig: { maxTokens: 500 }
}
const converseUsage = {
  inputTokens: 30,
  outputTokens: 12,
  totalTokens: 242,
  cacheReadInputTokens: 200,
  cacheWriteInputTokens: 0
}
const claudeEvents = [
  {
    type: "message_start",
    message: { id: "msg_1", model: "claude-sonnet-5", usage: { input_tokens: 30, output_tokens: 1 } }
  },
  { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
  { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "A gate." } },
  { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 12 } },
  { type: "message_stop" }
]

const bedrock: ReadonlyArray<ApiCall> = [
  whole(
    "Bedrock Converse",
    "bedrock",
    `/model/${claude}/converse`,
    converse,
    {
      output: { message: { role: "assistant", content: [{ text: "A gate." }] } },
      stopReason: "end_turn",
      usage: converseUsage
    },
    [30, 200, 12]
  ),
  streamed(
    "Bedrock ConverseStream",
    "bedrock",
    `/model/${claude}/converse-stream`,
    converse,
    [
      eventFrame("messageStart", { role: "assistant", p: "abcdefgh" }),
      eventFrame("contentBlockDelta", { contentBlockIndex: 0, delta: { text: "A gate." } }),
      eventFrame("contentBlockStop", { contentBlockIndex: 0 }),
      eventFrame("messageStop", { stopReason: "end_turn" }),
      eventFrame("metadata", { usage: converseUsage, metrics: { latencyMs: 900 } })
    ],
    [30, 200, 12],
    "application/vnd.amazon.eventstream"
  ),
  streamed(
    "Bedrock InvokeModelWithResponseStream",
    "bedrock",
    `/model/${claude}/invoke-with-response-stream`,
    { anthropic_version: "bedrock-2023-05-31", max_tokens: 500, messages },
    claudeEvents.map((event) =>
      eventFrame("chunk", { bytes: Buffer.from(JSON.stringify(event)).toString("base64"), p: "abc" })
    ),
    [30, 0, 12],
    "application/vnd.amazon.eventstream"
  )
]

// -----------------------------------------------------------------------------
// Ollama
// -----------------------------------------------------------------------------

const done = { done: true, done_reason: "stop", prompt_eval_count: 26, eval_count: 8 }
const lines = (...all: ReadonlyArray<object>) =>
  all.map((line) => `${JSON.stringify({ model: "llama3.2", ...line })}\n`)
const prompt = { model: "llama3.2", prompt: "What is a floodgate?" }

const ollama: ReadonlyArray<ApiCall> = [
  whole(
    "Ollama chat",
    "ollama",
    "/api/chat",
    { model: "llama3.2", messages, stream: false },
    { model: "llama3.2", message: { role: "assistant", content: "A gate." }, ...done },
    [26, 0, 8]
  ),
  streamed(
    "Ollama chat",
    "ollama",
    "/api/chat",
    { model: "llama3.2", messages },
    lines(
      { message: { role: "assistant", content: "A {gate}" }, done: false },
      { message: { role: "assistant", content: "" }, ...done }
    ),
    [26, 0, 8],
    "application/x-ndjson"
  ),
  whole(
    "Ollama generate",
    "ollama",
    "/api/generate",
    { ...prompt, stream: false },
    { model: "llama3.2", response: "A gate.", ...done },
    [26, 0, 8]
  ),
  streamed(
    "Ollama generate",
    "ollama",
    "/api/generate",
    { ...prompt, stream: true },
    lines({ response: "A gate", done: false }, { response: ".", done: false }, { response: "", ...done }),
    [26, 0, 8],
    "application/x-ndjson"
  ),
  whole(
    "Ollama embeddings",
    "ollama",
    "/api/embed",
    { model: "all-minilm", input: ["one", "two"] },
    { model: "all-minilm", embeddings: [[0.1], [0.2]], prompt_eval_count: 6 },
    [6, 0, 0]
  )
]

// -----------------------------------------------------------------------------
// llama.cpp
// -----------------------------------------------------------------------------

/** `tokens_cached` is what the slot has after the call. */
const stopped = {
  stop: true,
  stop_type: "eos",
  tokens_evaluated: 26,
  tokens_predicted: 8,
  tokens_cached: 34,
  timings: { cache_n: 20, prompt_n: 6, predicted_n: 8 }
}
const parts = (...all: ReadonlyArray<object>) => all.map((part) => sse({ index: 0, stop: false, ...part }))

const llamaCpp: ReadonlyArray<ApiCall> = [
  whole(
    "llama.cpp completion",
    "llama-cpp",
    "/completion",
    { prompt: "What is a floodgate?", n_predict: 64 },
    { index: 0, content: "A gate.", model: "gemma.gguf", ...stopped },
    [6, 20, 8]
  ),
  streamed(
    "llama.cpp completion",
    "llama-cpp",
    "/completion",
    { prompt: [1, 2, "floodgate?"], stream: true },
    parts({ content: "A {gate}" }, { content: "." }, { content: "", ...stopped }),
    [6, 20, 8]
  ),
  whole(
    "llama.cpp completions of several prompts",
    "llama-cpp",
    "/completion",
    { prompt: ["One", "Two"], n_cmpl: 1 },
    [
      { index: 0, content: "A gate.", ...stopped },
      { index: 1, content: "A gate.", ...stopped }
    ],
    [12, 40, 16]
  ),
  streamed(
    "llama.cpp infill",
    "llama-cpp",
    "/infill",
    { input_prefix: "const gate = ", input_suffix: ";", stream: true },
    parts({ content: "open" }, { content: "", ...stopped }),
    [6, 20, 8]
  )
]

/** All calls. Those of one name differ in whether they are streamed. */
export const apiCalls: ReadonlyArray<ApiCall> = [...gemini, ...cohere, ...mistral, ...bedrock, ...ollama, ...llamaCpp]

export const isStreamed = ({ pieces }: ApiCall): boolean => pieces.length > 1

/** The bytes of an answer. */
export const bytesOf = ({ pieces }: ApiCall): Buffer =>
  Buffer.concat(pieces.map((piece) => (typeof piece === "string" ? encoder.encode(piece) : piece)))
