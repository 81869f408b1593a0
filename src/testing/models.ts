/**
 * The options of the simulated provider and its results, as plain types.
 *
 * @stability stable
 * @since 0.1.0
 */
import type * as Forecast from "../Forecast.ts"
import type * as Limits from "../Limits.ts"
import type { CountParams, Params } from "../LlmProvider.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * How much of a rejected request counts towards the limits.
 *
 * @category options
 * @since 0.1.0
 */
type RejectionCharge = {
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
type Latency = NonNullable<Forecast.Options["latency"]> & {
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
  /**
   * Milliseconds until `countTokens` is answered.
   *
   * @default 0
   */
  readonly countTokensMillis?: number | undefined
}

/**
 * A limit on how fast usage may grow: the input tokens of the last minute may be `growth` times those of the minute
 * before, and `fromPerMinute` are always allowed.
 *
 * @category options
 * @since 0.1.0
 */
type Ramp = {
  /** Input tokens a minute that are allowed after a minute without any. */
  readonly fromPerMinute: number
  /**
   * The factor by which usage may grow from one minute to the next.
   *
   * @default 1.5
   */
  readonly growth?: number | undefined
}

/**
 * Another user of the same limits, such as another service of the organisation.
 *
 * **Details**
 *
 * It uses `share` of the rate of every limited dimension: all the time, or with both other options for the first `forMillis` of
 * every `everyMillis`. The neighbour gets only what is left, so a share above 1 drains a bucket.
 *
 * @category options
 * @since 0.1.0
 */
type Neighbour = {
  /** The part of each limit's rate that it takes: 0.5 is half of the limit. */
  readonly share: number
  readonly everyMillis?: number | undefined
  readonly forMillis?: number | undefined
}

/**
 * A long window of a subscription.
 *
 * @category options
 * @since 0.4.0
 */
type WindowSize = {
  /** The limit on the cost of the window's calls, at {@link Prices.published}. Calls to models without a price cost nothing. */
  readonly dollars: number
  /**
   * Parts of the names of the models whose calls count towards it. Only responses to these tell it.
   *
   * @default those with the suffix of its name in theirs, as in `"7d_sonnet"`; without a suffix, all
   * @since 0.5.0
   */
  readonly models?: ReadonlyArray<string> | undefined
  /**
   * The fraction of the first window that is already spent when the provider starts.
   *
   * @default 0
   */
  readonly used?: number | undefined
}

/** The servers that can be simulated. */
export type ServerKind = Server["kind"]

/**
 * A server with continuous batching. Its slots, its queue and the time of a sequence alone are the options `concurrency`, `queue` and
 * `latency`.
 *
 * @category options
 * @since 0.5.0
 */
type Server = {
  /** Its defaults for `concurrency`, `queue` and `busyStatus`. */
  readonly kind: "vllm" | "llama.cpp" | "ollama"
  /**
   * Milliseconds that each further sequence adds to the time of a step, which makes one token for each.
   *
   * @default 0.5
   */
  readonly perSequenceMillis?: number | undefined
  /**
   * The tokens of prompts and outputs that fit in memory at once. Beyond it the calls that began last return to the queue and are
   * computed again later. A call that is larger runs alone.
   *
   * @default unlimited
   */
  readonly memoryTokens?: number | undefined
  /**
   * The tokens of prompts that one step reads at most, as vLLM's `--max-num-batched-tokens`.
   *
   * @default 2_048
   */
  readonly prefillTokens?: number | undefined
}

/** The kinds of faults. */
export type FaultKind = Fault["kind"]

export const faultKinds: ReadonlyArray<FaultKind> = [
  "400",
  "401",
  "404",
  "429",
  "529",
  "500",
  "timeout",
  "refused",
  "cut",
  "truncated",
  "malformed",
  "stall"
]

/**
 * A fault, and the calls that it hits: those that meet all given conditions.
 *
 * @stability stable
 * @category options
 * @since 0.1.0
 */
export interface Fault {
  /**
   * The kind of fault.
   *
   * - `"400"`, `"401"`, `"404"`: the request, its key or its model is refused
   * - `"429"`: rejected although the limits have room
   * - `"529"`: overloaded
   * - `"500"`: an internal error
   * - `"timeout"`: no answer within `afterMillis` (504 over HTTP)
   * - `"refused"`: the connection is refused
   * - `"cut"`: the connection breaks in the middle of the answer
   * - `"truncated"`: the stream ends early, like a complete one
   * - `"malformed"`: the answer is not valid JSON; in a stream, the last event is not
   * - `"stall"`: the answer stops in the middle, and the connection stays open. Like the real client with its defaults,
   *   `ProviderSim` gives up on a stream after a minute of silence, and on a whole answer ten minutes after the request
   */
  readonly kind:
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
  /** The numbers of the calls that it may hit, counted from 1 in the order of arrival, retries included. */
  readonly calls?: ReadonlyArray<number> | undefined
  /** The period in which it may hit, in milliseconds since the provider started: from (inclusive), to (exclusive). */
  readonly between?: readonly [from: number, to: number] | undefined
  /**
   * The probability that it hits a call that meets the other conditions.
   *
   * @default 1
   */
  readonly rate?: number | undefined
  /** Only calls to models whose name begins with this. */
  readonly model?: string | undefined
  /**
   * For `"timeout"`: milliseconds until the timeout.
   *
   * @default 60_000
   */
  readonly afterMillis?: number | undefined
  /** For `"429"`, `"529"` and `"500"`: the `retry-after` of the answer, in milliseconds. @default none */
  readonly retryAfterMillis?: number | undefined
  /** For `"429"`: the error code of the answer, such as `ramp_limit_exceeded`. */
  readonly errorCode?: string | undefined
}

export type HeaderMode = NonNullable<Options["headers"]>

export const headerModes: ReadonlyArray<HeaderMode> = ["rounded", "exact", "openai", "none", "wrong"]

/**
 * A tool call in an answer. The simulation adds an `id`.
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
 * Options of the simulated provider. Without options it has no limits.
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
 * // 20 calls of 25,000 tokens: 500,000 in all.
 * const calls = Effect.forEach(
 *   Array.from({ length: 20 }, (_, id) => `agent-${id}`),
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
 * const whole = await Effect.runPromise(minutes(200_000))
 * const half = await Effect.runPromise(minutes(100_000))
 * half >= 1.25 * whole // => true
 * ```
 *
 * @stability stable
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
   * Limits by the beginning of the model's name, where the longest match applies, or otherwise by the class of Claude that the
   * model belongs to (`Presets.poolOf`): `ProviderSim.layer(Presets.anthropic.start)` simulates that tier. Each pool has its own
   * buckets.
   */
  readonly pools?: Readonly<Record<string, Limits.Limits>> | undefined
  /**
   * The tokens that a limit on `tokens` counts when a call is admitted: `"usage"` its input and output, `"openai"` the larger of
   * its input and its `max_tokens`, `"azure"` the sum of both.
   *
   * @default "usage"
   */
  readonly counting?: "usage" | "openai" | "azure" | undefined
  /**
   * When a limit on `outputTokens` counts output: `"live"`, as it is produced, so that a call is admitted as long as anything is
   * left (Anthropic), or all of it at `"admission"`.
   *
   * @default "live"
   */
  readonly output?: "live" | "admission" | undefined
  /**
   * Whether rejections count against the limits: not at all, or one request and 5 % of the tokens, or as given.
   *
   * **Details**
   *
   * OpenAI documents that unsuccessful requests count; Anthropic does not document it. This decides whether fixed retries only
   * waste calls or never finish, so state it with every figure. A charged rejection empties a bucket at most, and never puts it
   * into debt.
   *
   * @default "free"
   */
  readonly rejections?: "free" | "charged" | RejectionCharge | undefined
  /**
   * Whether a call that is larger than a bucket's burst, but not larger than a minute's worth, is admitted into debt when the
   * bucket is full, or rejected.
   *
   * @default "debt"
   */
  readonly oversize?: "debt" | "reject" | undefined
  /** How many calls the provider works on at once, per pool. @default unlimited */
  readonly concurrency?: number | undefined
  /**
   * How many further calls wait until one of those has ended, per pool. They are served in the order of arrival. A call that finds
   * the queue full is rejected.
   *
   * **Details**
   *
   * DeepSeek queues nothing, an Ollama server 512 requests, and vLLM any number (`Infinity`).
   *
   * @default 0
   */
  readonly queue?: number | undefined
  /**
   * The status that a call gets if it finds `concurrency` reached and the queue full: 429, as at DeepSeek, or 503, as at Ollama.
   *
   * @default 429
   */
  readonly busyStatus?: 429 | 503 | undefined
  /**
   * A server that you run yourself, which computes calls in batches: tokens come more slowly as more calls run, and the first token
   * comes once there is room and the prompt is read.
   *
   * **Details**
   *
   * Each pool is a server of its own. The server sets other defaults:
   *
   * - `"vllm"` runs 256 calls at once (`concurrency`, its `--max-num-seqs`) and queues any number
   * - `"llama.cpp"` has 4 slots (`--parallel`) and queues any number
   * - `"ollama"` runs 1 call (`OLLAMA_NUM_PARALLEL`), queues 512 (`OLLAMA_MAX_QUEUE`), and answers further ones with 503
   * - In all of them a call alone reads 10,000 tokens a second and writes 50, without a fixed time. `latency` changes that; its `noise`
   *   is that of each step. `baseMillis` is a time in a slot before the prompt is read
   *
   * A call that is aborted frees its slot at once. Sources: https://github.com/vllm-project/vllm/blob/main/vllm/engine/arg_utils.py,
   * https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md and https://docs.ollama.com/faq (2026-11).
   *
   * @default none: how long a call takes does not depend on others
   * @since 0.5.0
   */
  readonly server?: "vllm" | "llama.cpp" | "ollama" | Server | undefined
  readonly ramp?: Ramp | undefined
  /**
   * The long windows in which a subscription counts, by names such as `"5h"`, `"7d"` and `"7d_sonnet"`. Responses report them in
   * `anthropic-ratelimit-unified-*`; those in OpenAI's protocol, and all with `headers: "openai"`, in `x-codex-*` as Codex does: the
   * shorter window in the primary slot, a longer one in the secondary.
   *
   * **Details**
   *
   * A window begins with the first call after the last window. A call counts when it ends. The fraction is rounded down to whole
   * percents, or is exact with `headers: "exact"`. Until three quarters are spent the status is `allowed`, and then
   * `allowed_warning`. Once all is spent, calls are rejected with 429 and the status `rejected` until the window ends. A
   * `neighbour` with a share of 0.1 spends a tenth of each window.
   *
   * @default none
   */
  readonly windows?: Readonly<Record<string, WindowSize>> | undefined
  /**
   * Whether the account pays for calls beyond its windows, so that none are rejected. Responses then report only when the windows end.
   *
   * @default false
   */
  readonly overage?: boolean | undefined
  readonly neighbour?: Neighbour | undefined
  readonly latency?: Latency | undefined
  /** The faults; the first one that matches a call applies. `countTokens` has neither faults nor limits. */
  readonly faults?: ReadonlyArray<Fault> | undefined
  /**
   * The rate limit headers of responses.
   *
   * - `"rounded"`: like Anthropic's, with tokens rounded to the nearest thousand and times to the second
   * - `"exact"`: Anthropic's names with exact figures
   * - `"openai"`: OpenAI's names, with durations
   * - `"none"`: none, not even `retry-after`
   * - `"wrong"`: twice the limits, nothing used, and always a `retry-after` of one second
   *
   * @default "rounded"
   */
  readonly headers?: "rounded" | "exact" | "openai" | "none" | "wrong" | undefined
  /**
   * The seed of everything random. The same seed and the same calls give the same answers.
   *
   * @default 1
   */
  readonly seed?: number | undefined
  /**
   * How many requests the log keeps. Older ones are dropped; the counters still include them.
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
   * Counts the input tokens of a request, such as `ProviderSim.tokenizer("claude")`, which counts by what texts are made of.
   *
   * @default characters divided by `charsPerToken`
   */
  readonly inputTokens?: ((params: Params | CountParams) => number) | undefined
  /**
   * Output tokens of an answer, at most the request's `max_tokens`: a number, or a function of the request and a random number in
   * [0, 1), which is the same for the same request.
   *
   * @default the tokens of the answer's text
   */
  readonly outputTokens?: number | ((params: Params, random: number) => number) | undefined
  /**
   * The share of the input that is read from a cache, from 0 to 1. It does not count towards a limit on `inputTokens`.
   *
   * @default 0
   */
  readonly cachedShare?: number | ((params: Params, random: number) => number) | undefined
  /**
   * Caches prompts by their content: the first parts of a request (tools, system prompt, messages) are read from the cache if an earlier
   * request to the same model began with them. One provider is one organisation, so nothing is shared with another provider.
   *
   * - `"breakpoints"`, as Anthropic does: prefixes up to a `cache_control`, at most 20 blocks after one that is cached, from 512 to 4,096
   *   tokens on, depending on the model. They live for 5 minutes, or an hour with `ttl: "1h"`. A limit on `inputTokens` counts what is
   *   written to the cache, and not what is read from it
   * - `"automatic"`, as OpenAI does: every prefix, from 1,024 tokens on, in steps of 128, for 5 minutes. Limits count all input
   *
   * **Details**
   *
   * Each use starts the lifetime of a prefix again. It can be read once the answer to the call that brought it has begun, so of many
   * equal calls at once none reads anything. Answers state what was read and written in their `usage`, and subscription windows are
   * charged for it. A limit on `tokens` counts all input in both cases. If you count tokens yourself, `inputTokens` is also called with
   * the first parts of requests. Sources: https://platform.claude.com/docs/en/build-with-claude/prompt-caching and
   * https://platform.openai.com/docs/guides/prompt-caching.
   *
   * @default none: nothing is cached, unless `cachedShare` says so
   */
  readonly cache?: "breakpoints" | "automatic" | undefined
  /**
   * For how many milliseconds a prefix lives after its last use, for a provider that keeps it longer or drops it earlier than it says.
   *
   * @default 5 minutes, or what its breakpoint asks for
   * @since 0.5.0
   */
  readonly cacheMillis?: number | undefined
  /**
   * The text of an answer, and its tool calls, which get an `id`.
   *
   * @default an extract of the longest text of the user
   */
  readonly reply?:
    | ((
        params: Params,
        random: number
      ) =>
        | string
        | ReadonlyArray<string | { readonly type: "tool_use"; readonly name: string; readonly input: unknown }>)
    | undefined
}

// -----------------------------------------------------------------------------
// The log
// -----------------------------------------------------------------------------

/**
 * One request in the provider's log. Times are in milliseconds since the provider started.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  /** Its number, counted from 1 as requests arrive. */
  readonly call: number
  readonly at: number
  /** The `metadata.user_id` of the request, or otherwise the `Budget.Agent` of its caller in this process. */
  readonly agent: string | undefined
  readonly model: string
  readonly pool: string
  readonly inputTokens: number
  /** The part of the prompt that the option `cache` has read from the cache. It is not in `inputTokens`. */
  readonly cacheReadTokens?: number | undefined
  /** The part of `inputTokens` that the option `cache` has written to the cache. */
  readonly cacheWriteTokens?: number | undefined
  /** The output of the whole answer; `producedTokens` is the part that was produced. */
  readonly outputTokens: number
  readonly outcome: "accepted" | "rejected" | "failed" | "refused"
  readonly status: number | undefined
  /** Why it was rejected: the dimension whose limit it would exceed, another limit, or a fault. */
  readonly rejectedBy: Limits.Dimension | "concurrency" | "ramp" | "window" | "fault" | undefined
  readonly fault: Fault["kind"] | undefined
  readonly retryAfterMillis: number | undefined
  /** When the call ended; undefined while it runs. */
  readonly finishedAt: number | undefined
  readonly producedTokens: number
  /** Whether the caller aborted before the end. */
  readonly aborted: boolean
  /** The level of each dimension right after the decision. */
  readonly left: Limits.Usage
}

export type RejectedBy = NonNullable<Entry["rejectedBy"]>

/**
 * Counters since the provider started.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Requests that arrived: accepted + rejected + failed. */
  readonly requests: number
  readonly accepted: number
  /** Rejections with 429, injected ones included, and with `busyStatus`. */
  readonly rejected: number
  readonly rejectionsBy: { readonly [R in NonNullable<Entry["rejectedBy"]>]?: number }
  /** Requests that a fault ended before they were admitted, without those with 429. */
  readonly failed: number
  /** Accepted calls whose answer was delivered in full. */
  readonly completed: number
  /** Accepted calls that the caller aborted. */
  readonly aborted: number
  /** Accepted calls that a fault ended: timeouts, and answers that were cut, truncated or malformed. */
  readonly broken: number
  /** Accepted calls that wait in the queue. */
  readonly queued: number
  /** Accepted calls that the provider works on, and the most at once. */
  readonly inFlight: number
  readonly peakInFlight: number
  readonly countTokens: number
  readonly inputTokens: number
  readonly outputTokens: number
  /** The long windows. */
  readonly windows: {
    readonly [name: string]: {
      /** The fraction that is spent. It exceeds 1 if calls were running when it was used up, or were paid for. */
      readonly used: number
      /** When it ends, in milliseconds since the provider started; undefined before its first call. */
      readonly endsAt: number | undefined
      /** The fractions that were spent when earlier windows ended, the last 1,000 of them. */
      readonly ended: ReadonlyArray<number>
    }
  }
}
