/**
 * The port that a provider of language models implements: one attempt at a call, no budget, no retries.
 *
 * `LlmClient` puts admission, settlement and retries around it. `floodgate/providers/Anthropic` is the adapter over the
 * official SDK; `floodgate/testing` has a simulated one. Requests and replies have the shape of Anthropic's Messages API.
 *
 * **Details**
 *
 * The types of requests and answers are those of `@anthropic-ai/sdk` if it is installed, otherwise those of
 * `floodgate/Messages`. A provider made by {@link make} has the types of `floodgate/Messages` in both cases.
 *
 * @stability stable
 * @since 0.1.0
 */
// oxlint-disable-next-line typescript/ban-ts-comment -- expecting an error would fail where the SDK is installed
/** @ts-ignore The SDK may not be installed. This is the only file whose declarations name it. */
import type * as Sdk from "@anthropic-ai/sdk/resources/messages/messages"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type * as Limits from "./Limits.ts"
import type { LlmError } from "./LlmError.ts"
import type * as Messages from "./Messages.ts"

/** The SDK's type if the SDK is installed. Without it, the type is `any`, and only `any` has every key. */
type SdkOr<Theirs, Ours> = string extends keyof Theirs ? Ours : Theirs

/**
 * The request of a Messages API call. The called function decides whether it streams.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export type Params = SdkOr<Sdk.MessageCreateParamsNonStreaming, Messages.MessageRequest>

/**
 * The request of a streamed call, whose `stream` may be set.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export type StreamParams = SdkOr<Sdk.MessageCreateParams, Messages.MessageRequest>

/**
 * The request for a count of input tokens.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export type CountParams = SdkOr<Sdk.MessageCountTokensParams, Messages.CountRequest>

/**
 * A whole answer.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export type Message = SdkOr<Sdk.Message, Messages.MessageResponse>

/**
 * An event of a streamed answer.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export type StreamEvent = SdkOr<Sdk.RawMessageStreamEvent, Messages.MessageEvent>

/**
 * The answer of a provider: the value, and what the response says about limits.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Reply<A> {
  readonly value: A
  /** The limits in the response's headers, if any. */
  readonly signal: Limits.Signal | undefined
  /** The provider's name for the request, for support. */
  readonly requestId: string | undefined
}

/**
 * One provider. Every effect is one attempt: it does not retry, and interrupting it aborts the request.
 *
 * @stability stable
 * @category services
 * @since 0.1.0
 */
export class LlmProvider extends Context.Service<
  LlmProvider,
  {
    /** The provider's name as OpenTelemetry's GenAI conventions spell it, such as `anthropic`. */
    readonly name: string
    readonly create: (params: Params) => Effect.Effect<Reply<Message>, LlmError>
    /** Opens a stream. Headers are known when the effect succeeds; closing the scope aborts the request. */
    readonly stream: (
      params: Params
    ) => Effect.Effect<Reply<Stream.Stream<StreamEvent, LlmError>>, LlmError, Scope.Scope>
    readonly countTokens: (params: CountParams) => Effect.Effect<Reply<number>, LlmError>
  }
>()("floodgate/LlmProvider/LlmProvider") {}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/** A provider in the types of `floodgate/Messages`. It needs no SDK, and compiles with or without any version of it. */
type Implementation = {
  readonly name: string
  readonly create: (params: Messages.MessageRequest) => Effect.Effect<Reply<Messages.MessageResponse>, LlmError>
  readonly stream: (
    params: Messages.MessageRequest
  ) => Effect.Effect<Reply<Stream.Stream<Messages.MessageEvent, LlmError>>, LlmError, Scope.Scope>
  readonly countTokens: (params: Messages.CountRequest) => Effect.Effect<Reply<number>, LlmError>
}

/**
 * A provider of your own.
 *
 * **Gotchas**
 *
 * If the SDK is installed, `LlmClient` returns the SDK's types, in which the fields that your provider leaves out are
 * `undefined`.
 *
 * **Example** (A client without the SDK)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Stream from "effect/Stream"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 * import * as LlmProvider from "floodgate/LlmProvider"
 *
 * const reply = <A>(value: A): LlmProvider.Reply<A> => ({ value, signal: undefined, requestId: undefined })
 *
 * const echo = LlmProvider.make({
 *   name: "echo",
 *   create: ({ messages, model }) =>
 *     Effect.succeed(
 *       reply({
 *         type: "message",
 *         role: "assistant",
 *         id: "msg_1",
 *         model,
 *         content: [{ type: "text", text: `${messages.length} heard` }],
 *         stop_reason: "end_turn",
 *         usage: { input_tokens: 10, output_tokens: 2 }
 *       })
 *     ),
 *   stream: () => Effect.succeed(reply(Stream.empty)),
 *   countTokens: () => Effect.succeed(reply(10))
 * })
 *
 * const live = LlmClient.layerProvider().pipe(
 *   Layer.provide(Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } })),
 *   Layer.provide(Layer.succeed(LlmProvider.LlmProvider, echo))
 * )
 * const call = LlmClient.create({ model: "echo-1", max_tokens: 10, messages: [{ role: "user", content: "Hello" }] })
 *
 * LlmClient.text(await Effect.runPromise(Effect.provide(call, live))) // => "1 heard"
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.4.0
 */
export const make = (provider: Implementation): LlmProvider["Service"] =>
  LlmProvider.of({
    name: provider.name,
    create: (params) => provider.create(params) as Effect.Effect<Reply<Message>, LlmError>,
    stream: (params) =>
      provider.stream(params) as Effect.Effect<Reply<Stream.Stream<StreamEvent, LlmError>>, LlmError, Scope.Scope>,
    countTokens: (params) => provider.countTokens(params)
  })
