/** The workload, the options and the result of a forecast. */
import type * as Duration from "effect/Duration"
import type * as Limits from "../../Limits.ts"
import type { ReserveOptions } from "../models.ts"

// -----------------------------------------------------------------------------
// Workloads
// -----------------------------------------------------------------------------

/**
 * One call: its usage, and its duration if that is known.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface Call {
  readonly inputTokens: number
  readonly outputTokens: number
  /**
   * Tokens of the prompt that are read from the provider's cache, beside `inputTokens`. They do not count towards the limits, but
   * advice about caps in dollars counts them. Where they count, as at OpenAI, they belong to `inputTokens`.
   *
   * @default 0
   * @since 0.5.0
   */
  readonly cacheReadTokens?: number | undefined
  /**
   * Output tokens that are reserved until the usage is known: the 95th percentile of the estimator, or `max_tokens` if the
   * provider counts that.
   *
   * @default outputTokens
   */
  readonly reservedOutputTokens?: number | undefined
  /** @default from the tokens, by the `latency` of {@link Options} */
  readonly duration?: Duration.Input | undefined
  /**
   * From the end of the agent's last call to this one, or before its first: the time of tools and people.
   *
   * @default 0
   * @since 0.5.0
   */
  readonly pause?: Duration.Input | undefined
  /**
   * Agents that start when this call ends. The next call waits until they have ended and its pause is over, see `turnsMeanwhile` of
   * {@link Agent}.
   *
   * @default none
   * @since 0.5.0
   */
  readonly subAgents?: ReadonlyArray<Agent> | undefined
}

/**
 * One agent, which makes its calls one after another.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface Agent {
  readonly name: string
  /** @default at once */
  readonly startsAfter?: Duration.Input | undefined
  readonly calls: ReadonlyArray<Call>
  /**
   * For a sub-agent: how many calls the agent that starts it makes before it waits for its end. More than 0 for a sub-agent in the
   * background, `Infinity` if it never waits.
   *
   * @default 0
   * @since 0.5.0
   */
  readonly turnsMeanwhile?: number | undefined
}

/**
 * The agents with their calls. Without any, a running pool foresees when those that use it end.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export type Workload = ReadonlyArray<Agent>

/**
 * The work of one agent. Each call of a conversation repeats what was said before it, so its prompts grow: state the `growth`, and where
 * only uncached input counts the `cachedShare`.
 *
 * @stability unstable
 * @category models
 * @since 0.5.0
 */
export type Work = {
  /** Calls of each agent. */
  readonly calls: number
  /** The first call. Nothing of it is cached. */
  readonly first: Call
  /** The second call, with its whole prompt. Those after it differ only by the growth. @default as the first, and the growth */
  readonly later?: Call | undefined
  /**
   * By how many tokens the prompt of each call is longer than the one before: an answer, and the results of tools.
   *
   * @default 0
   * @since 0.5.0
   */
  readonly growth?: number | undefined
  /**
   * The part of the prompt before that is read from the provider's cache and does not count towards the limits, from 0 to 1. State about 1
   * where only uncached input counts, as at Anthropic, and 0 where everything counts, as at OpenAI.
   *
   * @default 0
   * @since 0.5.0
   */
  readonly cachedShare?: number | undefined
  /**
   * From the end of each call to the agent's next one, which waits for tools. A `pause` of `later` goes first.
   *
   * @default 0
   * @since 0.5.0
   */
  readonly pause?: Duration.Input | undefined
}

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/** How long a provider works on a call. */
type Latency = {
  /** Milliseconds that every call takes, however small. @default 500 */
  readonly baseMillis?: number | undefined
  /** Milliseconds per input token, before the first token of output. @default 0.01: 100,000 tokens are read in a second */
  readonly perInputTokenMillis?: number | undefined
  /** Milliseconds per output token. @default 10: 100 tokens are written in a second */
  readonly perOutputTokenMillis?: number | undefined
}

/**
 * The conditions of a workload.
 *
 * @stability unstable
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly limits: Limits.Limits
  /** Calls in flight at once. @default Infinity */
  readonly concurrency?: number | undefined
  /** Agents that run at once. The next one starts when one ends. @default Infinity */
  readonly atOnce?: number | undefined
  /** How long the provider works on a call. Measure it, because it decides how many agents still help. */
  readonly latency?: Latency | undefined
  /**
   * The amount left of each limit at the start, as in the `status` of a budget, to predict a workload that is running. A negative
   * level is debt.
   *
   * @default full
   */
  readonly levels?: Limits.Usage | undefined
}

/**
 * The conditions of a workload that starts now in a running pool, behind the calls that run and wait there.
 *
 * @stability unstable
 * @category options
 * @since 0.4.0
 */
export interface LiveOptions extends Pick<ReserveOptions, "model" | "pool" | "account"> {
  /** Agents that run at once, with those that run already. The next one starts when one ends. @default Infinity */
  readonly atOnce?: number | undefined
  /** How many agents run already. @default as many as calls are in flight or waiting */
  readonly running?: number | undefined
  /** The calls that each of those agents makes after its current one. @default none */
  readonly remaining?: ReadonlyArray<Call> | undefined
  /** How long the provider works on a call. @default as measured in the pool, or the usual time if nothing was measured */
  readonly latency?: Latency | undefined
}

// -----------------------------------------------------------------------------
// Forecasts
// -----------------------------------------------------------------------------

/**
 * The expected course of a workload. Times are from its start.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface Forecast {
  readonly duration: Duration.Duration
  /**
   * The binding limit: the dimension, `"concurrency"` or `"pause"` that calls wait for longest, or `"agents"` if calls hardly wait and
   * the longest agent decides. Only a running pool pauses.
   */
  readonly binding: Limits.Dimension | "concurrency" | "pause" | "agents"
  /** The time that calls wait for each limit. */
  readonly blocked: { readonly [B in Limits.Dimension | "concurrency" | "pause" | "agents"]?: Duration.Duration }
  /** Percentiles of the time that calls wait in the queue. */
  readonly waits: {
    readonly p50: Duration.Duration
    readonly p95: Duration.Duration
    readonly p99: Duration.Duration
  }
  /** Each agent, its waits, and when it is done. */
  readonly agents: ReadonlyArray<{
    readonly name: string
    readonly finishesAfter: Duration.Duration
    readonly waits: Forecast["waits"]
  }>
  /** Each call, in the order of admission. */
  readonly calls: ReadonlyArray<{
    readonly agent: string
    readonly askedAfter: Duration.Duration
    readonly admittedAfter: Duration.Duration
    readonly finishesAfter: Duration.Duration
  }>
  /** Calls that will never be admitted, because they are larger than a limit or a quota is used up. Their agents stop there. */
  readonly refused: ReadonlyArray<{
    readonly agent: string
    readonly dimension: Limits.Dimension
    readonly asked: number
    readonly limit: number
  }>
  /** The usage of all calls together. */
  readonly usage: { readonly [D in Limits.Dimension]: number }
}
