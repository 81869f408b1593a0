/** If each pool has its own limits, every call has a limit. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"

const perMinute = (inputTokens: number) => ({ inputTokens: { perMinute: inputTokens } })
const pools = { "opus-5": perMinute(1_000_000), "sonnet-5": perMinute(2_000_000) }
const live = Budget.layer({ limits: { pools } })

/** The pools with limits exist from the start. */
const given = ["opus-5", "sonnet-5"]
const names = Effect.map(
  Effect.flatMap(Budget.TokenBudget, ({ status }) => status),
  ({ pools }) => Object.keys(pools)
)
const refused = (operation: string, got: string) =>
  `RangeError: Budget.${operation}: pool: expected one of "opus-5", "sonnet-5", or a pool that poolOf returned for a model, got ${got}`

describe("Budget with limits per pool", () => {
  it.effect("uses the pool of the model, or the named pool", () =>
    Effect.gen(function* () {
      yield* Budget.consume(10, { model: "claude-opus-5" })
      yield* Budget.consume(10, { pool: "sonnet-5" })
      yield* Budget.consume(10, { model: "claude-opus-5", pool: "sonnet-5" })
      assert.deepStrictEqual(yield* names, given)
      const { "opus-5": opus, "sonnet-5": sonnet } = (yield* (yield* Budget.TokenBudget).status).pools
      assert.strictEqual(opus?.dimensions.inputTokens?.level, 50_000 - 10)
      assert.strictEqual(sonnet?.dimensions.inputTokens?.level, 100_000 - 20)
    }).pipe(Effect.provide(live))
  )

  it.effect("refuses a missing or unknown pool, both for calls and for changes of limits", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      const failure = (effect: Effect.Effect<unknown, unknown>) => Effect.map(Effect.exit(effect), String)
      for (const [pool, got] of [
        [undefined, "none"],
        ["sonet-5", '"sonet-5"']
      ] as const) {
        assert.include(yield* failure(Effect.scoped(budget.reserve({ tokens: 1 }, { pool }))), refused("reserve", got))
        assert.include(yield* failure(budget.resize({ limits: perMinute(1_000), pool })), refused("resize", got))
        // Regression: an update of an unknown pool failed the call that brought it.
        yield* budget.observe({ dimensions: { inputTokens: { remaining: 1 } }, pool })
        yield* budget.pause({ duration: 1, pool })
      }
      assert.deepStrictEqual(yield* names, given)
    }).pipe(Effect.provide(live))
  )

  it.effect("settles a rejected call", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      const reservation = yield* budget.reserve({ inputTokens: 50 }, { pool: "sonnet-5" })
      yield* reservation.fail({ reason: "rateLimit" })
      const { "sonnet-5": sonnet } = (yield* budget.status).pools
      assert.strictEqual(sonnet?.dimensions.inputTokens?.level, sonnet?.dimensions.inputTokens?.capacity)
      assert.strictEqual(sonnet?.inFlight, 0)
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.effect("knows Claude's classes by name before any call of their models", () =>
    Effect.gen(function* () {
      // Regression: the pool of a model was refused before the first call of the model, and not after it.
      yield* Budget.consume(1, { pool: "opus-3" })
      assert.deepStrictEqual(yield* names, ["opus-3", ...given])
    }).pipe(Effect.provide(live))
  )

  it.effect("lets a model learn the limits of a pool that has none", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      yield* Budget.consume(1, { pool: budget.poolOf("claude-haiku-5-5") })
      yield* Budget.consume(1, { model: "gpt-6" })
      const governor = yield* Governor.Governor
      yield* governor.run({ model: "claude-sonnet-4-5", bytes: 10 }, () => Effect.succeed({ value: 1 }))
      yield* budget.resize({ pool: "gpt-6", limits: perMinute(60) })
      assert.deepStrictEqual(yield* names, ["haiku-5-5", "gpt-6", "sonnet-4", ...given])
    }).pipe(Effect.provide(Governor.layer().pipe(Layer.provideMerge(live))))
  )

  it("refuses the name of a model as a pool, unless poolOf returns it", () => {
    const bedrock = "us.anthropic.claude-opus-4-5-20251101-v1:0"
    for (const [model, pool] of [
      ["claude-sonnet-5", "sonnet-5"],
      [bedrock, "opus-4"]
    ] as const) {
      assert.throws(
        () => Budget.layer({ limits: { pools: { [model]: perMinute(1) } } }),
        RangeError,
        `Budget.layer: limits.pools: expected the pool "${pool}", got "${model}", which is one of its models`
      )
      Budget.layer({ limits: { pools: { [model]: perMinute(1) }, poolOf: (model) => model } })
    }
  })

  it("accepts pools that are named after models", () => {
    // Regression: any name that contained the name of a model was taken for it.
    for (const pool of ["opus-4-batch", "my-sonnet-5-eu", "octopus-4-5"]) {
      Budget.layer({ limits: { pools: { [pool]: perMinute(1) } } })
    }
    assert.throws(() => Budget.layer({ limits: { pools: { "opus-4-5": perMinute(1) } } }), RangeError, '"opus-4"')
  })

  it.effect("uses the pool default if it has limits", () =>
    Effect.gen(function* () {
      yield* Budget.consume(10)
      assert.deepStrictEqual(yield* names, ["default"])
    }).pipe(Effect.provide(Budget.layer({ limits: { pools: { default: perMinute(1_000) } } })))
  )
})
