/** Law 13 around a governor: the code of one caller costs no other caller its slot, its money or its turn. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import * as Spending from "floodgate/Spending"
import { careless, harmed, reported, settled } from "../support/reported.ts"
import { recordingTracer } from "../support/spans.ts"

const options: Governor.Options = {
  prices: { "my-model": { input: 1, output: 2 } },
  retry: Retry.make({ attempts: 1 })
}
const limits = { inputTokens: { total: 100_000 }, outputTokens: { total: 100_000 } }
const budgetOf = Budget.layer({ limits, concurrency: 1 })

const call: Governor.Call = { model: "my-model", bytes: 0, inputTokens: 1_000, maxTokens: 100 }
const answer = { value: "", actual: { inputTokens: 900, outputTokens: 50 } }

const throws = (): never => {
  throw new Error("a bug of the user's")
}

let isSent = false

/** Its usage has no input, so that it is billed as its accounting expects. */
const sent = Effect.sync(() => {
  isSent = true
  return { value: "", actual: { inputTokens: 0, outputTokens: 50 } }
})

/** A budget whose reservations are decorated. */
const decorated = (reserve: (inner: Budget.TokenBudget["Service"]) => Budget.TokenBudget["Service"]["reserve"]) =>
  Layer.effect(
    Budget.TokenBudget,
    Effect.map(Budget.TokenBudget, (inner) => Budget.TokenBudget.of({ ...inner, reserve: reserve(inner) }))
  ).pipe(Layer.provideMerge(budgetOf))

const harms: Readonly<Record<string, Layer.Layer<Governor.Governor | Budget.TokenBudget>>> = {
  "an accounting that throws once its call was sent": Layer.suspend(() => {
    isSent = false
    const estimate: Accounting.Accounting["estimate"] = (known) =>
      isSent ? throws() : Accounting.anthropic.estimate(known)
    return Governor.layer({ ...options, accounting: { ...Accounting.anthropic, estimate } }).pipe(
      Layer.provideMerge(budgetOf)
    )
  }),
  "an estimator that throws as it learns": Layer.effect(Governor.Governor, Governor.make(options)).pipe(
    Layer.provide(
      Layer.effect(
        Estimator.Estimator,
        Effect.map(Estimator.make(), (inner) => Estimator.Estimator.of({ ...inner, learn: throws }))
      )
    ),
    Layer.provideMerge(budgetOf)
  ),
  "a budget that throws": Governor.layer(options).pipe(Layer.provideMerge(decorated(() => throws))),
  "a reservation whose fields throw": Governor.layer(options).pipe(
    Layer.provideMerge(
      decorated(
        (inner) => (estimate, how) =>
          Effect.map(inner.reserve(estimate, how), (held) =>
            Object.defineProperty({ ...held }, "waited", { get: throws })
          )
      )
    )
  ),
  "a reservation that throws as it is settled": Governor.layer(options).pipe(
    Layer.provideMerge(
      decorated(
        (inner) => (estimate, how) => Effect.map(inner.reserve(estimate, how), (held) => ({ ...held, settle: throws }))
      )
    )
  )
}

describe("Law 13, around a governor", () => {
  for (const [name, live] of Object.entries(harms)) {
    it.effect(`${name} harms only its own call`, () =>
      Effect.gen(function* () {
        const governor = yield* Governor.Governor
        const budget = yield* Budget.TokenBudget
        const purse = Spending.make("us", { dollars: 1 })
        const exit = yield* Effect.exit(governor.run(call, () => sent, { purses: [purse] }))
        assert.isTrue(Exit.hasDies(exit))
        assert.strictEqual((yield* purse.status).held, 0)
        for (const { inFlight, queued } of Object.values((yield* budget.status).pools)) {
          assert.deepStrictEqual([inFlight, queued], [0, 0])
        }
      }).pipe(Effect.provide(live))
    )
  }

  it.effect("an accounting that throws after an answer whose usage is whole harms only its own call", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const budget = yield* Budget.TokenBudget
      const purse = Spending.make("us", { dollars: 1 })
      const answered = Effect.sync(() => {
        isSent = true
        return answer
      })
      assert.isTrue(Exit.hasDies(yield* Effect.exit(governor.run(call, () => answered, { purses: [purse] }))))
      assert.strictEqual((yield* purse.status).held, 0)
      assert.strictEqual((yield* budget.status).pools.default!.inFlight, 0)
    }).pipe(Effect.provide(harms["an accounting that throws once its call was sent"]!))
  )

  it.effect("settles a call to its usage before its estimator learns", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const budget = yield* Budget.TokenBudget
      yield* Effect.exit(governor.run(call, () => Effect.succeed(answer)))
      const { dimensions } = (yield* budget.status).pools.default!
      assert.deepStrictEqual(
        [dimensions.inputTokens!.level, dimensions.outputTokens!.level],
        [limits.inputTokens.total - 900, limits.outputTokens.total - 50]
      )
    }).pipe(Effect.provide(harms["an estimator that throws as it learns"]!))
  )

  it.effect("a tracer that throws harms only its own call", () => {
    const { tracer } = recordingTracer()
    const broken = {
      ...tracer,
      span: (...args: Parameters<typeof tracer.span>) => {
        const span = tracer.span(...args)
        return Object.assign(span, { attribute: (key: string) => key === "floodgate.agent" && throws() })
      }
    }
    return Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const budget = yield* Budget.TokenBudget
      const purse = Spending.make("us", { dollars: 1 })
      yield* governor
        .run(call, () => Effect.succeed(answer), { purses: [purse] })
        .pipe(Effect.withSpan("caller"), Effect.withTracer(broken), Effect.exit)
      assert.strictEqual((yield* purse.status).held, 0)
      assert.strictEqual((yield* budget.status).pools.default!.inFlight, 0)
      yield* governor.run(call, () => Effect.succeed(answer))
    }).pipe(Effect.provide(Governor.layer(options).pipe(Layer.provideMerge(budgetOf))))
  })

  const open = Governor.layer(options).pipe(Layer.provideMerge(Budget.layer()))

  it.live("serves callers that wait for a shared prefix although one of them throws", () =>
    reported((errors) =>
      Effect.gen(function* () {
        const governor = yield* Governor.Governor
        const answered = yield* Deferred.make<void>()
        const run = (attempt: Effect.Effect<typeof answer>) => governor.run(call, () => attempt, { cacheKey: "prefix" })
        const first = yield* Effect.forkChild(run(Effect.as(Deferred.await(answered), answer)))
        yield* settled
        yield* careless(run(Effect.succeed(answer)))
        const behind = yield* Effect.forkChild(run(Effect.succeed(answer)))
        yield* settled
        yield* Deferred.succeed(answered, undefined)
        yield* Fiber.join(first)
        yield* Fiber.join(Effect.runFork(Effect.timeout(Fiber.join(behind), "5 seconds")))
        yield* harmed(errors, 1)
      }).pipe(Effect.provide(open))
    )
  )

  it.live("serves callers that wait for money although one of them throws", () =>
    reported((errors) =>
      Effect.gen(function* () {
        const governor = yield* Governor.Governor
        const purse = Spending.make("us", { dollars: 0.0015 })
        const answered = yield* Deferred.make<void>()
        const run = (attempt: Effect.Effect<typeof answer>) => governor.run(call, () => attempt, { purses: [purse] })
        const cheap = Effect.succeed({ value: "", actual: { inputTokens: 1, outputTokens: 1 } })
        const first = yield* Effect.forkChild(run(Effect.andThen(Deferred.await(answered), cheap)))
        yield* settled
        yield* careless(run(cheap))
        const behind = yield* Effect.forkChild(run(cheap))
        yield* settled
        assert.isUndefined(behind.pollUnsafe())
        yield* Deferred.succeed(answered, undefined)
        yield* Fiber.join(first)
        yield* Fiber.join(behind)
        yield* harmed(errors, 1)
        assert.strictEqual((yield* purse.status).held, 0)
      }).pipe(Effect.provide(open))
    )
  )

  it.effect(
    "a purse whose owner calls it at each change keeps its cap, and holds nothing when all calls have ended",
    () =>
      Effect.gen(function* () {
        const governor = yield* Governor.Governor
        // Regression: the first waiting call was paid twice if the owner called the purse while it was served.
        const cap: Spending.Cap = { dollars: 0.0025 }
        let isInside = false
        const changed = (): void => {
          if (isInside) return
          isInside = true
          Effect.runSync(purse.resize(cap))
          isInside = false
        }
        const purse: Spending.Purse = Spending.make("us", cap, { changed })
        const attempt = Effect.delay(Effect.succeed({ value: "", actual: { inputTokens: 100, outputTokens: 0 } }), 1)
        const run = governor.run(call, () => attempt, { purses: [purse] })
        const calls = yield* Effect.forkChild(
          Effect.all(
            Array.from({ length: 12 }, () => run),
            { concurrency: 12 }
          )
        )
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(calls)
        const { held, spent } = yield* purse.status
        assert.deepStrictEqual([held, spent], [0, 0.0012])
      }).pipe(Effect.provide(open))
  )
})
