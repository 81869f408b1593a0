/**
 * Reads what a provider's response or error says about its limits, for code that calls a provider in its own way.
 *
 * `LlmClient`, `floodgate/anthropic` and `floodgate/ai` do this by themselves. If you run another client under {@link
 * Governor.run}, give the signal back with the outcome, and turn what the client throws into a failure: the budget then
 * follows what the provider counts, and the policy knows what may be retried. `examples/openai.ts` shows it whole.
 *
 * **Details**
 *
 * Understood are the headers of Anthropic, of OpenAI and compatible servers (`6m0s`, `20ms`, seconds, epochs), and the
 * IETF draft. Values come from outside, so they are bounded: what is absurd is as good as absent.
 *
 * **Example** (The headers of an OpenAI response)
 *
 * ```ts doctest
 * import * as Signals from "floodgate/Signals"
 *
 * const headers = new Headers({
 *   "x-ratelimit-limit-tokens": "150000",
 *   "x-ratelimit-remaining-tokens": "149984",
 *   "x-ratelimit-reset-tokens": "6m0s"
 * })
 *
 * const signal = Signals.fromHeaders(headers, 0)
 * signal?.dimensions.tokens // => { limit: 150_000, remaining: 149_984, roundedTo: 1, resetMillis: 360_000 }
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as SdkErrors from "./signals/sdkErrors.ts"
import type * as Limits from "./Limits.ts"
import { LlmError } from "./LlmError.ts"
import { headerReader, retryAfterMillis, signalOf } from "./protocol/headers.ts"

/**
 * The headers of a response: a `Headers` object, or a record with names in lower case, as Node and `effect/http` have
 * them.
 *
 * @category models
 * @since 0.1.0
 */
type Source =
  | { readonly get: (name: string) => string | null | undefined }
  | Readonly<Record<string, string | ReadonlyArray<string> | undefined>>

/**
 * What the headers say about the limits; undefined when they say nothing usable. `now` is `Clock.currentTimeMillis`:
 * resets that are given as times are measured from it, or from the response's own `date` where it has one. (The headers
 * in these examples have no times, so 0 will do.)
 *
 * **Example** (A record of headers, as `effect/http` has them)
 *
 * ```ts doctest
 * import * as Signals from "floodgate/Signals"
 *
 * const signal = Signals.fromHeaders({ "anthropic-ratelimit-requests-remaining": "12" }, 0)
 *
 * signal?.dimensions.requests?.remaining // => 12
 * Signals.fromHeaders({ "content-type": "text/plain" }, 0) // => undefined
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromHeaders = (headers: Source, now: number): Limits.Signal | undefined =>
  signalOf(headerReader(headers), now)

/**
 * How long the response asks to wait: `retry-after-ms`, or `retry-after` as seconds or as a date; at most an hour.
 * Undefined when it does not say, or says nonsense. `now` is `Clock.currentTimeMillis`, from which a date is measured.
 *
 * **Example** (Seconds)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Signals from "floodgate/Signals"
 *
 * Signals.retryAfter({ "retry-after": "16" }, 0) // => Duration.seconds(16)
 * Signals.retryAfter({}, 0) // => undefined
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const retryAfter = (headers: Source, now: number): Duration.Duration | undefined => {
  const millis = retryAfterMillis(headerReader(headers), now)
  return millis === undefined ? undefined : Duration.millis(millis)
}

/**
 * What an SDK threw, as a failure that the governor understands: whether to retry and when, what the call used, and what
 * the response said of the limits.
 *
 * **Details**
 *
 * Read are the status (`status`, `statusCode`), the headers and the body of the answer, wherever the error keeps them; else
 * the error codes and the names along its causes: a timeout, an abort, a connection that was refused or broke. That fits
 * the SDKs of Anthropic, OpenAI, Google GenAI, Mistral and AWS, the AI SDK, axios, got, ky, undici, and `fetch` with its
 * `Response` where that is thrown; an object `{ status, headers, body }` does as well. The text of a message decides
 * nothing, but for a `fetch` that says nothing else. What `Effect.tryPromise` wrapped is unwrapped. `now` is
 * `Clock.currentTimeMillis`, from which dates in headers are measured.
 *
 * **Gotchas**
 *
 * - Switch off the client's own retries: what it gives up with hides what happened, and retries have one owner.
 * - An abort is taken for a lost connection, because some SDKs report their timeouts so, and is retried. To give up, interrupt
 *   the fiber: `Effect.tryPromise((signal) => ...)` passes it on.
 * - What is nothing of this, such as a bug in the code around the call, is an `InvalidRequest` without a status.
 *
 * **Example** (A spent quota, which comes as 429)
 *
 * ```ts doctest
 * import * as Signals from "floodgate/Signals"
 *
 * const limited = Signals.fromError({ status: 429, headers: new Headers({ "retry-after": "16" }) }, 0)
 * limited.isRetryable // => true
 * limited.pushback // => "rateLimit"
 *
 * const spent = Signals.fromError({ status: 429, error: { code: "insufficient_quota" } }, 0)
 * spent.isRetryable // => false
 * spent.reason._tag // => "SpendLimited"
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromError = (thrown: unknown, now: number): LlmError =>
  new LlmError({ reason: SdkErrors.fromThrown(Cause.isUnknownError(thrown) ? thrown.cause : thrown, { now }) })
