/** The protocols as a client writes them by hand: a request of each kind, and how an answer is read back. */
import {
  anthropic,
  type Answer,
  emptyAnswer,
  gemini,
  openaiChat,
  openaiResponses,
  type Protocol
} from "floodgate/protocol"
import { headerReader } from "../../../src/protocol/headers.ts"
import { makeSseParser } from "../../../src/protocol/sse.ts"

export interface Asks {
  readonly text: string
  readonly maxTokens?: number | undefined
  readonly stream?: boolean | undefined
}

/** A protocol as it is spoken here. */
export interface Spoken {
  readonly protocol: Protocol
  /** The path of a request, with its query. */
  readonly path: (asks: Asks) => string
  readonly body: (asks: Asks) => Readonly<Record<string, unknown>>
  readonly keyHeader: string
  /** The texts and the calls of tools in a whole answer's body. */
  readonly said: (body: unknown) => ReadonlyArray<unknown>
}

const model = "claude-sonnet-5"

// A test's own reader of a body that it knows.
// oxlint-disable-next-line typescript/no-explicit-any
type Any = any

export const spoken: ReadonlyArray<Spoken> = [
  {
    protocol: anthropic,
    path: () => "/v1/messages",
    body: ({ maxTokens = 1_000, stream, text }) => ({
      model,
      max_tokens: maxTokens,
      stream,
      messages: [{ role: "user", content: text }]
    }),
    keyHeader: "x-api-key",
    said: (body: Any) => body.content.map((block: Any) => block.text ?? [block.name, block.input])
  },
  {
    protocol: openaiChat,
    path: () => "/v1/chat/completions",
    body: ({ maxTokens, stream, text }) => ({
      model,
      max_completion_tokens: maxTokens,
      stream,
      ...(stream === true ? { stream_options: { include_usage: true } } : {}),
      messages: [{ role: "user", content: text }]
    }),
    keyHeader: "authorization",
    said: ({ choices: [{ message }] }: Any) => [
      ...(message.content === null ? [] : [message.content]),
      ...(message.tool_calls ?? []).map(({ function: call }: Any) => [call.name, JSON.parse(call.arguments)])
    ]
  },
  {
    protocol: openaiResponses,
    path: () => "/v1/responses",
    body: ({ maxTokens, stream, text }) => ({ model, max_output_tokens: maxTokens, stream, input: text }),
    keyHeader: "authorization",
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
    keyHeader: "x-goog-api-key",
    said: ({ candidates: [{ content }] }: Any) =>
      content.parts.map((part: Any) => part.text ?? [part.functionCall.name, part.functionCall.args])
  }
]

/** Sends a request of a protocol. */
export const send = (url: string, { body, keyHeader, path }: Spoken, asks: Asks): Promise<Response> =>
  fetch(url + path(asks), {
    method: "POST",
    headers: { "content-type": "application/json", [keyHeader]: "Bearer any" },
    body: JSON.stringify(body(asks))
  })

/** What an answer says of itself, whole or streamed, by the protocol's own reader. */
export const answerOf = async ({ protocol }: Spoken, response: Response): Promise<Answer> => {
  if (response.headers.get("content-type")?.startsWith("text/event-stream") !== true) {
    return protocol.answer(await response.json())
  }
  const parser = makeSseParser()
  let answer = emptyAnswer
  for await (const chunk of response.body!) answer = parser.feed(chunk).reduce(protocol.observe, answer)
  return parser.end().reduce(protocol.observe, answer)
}

/** What an error means, by the protocol's own reader. */
export const failureOf = async ({ protocol }: Spoken, response: Response) =>
  protocol.failure(
    { status: response.status, header: headerReader(response.headers), body: await response.json() },
    { now: 0 }
  )
