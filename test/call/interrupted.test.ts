/** A call that pays from a cap, waits for a warm cache and for a slot, and is interrupted at any of its steps. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"
import { LlmError, RateLimited } from "floodgate/LlmError"
import * as Spending from "floodgate/Spending"
import { interruptAt } from "../support/yieldAt.ts"
import { sized, some } from "../support/size.ts"

const live = Governor.layer({ prices: { "my-model": { input: 1, output: 2 } } }).pipe(
  Layer.provideMerge(Budget.layer({ limits: { tokens: { perMinute: 1_000_000 } }, concurrency: 1 }))
)
const call: Governor.Call = { model: "my-model", bytes: 0, inputTokens: 1_000, maxTokens: 100 }
const answer = { value: "", actual: { inputTokens: 900, outputTokens: 50 } }

const turns = (count: number) => Effect.replicateEffect(Effect.yieldNow, count, { discard: true })

type Attempt = (ticket: Governor.Ticket) => Effect.Effect<typeof answer, LlmError>

const ways = {
  run: (how: Governor.CallOptions, attempt: Attempt) =>
    Effect.asVoid(Effect.flatMap(Governor.Governor, (governor) => governor.run(call, attempt, how))),
  open: (how: Governor.CallOptions, attempt: Attempt) =>
    Effect.scoped(
      Effect.flatMap(Governor.Governor, (governor) =>
        governor.open(call, (ticket) => Effect.flatMap(attempt(ticket), ({ actual }) => ticket.succeed(actual)), how)
      )
    )
}

const attempts: Readonly<Record<string, Attempt>> = {
  "is answered": () => Effect.as(Effect.yieldNow, answer),
  "is rejected": () => Effect.andThen(Effect.yieldNow, Effect.fail(new LlmError({ reason: new RateLimited({}) }))),
  "is never answered": () => Effect.never
}

/** Under the small cap the second call waits for the money of the first, under the large one for its slot. */
const caps = [0.0015, 1]

const cases = Object.entries(ways).flatMap(([way, make]) =>
  Object.entries(attempts).flatMap(([kind, attempt]) => caps.map((dollars) => ({ attempt, dollars, kind, make, way })))
)

/** Interrupts the second of two calls at a step, while the first one ends. */
const interrupted = ({ attempt, dollars, make }: (typeof cases)[number], step: number) =>
  Effect.gen(function* () {
    const purse = Spending.make("us", { dollars })
    const how = { purses: [purse], cacheKey: "prefix" }
    const gate = yield* Deferred.make<void>()
    const first = yield* Effect.forkChild(make(how, () => Effect.as(Deferred.await(gate), answer)))
    yield* turns(20)
    const second = yield* Effect.forkChild(interruptAt(make(how, attempt), step))
    yield* turns(step % 7)
    yield* Deferred.succeed(gate, undefined)
    yield* Fiber.join(first)
    yield* Fiber.join(second)
    yield* turns(20)
    const budget = yield* Budget.TokenBudget
    const { inFlight, queued } = (yield* budget.status).pools["default"]!
    assert.deepStrictEqual([inFlight, queued, (yield* purse.status).held], [0, 0, 0], `step ${step}`)
    // No call waits for what the interrupted one held.
    yield* make({ cacheKey: "prefix" }, () => Effect.succeed(answer))
  }).pipe(Effect.provide(live))

describe("a call that is interrupted at any step", () => {
  it.effect.each(some(cases, 5))("leaves nothing: $way, a call that $kind, a cap of $dollars dollars", (one) =>
    Effect.gen(function* () {
      for (let step = 1; step < 400; step += sized(5, 3)) yield* interrupted(one, step)
    })
  )

  it.effect("is settled and learned from once it was answered, by layers that take their time, too", () =>
    Effect.gen(function* () {
      const seen = { settling: 0, settled: 0, learning: 0, learned: 0 }
      const counted = <A, E>(began: "settling" | "learning", ended: "settled" | "learned", end: Effect.Effect<A, E>) =>
        Effect.suspend(() => {
          seen[began]++
          return Effect.andThen(
            turns(3),
            Effect.tap(end, () => Effect.sync(() => seen[ended]++))
          )
        })
      const budget = Effect.map(Budget.make({}), (budget) =>
        Budget.TokenBudget.of({
          ...budget,
          reserve: (estimate, options) =>
            Effect.map(budget.reserve(estimate, options), (held) => ({
              ...held,
              settle: (usage, outcome) => counted("settling", "settled", held.settle(usage, outcome))
            }))
        })
      )
      const estimator = Effect.map(Estimator.make(), (estimator) => ({
        ...estimator,
        learn: (call: Estimator.Call, actual: Accounting.Actual) =>
          counted("learning", "learned", estimator.learn(call, actual))
      }))
      const lives = [
        Governor.layer().pipe(Layer.provide(Layer.effect(Budget.TokenBudget, budget))),
        Layer.effect(Governor.Governor, Governor.make()).pipe(
          Layer.provide(Layer.effect(Estimator.Estimator, estimator)),
          Layer.provide(Budget.layer())
        )
      ]
      for (const live of lives) {
        yield* Effect.gen(function* () {
          for (let step = 1; step < 60; step++) {
            yield* interruptAt(
              ways.run({}, () => Effect.succeed(answer)),
              step
            )
            yield* turns(10)
            assert.deepStrictEqual([seen.settled, seen.learned], [seen.settling, seen.learning], `step ${step}`)
          }
        }).pipe(Effect.provide(live))
      }
      assert.isTrue(seen.settled > 0 && seen.learned > 0)
    })
  )

  it.effect("does not keep the limits of a place from being applied", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      for (let step = 1; step < 60; step++) {
        const [a, b] = [`a${step}`, `b${step}`]
        const limits = { requests: { total: 1_000 } }
        const places = [a, b].map((name) => ({ name, model: "my-model", limits }))
        const run = governor.run({ ...call, places: { places } }, () => Effect.succeed(answer))
        yield* interruptAt(run, step)
        yield* run
        const { pools } = yield* (yield* Budget.TokenBudget).status
        for (const name of [a, b]) {
          assert.isDefined(pools[`${name}/my-model`]?.dimensions.requests, `step ${step}`)
        }
      }
    }).pipe(Effect.provide(Governor.layer().pipe(Layer.provideMerge(Budget.layer()))))
  )

  it.effect("keeps no money that it waited for to go to one of several places", () =>
    Effect.gen(function* () {
      // Regression: between the call's arrival in the queue of its purse and its wait there, nothing noted the payment.
      const places = ["a", "b"].map((name) => ({ name, model: "my-model" }))
      const placed = { ...call, places: { places } }
      const governor = yield* Governor.Governor
      for (let step = 1; step < 100; step++) {
        const purse = Spending.make("us", { dollars: 0.0015 })
        const gate = yield* Deferred.make<void>()
        const cheap = { value: "", actual: { inputTokens: 100, outputTokens: 5 } }
        const run = governor.run(placed, () => Effect.as(Deferred.await(gate), cheap), { purses: [purse] })
        const first = yield* Effect.forkChild(run, { startImmediately: true })
        yield* interruptAt(run, step)
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(first)
        assert.deepStrictEqual([step, (yield* purse.status).held], [step, 0])
      }
    }).pipe(Effect.provide(live))
  )
})
