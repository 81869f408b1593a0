/**
 * The port that a provider of language models implements: one attempt at a call, no budget, no retries.
 *
 * `LlmClient` puts admission, settlement and retries around it. `floodgate/providers/Anthropic` is the adapter over the
 * official SDK; `floodgate/testing` has a simulated one. Requests and replies have the shape of Anthropic's Messages API.
 *
 * @since 0.1.0
 */
import type {
  Message,
  MessageCountTokensParams,
  MessageCreateParamsNonStreaming,
  RawMessageStreamEvent
} from "@anthropic-ai/sdk/resources/messages/messages"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type * as Limits from "./Limits.ts"
import type { LlmError } from "./LlmError.ts"

/**
 * The request of a Messages API call. The called function decides whether it streams.
 *
 * @category models
 * @since 0.1.0
 */
export type Params = MessageCreateParamsNonStreaming

/**
 * What a provider answered: the value, and what the response says about limits.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reply<A> {
  readonly value: A
  /** What the response's headers say about the limits, if anything. */
  readonly signal: Limits.Signal | undefined
  /** The provider's name for the request, for support. */
  readonly requestId: string | undefined
}

/**
 * One provider. Every effect is one attempt: it does not retry, and interrupting it aborts the request.
 *
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
    ) => Effect.Effect<Reply<Stream.Stream<RawMessageStreamEvent, LlmError>>, LlmError, Scope.Scope>
    readonly countTokens: (params: MessageCountTokensParams) => Effect.Effect<Reply<number>, LlmError>
  }
>()("floodgate/LlmProvider/LlmProvider") {}
