/** How requests are governed, and what a governed request goes through. */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Accounting from "../Accounting.ts"
import { FailedAttempt } from "../governor/failure.ts"
import type * as Governor from "../Governor.ts"
import { LlmError, type LlmErrorReason } from "../LlmError.ts"
import type { HeaderReader } from "../protocol/headers.ts"
import type { Description, Match, Protocol } from "../protocol/protocol.ts"
import type { Source } from "./stream.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * A request, as the callbacks of {@link EngineOptions} see it.
 *
 * @category models
 * @since 0.2.0
 */
export interface CallRequest {
  readonly url: string
  /** The protocol by its name, such as `openai-chat`. */
  readonly protocol: string
  readonly model: string
  /** The agent that the request names, in a header or in its body. */
  readonly agent: string | undefined
  /** Looks a header up by its name in lower case. */
  readonly header: HeaderReader
  /** The body as parsed JSON. */
  readonly body: unknown
}

/**
 * How requests are governed, whatever sends them.
 *
 * @category options
 * @since 0.2.0
 */
export interface EngineOptions {
  /**
   * How calls are admitted and bounded: agent, priority, `maxWait`, `timeout`... for all, or by the request.
   *
   * @default no bounds; the agent is named by the header `x-floodgate-agent`, by Claude Code's session, or by the body:
   * `metadata.user_id`, `safety_identifier`, `user`
   */
  readonly callOptions?: Governor.CallOptions | ((request: CallRequest) => Governor.CallOptions) | undefined
  /**
   * The protocols that are recognised, the first that matches first. Put one of your own before the others.
   *
   * @default Anthropic Messages, OpenAI Chat Completions and Responses, Gemini
   */
  readonly protocols?: ReadonlyArray<Protocol> | undefined
  /**
   * How a provider counts, for all requests or by the request; undefined leaves it to the default.
   *
   * @default by the route: Anthropic, Vertex AI, Bedrock (with a burndown rate of 5), OpenAI, Azure, Gemini
   */
  readonly accounting?:
    | Accounting.Accounting
    | ((request: CallRequest) => Accounting.Accounting | undefined)
    | undefined
  /**
   * The account whose limits a request counts towards; undefined leaves it to the default. Two accounts never share a pool. An
   * empty one is none: such calls share the limits with those of `LlmClient` over the same budget.
   *
   * @default the host, with a hash of the credential. When a response names the organisation, its other credentials join.
   */
  readonly account?: ((request: CallRequest) => string | undefined) | undefined
  /**
   * Whether usage is requested in streams of Chat Completions whose caller does not; the chunk with it is taken out again.
   * Without it such calls keep their estimates. A service that rejects `stream_options` is sent the request as its caller
   * wrote it, and is not asked again.
   *
   * @default true
   */
  readonly streamUsage?: boolean | undefined
  /**
   * The longest silence within a stream. After it a call without content is retried, and one with content breaks off.
   *
   * @default "1 minute" where the provider sends pings (Anthropic), else "5 minutes", as Node's `fetch` has it
   */
  readonly idleTimeout?: Duration.Input | undefined
}

/** Is told what a call used, where that is known. */
export type Used = (actual: Accounting.Actual | undefined) => void

/** What a way in decides for its users. */
export interface Settings extends EngineOptions {
  /** The provider's name for spans. @default the protocol's */
  readonly name?: string | undefined
  /** What a body fails with that was silent for too long. @default {@link Stalled} */
  readonly stalled?: ((silence: string) => Effect.Effect<unknown>) | undefined
  /**
   * Gives for a request who is to be told what its call used, once it has succeeded. That may be after a long stream, so what it
   * gives should not keep the request.
   *
   * @default nobody
   */
  readonly used?: ((request: CallRequest) => Used) | undefined
}

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/** A request, as its transport has it. */
export interface Incoming {
  /** The URL that it is sent to, which decides the account. */
  readonly url: string
  readonly header: HeaderReader
  readonly body: string
  /** The parsed body, where the transport has it. @default parsed here */
  readonly parsed?: unknown
}

/** A request that is governed. */
export interface Planned {
  readonly match: Match
  readonly description: Description & { readonly model: string }
  readonly request: CallRequest
  /** The caller's own body. */
  readonly body: string
  /** What the caller expects of the answer: a stream of events, or of a JSON list of them. @default a whole answer */
  readonly streams: "events" | "list" | undefined
  /** Whether usage has to be requested for a caller who did not. */
  readonly needsUsageRequest: boolean
}

/** A response, as its transport has it. `body` is undefined where there is none. */
export interface Upstream {
  readonly status: number
  readonly header: HeaderReader
  readonly body: Source | undefined
  /** Whether the body is a stream of events. @default by the content type */
  readonly isStream?: boolean | undefined
}

/**
 * Sends a planned request once, with another body than the caller's own where one is given. It rejects where there is no
 * response; the signal ends the response's body as well.
 */
export type Send<R extends Upstream> = (signal: AbortSignal, body: string | undefined) => Promise<R>

/** What a governed call ends with. */
export interface Result<R extends Upstream> {
  readonly response: R
  /** The whole body, or one that is still to be read. */
  readonly body: Uint8Array | Source
  /** Whether the body has other bytes than the provider sent. */
  readonly isChanged: boolean
  /** Whether this is a failure that was retried as often as it may be. */
  readonly isFinal: boolean
}

/** Nothing came for too long. */
export class Stalled extends Error {
  override readonly name = "TimeoutError"
  constructor(silence: string) {
    super(`The answer was silent for ${silence} (for streams see floodgate's option idleTimeout)`)
  }
}

/** A failed attempt, and what the caller gets if it stays so. */
export class AttemptFailed<R extends Upstream> extends FailedAttempt {
  /** The provider's own response, or what was thrown. */
  readonly outcome: Effect.Effect<Result<R>, unknown>

  constructor(reason: LlmErrorReason, outcome: Effect.Effect<Result<R>, unknown>) {
    super(new LlmError({ reason }))
    this.outcome = outcome
  }
}
