import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Budget from "floodgate/Budget"
import * as Presets from "floodgate/Presets"

const tiers = Object.entries(Presets.anthropic)

describe("Presets", () => {
  it("gives every class at least as much in a higher tier", () => {
    const { build, scale, start } = Presets.anthropic
    for (const [lower, higher] of [
      [start, build],
      [build, scale]
    ] as const) {
      for (const [pool, limits] of Object.entries(lower.pools)) {
        for (const dimension of ["requests", "inputTokens", "outputTokens"] as const) {
          const [less, more] = [limits, higher.pools[pool]!].map((each) => each[dimension]!.perMinute!)
          assert.isAtMost(less!, more!, `${dimension} of ${pool}`)
        }
      }
    }
  })

  it("names each class as its models are mapped", () => {
    const models = [
      "claude-opus-4-8",
      "claude-opus-5",
      "claude-opus-5-5",
      "claude-sonnet-4-6",
      "claude-sonnet-5",
      "claude-sonnet-5-5",
      "claude-haiku-4-5-20251001",
      "claude-fable-5-1",
      "claude-mythos-5"
    ]
    for (const [, tier] of tiers) {
      assert.deepStrictEqual(models.map(Presets.poolOf).sort(), Object.keys(tier.pools).sort())
    }
  })

  it("recognises a class by its model names at Bedrock and Vertex", () => {
    const classes = {
      "us.anthropic.claude-opus-4-5-20251101-v1:0": "opus-4",
      "anthropic.claude-sonnet-5-20260203-v1:0": "sonnet-5",
      "global.anthropic.claude-opus-5-5-v1": "opus-5-5",
      "claude-opus-4-5@20251101": "opus-4",
      "claude-haiku-4-5@20251001": "haiku-4-5",
      "claude-sonnet-5@20260203": "sonnet-5"
    }
    for (const [model, pool] of Object.entries(classes)) assert.strictEqual(Presets.poolOf(model), pool)
    // Claude 3 had its version before the family, and after it the date.
    const old = "anthropic.claude-3-5-sonnet-20241022-v2:0"
    assert.strictEqual(Presets.poolOf(old), old)
    // A family's name that ends another word is none.
    assert.strictEqual(Presets.poolOf("octopus-4-x"), "octopus-4-x")
    assert.strictEqual(Presets.poolOf("magnopus-4-1"), "magnopus-4-1")
  })

  for (const [name, tier] of tiers) {
    it.effect(`${name} makes a budget, with bursts of requests kept to five seconds`, () =>
      Effect.gen(function* () {
        const budget = yield* Budget.make({ limits: tier })
        yield* Effect.scoped(budget.reserve({ inputTokens: 1 }, { pool: budget.poolOf("claude-opus-5") }))
        const { capacity, perSecond } = (yield* budget.status).pools["opus-5"]!.dimensions.requests!
        assert.closeTo(capacity / perSecond, 5, 1e-6)
      })
    )
  }

  it.effect("xai and mistral never have a minute's requests at once", () =>
    Effect.gen(function* () {
      for (const [limits, capacity, perSecond] of [
        [Presets.xai({ requestsPerMinute: 600, tokensPerMinute: 1e6 }), 10, 10],
        [Presets.xai({ requestsPerMinute: 30, tokensPerMinute: 1e6 }), 1, 0.5],
        [Presets.mistral({ requestsPerSecond: 6, tokensPerMinute: 1e6 }), 6, 6]
      ] as const) {
        const budget = yield* Budget.make({ limits })
        yield* Effect.scoped(budget.reserve({ tokens: 1 }))
        const { requests, tokens } = (yield* budget.status).pools["default"]!.dimensions
        assert.deepInclude(requests, { capacity, perSecond })
        assert.deepInclude(tokens, { capacity: 1e6 })
      }
    })
  )

  it.effect("of providers that limit only concurrency let as many calls be in flight, and limit nothing else", () =>
    Effect.gen(function* () {
      for (const preset of [Presets.deepseek.pro, Presets.deepseek.flash]) {
        const budget = yield* Budget.make(preset)
        yield* budget.reserve({ tokens: 1 })
        const { allowed, dimensions } = (yield* budget.status).pools["default"]!
        assert.deepStrictEqual([allowed, dimensions], [preset.concurrency, {}])
      }
    }).pipe(Effect.scoped)
  )

  it.effect("of servers of your own measure how many calls may be in flight, up to what is stated", () =>
    Effect.gen(function* () {
      for (const [preset, most] of [
        [Presets.ollama, 16],
        [Presets.llamaCpp, 16],
        [Presets.vllm(), 16],
        [Presets.vllm({ maxNumSeqs: 3 }), 3]
      ] as const) {
        const budget = yield* Budget.make(preset)
        yield* budget.reserve({ tokens: 1 })
        const { allowed, measured } = (yield* budget.status).pools["default"]!
        assert.deepStrictEqual([allowed, measured?.limit, measured?.by], [most, 16, "start"])
      }
    }).pipe(Effect.scoped)
  )

  it("refuses figures that no console has, and misspelt ones", () => {
    assert.throws(() => Presets.xai({ requestsPerMinute: 0, tokensPerMinute: 1 }), RangeError, "Presets.xai")
    assert.throws(() => Presets.mistral({ requestsPerSecond: Number.NaN, tokensPerMinute: 1 }), RangeError)
    assert.throws(() => Presets.vllm({ maxNumSeqs: 0.5 }), RangeError, "Presets.vllm: maxNumSeqs")
  })
})
