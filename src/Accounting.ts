/**
 * Describes what a provider reserves when it admits a call, and what it has counted when the call is over.
 *
 * Providers differ. Anthropic counts the output that was produced, OpenAI and Azure the output that was allowed, and
 * Bedrock first the allowed output and then a multiple of the produced one. Some count cached prompts, others do not.
 * An {@link Accounting} computes the estimate and the usage of a call, so that the local budget matches the provider's.
 *
 * **Gotchas**
 *
 * Counts have Anthropic's meaning: `inputTokens` excludes tokens that were read from the cache. OpenAI's `prompt_tokens`
 * includes them, so split it first.
 *
 * Give the accounting to the client (`accounting` of `LlmClient`, `Governor`, the middleware), and the limits to the budget.
 * With another provider's accounting, a client silently reserves too little, so that calls are rejected, or too much, so that
 * capacity stays unused.
 *
 * **Example** (One call, counted by two providers)
 *
 * ```ts doctest
 * import * as Accounting from "floodgate/Accounting"
 *
 * const expected = { inputTokens: 1_000, cachedTokens: 9_000, outputTokens: 500, maxTokens: 4_096 }
 *
 * Accounting.anthropic.estimate(expected) // => { inputTokens: 1_000, outputTokens: 500 }
 * Accounting.azure.estimate(expected).tokens // => 14_096
 * ```
 *
 * @stability stable
 * @since 0.1.0
 */
import { atLeastOne, check, options as optionsOf } from "./domain/input/checks.ts"
import { type Actual, promptTokens, uncachedTokens } from "./domain/amounts.ts"
import { poolOf } from "./domain/modelClass.ts"
import type * as Limits from "./Limits.ts"
import type * as Rules from "./domain/rules.ts"

export type { Actual } from "./domain/amounts.ts"

/** The expected usage of a call, in tokens. */
type Expected = {
  /** The part of the prompt that is not read from the cache. */
  readonly inputTokens: number
  /** The part of the prompt that is read from the cache. */
  readonly cachedTokens: number
  readonly outputTokens: number
  /** The most output that the request allows; undefined if it sets no limit. */
  readonly maxTokens?: number | undefined
}

/**
 * A provider's way to count.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Accounting {
  /** Whether a rejected request counts towards the limits. */
  readonly rejections: "free" | "charged"
  /** How its limits are counted, for limits that state no window. @default safe with every provider */
  readonly counting?: { readonly [D in Limits.Dimension]?: NonNullable<Limits.Limit["window"]> } | undefined
  /** The name of a model's pool. Models of one pool share their limits. @default each model is its own pool */
  readonly poolOf?: ((model: string) => string) | undefined
  /** Computes what the provider takes from its limits when it admits a call. */
  readonly estimate: (expected: Expected) => Limits.Estimate
  /**
   * Computes what the provider has taken from its limits when the call is over. `maxTokens` is the most output that the request allowed. A
   * dimension that is absent keeps its estimate.
   */
  readonly usage: (actual: Actual, maxTokens?: number) => Limits.Usage
}

/** Replenished continuously, in every dimension. */
const buckets: Rules.Counting = { requests: "bucket", inputTokens: "bucket", outputTokens: "bucket", tokens: "bucket" }

const prompt = (expected: Expected): number => expected.inputTokens + expected.cachedTokens

const allowed = (expected: Expected): number => expected.maxTokens ?? expected.outputTokens

/**
 * Anthropic's own API counts uncached input and produced output. It ignores `max_tokens`.
 *
 * **Details**
 *
 * "The `max_tokens` parameter does not factor into OTPM", and cache reads do not count towards ITPM, save on Haiku 3.5.
 * Limits are token buckets. Whether rejected requests count is not documented. They are assumed to be free, and the headers of
 * the next response correct the difference.
 *
 * Source: https://platform.claude.com/docs/en/api/rate-limits
 *
 * **Example** (Cache reads do not count)
 *
 * ```ts doctest
 * import * as Accounting from "floodgate/Accounting"
 *
 * const usage = Accounting.anthropic.usage({
 *   inputTokens: 100,
 *   cacheCreationTokens: 900,
 *   cacheReadTokens: 9_000,
 *   outputTokens: 250
 * })
 *
 * usage // => { inputTokens: 1_000, outputTokens: 250 }
 * ```
 *
 * @stability stable
 * @category providers
 * @since 0.1.0
 */
export const anthropic: Accounting = {
  rejections: "free",
  counting: buckets,
  poolOf,
  estimate: ({ inputTokens, outputTokens }) => ({ inputTokens, outputTokens }),
  usage: (actual) => ({ inputTokens: uncachedTokens(actual), outputTokens: actual.outputTokens })
}

/**
 * Claude on Vertex AI counts as {@link anthropic} does, for current models: "uncached and cache write" input, and output.
 *
 * **Details**
 *
 * Source: https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/partner-models/claude/quotas. How the
 * minutes are counted is not documented, so leave out the `window` in its limits.
 *
 * **Example** (The same counts)
 *
 * ```ts doctest
 * import * as Accounting from "floodgate/Accounting"
 *
 * Accounting.vertex.estimate === Accounting.anthropic.estimate // => true
 * ```
 *
 * @stability stable
 * @category providers
 * @since 0.1.0
 */
export const vertex: Accounting = { ...anthropic, counting: undefined }

type BedrockOptions = {
  /** How many tokens of the limit one token of output takes after the call. */
  readonly burndown: number
}

const checkBedrock = optionsOf<BedrockOptions>({ burndown: atLeastOne }, "burndown")

/**
 * Amazon Bedrock's `bedrock-runtime` endpoint has one limit on input and output together. It reserves the whole prompt and
 * `max_tokens`, and settles to the uncached input and the output times its burndown rate.
 *
 * **Details**
 *
 * Unlike with Anthropic, a large `max_tokens` is reserved here, so set it near what you need. The burndown rate depends
 * on the model and changes with new ones; AWS lists it. It was 5 for Claude Sonnet 4, and is more for newer ones.
 *
 * Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/quotas-token-burndown.html and
 * https://docs.aws.amazon.com/bedrock/latest/userguide/quotas-runtime.html
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when `burndown` is not a finite number >= 1.
 *
 * **Example** (200 tokens of output count as 1,000)
 *
 * ```ts doctest
 * import * as Accounting from "floodgate/Accounting"
 *
 * const bedrock = Accounting.bedrockRuntime({ burndown: 5 })
 *
 * bedrock.estimate({ inputTokens: 2_005, cachedTokens: 0, outputTokens: 200, maxTokens: 1_000 }).tokens // => 3_005
 * bedrock.usage({ inputTokens: 2_005, outputTokens: 200 }).tokens // => 3_005
 * ```
 *
 * @stability stable
 * @category providers
 * @since 0.1.0
 */
export const bedrockRuntime = (options: BedrockOptions): Accounting => {
  check("Accounting.bedrockRuntime", checkBedrock, options)
  const { burndown } = options
  return {
    rejections: "free",
    estimate: (expected) => ({
      inputTokens: prompt(expected),
      outputTokens: allowed(expected),
      tokens: prompt(expected) + allowed(expected)
    }),
    usage: (actual) => ({
      inputTokens: uncachedTokens(actual),
      outputTokens: actual.outputTokens,
      tokens: uncachedTokens(actual) + actual.outputTokens * burndown
    })
  }
}

/**
 * Amazon Bedrock's `bedrock-mantle` endpoint reserves the prompt and `max_tokens` from the limit on **input** while a call runs,
 * and counts output as it is produced. There is no limit on requests.
 *
 * **Details**
 *
 * After the call, the excess is given back and cache reads do not count. Whether they count at admission is not documented, so they
 * are reserved.
 *
 * Source: https://docs.aws.amazon.com/bedrock/latest/userguide/quotas-mantle.html
 *
 * **Example** (max_tokens is reserved as input)
 *
 * ```ts doctest
 * import * as Accounting from "floodgate/Accounting"
 *
 * const expected = { inputTokens: 1_000, cachedTokens: 0, outputTokens: 500, maxTokens: 4_096 }
 *
 * Accounting.bedrockMantle.estimate(expected) // => { inputTokens: 5_096, outputTokens: 500 }
 * ```
 *
 * @stability stable
 * @category providers
 * @since 0.1.0
 */
export const bedrockMantle: Accounting = {
  rejections: "free",
  estimate: (expected) => ({
    inputTokens: prompt(expected) + allowed(expected),
    outputTokens: expected.outputTokens
  }),
  usage: anthropic.usage
}

/**
 * OpenAI counts the larger of `max_tokens` and the tokens of the prompt, cached or not, when it admits the call. Without
 * `max_tokens` it counts the prompt. Rejected requests count.
 *
 * **Details**
 *
 * The limit is "calculated as the maximum of `max_tokens` and the estimated number of tokens based on the character
 * count". So output counts only by `max_tokens`: after a request without it and with a prompt of 9,935 tokens,
 * `x-ratelimit-remaining-tokens` fell by 9,272. No later correction is documented. A call is settled to the prompt in its response,
 * which is closer to what OpenAI took than an estimate with a margin. "Unsuccessful requests contribute to your per-minute limit."
 *
 * Sources: https://developers.openai.com/api/docs/guides/rate-limits and
 * https://community.openai.com/t/does-prompt-caching-reduce-tpm/1138631
 *
 * **Example** (A maximum, not a sum)
 *
 * ```ts doctest
 * import * as Accounting from "floodgate/Accounting"
 *
 * const expected = { inputTokens: 1_000, cachedTokens: 2_000, outputTokens: 500, maxTokens: 4_096 }
 *
 * Accounting.openai.estimate(expected).tokens // => 4_096
 * Accounting.openai.estimate({ ...expected, maxTokens: 1_024 }).tokens // => 3_000
 * Accounting.openai.usage({ inputTokens: 2_500, outputTokens: 900 }, 1_024).tokens // => 2_500
 * ```
 *
 * @stability stable
 * @category providers
 * @since 0.1.0
 */
export const openai: Accounting = {
  rejections: "charged",
  counting: buckets,
  estimate: (expected) => ({
    inputTokens: prompt(expected),
    outputTokens: expected.outputTokens,
    tokens: Math.max(expected.maxTokens ?? 0, prompt(expected))
  }),
  usage: (actual, maxTokens = 0) => ({
    inputTokens: promptTokens(actual),
    outputTokens: actual.outputTokens,
    tokens: Math.max(maxTokens, promptTokens(actual))
  })
}

/**
 * Azure OpenAI counts the prompt and `max_tokens` when a request arrives, with a counter that is reset each minute. Failed requests
 * count.
 *
 * **Details**
 *
 * The count is an upper estimate that is never corrected to the billed tokens, so `tokens` keep their estimate.
 *
 * Source: https://learn.microsoft.com/azure/ai-services/openai/how-to/quota
 *
 * **Example** (A sum with max_tokens)
 *
 * ```ts doctest
 * import * as Accounting from "floodgate/Accounting"
 *
 * const expected = { inputTokens: 1_000, cachedTokens: 0, outputTokens: 500, maxTokens: 4_096 }
 *
 * Accounting.azure.estimate(expected).tokens // => 5_096
 * Accounting.azure.rejections // => "charged"
 * ```
 *
 * @stability stable
 * @category providers
 * @since 0.1.0
 */
export const azure: Accounting = {
  rejections: "charged",
  counting: { requests: "sliding", inputTokens: "fixed", outputTokens: "fixed", tokens: "fixed" },
  estimate: (expected) => ({
    inputTokens: prompt(expected),
    outputTokens: expected.outputTokens,
    tokens: prompt(expected) + allowed(expected)
  }),
  usage: (actual) => ({ inputTokens: promptTokens(actual) })
}

/**
 * Google's Gemini counts requests and the tokens of the prompt. There is no limit on output per minute.
 *
 * **Details**
 *
 * The limits are "requests per minute" and "tokens per minute (input)". Whether cached input and rejected requests
 * count is not documented. Cached input is assumed to count, and rejections to be free. How the minutes are counted is
 * not documented either.
 *
 * Source: https://ai.google.dev/gemini-api/docs/rate-limits
 *
 * **Example** (Output does not count as `tokens`)
 *
 * ```ts doctest
 * import * as Accounting from "floodgate/Accounting"
 *
 * const expected = { inputTokens: 1_000, cachedTokens: 500, outputTokens: 2_000, maxTokens: 4_096 }
 *
 * Accounting.gemini.estimate(expected) // => { inputTokens: 1_500, outputTokens: 2_000, tokens: 1_500 }
 * ```
 *
 * @stability stable
 * @category providers
 * @since 0.2.0
 */
export const gemini: Accounting = {
  rejections: "free",
  estimate: (expected) => ({
    inputTokens: prompt(expected),
    outputTokens: expected.outputTokens,
    tokens: prompt(expected)
  }),
  usage: (actual) => {
    const inputTokens = promptTokens(actual)
    return { inputTokens, outputTokens: actual.outputTokens, tokens: inputTokens }
  }
}
