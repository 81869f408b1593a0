/** Each protocol as a client would write it by hand: a request of each kind, and a reader of its answer. */
import { type Answer, type Protocol, protocols } from "floodgate/protocol"
import { headerReader } from "../../src/protocol/headers.ts"
import { makeSseParser } from "../../src/protocol/sse.ts"
import { emptyAnswer } from "../../src/protocol/protocol.ts"

const { anthropic, gemini, openaiChat, openaiResponses } = protocols

export interface Asks {
  readonly text: string
  /** The agent, in the form of the protocol's clients. */
  readonly agent?: string | undefined
  readonly maxTokens?: number | undefined
  /** The answer that this request continues, or `new` to begin a stored conversation. */
  readonly thread?: string | undefined
  readonly stream?: boolean | undefined
}

/** A protocol from a client's side. */
export interface Spoken {
  readonly protocol: Protocol
  /** The path of a request, with its query. */
  readonly path: (asks: Asks) => string
  readonly body: (asks: Asks) => Readonly<Record<string, unknown>>
  /** Whether the provider stores conversations. */
  readonly stores: boolean
  readonly keyHeader: string
  /** The text that an event of a stream adds. */
  readonly textOf: (event: unknown) => string
  /** The texts and tool calls in the body of a whole answer. */
  readonly said: (body: unknown) => ReadonlyArray<unknown>
}

const model = "claude-sonnet-5"

// These readers know the bodies that the tests produce.
// oxlint-disable-next-line typescript/no-explicit-any
type Any = any

export const spoken: ReadonlyArray<Spoken> = [
  {
    protocol: anthropic,
    path: () => "/v1/messages",
    body: ({ agent, maxTokens = 1_000, stream, text, thread }) => ({
      model,
      ...(thread === undefined
        ? {}
        : { thread: thread === "new" ? { type: "create" } : { type: "continue", previous_message_id: thread } }),
      metadata: { user_id: agent },
      max_tokens: maxTokens,
      stream,
      messages: [{ role: "user", content: text }]
    }),
    stores: true,
    keyHeader: "x-api-key",
    textOf: (event: Any) => event.delta?.text ?? "",
    said: (body: Any) => body.content.map((block: Any) => block.text ?? [block.name, block.input])
  },
  {
    protocol: openaiChat,
    path: () => "/v1/chat/completions",
    body: ({ agent, maxTokens, stream, text }) => ({
      model,
      user: agent,
      max_completion_tokens: maxTokens,
      stream,
      ...(stream === true ? { stream_options: { include_usage: true } } : {}),
      messages: [{ role: "user", content: text }]
    }),
    stores: false,
    keyHeader: "authorization",
    textOf: (event: Any) => event.choices[0]?.delta.content ?? "",
    said: ({ choices: [{ message }] }: Any) => [
      ...(message.content === null ? [] : [message.content]),
      ...(message.tool_calls ?? []).map(({ function: call }: Any) => [call.name, JSON.parse(call.arguments)])
    ]
  },
  {
    protocol: openaiResponses,
    path: () => "/v1/responses",
    body: ({ agent, maxTokens, stream, text, thread }) => ({
      model,
      user: agent,
      previous_response_id: thread === "new" ? undefined : thread,
      max_output_tokens: maxTokens,
      stream,
      input: text
    }),
    stores: true,
    keyHeader: "authorization",
    textOf: (event: Any) => (event.type === "response.output_text.delta" ? event.delta : ""),
    said: ({ output }: Any) =>
      output.map((item: Any) =>
        item.type === "message" ? item.content[0].text : [item.name, JSON.parse(item.arguments)]
      )
  },
  {
    protocol: gemini,
    path: ({ stream }) =>
      `/v1beta/models/${model}:${stream === true ? "streamGenerateContent?alt=sse" : "generateContent"}`,
    body: ({ maxTokens, text }) => ({
      contents: [{ role: "user", parts: [{ text }] }],
      ...(maxTokens === undefined ? {} : { generationConfig: { maxOutputTokens: maxTokens } })
    }),
    stores: false,
    keyHeader: "x-goog-api-key",
    textOf: (event: Any) => event.candidates[0].content.parts.map((part: Any) => part.text ?? "").join(""),
    said: ({ candidates: [{ content }] }: Any) =>
      content.parts.map((part: Any) => part.text ?? [part.functionCall.name, part.functionCall.args])
  }
]

/** Sends a request of a protocol. */
export const send = (
  url: string,
  { body, keyHeader, path }: Spoken,
  asks: Asks,
  { fetch = globalThis.fetch, signal }: { readonly fetch?: typeof globalThis.fetch; readonly signal?: AbortSignal } = {}
): Promise<Response> =>
  fetch(url + path(asks), {
    method: "POST",
    headers: {
      "content-type": "application/json",
      [keyHeader]: "Bearer any",
      // Gemini's bodies name no agent.
      ...(asks.agent === undefined ? {} : { "x-claude-code-session-id": asks.agent })
    },
    body: JSON.stringify(body(asks)),
    ...(signal === undefined ? {} : { signal })
  })

/** The texts of a stream as they come. */
export const textsOf = async function* ({ textOf }: Spoken, response: Response): AsyncGenerator<string> {
  const parser = makeSseParser()
  for await (const chunk of response.body!) {
    for (const { data } of parser.feed(chunk)) if (data.startsWith("{")) yield textOf(JSON.parse(data))
  }
}

/** An answer, whole or streamed, as the protocol's own reader understands it. */
export const answerOf = async ({ protocol }: Spoken, response: Response): Promise<Answer> => {
  if (response.headers.get("content-type")?.startsWith("text/event-stream") !== true) {
    return protocol.answer(await response.json())
  }
  const parser = makeSseParser()
  let answer = emptyAnswer
  for await (const chunk of response.body!) answer = parser.feed(chunk).reduce(protocol.observe, answer)
  return parser.end().reduce(protocol.observe, answer)
}

/** An error, as the protocol's own reader understands it. */
export const failureOf = async ({ protocol }: Spoken, response: Response) =>
  protocol.failure(
    { status: response.status, header: headerReader(response.headers), body: await response.json() },
    { now: 0 }
  )
