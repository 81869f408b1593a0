/**
 * The reasons why calls fail: one class per reason, and what each carries.
 *
 * @stability stable
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { Dimension } from "../Limits.ts"
import { awaited } from "../domain/words.ts"
import { amount, Received, Signal } from "./signalSchemas.ts"
import { lasting } from "../domain/lasting.ts"

// -----------------------------------------------------------------------------
// Reasons
// -----------------------------------------------------------------------------

/** The fields that every reason may carry. */
const fields = {
  /** The HTTP status of the response, if there was one. */
  status: amount,
  /** The provider's name for the request, for support. */
  requestId: Schema.optional(Schema.String),
  /** The provider's error code, or its error type if it gave no code. */
  code: Schema.optional(Schema.String),
  /** The provider's message, for people to read; do not match on it. */
  detail: Schema.optional(Schema.String),
  /** How long the provider asked to wait. */
  retryAfter: Schema.optional(Schema.Duration),
  /** False if the provider's header `x-should-retry` says that a retry does not help. */
  shouldRetry: Schema.optional(Schema.Boolean),
  /** The limits in the response's headers. */
  signal: Schema.optional(Signal),
  /** The part that had arrived when the response failed half-way. */
  received: Schema.optional(Received)
}

interface Common {
  readonly detail?: string | undefined
  readonly requestId?: string | undefined
  readonly retryAfter?: Duration.Duration | undefined
  readonly shouldRetry?: boolean | undefined
  readonly received?: Received | undefined
}

const say = (reason: Common, what: string, wayOut: string): string =>
  what +
  (reason.detail === undefined ? "" : ` (${reason.detail})`) +
  `; ${wayOut}` +
  (reason.requestId === undefined ? "" : ` [${reason.requestId}]`)

const wait = (reason: Common): string => {
  if (reason.shouldRetry === false) return "the provider says that a retry does not help"
  return reason.retryAfter === undefined ? "wait before the next attempt" : `retry after ${lasting(reason.retryAfter)}`
}

/** Whether a retry is allowed: the provider does not advise against it, and no content would be repeated. */
const mayRepeat = (reason: Common): boolean => reason.shouldRetry !== false && reason.received?.started !== true

/**
 * The provider rejected the call because a limit was exceeded (429). Retryable after the wait that the provider names.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class RateLimited extends Schema.TaggedError<RateLimited>("floodgate/LlmError/RateLimited")(
  "RateLimited",
  fields
) {
  get isRetryable(): boolean {
    return mayRepeat(this)
  }
  override get message(): string {
    return say(this, "rate limited by the provider", wait(this))
  }
}

/**
 * The provider rejected the call because usage grows too fast (429, Anthropic's `ramp_limit_exceeded`, OpenAI's
 * `slow_down`). Retryable after the wait, at a lower growth.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class RampLimited extends Schema.TaggedError<RampLimited>("floodgate/LlmError/RampLimited")(
  "RampLimited",
  fields
) {
  get isRetryable(): boolean {
    return mayRepeat(this)
  }
  override get message(): string {
    return say(this, "usage grows faster than the provider allows", `ramp up more slowly and ${wait(this)}`)
  }
}

/**
 * A spend limit or quota is used up, or the account's billing failed (402). Not retryable, although providers answer 429 as
 * well: it lasts until `resumesAt`, or until somebody raises the limit or pays the bill.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class SpendLimited extends Schema.TaggedError<SpendLimited>("floodgate/LlmError/SpendLimited")("SpendLimited", {
  ...fields,
  /** When the limit resets, if that is known. */
  resumesAt: Schema.optional(Schema.DateTimeUtc)
}) {
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const resumes = this.resumesAt === undefined ? "" : `resumes at ${this.resumesAt.toJSON()}; `
    const what = this.status === 402 ? "payment required" : "spend limit reached"
    return say(this, what, `${resumes}raise the limit or add credit, retrying does not help`)
  }
}

/**
 * The provider is overloaded (529, 503, or `overloaded_error` within a stream). Retryable; it says nothing about our
 * limits of requests and tokens.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class Overloaded extends Schema.TaggedError<Overloaded>("floodgate/LlmError/Overloaded")("Overloaded", fields) {
  get isRetryable(): boolean {
    return mayRepeat(this)
  }
  override get message(): string {
    return say(this, "the provider is overloaded", wait(this))
  }
}

/**
 * The requested tier has no capacity at the moment (OpenAI's 429 `resource_unavailable`, Groq's 498 of the flex tier).
 * Retryable. It concerns only this attempt: the next one may be accepted, so the pool does not pause.
 *
 * @stability stable
 * @category errors
 * @since 0.4.0
 */
export class TierFull extends Schema.TaggedError<TierFull>("floodgate/LlmError/TierFull")("TierFull", fields) {
  get isRetryable(): boolean {
    return mayRepeat(this)
  }
  override get message(): string {
    return say(this, "the tier has no capacity", `${wait(this)}, or use the standard tier`)
  }
}

/**
 * The provider failed (500, 502 and other 5xx). Retryable.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class ServerFailed extends Schema.TaggedError<ServerFailed>("floodgate/LlmError/ServerFailed")(
  "ServerFailed",
  fields
) {
  get isRetryable(): boolean {
    return mayRepeat(this)
  }
  override get message(): string {
    return say(this, `the provider failed${this.status === undefined ? "" : ` with ${this.status}`}`, wait(this))
  }
}

/**
 * No answer arrived within the timeout of the attempt, or within the provider's own (504, 408). Retryable; the input counts as used,
 * because the provider had it.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class TimedOut extends Schema.TaggedError<TimedOut>("floodgate/LlmError/TimedOut")("TimedOut", {
  ...fields,
  /** The timeout, if it was ours. */
  after: Schema.optional(Schema.Duration)
}) {
  get isRetryable(): boolean {
    return mayRepeat(this)
  }
  override get message(): string {
    const after = this.after === undefined ? "" : ` within ${lasting(this.after)}`
    return say(this, `no answer${after}`, "retry, raise the timeout, or stream long answers")
  }
}

/**
 * The connection failed. `sent` says whether the provider may have had the request: nothing was sent if the connection was
 * refused or the host is unknown, but a reset may come after the request was sent. Retryable.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class ConnectionFailed extends Schema.TaggedError<ConnectionFailed>("floodgate/LlmError/ConnectionFailed")(
  "ConnectionFailed",
  { ...fields, sent: Schema.Boolean }
) {
  get isRetryable(): boolean {
    return mayRepeat(this)
  }
  override get message(): string {
    return this.sent
      ? say(this, `connection lost after the request was sent${this.suffix}`, "retry")
      : say(this, `could not connect to the provider${this.suffix}`, "check the base URL and the network, or retry")
  }
  private get suffix(): string {
    return this.code === undefined ? "" : `: ${this.code}`
  }
}

/** The meaning of the status of a refused request, and what helps. */
const refusals: Readonly<Record<number, readonly [what: string, wayOut: string]>> = {
  404: ["not found", "check the model's name and the base URL"],
  413: ["the request is too large", "send less at once"]
}

/**
 * The request was refused by the provider, or by the SDK before it was sent. It is wrong (400, 422 and other 4xx), too large
 * (413; 32 MB at Anthropic), for an unknown model or address (404, or a redirect), or in conflict with another request (409).
 * The `status` tells them apart; without one nothing was sent. Not retryable, except for a conflict, as the official SDK does.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>("floodgate/LlmError/InvalidRequest")(
  "InvalidRequest",
  fields
) {
  get isRetryable(): boolean {
    return this.status === 409 && mayRepeat(this)
  }
  override get message(): string {
    if (this.status === 409) return say(this, "in conflict with another request", wait(this))
    if (this.status === undefined) {
      return say(
        this,
        "the call failed before the provider answered",
        "change the request or the code around it, retrying does not help"
      )
    }
    if (this.status >= 300 && this.status < 400)
      return say(this, "the base URL redirects to another address", "change the base URL")
    return say(this, ...(refusals[this.status] ?? ["invalid request", "change the request, retrying does not help"]))
  }
}

/**
 * The credentials are missing or wrong (401), or do not allow this (403). Not retryable.
 *
 * @stability stable
 * @category errors
 * @since 0.3.0
 */
export class AccessDenied extends Schema.TaggedError<AccessDenied>("floodgate/LlmError/AccessDenied")(
  "AccessDenied",
  fields
) {
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return this.status === 403
      ? say(this, "not permitted", "check what the API key and its workspace may use")
      : say(this, "not authenticated", "check the API key")
  }
}

/**
 * A stream ended before its `message_stop`. Retryable only as long as no content was handed on.
 *
 * - `"cut"`: the connection broke
 * - `"truncated"`: the stream ended as if it were complete
 * - `"stalled"`: nothing came for the idle timeout, not even a ping
 * - `"failed"`: the provider sent an error within the stream; `code` is its type, such as `overloaded_error`
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class StreamInterrupted extends Schema.TaggedError<StreamInterrupted>("floodgate/LlmError/StreamInterrupted")(
  "StreamInterrupted",
  { ...fields, kind: Schema.Literals(["cut", "truncated", "stalled", "failed"]), received: Received }
) {
  get isRetryable(): boolean {
    return mayRepeat(this)
  }
  override get message(): string {
    const wayOut = this.isRetryable ? "retry" : "ask again, or continue from the partial text in `received`"
    return say(
      this,
      this.kind === "failed" ? "the stream failed before its end" : `the stream was ${this.kind} before its end`,
      wayOut
    )
  }
}

/**
 * The answer cannot be read. Not retryable.
 *
 * - With `executed: true` an HTTP response began, and then broke the protocol, for example with headers above 64 KB. The provider has
 *   probably executed the call, so it keeps its estimate and is not sent again.
 * - With `executed: false` no provider has answered: something that speaks no HTTP, or an HTML page with status 200. The call has used
 *   nothing, and continues at another place, if its model has one.
 * - Without `executed` the provider answered with success, but the body is not an answer of its API; often a proxy is in between. The
 *   call keeps its estimate.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class MalformedResponse extends Schema.TaggedError<MalformedResponse>("floodgate/LlmError/MalformedResponse")(
  "MalformedResponse",
  { ...fields, executed: Schema.optional(Schema.Boolean) }
) {
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    if (this.executed === true) {
      const wayOut = "it is not sent again: look whether the answer was stored, and report this to the provider"
      return say(this, "the answer cannot be read, and the provider has probably executed the call", wayOut)
    }
    const what = this.executed === false ? "what answered is not an API of a provider" : "the response is malformed"
    return say(this, what, "check what the base URL points to")
  }
}

/**
 * The circuit breaker of the call's pool is open: too many calls failed at the provider, and this one was not sent.
 * Retryable after the time for which it stays open.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class CircuitOpen extends Schema.TaggedError<CircuitOpen>("floodgate/LlmError/CircuitOpen")("CircuitOpen", {
  ...fields,
  pool: Schema.String
}) {
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    return say(this, `the provider keeps failing, so the circuit of pool "${this.pool}" is open`, wait(this))
  }
}

/**
 * The call would begin after its deadline. `left` is the time until the deadline, and `wait` the expected wait. If the
 * deadline had already passed, there is no `pool`. Not retryable.
 *
 * @stability stable
 * @category errors
 * @since 0.2.0
 */
export class DeadlineMissed extends Schema.TaggedError<DeadlineMissed>("floodgate/LlmError/DeadlineMissed")(
  "DeadlineMissed",
  {
    ...fields,
    pool: Schema.optional(Schema.String),
    dimension: Schema.optional(Dimension),
    wait: Schema.DurationFromMillis,
    left: Schema.DurationFromMillis
  }
) {
  /** A retry would be later still. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    if (this.pool === undefined) return "The deadline of the call passed before it was sent: give it more time"
    return `The call would wait ${lasting(this.wait)} for ${awaited(this.dimension)} in pool "${this.pool}", longer than the ${lasting(this.left)} to its deadline: give it more time, or run fewer calls at once`
  }
}

/**
 * The reason why a call failed: one of this module.
 *
 * @stability stable
 * @category schemas
 * @since 0.1.0
 */
export const LlmErrorReason = Schema.Union([
  RateLimited,
  RampLimited,
  SpendLimited,
  Overloaded,
  TierFull,
  ServerFailed,
  TimedOut,
  ConnectionFailed,
  InvalidRequest,
  AccessDenied,
  StreamInterrupted,
  MalformedResponse,
  CircuitOpen,
  DeadlineMissed
])

/**
 * The reason why a call failed.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export type LlmErrorReason = typeof LlmErrorReason.Type
