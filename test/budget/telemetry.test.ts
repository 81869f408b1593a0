import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import { makeStated, start } from "../support/budget.ts"
import { recordingTracer } from "../support/spans.ts"

const make = makeStated({ limits: { tokens: { perSecond: 1_000, burst: 1_000 } } })

const read = (id: string, attributes: Record<string, string> = {}) =>
  Effect.map(Metric.snapshot, (all) => {
    const found = all.find(
      (metric) =>
        metric.id === id && Object.entries(attributes).every(([key, value]) => metric.attributes?.[key] === value)
    )
    return found?.state as { count: number; value: number; sum: number; buckets: ReadonlyArray<[number, number]> }
  })

describe("Budget telemetry", () => {
  it.effect("counts reservations, waits, refunds, debt, cooldowns, the queue and calls in flight", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      yield* Budget.withReservation({ tokens: 1_000 }, (reservation) => reservation.settle({ tokens: 900 }))
      const waiter = yield* start(
        Budget.withReservation({ tokens: 300 }, (reservation) =>
          Effect.andThen(Effect.sleep(1_000), reservation.settle({ tokens: 350 }))
        )
      )
      assert.strictEqual((yield* read("floodgate_budget_queue_length")).value, 1)
      yield* TestClock.adjust(200)
      assert.strictEqual((yield* read("floodgate_budget_queue_length")).value, 0)
      assert.strictEqual((yield* read("floodgate_budget_in_flight")).value, 1)
      yield* TestClock.adjust(1_000)
      yield* Fiber.join(waiter)
      yield* budget.pause({ duration: 1, reason: "rateLimit" })
      assert.strictEqual((yield* read("floodgate_budget_reservations", { pool: "default" })).count, 2)
      assert.strictEqual((yield* read("floodgate_budget_waits")).count, 1)
      const { buckets, count, sum } = yield* read("floodgate_budget_wait_seconds")
      assert.deepStrictEqual([count, sum], [1, 0.2])
      assert.deepStrictEqual(buckets.slice(0, 3), [
        [0.01, 0],
        [0.1, 0],
        [0.25, 1]
      ])
      const tokens = { dimension: "tokens" }
      assert.strictEqual((yield* read("floodgate_budget_refunded_tokens", tokens)).count, 100)
      assert.strictEqual((yield* read("floodgate_budget_debt_tokens", tokens)).count, 50)
      assert.strictEqual((yield* read("floodgate_budget_cooldowns", { reason: "rateLimit" })).count, 1)
    }).pipe(Effect.provide(make), Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("counts budgets with other attributes separately", () =>
    Effect.gen(function* () {
      const once = (team: string) =>
        Effect.provideService(Effect.provide(Budget.consume(1), make), Metric.CurrentMetricAttributes, { team })
      yield* once("search")
      yield* Effect.replicateEffect(once("documents"), 2)
      assert.strictEqual((yield* read("floodgate_budget_reservations", { team: "search" })).count, 1)
      assert.strictEqual((yield* read("floodgate_budget_reservations", { team: "documents" })).count, 2)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("adds up budgets of one process, and keeps what closed ones have counted", () =>
    Effect.gen(function* () {
      const once = Effect.provide(Budget.consume(1), make)
      yield* Effect.provide(Effect.andThen(once, Budget.consume(1)), make)
      assert.strictEqual((yield* read("floodgate_budget_reservations")).count, 2)
      assert.strictEqual((yield* read("floodgate_budget_in_flight")).value, 0)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("gives a traced caller a span with the time waited and the dimension", () => {
    const { spans, tracer } = recordingTracer()
    return Effect.gen(function* () {
      yield* Budget.consume(1_000)
      assert.strictEqual(spans.length, 0)
      const fiber = yield* start(Effect.withSpan(Budget.consume(500), "caller"))
      yield* TestClock.adjust(500)
      yield* Fiber.join(fiber)
      const span = spans.find((span) => span.name === "TokenBudget.reserve")!
      assert.strictEqual(span.attributes.get("floodgate.wait.seconds"), 0.5)
      assert.strictEqual(span.attributes.get("floodgate.wait.dimension"), "tokens")
      if (span.status._tag !== "Ended") return assert.fail("it has not ended")
      assert.strictEqual(span.status.endTime - span.status.startTime, 500_000_000n)
      assert.strictEqual(span.parent._tag === "Some" && "name" in span.parent.value && span.parent.value.name, "caller")
    }).pipe(Effect.provide(make), Effect.withTracer(tracer))
  })
})
