import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import * as LlmError from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import { ask, mayFallBack, Model, planOf } from "../../examples/fallback.ts"
import {
  blockStart,
  delta,
  events,
  fail,
  message,
  params,
  type Script,
  scripted,
  start,
  whole
} from "../support/scriptedProvider.ts"

const limits = { inputTokens: { total: 10_000 }, outputTokens: { total: 10_000 } }

/** A step of the plan, with a budget that the test can read. */
const step = Effect.fnUntraced(function* (model: string, script: Script) {
  const budget = yield* Budget.make({ limits })
  const { layer, seen } = scripted(script)
  const client = LlmClient.layerProvider({ retry: Retry.make({ maxElapsed: "5 seconds" }) }).pipe(
    Layer.provide(Layer.succeed(Budget.TokenBudget, budget)),
    Layer.provide(layer),
    Layer.merge(Layer.succeed(Model, model))
  )
  const taken = Effect.map(budget.status, ({ pools }) => ({
    output: 10_000 - (pools.default?.dimensions.outputTokens?.level ?? 10_000),
    inFlight: pools.default?.inFlight ?? 0
  }))
  return { client, seen, taken }
})

const answers: Script = { create: () => Effect.succeed(message("Hello")) }
const broken: Script = { create: () => fail(new LlmError.ServerFailed({ status: 500 })) }

describe("fallback with an ExecutionPlan", () => {
  it.effect("asks the second provider when the first has given up, each with its own model and budget", () =>
    Effect.gen(function* () {
      const first = yield* step("opus", broken)
      const second = yield* step("sonnet", answers)
      const plan = yield* planOf(first.client, second.client)
      const fiber = yield* Effect.forkChild(Effect.withExecutionPlan(ask("Hello"), plan))
      yield* TestClock.adjust("6 seconds")
      yield* Fiber.join(fiber)
      assert.isAtLeast(first.seen.attempts, 2)
      assert.strictEqual(second.seen.attempts, 1)
      assert.deepStrictEqual(yield* first.taken, { output: 0, inFlight: 0 })
      assert.deepStrictEqual(yield* second.taken, { output: 100, inFlight: 0 })
    }).pipe(Effect.provide(Retry.layerBudget({ minPerSecond: Infinity })))
  )

  it.effect("keeps each budget from call to call", () =>
    Effect.gen(function* () {
      const first = yield* step("opus", answers)
      const second = yield* step("sonnet", answers)
      const plan = yield* planOf(first.client, second.client)
      const calls = yield* Effect.forkChild(Effect.repeat(Effect.withExecutionPlan(ask("Hello"), plan), { times: 2 }))
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(calls)
      assert.strictEqual((yield* first.taken).output, 300)
      assert.strictEqual(second.seen.attempts, 0)
    })
  )

  it.effect("does not repeat a request that is wrong everywhere", () =>
    Effect.gen(function* () {
      const first = yield* step("opus", { create: () => fail(new LlmError.InvalidRequest({ status: 400 })) })
      const second = yield* step("sonnet", answers)
      const plan = yield* planOf(first.client, second.client)
      const error = yield* Effect.flip(Effect.withExecutionPlan(ask("Hello"), plan))
      assert.instanceOf(error, LlmError.LlmError)
      assert.strictEqual(error.reason._tag, "InvalidRequest")
      assert.strictEqual(second.seen.attempts, 0)
    })
  )

  it.effect("falls back for a stream before its content only", () =>
    Effect.gen(function* () {
      const overloaded = new LlmError.LlmError({ reason: new LlmError.Overloaded({ status: 200 }) })
      const scriptOf = (early: boolean): Script => ({
        stream: () =>
          Effect.succeed(
            Stream.concat(early ? events(start) : events(start, blockStart, delta("Once")), Stream.fail(overloaded))
          )
      })
      const run = Effect.fnUntraced(function* (early: boolean) {
        const first = yield* step("opus", scriptOf(early))
        const second = yield* step("sonnet", { stream: () => Effect.succeed(events(...whole("Hello"))) })
        const plan = yield* planOf(first.client, second.client)
        const stream = LlmClient.stream(params).pipe(
          Stream.withExecutionPlan(plan, { preventFallbackOnPartialStream: true })
        )
        const fiber = yield* Effect.forkChild(Effect.exit(Stream.runCollect(stream)))
        yield* TestClock.adjust("10 seconds")
        const exit = yield* Fiber.join(fiber)
        assert.deepStrictEqual([(yield* first.taken).inFlight, (yield* second.taken).inFlight], [0, 0])
        return [exit._tag, second.seen.attempts] as const
      })
      assert.deepStrictEqual(yield* run(true), ["Success", 1])
      assert.deepStrictEqual(yield* run(false), ["Failure", 0])
    }).pipe(Effect.provide(Retry.layerBudget({ minPerSecond: Infinity })))
  )

  it("falls back after errors that another provider may not have", () => {
    const of = (reason: LlmError.LlmErrorReason) => mayFallBack(new LlmError.LlmError({ reason }))
    assert.isTrue(of(new LlmError.CircuitOpen({ pool: "opus" })))
    assert.isTrue(of(new LlmError.SpendLimited({ status: 429 })))
    assert.isFalse(of(new LlmError.InvalidRequest({ status: 413 })))
  })
})
