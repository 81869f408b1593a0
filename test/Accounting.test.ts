import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Limits from "floodgate/Limits"

const expected = { inputTokens: 1_000, cachedTokens: 9_000, outputTokens: 500, maxTokens: 4_096 }
const actual = { inputTokens: 200, cacheCreationTokens: 700, cacheReadTokens: 9_100, outputTokens: 400 }
const bedrock = Accounting.bedrockRuntime({ burndown: 5 })

const much = { perSecond: 1, burst: 1_000_000 }
const limits = { requests: much, inputTokens: much, outputTokens: much, tokens: much }

/** What a budget that limits everything counts of a call while it runs, and after it. */
const counted = Effect.fnUntraced(function* (
  accounting: Accounting.Accounting,
  before: Parameters<Accounting.Accounting["estimate"]>[0] = expected,
  after: Parameters<Accounting.Accounting["usage"]>[0] = actual
) {
  const budget = yield* Budget.make({ limits })
  const taken = Effect.map(budget.status, ({ pools }) => {
    const { inputTokens, outputTokens, requests, tokens } = pools.default!.dimensions
    const of = (dimension: { readonly level: number } | undefined) => much.burst - dimension!.level
    return {
      requests: of(requests),
      inputTokens: of(inputTokens),
      outputTokens: of(outputTokens),
      tokens: of(tokens)
    }
  })
  const reservation = yield* budget.reserve(accounting.estimate(before))
  const held = yield* taken
  yield* reservation.settle(accounting.usage(after, before.maxTokens))
  return { held, used: yield* taken }
}, Effect.scoped)

describe("Accounting", () => {
  it.effect("anthropic counts uncached input and produced output", () =>
    Effect.gen(function* () {
      const after = { requests: 1, inputTokens: 900, outputTokens: 400, tokens: 1_300 }
      assert.deepStrictEqual(yield* counted(Accounting.anthropic), {
        held: { requests: 1, inputTokens: 1_000, outputTokens: 500, tokens: 1_500 },
        used: after
      })
      assert.deepStrictEqual(yield* counted(Accounting.vertex), yield* counted(Accounting.anthropic))
    })
  )

  it.effect("bedrockRuntime reserves prompt and max_tokens, and settles with the burndown rate", () =>
    Effect.gen(function* () {
      const { held, used } = yield* counted(bedrock)
      assert.strictEqual(held.tokens, 14_096)
      assert.strictEqual(used.tokens, 900 + 5 * 400)
    })
  )

  it.effect("bedrockMantle reserves max_tokens as input until the end", () =>
    Effect.gen(function* () {
      const { held, used } = yield* counted(Accounting.bedrockMantle)
      assert.deepStrictEqual([held.inputTokens, held.outputTokens], [14_096, 500])
      assert.deepStrictEqual([used.inputTokens, used.outputTokens], [900, 400])
    })
  )

  it("counts missing cache tokens as 0", () => {
    const { anthropic, bedrockRuntime, openai } = Accounting
    const said = { inputTokens: 100, outputTokens: 20 }
    for (const accounting of [anthropic, openai, bedrockRuntime({ burndown: 5 })]) {
      const usage = accounting.usage({ ...said, cacheCreationTokens: 0, cacheReadTokens: 0 })
      assert.deepStrictEqual(accounting.usage(said), usage)
      assert.isFalse(Object.values(usage).some(Number.isNaN))
    }
  })

  it.effect("openai counts the larger of prompt and max_tokens, whatever the output", () =>
    Effect.gen(function* () {
      const { openai } = Accounting
      const { held, used } = yield* counted(openai)
      assert.strictEqual(held.tokens, 10_000)
      assert.strictEqual(used.tokens, 10_000)
      assert.strictEqual(openai.estimate({ ...expected, maxTokens: 64_000 }).tokens, 64_000)
      assert.strictEqual(openai.usage(actual, 64_000).tokens, 64_000)
      const long = { inputTokens: 900, outputTokens: 20_000 }
      assert.deepStrictEqual([openai.usage(long).tokens, openai.usage(long, 500).tokens], [900, 900])
    })
  )

  it.effect("azure counts prompt and max_tokens, and corrects nothing", () =>
    Effect.gen(function* () {
      const { held, used } = yield* counted(Accounting.azure)
      assert.strictEqual(held.tokens, 14_096)
      assert.strictEqual(used.tokens, 14_096)
    })
  )

  it("reserves the expected output without max_tokens", () => {
    const { maxTokens: _, ...unsaid } = expected
    assert.strictEqual(bedrock.estimate(unsaid).tokens, 10_500)
    assert.strictEqual(Accounting.bedrockMantle.estimate(unsaid).inputTokens, 10_500)
    assert.strictEqual(Accounting.azure.estimate(unsaid).tokens, 10_500)
  })

  it("openai reserves the prompt without max_tokens", () => {
    const estimate = Accounting.openai.estimate({ inputTokens: 300, cachedTokens: 200, outputTokens: 4_096 })
    assert.strictEqual(estimate.tokens, 500)
  })

  const tokens = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 200_000 }))

  it.effect.prop(
    "reserves enough if the call uses what was expected",
    { input: tokens, cached: tokens, output: tokens, spare: tokens },
    ({ cached, input, output, spare }) =>
      Effect.gen(function* () {
        const expected = { inputTokens: input, cachedTokens: cached, outputTokens: output, maxTokens: output + spare }
        const actual = { inputTokens: input, cacheCreationTokens: 0, cacheReadTokens: cached, outputTokens: output }
        for (const accounting of [
          Accounting.anthropic,
          Accounting.bedrockRuntime({ burndown: 1 }),
          Accounting.bedrockMantle,
          Accounting.vertex,
          Accounting.openai,
          Accounting.azure
        ]) {
          const { held, used } = yield* counted(accounting, expected, actual)
          for (const dimension of Limits.Dimension.literals) assert.isAtLeast(held[dimension], used[dimension])
        }
      })
  )
})
