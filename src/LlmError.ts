/**
 * The typed failures of a call: what went wrong, whether to retry, and what the budget must know.
 *
 * Every failure is an {@link LlmError} with a `reason`. The class of the reason says what happened. The wrapper answers
 * the same questions for every reason: `isRetryable`, `retryAfter`, `usage` (what the call used of its reservation),
 * `pushback` (whether the provider asked to slow down) and `signal`.
 *
 * **Details**
 *
 * The reason depends on the status, the error type and the error code; the text of a message matters only if a failing
 * `fetch` gives nothing else. The `message` of a reason names the cause and a remedy in one line. Errors never hold API
 * keys or request headers.
 *
 * **Example** (Handling one reason)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import { LlmError, RateLimited } from "floodgate/LlmError"
 *
 * const call = Effect.fail(new LlmError({ reason: new RateLimited({ status: 429, retryAfter: Duration.seconds(16) }) }))
 *
 * const answer = call.pipe(
 *   Effect.catchReason("LlmError", "RateLimited", (reason) => Effect.succeed(reason.message))
 * )
 *
 * Effect.runSync(answer) // => "rate limited by the provider; retry after 16s"
 * ```
 *
 * @stability stable
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import * as Limits from "./Limits.ts"
import * as Amounts from "./domain/amounts.ts"
import type { Pushback } from "./domain/signal.ts"
import { LlmErrorReason } from "./protocol/errorReasons.ts"
import { lasting } from "./domain/lasting.ts"

export * from "./protocol/errorReasons.ts"

// -----------------------------------------------------------------------------
// The error
// -----------------------------------------------------------------------------

/** A call that was answered with an error before any output. */
const requestOnly: Limits.Usage = { ...Amounts.nothing, requests: 1 }
/** A call whose input reached the provider, but of whose output nothing arrived. */
const unanswered: Limits.Usage = { requests: 1, outputTokens: 0 }

/** Reasons of calls that were rejected, or never sent. */
const unused: ReadonlySet<LlmErrorReason["_tag"]> = new Set([
  "RateLimited",
  "RampLimited",
  "SpendLimited",
  "CircuitOpen",
  "DeadlineMissed"
])

const usageOf = (reason: LlmErrorReason): Limits.Usage => {
  if (reason.received !== undefined) return reason.received.usage
  if (unused.has(reason._tag)) return Amounts.nothing
  switch (reason._tag) {
    case "ConnectionFailed":
      return reason.sent ? unanswered : Amounts.nothing
    case "TimedOut":
      return unanswered
    case "MalformedResponse":
      return reason.executed === false ? Amounts.nothing : { requests: 1 }
    default:
      // Without a status the SDK refused the request before it was sent.
      return reason.status === undefined && !reason.isRetryable ? Amounts.nothing : requestOnly
  }
}

const pushbackOf = (reason: LlmErrorReason): Pushback | undefined => {
  switch (reason._tag) {
    case "RateLimited":
      return "rateLimit"
    case "RampLimited":
      return "ramp"
    case "Overloaded":
    case "ServerFailed":
    case "ConnectionFailed":
    case "TimedOut":
    case "StreamInterrupted":
      return reason.received?.started === true ? undefined : "overload"
    default:
      return undefined
  }
}

/** Facts about a call's retries, which only its client knows. */
type Annotations = {
  /** How often the call was sent. A call that a circuit breaker turned away was not sent. */
  readonly attempts?: number | undefined
  /** How long the call waited in total: between attempts, and for room in the budget. */
  readonly waited?: Duration.Duration | undefined
  /** Why the client stopped although the failure is retryable. */
  readonly stoppedBy?: "attempts" | "deadline" | "schedule" | undefined
  /** The limit that was hit, if the response names it. */
  readonly limit?: Limits.Dimension | undefined
}

/** The reasons why there was no further attempt. Used-up attempts need no words, because the message has their number. */
const stops = { attempts: undefined, deadline: "no time left for another", schedule: "the retry schedule has ended" }

/**
 * The failure of a call. The `reason` tells what happened, the getters what to do about it.
 *
 * **Details**
 *
 * `attempts`, `waited`, `stoppedBy` and `limit` are set by the client that retried (see `annotate`): how often it
 * sent the call, how long the call waited between attempts and for the budget, why the client stopped although the
 * failure is retryable, and which limit was hit.
 *
 * **Example** (What a rejected call used)
 *
 * ```ts doctest
 * import { LlmError, Overloaded, RateLimited } from "floodgate/LlmError"
 *
 * const rejected = new LlmError({ reason: new RateLimited({ status: 429 }) })
 * rejected.pushback // => "rateLimit"
 * rejected.usage // => { requests: 0, inputTokens: 0, outputTokens: 0, tokens: 0 }
 *
 * const overloaded = new LlmError({ reason: new Overloaded({ status: 529 }) })
 * overloaded.isRetryable // => true
 * overloaded.usage // => { requests: 1, inputTokens: 0, outputTokens: 0, tokens: 0 }
 * ```
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class LlmError extends Schema.TaggedError<LlmError>("floodgate/LlmError/LlmError")("LlmError", {
  reason: LlmErrorReason,
  attempts: Schema.optional(Schema.Finite),
  waited: Schema.optional(Schema.Duration),
  stoppedBy: Schema.optional(Schema.Literals(["attempts", "deadline", "schedule"])),
  limit: Schema.optional(Limits.Dimension)
}) {
  override readonly cause = this.reason

  override get message(): string {
    const tried = this.attempts === undefined || this.attempts < 2 ? [] : [`${this.attempts} attempts`]
    const waited = this.waited === undefined ? [] : [`${lasting(this.waited)} waited`]
    const past = [...tried, ...waited].join(", ")
    const notes = [past && `after ${past}`, this.stoppedBy && stops[this.stoppedBy]].filter(Boolean).join("; ")
    const limit = this.limit === undefined ? "" : ` [limit: ${this.limit}]`
    return `${this.reason.message}${limit}${notes && ` (${notes})`}`
  }

  /** Whether another attempt may succeed without a change, and without repeating content that was handed on. */
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }

  /** The wait that the provider asked for, at most an hour. */
  get retryAfter(): Duration.Duration | undefined {
    return this.reason.retryAfter
  }

  /** The part of its reservation that the call used; a dimension that is left out keeps its estimate. */
  get usage(): Limits.Usage {
    return usageOf(this.reason)
  }

  /**
   * The pushback that the failure may be, which the budget judges.
   *
   * - `"rateLimit"`: a limit was exceeded
   * - `"ramp"`: usage grows too fast
   * - `"overload"`: the provider failed or could not be reached; its limits are not at fault
   */
  get pushback(): "rateLimit" | "ramp" | "overload" | undefined {
    return pushbackOf(this.reason)
  }

  /** The limits in the response's headers. */
  get signal(): Limits.Signal | undefined {
    return this.reason.signal
  }

  /** The provider's name for the request, for support. */
  get requestId(): string | undefined {
    return this.reason.requestId
  }

  /** The HTTP status, if there was a response. */
  get status(): number | undefined {
    return this.reason.status
  }

  /** Adds what the client knows about its retries. */
  annotate(annotations: Annotations): LlmError {
    return new LlmError({
      reason: this.reason,
      attempts: annotations.attempts ?? this.attempts,
      waited: annotations.waited ?? this.waited,
      stoppedBy: annotations.stoppedBy ?? this.stoppedBy,
      limit: annotations.limit ?? this.limit
    })
  }
}
