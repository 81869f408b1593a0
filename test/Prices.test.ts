import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as Prices from "floodgate/Prices"
import * as PriceTable from "../src/domain/prices.ts"

const int = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))

describe("Prices", () => {
  it("finds a model by its class, its snapshot and its path, but not by half a name", () => {
    const outputOf = (model: string) => Prices.find(model)?.output
    assert.strictEqual(outputOf("claude-opus-4-8"), 25)
    assert.strictEqual(outputOf("claude-opus-4-1-20250805"), 75)
    assert.strictEqual(outputOf("claude-opus-4-20250514"), 75)
    assert.strictEqual(outputOf("us.anthropic.claude-haiku-4-5-20251001-v1:0"), 5)
    assert.strictEqual(outputOf("claude-sonnet-5@20260630"), 10)
    assert.strictEqual(outputOf("anthropic/claude-opus-5-5"), 20)
    assert.strictEqual(outputOf("gpt-5-2025-08-07"), 10)
    assert.strictEqual(outputOf("gpt-5-mini"), 2)
    assert.strictEqual(outputOf("gpt-4o-mini-2024-07-18"), 0.6)
    assert.strictEqual(outputOf("openai/gpt-6.2-sol"), 10)
    assert.strictEqual(outputOf("models/gemini-2.5-flash-lite"), 0.4)
    assert.strictEqual(outputOf("gemini-2.5-flash"), 2.5)
    assert.strictEqual(Prices.find("models/gemini-embedding-001")?.input, 0.15)
    assert.strictEqual(Prices.find("text-embedding-3-large")?.input, 0.13)
    // An unknown price is not guessed.
    for (const model of ["gpt-5-pro", "gpt-6", "claude-opus-4-9", "claude-opus-6", "gemini-2.5", "", "toString"]) {
      assert.isUndefined(Prices.find(model), model)
    }
  })

  it("has a source and a date for each price", () => {
    for (const [model, price] of Object.entries(Prices.published)) {
      assert.match(price.source ?? "", /^https:\/\//, model)
      assert.match(price.asOf ?? "", /^2026-\d\d-\d\d$/, model)
      if (model.includes("embedding")) assert.strictEqual(price.output, 0, model)
      else assert.isAtLeast(price.output, price.input, model)
      assert.isAtMost(price.cacheRead ?? 0, price.input, model)
    }
  })

  it("prefers the longest name that fits, and own prices to the published", () => {
    const table = {
      ...Prices.published,
      "claude-opus-5-5": { input: 1, output: 2 },
      "my-*": { input: 3, output: 4 },
      "my-large-*": { input: 5, output: 6 }
    }
    assert.strictEqual(Prices.find("claude-opus-5-5", table)?.output, 2)
    assert.strictEqual(Prices.find("eu.anthropic.claude-opus-5-5-v1:0", table)?.output, 20)
    assert.strictEqual(Prices.find("my-model", table)?.output, 4)
    assert.strictEqual(Prices.find("my-large-model", table)?.output, 6)
    assert.strictEqual(Prices.find("claude-opus-5", table)?.output, 25)
  })

  it("counts each kind of token by its own price, and a long prompt by the prices of long prompts", () => {
    const price = Prices.find("claude-haiku-5-5")!
    const dollars = (tokens: number, more = 0) =>
      Prices.cost(price, {
        inputTokens: tokens,
        cacheCreationTokens: 2_000,
        cacheCreationLongTokens: 500,
        cacheReadTokens: 50_000 + more,
        outputTokens: 1_000
      })
    const near = (got: number, expected: number) => assert.isBelow(Math.abs(got - expected), 1e-12)
    near(dollars(48_000), (48_000 * 0.1 + 1_500 * 0.125 + 500 * 0.2 + 50_000 * 0.01 + 1_000 * 0.5) / 1e6)
    near(dollars(48_000, 1), (48_000 * 0.5 + 1_500 * 0.625 + 500 * 1 + 50_001 * 0.05 + 1_000 * 2.5) / 1e6)
  })

  it("multiplies all rates, those of long prompts included, by the factor of fast modes and regions", () => {
    const haiku = Prices.find("claude-haiku-5-5")!
    assert.strictEqual(PriceTable.charged(haiku, {}), haiku)
    assert.strictEqual(PriceTable.charged(haiku, { fast: false, priceFactor: 1 }), haiku)
    const fast = PriceTable.charged(haiku, { fast: true, priceFactor: 1.5 })
    assert.closeTo(fast.output, 1.5, 1e-9)
    assert.closeTo(fast.cacheRead!, 0.03, 1e-9)
    assert.closeTo(fast.long!.cacheWriteLong!, 3, 1e-9)
    assert.strictEqual(fast.long!.above, 100_000)
    assert.strictEqual(PriceTable.charged(Prices.find("claude-opus-4-6")!, { fast: true }).output, 150)
    assert.strictEqual(PriceTable.charged({ input: 1, output: 2 }, { fast: true }).cacheRead, undefined)
  })

  it("multiplies the maximal output by the number of requested answers, if the request does not limit them", () => {
    const price = { input: 0, output: 1, maxOutput: 1_000_000 }
    assert.strictEqual(PriceTable.bound(price, { bytes: 0 }), 1)
    assert.strictEqual(PriceTable.bound(price, { bytes: 0, choices: 20 }), 20)
    assert.strictEqual(PriceTable.bound(price, { bytes: 0, choices: 20, maxTokens: 500_000 }), 0.5)
    for (const choices of [NaN, 0, -3, 1]) assert.strictEqual(PriceTable.bound(price, { bytes: 0, choices }), 1)
    assert.strictEqual(PriceTable.bound({ input: 0, output: 1 }, { bytes: 0 }), Infinity)
    assert.strictEqual(PriceTable.bound({ input: 0, output: 0 }, { bytes: 0 }), 0)
  })

  it("has the maximal output of every published model, so that caps hold", () => {
    for (const [model, { maxOutput = 0, output }] of Object.entries(Prices.published)) {
      assert.isTrue(output === 0 || maxOutput > 10_000, model)
    }
  })

  it.prop(
    "limits the cost of any usage of a request",
    {
      model: Schema.Literals(Object.keys(Prices.published) as [string, ...Array<string>]),
      bytes: int(2_000_000),
      maxTokens: int(128_000),
      parts: Schema.Array(int(100)).check(Schema.isMinLength(4), Schema.isMaxLength(4)),
      output: int(100)
    },
    ({ bytes, maxTokens, model, output, parts }) => {
      const price = Prices.find(model)!
      const sum = Math.max(
        1,
        parts.reduce((total, part) => total + part, 0)
      )
      // A token has at least one byte.
      const [inputTokens, short, long, cacheReadTokens] = parts.map((part) => Math.floor((bytes * part) / sum)) as [
        number,
        number,
        number,
        number
      ]
      const actual = {
        inputTokens,
        cacheCreationTokens: short + long,
        cacheCreationLongTokens: long,
        cacheReadTokens,
        outputTokens: Math.floor((maxTokens * output) / 100)
      }
      assert.isAtMost(Prices.cost(price, actual), PriceTable.bound(price, { bytes, maxTokens }) + 1e-9)
    }
  )

  it("state twice the largest context for every published model", () => {
    const stated = Object.values(Prices.published).flatMap(({ context, input }) => (input > 0 ? [context] : []))
    assert.deepStrictEqual(new Set(stated), new Set([2_000_000]))
  })
})
