/** The options of the engine, and the forms that a request takes on its way through it. */
import type * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type * as EffectResult from "effect/Result"
import type * as Accounting from "../Accounting.ts"
import type * as Governor from "../Governor.ts"
import * as Called from "../call/models.ts"
import * as Input from "../domain/input/checks.ts"
import type { Description, Protocol } from "../protocol/index.ts"
import type { Match, StreamFormat } from "../protocol/protocol.ts"
import type { Accounts, CredentialName, Identity } from "./account.ts"
import type { Addressed, CredentialHeader } from "./credentials.ts"
import type { ParsedPlaces } from "../places/parse.ts"
import type { Place, PlacesOptions } from "../Places.ts"
import type { BodyFlow } from "./stream.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * A request, as the callbacks of the options see it.
 *
 * @stability stable
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
  /**
   * The session of the agent if it is a sub-agent of Claude Code, Codex or opencode, which are named `SESSION/ID`; otherwise the agent
   * itself.
   *
   * @since 0.4.0
   */
  readonly session: string | undefined
  /**
   * The job that the request belongs to: the header `x-floodgate-job`, or the session that its client names in a header.
   *
   * @since 0.5.0
   */
  readonly job: string | undefined
  /** Looks a header up by its name in lower case. */
  readonly header: (name: string) => string | null | undefined
  /** The body as parsed JSON. It can take several times the memory of its text, so do not keep it while a call waits. */
  readonly body: unknown
}

/**
 * The options that govern requests.
 *
 * @category options
 * @since 0.2.0
 */
export interface EngineOptions {
  /**
   * How calls are admitted and bounded (agent, priority, `maxWait`, `timeout` and so on), for all requests or by the request.
   *
   * @default no bounds; the agent comes from the header `x-floodgate-agent`, from Claude Code's session, or from
   * `metadata.user_id`, `safety_identifier` or `user` in the body. The header `x-floodgate-places` restricts `places` further.
   */
  readonly callOptions?: Governor.CallOptions | ((request: CallRequest) => Governor.CallOptions) | undefined
  /**
   * The protocols that are recognised, in order: the first match applies. Put a protocol of your own before the others.
   *
   * @default those of `floodgate/protocol`
   */
  readonly protocols?: ReadonlyArray<Protocol> | undefined
  /**
   * How the provider counts usage, for all requests or by the request. A function may return undefined for the default.
   *
   * @default by the route: Anthropic, Vertex AI, Bedrock (with a burndown rate of 5), OpenAI, Azure, Gemini
   */
  readonly accounting?:
    | Accounting.Accounting
    | ((request: CallRequest) => Accounting.Accounting | undefined)
    | undefined
  /**
   * The account whose limits a request counts towards. A function may return undefined for the default. Two accounts never share a
   * pool. An empty text stands for no account: such calls share their limits with those of `LlmClient` on the same budget.
   *
   * @default the host with a hash of the credential; credentials for which responses name the same organisation share one
   */
  readonly account?: ((request: CallRequest) => string | undefined) | undefined
  /**
   * Whether the usage is requested in streams of Chat Completions whose caller does not request it; the chunk with the usage is
   * removed again. Without it such calls keep their estimates. A service that rejects `stream_options` gets the request as the
   * caller wrote it, and is not asked again.
   *
   * @default true
   */
  readonly streamUsage?: boolean | undefined
  /**
   * The longest silence within a stream. After it a call without content is retried, and a stream with content breaks off.
   *
   * @default "1 minute" if the provider sends pings (Anthropic), otherwise "5 minutes" as in Node's `fetch`
   */
  readonly idleTimeout?: Duration.Input | undefined
  /**
   * The places of models, see `floodgate/Places`: each call goes where it starts first, or to the cheapest place. Places share the
   * format of the body, and a credential goes only to its own place. Requests for other models go where they are sent.
   *
   * @default none
   * @since 0.4.0
   */
  readonly places?: PlacesOptions<HttpPlace> | undefined
}

/** The check of each option of the engine. */
export const checks: Input.Checks<EngineOptions> = {
  callOptions: Input.orFunction(Called.callOptionsCheck),
  protocols: Input.list(Input.anObject),
  accounting: Input.orFunction(Input.accounting),
  account: Input.callback,
  streamUsage: Input.flag,
  idleTimeout: Input.span,
  places: Input.anObject
}

/** Called with the usage of a call, or with undefined if that is unknown. */
export type OnUsage = (actual: Accounting.Actual | undefined) => void

/** Options that an adapter of the engine adds to those of its users. */
export interface EngineSettings extends EngineOptions {
  /** The operation that users called, for errors in the options that their functions return. */
  readonly operation: string
  /** The provider's name for spans. @default the protocol's */
  readonly name?: string | undefined
  /** The accounts that are known, if they outlive the engine. @default none yet */
  readonly accounts?: Accounts | undefined
  /** Returns the name of a credential, which accounts then have instead of its hash. @default no credential has a name */
  readonly credentialName?: CredentialName | undefined
  /** The error of a body that was silent for too long. @default {@link Stalled} */
  readonly stalled?: ((silence: string) => Effect.Effect<unknown>) | undefined
  /**
   * Makes the function that is called with the usage of a call once it has succeeded. A stream may take long, so the function
   * should not hold on to the call.
   *
   * @default none
   */
  readonly used?: ((planned: HttpCall) => OnUsage) | undefined
}

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/** A request as the transport has received it. */
export interface IncomingRequest {
  /** The URL that it is sent to. The URL decides the account. */
  readonly url: string
  readonly header: (name: string) => string | null | undefined
  /** The text of the body; undefined if it is too long to be rewritten. */
  readonly text: (() => string) | undefined
  /** The parsed body, if the transport has it. @default parsed by the engine */
  readonly parsed?: unknown
  /**
   * Accounts for bytes of the answer that are held until the call is over. If it returns false, there is no room, and the answer
   * is passed on without being read.
   *
   * @default there is room
   */
  readonly hold?: ((bytes: number) => boolean) | undefined
}

/** The options of one call, after their functions were called. */
export interface CallTerms {
  /** The account that the options name; undefined for the default. */
  readonly account: string | undefined
  readonly accounting: Accounting.Accounting
  readonly callOptions: Governor.CallOptions
}

/**
 * A call that is governed. It may wait for minutes, so it holds neither the text of its body nor the parsed body, which can take
 * several times as much memory.
 */
export interface HttpCall {
  readonly match: Match
  readonly description: Description & {
    readonly model: string
    readonly serverTools: boolean
    readonly slowLane: boolean
  }
  readonly request: Omit<CallRequest, "body">
  /** The options, or what their callbacks threw, with which the call fails. */
  readonly terms: EffectResult.Result<CallTerms, unknown>
  /** See {@link IncomingRequest.text}. */
  readonly text: (() => string) | undefined
  /** The format of the stream that the caller expects; undefined for a whole answer. */
  readonly streams: StreamFormat | undefined
  /** Whether the usage must be requested, because the caller did not. */
  readonly needsUsageRequest: boolean
  /** The properties that request it, if nothing else of the body must be changed. */
  readonly usageInsertion: string | undefined
  /** See {@link IncomingRequest.hold}. */
  readonly hold: ((bytes: number) => boolean) | undefined
  /** The places of its model; undefined if it goes where it is sent. */
  readonly places: ParsedPlaces<HttpPlace> | undefined
  /** Counts the tokens of its prompt, if the adapter can. */
  readonly countTokens?: Effect.Effect<number, unknown> | undefined
}

/** A change of the caller's body: by properties inserted at its beginning, or by a new text. */
export type BodyChange = { readonly insert: string } | { readonly text: string }

/** A response as the transport has received it. `body` is undefined if there is none. */
export interface ProviderResponse {
  readonly status: number
  readonly header: (name: string) => string | null | undefined
  readonly body: BodyFlow | undefined
  /** Whether the body is a stream of events. @default by the content type, and by what was requested */
  readonly isStream?: boolean | undefined
}

/**
 * A place of governed HTTP requests.
 *
 * @stability stable
 * @category options
 * @since 0.4.0
 */
export interface HttpPlace extends Place {
  /** The base URL there, such as `https://my-resource.openai.azure.com/openai/v1`. @default that of the request */
  readonly url?: string | undefined
  /**
   * The credential there; null if it needs none.
   *
   * @default the caller's, which only a place at the address of the request gets
   */
  readonly key?: string | Redacted.Redacted<string> | null | undefined
}

/** The destination of an attempt, and how its request differs from the caller's. */
export interface Target {
  /** The request, as far as it shows the account. */
  readonly request: Addressed
  readonly place: HttpPlace
  /** Whether it gets the caller's credentials. */
  readonly isCallers: boolean
  /** The header with the credential of the place; undefined if it gets the caller's, or none. */
  readonly credential: CredentialHeader | undefined
  /** The fields of the body that differ. */
  readonly fields: Readonly<Record<string, unknown>>
  /** The account whose limits apply there. */
  readonly account: string
  /** The identity of the request there; undefined if the place sets the account or a tier. */
  readonly identity: Identity | undefined
}

/** Receives the answer to a request. */
export interface Intake<R extends ProviderResponse> {
  /** The answer has begun. */
  readonly began: (response: R) => void
  /** There is no answer. */
  readonly failed: (thrown: unknown) => void
}

/**
 * Sends a planned request once, with the caller's own body if there is no change, to the caller's address if there is no target, and
 * with its `traceparent` if the call has no span. Returns the function that ends the request and its answer.
 */
export type Dispatch<R extends ProviderResponse> = (
  change: BodyChange | undefined,
  target: Target | undefined,
  intake: Intake<R>,
  traceparent: string | undefined
) => (reason: unknown) => void

/** The destination of the answer to a call. */
export interface Outlet<R extends ProviderResponse> {
  readonly whole: (result: CallResult<R>, body: Uint8Array) => void
  /** The first content of a stream has arrived, or a whole answer that is too large to be read. */
  readonly begin: (result: CallResult<R>) => void
  /** Returns false if nothing more should be written until the call is resumed. */
  readonly write: (piece: Uint8Array) => boolean
  /** The end of a stream. */
  readonly end: () => void
  /** A stream broke off. */
  readonly cut: (thrown: unknown) => void
  /**
   * There is no answer. The call failed with the error of its transport, with a `BudgetError` if it was refused, or with an
   * `LlmError` of the governor (its timeout, or an open circuit).
   */
  readonly failed: (cause: Cause.Cause<unknown>) => void
}

/** A call that is driven by its transport. */
export interface DrivenCall {
  /** Continues to write to an outlet that was full. */
  readonly resume: () => void
  /** Ends the call, because its caller has left. Its outlet gets nothing more. */
  readonly leave: (why: unknown) => void
}

/** The answer to a governed call, without its body. */
export interface CallResult<R extends ProviderResponse> {
  readonly response: R
  /** Whether the body differs from what the provider sent. */
  readonly isChanged: boolean
  /** Whether this is a failure after the last retry. */
  readonly isFinal: boolean
  /** Whether a whole answer is passed on as it arrives, because it is too large to be read. @default false */
  readonly isUnread?: boolean | undefined
  /** The place that has answered; undefined if the model has no places. */
  readonly place?: string | undefined
}

/** A response began, and its rest cannot be read. */
export class UnreadableResponse extends Error {
  /** A code of Node's parser, as the errors of other transports have. */
  readonly code = "HPE_UNEXPECTED"

  constructor() {
    super("The response breaks off HTTP after its status line")
  }
}

/** A body was silent for too long. */
export class Stalled extends Error {
  override readonly name = "TimeoutError"
  constructor(silence: string) {
    super(`The provider sent nothing for ${silence}; for streams, raise the option idleTimeout of floodgate`)
  }
}
