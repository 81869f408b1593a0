import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Governor from "floodgate/Governor"
import { InvalidRequest, LlmError } from "floodgate/LlmError"
import * as Floodgate from "floodgate/promise"
import * as Spending from "floodgate/Spending"
import { MapStore } from "../support/store.ts"

const prices = {
  "my-model": { input: 1, output: 10, cacheRead: 0.1, context: 100_000, maxOutput: 10_000 },
  other: { input: 1, output: 10 }
}
const call = { model: "my-model", bytes: 100, maxTokens: 50 }

const running = <A, E>(
  test: (lines: ReadonlyArray<string>) => Effect.Effect<A, E, Governor.Governor | Budget.TokenBudget>
) =>
  Effect.suspend(() => {
    const lines: Array<string> = []
    const log = Logger.layer([Logger.make(({ message }) => void lines.push(String(message)))])
    const live = Governor.layer({ prices }).pipe(
      Layer.provideMerge(Budget.layer({ limits: { inputTokens: { total: 1e9 } } })),
      Layer.provideMerge(log)
    )
    return Effect.provide(test(lines), live)
  })

const answered = (purse: Spending.Purse, actual: object, more: object = {}) =>
  Effect.flatMap(Governor.Governor, (governor) =>
    governor.run({ ...call, ...more }, () => Effect.succeed({ value: "", actual: actual as never }))
  ).pipe(Spending.from(purse))

const spent = (purse: Spending.Purse) => Effect.map(purse.status, ({ spent }) => spent)

describe("the usage of a call", () => {
  for (const tokens of [1e12, 1e308, Infinity]) {
    it.effect(`costs at most what the call can cost: ${tokens} tokens`, () =>
      running((lines) =>
        Effect.gen(function* () {
          const purse = Spending.make("us", { dollars: 100 })
          // The whole context, and all that the model writes.
          yield* answered(purse, { inputTokens: 10, outputTokens: tokens })
          assert.strictEqual(yield* spent(purse), 0.10001)
          yield* answered(purse, { inputTokens: tokens, outputTokens: 0 })
          assert.strictEqual(yield* spent(purse), 0.20001)
          yield* answered(purse, { inputTokens: 60_000, cacheReadTokens: tokens, outputTokens: 0 })
          assert.closeTo(yield* spent(purse), 0.20001 + 0.06 + 0.004, 1e-9)
          assert.strictEqual(lines.length, 1)
          assert.match(
            lines[0]!,
            /^A call to my-model reported .* tokens, more than it can use, so 10,010 are counted \(pool "default"; this is logged once\)/
          )
          const { pools } = yield* Effect.flatMap(Budget.TokenBudget, ({ status }) => status)
          assert.isAbove(pools["default"]!.dimensions.inputTokens!.level, 1e9 - 300_000)
        })
      )
    )
  }

  it.effect("is never cut where it is possible", () =>
    running((lines) =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 100 })
        yield* answered(purse, {
          inputTokens: 50_000,
          cacheCreationTokens: 20_000,
          cacheReadTokens: 30_000,
          outputTokens: 10_000
        })
        assert.closeTo(yield* spent(purse), 0.07 + 0.003 + 0.1, 1e-9)
        // Each round of the provider's own tools reads the prompt again.
        yield* answered(purse, { inputTokens: 2_000_000, outputTokens: 200_000 }, { serverTools: true })
        assert.closeTo(yield* spent(purse), 0.173 + 4, 1e-9)
        // Each of several answers may be as long as the model writes.
        yield* answered(purse, { inputTokens: 1_000, outputTokens: 30_000 }, { choices: 3 })
        assert.closeTo(yield* spent(purse), 4.173 + 0.301, 1e-9)
        assert.deepStrictEqual(lines, [])
      })
    )
  )

  it.effect("is cut first where it was read from the cache, then where it was written there", () =>
    running(() =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 100 })
        const input = { inputTokens: 60_000, outputTokens: 0 }
        yield* answered(purse, { ...input, cacheCreationTokens: 30_000, cacheReadTokens: 1e12 })
        assert.closeTo(yield* spent(purse), 0.06 + 0.03 + 0.001, 1e-9)
        yield* answered(purse, { ...input, cacheCreationTokens: 1e12, cacheReadTokens: 1e12 })
        assert.closeTo(yield* spent(purse), 0.091 + 0.06 + 0.04, 1e-9)
      })
    )
  )

  it.effect("of a model whose size is not known is cut to the largest that is offered", () =>
    running(() =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 100 })
        yield* answered(purse, { inputTokens: 1e12, outputTokens: 0 }, { model: "other" })
        assert.strictEqual(yield* spent(purse), 10)
        yield* answered(purse, { inputTokens: 1, outputTokens: 1e12 }, { model: "other" })
        assert.closeTo(yield* spent(purse), 20.000001, 1e-9)
      })
    )
  )

  it.effect("of an error costs at most what the call can cost", () =>
    running(() =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 100 })
        const usage = { requests: 1, inputTokens: 1e12, outputTokens: 1e12 }
        const failed = new LlmError({
          reason: new InvalidRequest({ status: 400, received: { usage, text: "", started: true } })
        })
        const governor = yield* Governor.Governor
        yield* Effect.exit(governor.run(call, () => Effect.fail(failed)).pipe(Spending.from(purse)))
        assert.isAtMost(yield* spent(purse), 0.2)
      })
    )
  )

  it.effect("of a stream that its reader leaves costs at most what the call can cost", () =>
    running(() =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 100 })
        const governor = yield* Governor.Governor
        const left = Effect.scoped(
          governor.open(call, (ticket) =>
            Effect.sync(() => ticket.recordUsage({ inputTokens: 10, outputTokens: 1e12 }))
          )
        )
        yield* left.pipe(Spending.from(purse))
        assert.strictEqual(yield* spent(purse), 0.10001)
      })
    )
  )

  it.effect("is bounded in a store that processes share", () =>
    running(() =>
      Effect.gen(function* () {
        const purse = yield* Spending.open("us", { dollars: 100 })
        yield* answered(purse, { inputTokens: 1e12, outputTokens: 1e12 })
        assert.isTrue(purse.isShared)
        assert.strictEqual(yield* spent(purse), 0.2)
      }).pipe(Effect.scoped, Effect.provide(BudgetStore.layer(new MapStore())))
    )
  )

  it("that a program states is bounded, too", async () => {
    const floodgate = await Floodgate.create({ prices, cap: { dollars: 100 } } as never)
    const ask = (used: object) =>
      floodgate.run(call as never, async (context: { readonly used: (tokens: never) => void }) =>
        context.used(used as never)
      )
    await ask({ inputTokens: Infinity, outputTokens: 0 })
    await ask({ inputTokens: 0, outputTokens: Infinity })
    const { left = 0 } = await floodgate.spent()
    assert.isAbove(left, 99.7)
    await floodgate.dispose()
  })
})
