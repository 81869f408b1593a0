/**
 * Reads the limits in a provider's responses and errors, for code that calls a provider with another client.
 *
 * `LlmClient`, `floodgate/anthropic` and `floodgate/ai` do this themselves. If you run another client under {@link
 * Governor.run}, return the signal with the outcome, and turn what the client throws into a failure. The budget then
 * follows the provider's counts, and the policy knows what to retry. `examples/openai.ts` is a complete example.
 *
 * **Details**
 *
 * It understands the headers of Anthropic, of OpenAI and compatible servers and of
 * the IETF draft. Values are untrusted and bounded; absurd values are ignored.
 *
 * **Example** (The headers of an OpenAI response)
 *
 * ```ts doctest
 * import * as Signals from "floodgate/Signals"
 *
 * const headers = new Headers({
 *   "x-ratelimit-limit-tokens": "150000",
 *   "x-ratelimit-remaining-tokens": "149984"
 * })
 *
 * const signal = Signals.fromHeaders(headers)
 * signal?.dimensions.tokens // => { limit: 150_000, remaining: 149_984, roundedTo: 1 }
 * ```
 *
 * @stability stable
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as SdkErrors from "./protocol/sdkErrors.ts"
import type * as Limits from "./Limits.ts"
import { LlmError } from "./LlmError.ts"
import { headerReader, signalOf } from "./protocol/headers.ts"

/**
 * The headers of a response: a `Headers` object, or a record with names in lower case, as Node and `effect/http` have
 * them.
 */
type HeaderSource =
  | { readonly get: (name: string) => string | null | undefined }
  | Readonly<Record<string, string | ReadonlyArray<string> | undefined>>

/**
 * Reads the limits from headers; undefined if they contain nothing usable.
 *
 * **Example** (A record of headers, as `effect/http` has them)
 *
 * ```ts doctest
 * import * as Signals from "floodgate/Signals"
 *
 * const signal = Signals.fromHeaders({ "anthropic-ratelimit-requests-remaining": "12" })
 *
 * signal?.dimensions.requests?.remaining // => 12
 * Signals.fromHeaders({ "content-type": "text/plain" }) // => undefined
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.1.0
 */
export const fromHeaders = (headers: HeaderSource): Limits.Signal | undefined => signalOf(headerReader(headers))

/**
 * Converts an error of an SDK to a failure that the governor understands. It says whether and when to retry, what the call
 * used, and which limits the response reported.
 *
 * **Details**
 *
 * It reads the status (`status`, `statusCode`), the headers and the body of the response wherever the error keeps them.
 * Otherwise it reads error codes and names along the causes: a timeout, an abort, a refused or broken connection. It
 * supports the SDKs of Anthropic, OpenAI, Google GenAI, Mistral and AWS, the AI SDK, axios, got, ky, undici, `fetch`
 * with a thrown `Response`, and objects `{ status, headers, body }`. The text of a message is used only for a `fetch`
 * that gives nothing else. Errors that `Effect.tryPromise` wrapped are unwrapped. `now` is `Clock.currentTimeMillis`,
 * from which dates in headers are measured.
 *
 * **Gotchas**
 *
 * - Turn off the client's own retries: Floodgate retries, and the client's final error may hide the cause.
 * - An abort counts as a lost connection and is retried, because some SDKs report their timeouts as aborts. To give up,
 *   interrupt the fiber: `Effect.tryPromise((signal) => ...)` passes the interruption on.
 * - Anything else, such as a bug in the code around the call, gives an `InvalidRequest` without a status.
 *
 * **Example** (A rate limit, and a spent quota, which comes as 429 as well)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Signals from "floodgate/Signals"
 *
 * const limited = Signals.fromError({ status: 429, headers: new Headers({ "retry-after": "16" }) }, 0)
 * limited.isRetryable // => true
 * limited.retryAfter // => Duration.seconds(16)
 * limited.pushback // => "rateLimit"
 *
 * const spent = Signals.fromError({ status: 429, error: { code: "insufficient_quota" } }, 0)
 * spent.isRetryable // => false
 * spent.reason._tag // => "SpendLimited"
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.1.0
 */
export const fromError = (thrown: unknown, now: number): LlmError =>
  new LlmError({ reason: SdkErrors.fromThrown(Cause.isUnknownError(thrown) ? thrown.cause : thrown, { now }) })
