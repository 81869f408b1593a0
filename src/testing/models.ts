/**
 * The options of the simulated provider and its results, as plain types.
 *
 * @since 0.1.0
 */
import type * as Forecast from "../Forecast.ts"
import type * as Limits from "../Limits.ts"
import type { Params } from "../LlmProvider.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * How much of a rejected request counts against the limits.
 *
 * @category options
 * @since 0.1.0
 */
export interface RejectionCharge {
  /**
   * Requests that one rejection counts as.
   *
   * @default 1
   */
  readonly requests?: number | undefined
  /**
   * The share of the rejected request's tokens that counts, from 0 to 1.
   *
   * @default 0.05
   */
  readonly tokenShare?: number | undefined
}

/**
 * How long an admitted call takes, in milliseconds, as a function of its tokens.
 *
 * @category options
 * @since 0.1.0
 */
export interface Latency extends Forecast.Latency {
  /**
   * The spread of a lognormal factor with mean 1 on all of it: 0 for none, 0.3 for calls that mostly lie between 0.7 and
   * 1.4 times their time.
   *
   * @default 0
   */
  readonly noise?: number | undefined
  /**
   * Milliseconds until a rejection or a server error is answered.
   *
   * @default 0
   */
  readonly rejectionMillis?: number | undefined
}

/**
 * A limit on how fast usage may grow: the input tokens of the last minute may be `growth` times those of the minute
 * before, and `fromPerMinute` are always allowed.
 *
 * @category options
 * @since 0.1.0
 */
export interface Ramp {
  /** Input tokens a minute that are allowed from a standing start. */
  readonly fromPerMinute: number
  /**
   * The factor by which usage may grow from one minute to the next.
   *
   * @default 1.5
   */
  readonly growth?: number | undefined
}

/**
 * Somebody else who uses the same limits, such as another service of the organisation.
 *
 * **Details**
 *
 * It uses `share` of the rate of every limited dimension, all the time, or with both other options for the first
 * `forMillis` of every `everyMillis`. The neighbour gets only what is left, so a share above 1 drains a bucket.
 *
 * @category options
 * @since 0.1.0
 */
export interface Neighbour {
  /** The part of each limit's rate that it takes: 0.5 is half of the limit. */
  readonly share: number
  readonly everyMillis?: number | undefined
  readonly forMillis?: number | undefined
}

/**
 * What can go wrong with a call.
 *
 * - `"400"`, `"401"`, `"404"`: the request, its key or its model is refused, whatever it is
 * - `"429"`: rejected although the limits have room
 * - `"529"`: overloaded
 * - `"500"`: failed inside
 * - `"timeout"`: nothing for `afterMillis`, then no answer (over HTTP 504)
 * - `"refused"`: the connection is refused
 * - `"cut"`: the connection breaks in the middle of the answer
 * - `"truncated"`: the stream ends early as if it were complete
 * - `"malformed"`: the answer is complete and no valid JSON; a stream has such an event where its last ones should be
 * - `"stall"`: the answer stops in the middle, and nothing more is ever heard. As the real client does with its defaults,
 *   `ProviderSim` gives up a stream after a minute of silence, and a whole answer ten minutes after it was asked for
 *
 * @category models
 * @since 0.1.0
 */
export type FaultKind =
  | "400"
  | "401"
  | "404"
  | "429"
  | "529"
  | "500"
  | "timeout"
  | "refused"
  | "cut"
  | "truncated"
  | "malformed"
  | "stall"

/**
 * A fault and the calls that it hits: those for which every condition that is given holds.
 *
 * @category options
 * @since 0.1.0
 */
export interface Fault {
  readonly kind: FaultKind
  /** The numbers of the calls that it may hit, counted from 1 as they arrive, retries included. */
  readonly calls?: ReadonlyArray<number> | undefined
  /** The time in which it may hit, in milliseconds since the provider started: from, inclusive, to, exclusive. */
  readonly between?: readonly [from: number, to: number] | undefined
  /**
   * The probability that it hits a call for which the other conditions hold.
   *
   * @default 1
   */
  readonly rate?: number | undefined
  /** Only calls to models whose name starts so. */
  readonly model?: string | undefined
  /**
   * For `"timeout"`: milliseconds until the call is given up.
   *
   * @default 60_000
   */
  readonly afterMillis?: number | undefined
  /** For `"429"`, `"529"` and `"500"`: the wait that the answer names, in milliseconds; none unless given. */
  readonly retryAfterMillis?: number | undefined
  /** For `"429"`: the error code that the answer carries, such as `ramp_limit_exceeded`. */
  readonly errorCode?: string | undefined
}

/**
 * What the provider tells of its limits.
 *
 * - `"rounded"`: as Anthropic does, tokens rounded to the nearest thousand and times to the second
 * - `"exact"`: Anthropic's names with exact figures
 * - `"openai"`: OpenAI's names, with durations
 * - `"none"`: nothing, not even `retry-after`
 * - `"wrong"`: twice the limits, nothing used, and `retry-after` of one second whatever the truth
 *
 * @category models
 * @since 0.1.0
 */
export type HeaderMode = "rounded" | "exact" | "openai" | "none" | "wrong"

/**
 * A tool call in an answer. Its `id` is made up.
 *
 * @category options
 * @since 0.1.0
 */
export interface ToolUse {
  readonly type: "tool_use"
  readonly name: string
  readonly input: unknown
}

/**
 * The options of the simulated provider. Without options it has no limits.
 *
 * **Example** (What if the limit is half?)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import { LlmProvider } from "floodgate/LlmProvider"
 * import * as Retry from "floodgate/Retry"
 * import { ProviderSim, Simulation } from "floodgate/testing"
 *
 * // 40 calls of 25,000 tokens: 1M in all.
 * const calls = Effect.forEach(
 *   Array.from({ length: 40 }, (_, id) => `agent-${id}`),
 *   (agent) =>
 *     Effect.flatMap(LlmProvider, (provider) =>
 *       provider.create({
 *         model: "claude-sonnet-5",
 *         max_tokens: 100,
 *         metadata: { user_id: agent },
 *         messages: [{ role: "user", content: "x".repeat(100_000) }]
 *       })
 *     ).pipe(Effect.retry(Retry.schedule({ attempts: 20 }))),
 *   { concurrency: "unbounded" }
 * )
 *
 * const minutes = (limit: number) => {
 *   const provider = ProviderSim.layer({ limits: { inputTokens: { perMinute: limit, burst: 50_000 } } })
 *   return Effect.map(Simulation.run(Effect.provide(calls, provider)), ({ duration }) => Duration.toMinutes(duration))
 * }
 *
 * const whole = await Effect.runPromise(minutes(400_000))
 * const half = await Effect.runPromise(minutes(200_000))
 * half >= 1.5 * whole // => true
 * ```
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * The limits that all models share, unless `pools` has its own for a model. Here a limit is what the provider enforces:
   * `perMinute` is a token bucket that holds a whole minute's worth unless `burst` and `window` say otherwise.
   */
  readonly limits?: Limits.Limits | undefined
  /**
   * Limits by the start of the model's name, of which the longest match wins, or else by the class of Claude that the model
   * belongs to (`Presets.poolOf`): `ProviderSim.layer(Presets.anthropic.start)` simulates that tier. Each has buckets of
   * its own.
   */
  readonly pools?: Readonly<Record<string, Limits.Limits>> | undefined
  /**
   * What a limit on `tokens` counts when a call is admitted: `"usage"` its input and output, `"openai"` the larger of
   * its input and its `max_tokens`, `"azure"` the sum of both.
   *
   * @default "usage"
   */
  readonly counting?: "usage" | "openai" | "azure" | undefined
  /**
   * When a limit on `outputTokens` counts output: `"live"` as it is produced, so that a call is admitted as long as
   * anything is left (Anthropic), or all of it at `"admission"`.
   *
   * @default "live"
   */
  readonly output?: "live" | "admission" | undefined
  /**
   * Whether rejections count against the limits: not at all, or one request and 5 % of the tokens, or as given.
   *
   * **Details**
   *
   * OpenAI documents that unsuccessful requests count; Anthropic documents nothing. This decides whether fixed retries
   * only waste calls or never finish, so state it with every figure. A charged rejection at most empties a bucket.
   *
   * @default "free"
   */
  readonly rejections?: "free" | "charged" | RejectionCharge | undefined
  /**
   * What becomes of a call that is larger than a bucket's burst but not than a minute's worth: admitted into debt when
   * the bucket is full, or never.
   *
   * @default "debt"
   */
  readonly oversize?: "debt" | "reject" | undefined
  /** The most calls at once per pool; unlimited by default. */
  readonly concurrency?: number | undefined
  readonly ramp?: Ramp | undefined
  readonly neighbour?: Neighbour | undefined
  readonly latency?: Latency | undefined
  /** The faults; the first one that matches a call applies. `countTokens` has neither faults nor limits. */
  readonly faults?: ReadonlyArray<Fault> | undefined
  /**
   * What responses tell of the limits.
   *
   * @default "rounded"
   */
  readonly headers?: HeaderMode | undefined
  /**
   * Decides everything that is random. The same seed and the same calls give the same answers.
   *
   * @default 1
   */
  readonly seed?: number | undefined
  /**
   * How many requests the log keeps; older ones are dropped, the counters go on.
   *
   * @default 100_000
   */
  readonly logSize?: number | undefined
  /**
   * Characters per input token. English has about 2.7 since Claude 4.7, code fewer.
   *
   * @default 4, so that figures are round
   */
  readonly charsPerToken?: number | undefined
  /**
   * Output tokens of an answer, never above the request's `max_tokens`: a number, or a function of the request and a
   * random number in [0, 1) that is the same whenever the same request is made. By default as many as its text has.
   */
  readonly outputTokens?: number | ((params: Params, random: number) => number) | undefined
  /**
   * The share of the input that is read from a cache, from 0 to 1: it does not count against a limit on `inputTokens`.
   *
   * @default 0
   */
  readonly cachedShare?: number | ((params: Params, random: number) => number) | undefined
  /** The text of an answer, and its tool calls; by default an extract of the longest text of the user. */
  readonly reply?: ((params: Params, random: number) => string | ReadonlyArray<string | ToolUse>) | undefined
}

// -----------------------------------------------------------------------------
// What happened
// -----------------------------------------------------------------------------

/**
 * Why a request was rejected: the dimension whose limit it would pass, or another limit, or a fault.
 *
 * @category models
 * @since 0.1.0
 */
export type RejectedBy = Limits.Dimension | "concurrency" | "ramp" | "fault"

/**
 * One request as the provider saw it. Times are in milliseconds since the provider started.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  /** Its number, counted from 1 as requests arrive. */
  readonly call: number
  readonly at: number
  /** The `metadata.user_id` of the request, or else the `Budget.Agent` on whose behalf it was made in this process. */
  readonly agent: string | undefined
  readonly model: string
  readonly pool: string
  readonly inputTokens: number
  /** The output that the whole answer has; `producedTokens` is what was produced of it. */
  readonly outputTokens: number
  readonly outcome: "accepted" | "rejected" | "failed" | "refused"
  readonly status: number | undefined
  readonly rejectedBy: RejectedBy | undefined
  readonly fault: FaultKind | undefined
  readonly retryAfterMillis: number | undefined
  /** When its answer was complete or the call ended otherwise; not known while it runs. */
  readonly finishedAt: number | undefined
  readonly producedTokens: number
  /** Whether the caller aborted before the end. */
  readonly aborted: boolean
  /** The level of each dimension right after the decision. */
  readonly left: Limits.Charge
}

/**
 * Counters over everything that happened so far.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Requests that arrived: accepted + rejected + failed. */
  readonly requests: number
  readonly accepted: number
  /** Rejections with 429, injected ones included. */
  readonly rejected: number
  readonly rejectionsBy: { readonly [R in RejectedBy]?: number }
  /** Requests that a fault ended before they were admitted, those with 429 left out. */
  readonly failed: number
  /** Accepted calls whose answer was delivered in full. */
  readonly completed: number
  /** Accepted calls that the caller aborted. */
  readonly aborted: number
  /** Accepted calls that a fault ended: timeouts, and answers that were cut, truncated or malformed. */
  readonly broken: number
  readonly inFlight: number
  readonly peakInFlight: number
  readonly countTokens: number
  readonly inputTokens: number
  readonly outputTokens: number
}
