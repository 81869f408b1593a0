/** A pool that measures how many calls may be in flight. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"

/** Large limits, so that no rounds of calls find out whether there are any. */
const limits = { tokens: { perSecond: 1e9 } }

const statusOf = (budget: Budget.TokenBudget["Service"]) => Effect.map(budget.status, ({ pools }) => pools["default"]!)

const reserved = (budget: Budget.TokenBudget["Service"], count: number) =>
  Effect.forEach(Array.from({ length: count }), () => budget.reserve({ outputTokens: 100 }))

describe("a budget with measured concurrency", () => {
  it.effect("admits calls as others begin and end, and says what it has measured", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits, concurrency: "measured" })
      const [first, ...others] = yield* reserved(budget, 16)
      const late = yield* Effect.forkChild(budget.reserve({ outputTokens: 100 }), { startImmediately: true })
      assert.deepInclude(yield* statusOf(budget), { inFlight: 16, queued: 1, allowed: 16 })
      yield* TestClock.adjust(500)
      yield* first!.observe({ dimensions: {}, soFar: { outputTokens: 1 } })
      yield* first!.observe({ dimensions: {}, soFar: { outputTokens: 2 } })
      const { allowed, measured } = yield* statusOf(budget)
      assert.deepInclude(measured!, { by: "first tokens", begun: 1, waiting: 15, limit: 2, leastFirstTokenMillis: 500 })
      assert.strictEqual(allowed, 2)
      // One has begun and one may wait.
      for (const other of others.slice(0, 14)) yield* other.refund
      assert.deepInclude(yield* statusOf(budget), { inFlight: 2, queued: 1 })
      yield* others[14]!.refund
      yield* Fiber.join(late)
      assert.deepInclude(yield* statusOf(budget), { inFlight: 2, queued: 0 })
      yield* first!.settle({ outputTokens: 50 })
      assert.deepInclude((yield* statusOf(budget)).measured!, { begun: 0, waiting: 1 })
    }).pipe(Effect.scoped)
  )

  it.effect("opens with each answer, and never beyond a stated number", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits, concurrency: { measuredUpTo: 18 } })
      for (let round = 0; round < 4; round++) {
        const { allowed } = yield* statusOf(budget)
        const calls = yield* reserved(budget, allowed)
        yield* TestClock.adjust(1_000)
        // Answers of one length that come at once are no sign of waiting.
        for (const call of calls) yield* call.settle({ outputTokens: 100 })
      }
      const { allowed, measured } = yield* statusOf(budget)
      assert.isAbove(measured!.limit, 18)
      assert.deepStrictEqual([allowed, measured!.by], [18, "whole answers"])
    }).pipe(Effect.scoped)
  )

  it.effect("begins and ends to measure when the concurrency is changed, while calls run", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits, concurrency: 30 })
      const [early] = yield* reserved(budget, 20)
      assert.isUndefined((yield* statusOf(budget)).measured)
      yield* budget.resize({ concurrency: "measured" })
      assert.deepInclude(yield* statusOf(budget), { allowed: 16, inFlight: 20 })
      // It was sent before anything was measured.
      yield* early!.observe({ dimensions: {}, soFar: { outputTokens: 1 } })
      yield* early!.settle({ outputTokens: 5 })
      assert.deepInclude((yield* statusOf(budget)).measured!, { by: "start", begun: 0 })
      yield* budget.resize({ concurrency: 25 })
      assert.deepInclude(yield* statusOf(budget), { allowed: 25, measured: undefined })
    }).pipe(Effect.scoped)
  )

  it.effect("counts calls only where they were sent, if a number was stated meanwhile", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits, concurrency: "measured" })
      const [early] = yield* reserved(budget, 1)
      yield* early!.observe({ dimensions: {}, soFar: { outputTokens: 1 } })
      yield* budget.resize({ concurrency: 30 })
      yield* budget.resize({ concurrency: "measured" })
      yield* early!.settle({ outputTokens: 5 })
      const { begun, limit } = (yield* statusOf(budget)).measured!
      assert.deepStrictEqual([begun, limit], [0, 16])
    }).pipe(Effect.scoped)
  )

  it.effect("shows its limit, its floor and its reason in the metrics, which other pools do not have", () =>
    Effect.gen(function* () {
      const values = Effect.map(Metric.snapshot, (all) =>
        Object.fromEntries(
          all
            .filter(({ id }) => id.includes("measured"))
            .map(({ attributes, id, state }) => [
              `${id.replace("floodgate_budget_measured_", "")}${attributes?.["by"] ? ` ${attributes["by"]}` : ""}`,
              (state as { readonly value: number }).value
            ])
        )
      )
      yield* Budget.make({ limits })
      assert.deepStrictEqual(yield* values, {})
      const budget = yield* Budget.make({ limits, concurrency: "measured" })
      const none = { "by start": 0, "by first tokens": 0, "by whole answers": 0, "by lost calls": 0 }
      assert.deepStrictEqual(yield* values, { ...none, "by start": 1, limit: 16, waiting: 0, floor_seconds: 0 })
      const [call] = yield* reserved(budget, 1)
      yield* TestClock.adjust(250)
      yield* call!.observe({ dimensions: {}, soFar: { outputTokens: 1 } })
      assert.deepInclude(yield* values, { ...none, "by first tokens": 1, floor_seconds: 0.25 })
    }).pipe(Effect.scoped, Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("refuses other words and numbers", () =>
    Effect.gen(function* () {
      for (const concurrency of ["advised", 0.5, {}, { measuredUpTo: 0 }]) {
        const exit = yield* Effect.exit(Effect.suspend(() => Budget.make({ concurrency } as never)))
        assert.match(
          String(exit._tag === "Failure" && exit.cause),
          /Budget\.make: concurrency/,
          JSON.stringify(concurrency)
        )
      }
    }).pipe(Effect.scoped)
  )
})
