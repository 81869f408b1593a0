/**
 * Prices of models: dollars per million tokens, each with its date and source.
 *
 * **Details**
 *
 * A price is found by the name of the model in the request. A dated snapshot has the price of its model, and a Claude model has the
 * same name on every platform (`claude-opus-4-8`, `anthropic.claude-opus-4-8-v1:0`). A model that is not in the table has no price:
 * {@link find} returns `undefined`, and a cap in dollars refuses its calls.
 *
 * The table has the standard prices of the providers' own APIs, with the surcharges of fast modes and of Anthropic's
 * `inference_geo`. Your contract, other platforms, batches, tools that the provider runs, audio and video have other prices. Add
 * your own as in the example, or with the option `prices` of a governor.
 *
 * **Gotchas**
 *
 * Prices change. Check `asOf` before you rely on a sum, and set your own prices if it matters.
 *
 * **Example** (What a call cost, and a price of your own)
 *
 * ```ts doctest
 * import * as Prices from "floodgate/Prices"
 *
 * const price = Prices.find("claude-sonnet-5")!
 *
 * price.output // => 10
 * Prices.cost(price, { inputTokens: 100_000, outputTokens: 2_000 }) // => 0.22
 * Prices.find("my-model") // => undefined
 *
 * const own = { ...Prices.published, "my-*": { input: 1, output: 4 } }
 *
 * Prices.find("my-model", own)?.output // => 4
 * ```
 *
 * @stability stable
 * @since 0.2.0
 */
import * as PriceTable from "./domain/prices.ts"
import type { Price, Table } from "./domain/prices.ts"

export { cost, type Price, type Table } from "./domain/prices.ts"

// -----------------------------------------------------------------------------
// The table
// -----------------------------------------------------------------------------

/** Twice the largest context that Anthropic, OpenAI and Google offer, so that a larger one to come is not cut at once. */
const context = 2_000_000

const claude = {
  maxOutput: 128_000,
  context,
  source: "https://platform.claude.com/docs/en/about-claude/pricing",
  asOf: "2026-10-24"
}

/** Anthropic: a cache of five minutes costs 1.25 times the input to write, one of an hour twice. */
const anthropic = (input: number, output: number, cacheRead: number): Price => ({
  input,
  output,
  cacheRead,
  cacheWrite: 1.25 * input,
  cacheWriteLong: 2 * input
})

const opus45 = { ...anthropic(5, 25, 0.5), ...claude }
/** Its fast mode costs more than that of later models. */
const opus46 = { ...opus45, fast: 6 }
const opus4 = { ...anthropic(15, 75, 1.5), ...claude }
const sonnet4 = { ...anthropic(3, 15, 0.3), ...claude }
/** Prompts above 200,000 tokens were a beta with prices of its own. */
const sonnet4Tiered = { ...sonnet4, long: { ...anthropic(6, 22.5, 0.6), above: 200_000 } }

const anthropicPrices: Table = {
  // From two transcriptions of that page, of 10 November 2026.
  "fable-5-2": { ...anthropic(8, 40, 0.2), ...claude, asOf: "2026-11-10" },
  "fable-5-1": { ...anthropic(10, 50, 0.25), ...claude },
  "mythos-5-1": { ...anthropic(10, 50, 0.25), ...claude },
  "fable-5": { ...anthropic(10, 50, 1), ...claude },
  "mythos-5": { ...anthropic(10, 50, 1), ...claude },
  "opus-5-5": { ...anthropic(4, 20, 0.2), ...claude },
  "opus-5": opus45,
  "opus-4-8": opus45,
  "opus-4-7": opus46,
  "opus-4-6": opus46,
  "opus-4-5": opus45,
  "opus-4-1": opus4,
  "opus-4": opus4,
  "sonnet-5-5": { ...anthropic(2, 10, 0.1), ...claude },
  "sonnet-5": { ...anthropic(2, 10, 0.2), ...claude },
  "sonnet-4-6": sonnet4,
  "sonnet-4-5": sonnet4Tiered,
  "sonnet-4": sonnet4Tiered,
  "haiku-5-5": { ...anthropic(0.1, 0.5, 0.01), long: { ...anthropic(0.5, 2.5, 0.05), above: 100_000 }, ...claude },
  "haiku-4-5": { ...anthropic(1, 5, 0.1), ...claude }
}

const openaiPage = { source: "https://developers.openai.com/api/docs/pricing", asOf: "2026-11-18" }

/** OpenAI since GPT-5.6: writing a cache costs 1.25 times the input. A long prompt costs twice as much, its output 1.5 times. */
const gpt = (input: number, output: number, cacheRead: number): Price => ({
  input,
  output,
  cacheRead,
  cacheWrite: 1.25 * input,
  cacheWriteLong: 2.5 * input,
  long: {
    above: 272_000,
    input: 2 * input,
    output: 1.5 * output,
    cacheRead: 2 * cacheRead,
    cacheWrite: 2.5 * input,
    cacheWriteLong: 5 * input
  },
  maxOutput: 128_000,
  context,
  ...openaiPage
})

/**
 * Older models of OpenAI, which write caches for free. Their maximum outputs are from https://developers.openai.com/api/docs/models:
 * 128,000 tokens for GPT-5.
 */
const olderGpt = (
  input: number,
  output: number,
  cacheRead: number,
  { long = false, maxOutput = 128_000 }: { readonly long?: boolean; readonly maxOutput?: number } = {}
): Price => ({
  input,
  output,
  cacheRead,
  long: long ? { above: 272_000, input: 2 * input, output: 1.5 * output, cacheRead: 2 * cacheRead } : undefined,
  maxOutput,
  context,
  source: "https://developers.openai.com/api/docs/pricing",
  asOf: "2026-08-05"
})

/** Moderations are free, so a cap in dollars lets them through. */
const moderationPrices: Table = {
  "omni-moderation": {
    input: 0,
    output: 0,
    source: "https://developers.openai.com/api/docs/models/omni-moderation-latest",
    asOf: "2026-11-29"
  }
}

/** A model that only embeds: it has no output. */
const embedding = (input: number, source: string, asOf: string): Price => ({
  input,
  output: 0,
  context,
  source,
  asOf
})

const embeddingPrices: Table = {
  "text-embedding-3-small": embedding(
    0.02,
    "https://developers.openai.com/api/docs/models/text-embedding-3-small",
    "2026-07-03"
  ),
  "text-embedding-3-large": embedding(0.13, "https://developers.openai.com/api/docs/pricing", "2026-04-29"),
  "text-embedding-ada-002": embedding(0.1, "https://developers.openai.com/api/docs/pricing", "2026-04-29"),
  "gemini-embedding-001": embedding(0.15, "https://ai.google.dev/gemini-api/docs/pricing", "2026-04-25"),
  // The price of text. Pictures cost 0.45, audio and video more.
  "gemini-embedding-2": embedding(0.2, "https://ai.google.dev/gemini-api/docs/pricing", "2026-04-25")
}

const openaiPrices: Table = {
  "gpt-6.2-astra": gpt(8, 40, 0.4),
  "gpt-6.2-sol": gpt(2, 10, 0.1),
  "gpt-6.1-sol": gpt(2, 10, 0.1),
  "gpt-6-astra": gpt(10, 50, 1),
  "gpt-6-sol": gpt(2, 10, 0.2),
  "gpt-6-luna": gpt(0.1, 0.5, 0.01),
  // The price after a discount that lasts at least until 21 November 2026.
  "gpt-5.6": gpt(5, 30, 0.5),
  "gpt-5.6-sol": gpt(5, 30, 0.5),
  "gpt-5.6-terra": gpt(2, 12, 0.2),
  "gpt-5.6-luna": gpt(0.2, 1.2, 0.02),
  "gpt-5.5": { ...olderGpt(5, 30, 0.5, { long: true }), fast: 2.5 },
  "gpt-5.4": olderGpt(2.5, 15, 0.25, { long: true }),
  "gpt-5.4-mini": olderGpt(0.75, 4.5, 0.075),
  "gpt-5.4-nano": olderGpt(0.2, 1.25, 0.02),
  "gpt-5.2": olderGpt(1.75, 14, 0.175),
  "gpt-5.1": olderGpt(1.25, 10, 0.125),
  "gpt-5": olderGpt(1.25, 10, 0.125),
  "gpt-5-mini": olderGpt(0.25, 2, 0.025),
  "gpt-5-nano": olderGpt(0.05, 0.4, 0.005),
  "gpt-4.1": olderGpt(2, 8, 0.5, { maxOutput: 32_768 }),
  "gpt-4.1-mini": olderGpt(0.4, 1.6, 0.1, { maxOutput: 32_768 }),
  "gpt-4.1-nano": olderGpt(0.1, 0.4, 0.025, { maxOutput: 32_768 }),
  "gpt-4o": olderGpt(2.5, 10, 1.25, { maxOutput: 16_384 }),
  "gpt-4o-mini": olderGpt(0.15, 0.6, 0.075, { maxOutput: 16_384 }),
  "o4-mini": olderGpt(1.1, 4.4, 0.275, { maxOutput: 100_000 })
}

/**
 * A request gives at most 65,536 tokens of output: https://ai.google.dev/gemini-api/docs/models. Gemini 4 writes more only in
 * further requests, each of which continues the one before.
 */
const gemini = (input: number, output: number, cacheRead?: number, asOf = "2026-08-05"): Price => ({
  input,
  output,
  cacheRead,
  maxOutput: 65_536,
  context,
  source: "https://ai.google.dev/gemini-api/docs/pricing",
  asOf
})

/** Prompts of more than 200,000 tokens cost twice as much, and their output 1.5 times. */
const geminiTiered = (input: number, output: number, cacheRead?: number): Price => ({
  ...gemini(input, output, cacheRead),
  long: {
    above: 200_000,
    input: 2 * input,
    output: 1.5 * output,
    cacheRead: cacheRead === undefined ? undefined : 2 * cacheRead
  }
})

const geminiPrices: Table = {
  "gemini-4-neon": gemini(3, 15, 0.15, "2026-11-18"),
  // Half price until 30 November 2026.
  "gemini-4-argon": gemini(4, 20, 0.2, "2026-10-13"),
  "gemini-4-hydrogen": gemini(1.5, 7.5, 0.075, "2026-11-18"),
  // Half price until the end of 2026.
  "gemini-3.8-flash": gemini(1.5, 7.5, undefined, "2026-10-07"),
  "gemini-3.6-flash": gemini(1.5, 7.5, 0.15),
  "gemini-3.5-flash": gemini(1.5, 9, 0.15),
  "gemini-3.5-flash-lite": gemini(0.3, 2.5, 0.03),
  "gemini-3.1-pro-preview": geminiTiered(2, 12),
  "gemini-3.1-flash-lite-preview": gemini(0.25, 1.5, 0.025),
  "gemini-3-pro-preview": geminiTiered(2, 12),
  "gemini-3-flash-preview": gemini(0.5, 3),
  "gemini-2.5-pro": geminiTiered(1.25, 10, 0.125),
  "gemini-2.5-flash": gemini(0.3, 2.5, 0.03),
  "gemini-2.5-flash-lite": gemini(0.1, 0.4, 0.01)
}

/**
 * The published prices of Anthropic, OpenAI and Google in November 2026. Temporary discounts are left out, so that a cap still
 * holds after them.
 *
 * **Details**
 *
 * Sources: https://platform.claude.com/docs/en/about-claude/pricing (24 October 2026; Fable 5.2: 10 November),
 * https://developers.openai.com/api/docs/pricing (18 November 2026; before GPT-5.6: 5 August) and
 * https://ai.google.dev/gemini-api/docs/pricing (5 August 2026; Gemini 4 and 3.8: October and November; embeddings of both: April
 * to July). Some were read in transcriptions of these pages. Prices that were not found are not in the table.
 *
 * @stability stable
 * @category prices
 * @since 0.2.0
 */
export const published: Table = {
  ...anthropicPrices,
  ...openaiPrices,
  ...geminiPrices,
  ...embeddingPrices,
  ...moderationPrices
}

// -----------------------------------------------------------------------------
// Getters
// -----------------------------------------------------------------------------

/**
 * Finds the price of a model; undefined if the table has none.
 *
 * **Example** (A snapshot, and an unknown model)
 *
 * ```ts doctest
 * import * as Prices from "floodgate/Prices"
 *
 * Prices.find("claude-opus-5-5-20251101")?.input // => 4
 * Prices.find("my-model") // => undefined
 * ```
 *
 * @stability stable
 * @category getters
 * @since 0.2.0
 */
export const find = (model: string, table: Table = published): Price | undefined => PriceTable.find(model, table)
