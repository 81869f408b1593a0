/**
 * Two `LanguageModel`s of effect/ai: one over an `LlmProvider` such as the simulated one, and one over HTTP, written as the
 * providers' packages are. Neither retries or knows of a budget.
 */
import type { Message, RawMessageStreamEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import * as AiError from "effect/ai/AiError"
import * as LanguageModel from "effect/ai/LanguageModel"
import type * as Prompt from "effect/ai/Prompt"
import type * as Response from "effect/ai/Response"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Sse from "effect/encoding/Sse"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Stream from "effect/Stream"
import * as Budget from "floodgate/Budget"
import type { LlmError } from "floodgate/LlmError"
import { LlmProvider, type Params } from "floodgate/LlmProvider"

export const modelName = "claude-sonnet-5"

const textOf = (prompt: Prompt.Prompt): string =>
  prompt.content
    .map(({ content }) =>
      typeof content === "string" ? content : content.map((part) => (part.type === "text" ? part.text : "")).join("")
    )
    .join("\n")

const paramsOf = ({ prompt }: LanguageModel.ProviderOptions): Effect.Effect<Params> =>
  Effect.map(Budget.Agent, (agent) => ({
    model: modelName,
    max_tokens: 100,
    metadata: { user_id: agent },
    messages: [{ role: "user", content: textOf(prompt) }]
  }))

interface Counts {
  readonly input_tokens?: number | null | undefined
  readonly output_tokens: number
}

const finish = (usage: Counts, headers?: Record<string, string>): Response.FinishPartEncoded => ({
  type: "finish",
  reason: "stop",
  usage: {
    inputTokens: { total: usage.input_tokens ?? undefined },
    outputTokens: { total: usage.output_tokens }
  },
  ...(headers !== undefined && { response: { status: 200, headers } })
})

const partsOf = (message: Message, headers?: Record<string, string>): Array<Response.PartEncoded> => [
  { type: "response-metadata", id: message.id, modelId: message.model },
  ...message.content.flatMap((block) => (block.type === "text" ? [{ type: "text" as const, text: block.text }] : [])),
  finish(message.usage, headers)
]

/** The first event has the input tokens, the last one the output tokens. */
const streamParts = <E, R>(
  events: Stream.Stream<RawMessageStreamEvent, E, R>,
  headers?: Record<string, string>
): Stream.Stream<Response.StreamPartEncoded, E, R> =>
  Stream.suspend(() => {
    let input: number | null | undefined
    return Stream.flatMap(events, (event): Stream.Stream<Response.StreamPartEncoded> => {
      switch (event.type) {
        case "message_start":
          input = event.message.usage.input_tokens
          return Stream.succeed({ type: "response-metadata", id: event.message.id, modelId: event.message.model })
        case "content_block_start":
          return Stream.succeed({ type: "text-start", id: `${event.index}` })
        case "content_block_delta":
          return event.delta.type === "text_delta"
            ? Stream.succeed({ type: "text-delta", id: `${event.index}`, delta: event.delta.text })
            : Stream.empty
        case "content_block_stop":
          return Stream.succeed({ type: "text-end", id: `${event.index}` })
        case "message_delta":
          return Stream.succeed(finish({ input_tokens: input, output_tokens: event.usage.output_tokens }, headers))
        default:
          return Stream.empty
      }
    })
  })

const fail = (method: string, reason: AiError.AiErrorReason) => AiError.make({ module: "Test", method, reason })

// -----------------------------------------------------------------------------
// Over a provider
// -----------------------------------------------------------------------------

const fromLlmError =
  (method: string) =>
  ({ message, reason, retryAfter, status }: LlmError): AiError.AiError => {
    if (reason._tag === "MalformedResponse") {
      return fail(method, new AiError.InvalidOutputError({ description: message }))
    }
    if (status === undefined || status < 400) {
      const network = { reason: "TransportError", method: "POST", url: "test:", description: message } as const
      return fail(method, new AiError.NetworkError({ ...network, cause: { code: reason.code } }))
    }
    const headers: Record<string, string> =
      retryAfter === undefined ? {} : { "retry-after-ms": `${Duration.toMillis(retryAfter)}` }
    const body = JSON.stringify({ error: { type: reason.code, details: { error_code: reason.code } } })
    return fail(method, AiError.reasonFromHttpStatus({ status, http: { body, response: { status, headers } } }))
  }

export const overProvider = Effect.gen(function* () {
  const provider = yield* LlmProvider
  return yield* LanguageModel.make({
    generateText: (options) =>
      Effect.flatMap(paramsOf(options), provider.create).pipe(
        Effect.map(({ value }) => partsOf(value)),
        Effect.mapError(fromLlmError("generateText"))
      ),
    streamText: (options) =>
      Stream.unwrap(
        Effect.flatMap(paramsOf(options), provider.stream).pipe(Effect.map(({ value }) => streamParts(value)))
      ).pipe(Stream.mapError(fromLlmError("streamText")))
  })
})

// -----------------------------------------------------------------------------
// Over HTTP
// -----------------------------------------------------------------------------

const fromHttpError =
  (method: string) =>
  (error: HttpClientError.HttpClientError): AiError.AiError => {
    const { reason } = error
    return fail(
      method,
      reason._tag === "TransportError" || reason._tag === "EncodeError" || reason._tag === "InvalidUrlError"
        ? new AiError.NetworkError({
            reason: reason._tag,
            method: "POST",
            url: reason.request.url,
            cause: reason.cause
          })
        : new AiError.NetworkError({ reason: "TransportError", method: "POST", url: reason.request.url, cause: error })
    )
  }

const accepted = Effect.fnUntraced(function* (method: string, response: HttpClientResponse.HttpClientResponse) {
  const { headers, status } = response
  if (status < 400) return response
  const body = yield* response.text
  return yield* Effect.fail(
    fail(
      method,
      AiError.reasonFromHttpStatus({ status, http: { body, response: { status, headers: { ...headers } } } })
    )
  )
})

export const overHttp = Effect.fnUntraced(function* (url: string) {
  const client = yield* HttpClient.HttpClient
  const post = (options: LanguageModel.ProviderOptions, more: object) =>
    Effect.flatMap(paramsOf(options), (params) =>
      client.execute(
        HttpClientRequest.post(`${url}/v1/messages`).pipe(
          HttpClientRequest.setHeader("x-api-key", "any"),
          HttpClientRequest.bodyJsonUnsafe({ ...params, ...more })
        )
      )
    )
  const translated = (method: string) => (error: AiError.AiError | HttpClientError.HttpClientError) =>
    HttpClientError.isHttpClientError(error) ? fromHttpError(method)(error) : error

  return yield* LanguageModel.make({
    generateText: (options) =>
      Effect.gen(function* () {
        const response = yield* accepted("generateText", yield* post(options, {}))
        return partsOf((yield* response.json) as unknown as Message, { ...response.headers })
      }).pipe(Effect.mapError(translated("generateText"))),
    streamText: (options) =>
      Stream.unwrap(
        Effect.gen(function* () {
          const response = yield* accepted("streamText", yield* post(options, { stream: true }))
          const events = response.stream.pipe(
            Stream.decodeText(),
            Stream.pipeThroughChannel(Sse.decode<HttpClientError.HttpClientError, unknown>()),
            Stream.catchIf(
              (error) => !HttpClientError.isHttpClientError(error),
              () => Stream.empty
            ),
            Stream.filter(({ event }) => event !== "ping"),
            Stream.map(({ data }) => JSON.parse(data) as RawMessageStreamEvent)
          )
          return streamParts(events, { ...response.headers })
        })
      ).pipe(Stream.mapError((error) => translated("streamText")(error as HttpClientError.HttpClientError)))
  })
})
