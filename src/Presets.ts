/**
 * The limits that providers publish, as options of a budget.
 *
 * **Details**
 *
 * Published limits are ceilings, not promises, and your organisation may have others; the provider's console shows
 * them. A budget also learns from each response and never uses more than its configured limits, so a preset is a safe
 * start.
 *
 * **Gotchas**
 *
 * Limits belong to an organisation, not to a process. Share a budget between processes, or give each its part.
 *
 * **Example** (The limits of a tier)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Budget from "floodgate/Budget"
 * import * as Presets from "floodgate/Presets"
 *
 * const pool = Effect.map(Budget.TokenBudget, (budget) => budget.poolOf("claude-opus-4-8"))
 * const live = Budget.layer({ limits: Presets.anthropic.build })
 *
 * await Effect.runPromise(Effect.provide(pool, live)) // => "opus-4"
 *
 * Presets.anthropic.build.pools["opus-4"]?.inputTokens // => { perMinute: 5_000_000, window: "bucket" }
 * ```
 *
 * @stability stable
 * @since 0.1.0
 */
import { check, options, positive, wholeOrInfinite } from "./domain/input/checks.ts"
import type * as Limits from "./Limits.ts"

export { poolOf } from "./domain/modelClass.ts"

const perMinute = (requests: number, inputTokens: number, outputTokens: number): Limits.Limits => ({
  requests: { perMinute: requests, window: "bucket" },
  inputTokens: { perMinute: inputTokens, window: "bucket" },
  outputTokens: { perMinute: outputTokens, window: "bucket" }
})

/** The classes with the same limits in every tier. Each class is its own pool. */
const common = ["opus-5-5", "opus-5", "opus-4", "sonnet-5", "sonnet-4", "haiku-4-5"]

const tier = (options: {
  readonly common: Limits.Limits
  readonly fable: Limits.Limits
  readonly sonnet55: Limits.Limits
}): Limits.Pools => ({
  pools: {
    ...Object.fromEntries(common.map((pool) => [pool, options.common])),
    "sonnet-5-5": options.sonnet55,
    "fable-5": options.fable,
    "mythos-5": options.fable
  }
})

const startCommon = perMinute(1_000, 2_000_000, 400_000)

/**
 * Anthropic's tiers for the Messages API, as published in August 2026, with the model classes of October 2026.
 *
 * **Details**
 *
 * Requests, input and output tokens a minute. Input that is read from the cache does not count. Limits are token buckets
 * ("continuously replenished"), hence `window: "bucket"`. Requests are smoothed to bursts of five seconds, because "60
 * RPM might be enforced as 1 request per second".
 *
 * | class | start | build | scale |
 * |---|---|---|---|
 * | Fable 5, Mythos 5 | 1,000 / 500K / 100K | 2,000 / 1.5M / 300K | 4,000 / 4M / 800K |
 * | Opus 5.5, 5 and 4, Sonnet 5 and 4, Haiku 4.5 | 1,000 / 2M / 400K | 5,000 / 5M / 1M | 10,000 / 10M / 2M |
 * | Sonnet 5.5 | 1,000 / 2M / 400K | as start | as start |
 *
 * Only the start tier's figures were found for Sonnet 5.5, and are used for all tiers. The limits of a class that is
 * not in the table, such as Haiku 5.5, are learned from the first response.
 *
 * Source: https://platform.claude.com/docs/en/api/rate-limits (2026-08-22; Opus 5.5 and Sonnet 5.5: 2026-10)
 *
 * **Gotchas**
 *
 * New organisations may be below the start tier, and workspaces may have lower limits of their own. Message Batches,
 * `count_tokens` and the fast mode have separate limits.
 *
 * **Example** (Each class has its own limits)
 *
 * ```ts doctest
 * import * as Presets from "floodgate/Presets"
 *
 * Presets.anthropic.start.pools["fable-5"]?.requests?.perMinute // => 1_000
 * Presets.anthropic.scale.pools["haiku-4-5"]?.outputTokens?.perMinute // => 2_000_000
 * Presets.anthropic.start.pools["haiku-5-5"] // => undefined
 * ```
 *
 * @stability stable
 * @category presets
 * @since 0.1.0
 */
export const anthropic: {
  readonly start: Limits.Pools
  readonly build: Limits.Pools
  readonly scale: Limits.Pools
} = {
  start: tier({ common: startCommon, fable: perMinute(1_000, 500_000, 100_000), sonnet55: startCommon }),
  build: tier({
    common: perMinute(5_000, 5_000_000, 1_000_000),
    fable: perMinute(2_000, 1_500_000, 300_000),
    sonnet55: startCommon
  }),
  scale: tier({
    common: perMinute(10_000, 10_000_000, 2_000_000),
    fable: perMinute(4_000, 4_000_000, 800_000),
    sonnet55: startCommon
  })
}

/**
 * The limits of xAI, from the figures of your team in the console.
 *
 * **Details**
 *
 * Requests are limited by the second, to a sixtieth of what a minute allows, so a minute's worth is never available at once. Each
 * model has its own limits.
 *
 * Source: https://docs.x.ai/developers/rate-limits (2026-11)
 *
 * **Example** (A team in a higher tier)
 *
 * ```ts doctest
 * import * as Presets from "floodgate/Presets"
 *
 * const { requests } = Presets.xai({ requestsPerMinute: 1_200, tokensPerMinute: 2_000_000 })
 *
 * requests // => { perMinute: 1_200, burst: 20, window: "bucket" }
 * ```
 *
 * @stability stable
 * @category presets
 * @since 0.4.0
 */
export const xai = (stated: {
  readonly requestsPerMinute: number
  readonly tokensPerMinute: number
}): Limits.Limits => {
  check("Presets.xai", ofXai, stated)
  const { requestsPerMinute, tokensPerMinute } = stated
  return {
    requests: { perMinute: requestsPerMinute, burst: Math.max(1, requestsPerMinute / 60), window: "bucket" },
    tokens: { perMinute: tokensPerMinute, window: "bucket" }
  }
}

/**
 * The limits of Mistral, from the figures of your organisation in the console.
 *
 * **Details**
 *
 * Requests are limited by the second and tokens by the minute. The limit on the tokens of a month is not included: no rate keeps it.
 *
 * Source: https://docs.mistral.ai/deployment/ai-studio/tier (2026-11)
 *
 * **Example** (Six requests a second)
 *
 * ```ts doctest
 * import * as Presets from "floodgate/Presets"
 *
 * const { requests } = Presets.mistral({ requestsPerSecond: 6, tokensPerMinute: 2_000_000 })
 *
 * requests // => { perSecond: 6, burst: 6, window: "bucket" }
 * ```
 *
 * @stability stable
 * @category presets
 * @since 0.4.0
 */
export const mistral = (stated: {
  readonly requestsPerSecond: number
  readonly tokensPerMinute: number
}): Limits.Limits => {
  check("Presets.mistral", ofMistral, stated)
  const { requestsPerSecond, tokensPerMinute } = stated
  return {
    requests: { perSecond: requestsPerSecond, burst: Math.max(1, requestsPerSecond), window: "bucket" },
    tokens: { perMinute: tokensPerMinute, window: "bucket" }
  }
}

const ofXai = options(
  { requestsPerMinute: positive, tokensPerMinute: positive },
  "requestsPerMinute",
  "tokensPerMinute"
)
const ofMistral = options(
  { requestsPerSecond: positive, tokensPerMinute: positive },
  "requestsPerSecond",
  "tokensPerMinute"
)

/**
 * DeepSeek limits only the calls in flight, for each account and model: pass one as the options of a budget.
 *
 * Source: https://api-docs.deepseek.com/quick_start/rate_limit (2026-11)
 *
 * **Example** (The larger model)
 *
 * ```ts doctest
 * import * as Budget from "floodgate/Budget"
 * import * as Presets from "floodgate/Presets"
 *
 * const live = Budget.layer(Presets.deepseek.pro)
 *
 * Presets.deepseek.pro // => { concurrency: 500 }
 * ```
 *
 * @stability stable
 * @category presets
 * @since 0.4.0
 */
export const deepseek: Readonly<Record<"pro" | "flash", { readonly concurrency: number }>> = {
  pro: { concurrency: 500 },
  flash: { concurrency: 2_500 }
}

// -----------------------------------------------------------------------------
// Servers of your own
// -----------------------------------------------------------------------------

/**
 * Ollama queues 512 requests before it answers 503. With this as the options of a budget, calls wait in the budget's queue instead, where
 * they are served fairly and can be cancelled, and as many are in flight as the server takes.
 *
 * **Details**
 *
 * Ollama works on `OLLAMA_NUM_PARALLEL` requests of a model at a time, one by default. If you state it as the `concurrency`, no request
 * waits at the server.
 *
 * Source: https://docs.ollama.com/faq (2026-11)
 *
 * **Example** (As installed, and with four slots)
 *
 * ```ts doctest
 * import * as Budget from "floodgate/Budget"
 * import * as Presets from "floodgate/Presets"
 *
 * const asInstalled = Budget.layer(Presets.ollama)
 * const withFourSlots = Budget.layer({ concurrency: 4 })
 *
 * Presets.ollama // => { concurrency: "measured" }
 * ```
 *
 * @stability stable
 * @category presets
 * @since 0.4.0
 */
export const ollama: { readonly concurrency: "measured" } = { concurrency: "measured" }

/**
 * The server of llama.cpp works on `--parallel` requests at a time, and queues further ones without a bound. With this as the options of
 * a budget, as many are in flight as the server takes.
 *
 * Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (2026-11)
 *
 * **Example** (At most eight slots)
 *
 * ```ts doctest
 * import * as Budget from "floodgate/Budget"
 * import * as Presets from "floodgate/Presets"
 *
 * const live = Budget.layer(Presets.llamaCpp)
 * const withEightSlots = Budget.layer({ concurrency: { measuredUpTo: 8 } })
 *
 * Presets.llamaCpp // => { concurrency: "measured" }
 * ```
 *
 * @stability stable
 * @category presets
 * @since 0.5.0
 */
export const llamaCpp: { readonly concurrency: "measured" } = { concurrency: "measured" }

/**
 * vLLM works on as many sequences as its `--max-num-seqs` says and its memory holds, and queues further requests without a bound. With this
 * as the options of a budget, as many are in flight as the server takes, and at most `maxNumSeqs` if you state that.
 *
 * Source: https://docs.vllm.ai/en/latest/configuration/engine_args.html (2026-11)
 *
 * **Example** (A server with 256 slots)
 *
 * ```ts doctest
 * import * as Presets from "floodgate/Presets"
 *
 * Presets.vllm() // => { concurrency: "measured" }
 * Presets.vllm({ maxNumSeqs: 256 }) // => { concurrency: { measuredUpTo: 256 } }
 * ```
 *
 * @stability stable
 * @category presets
 * @since 0.4.0
 */
export const vllm = (
  server: { readonly maxNumSeqs?: number | undefined } = {}
): { readonly concurrency: "measured" | { readonly measuredUpTo: number } } => {
  check("Presets.vllm", ofVllm, server)
  const { maxNumSeqs } = server
  return { concurrency: maxNumSeqs === undefined ? "measured" : { measuredUpTo: maxNumSeqs } }
}

const ofVllm = options({ maxNumSeqs: wholeOrInfinite(1) })
