/**
 * TokenBudget is built on a semaphore and a Ref. Each of these tests fails if the part that it names is sabotaged, because
 * nothing else counts the permits or knows what was taken. `test/card/sabotage.full.test.ts` shows it.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"

/** Starts calls of a second, and returns the largest number that were in flight together. */
const maxTogether = Effect.fnUntraced(function* (budget: Budget.TokenBudget["Service"], calls: number) {
  let together = 0
  let most = 0
  const call = Effect.scoped(
    Effect.gen(function* () {
      yield* budget.reserve({ requests: 1 })
      most = Math.max(most, ++together)
      yield* Effect.sleep("1 second")
      together--
    })
  )
  const fibers = yield* Effect.forEach(Array.from({ length: calls }), () => Effect.forkChild(call))
  yield* TestClock.adjust("1 minute")
  yield* Fiber.joinAll(fibers)
  return most
})

const limits = { tokens: { perSecond: 1, burst: 100 } }

const levelIn = ({ pools }: Budget.BudgetStatus): number | undefined => pools.default?.dimensions.tokens?.level

describe("the card: Semaphore and Ref", () => {
  it.effect("Semaphore.takeIfAvailable decides how many calls are in flight", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ concurrency: 3 })
      assert.strictEqual(yield* maxTogether(budget, 10), 3)
    })
  )

  it.effect("Semaphore.takeIfAvailable decides after a resize, too", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ concurrency: 1 })
      yield* budget.resize({ concurrency: 4 })
      assert.strictEqual(yield* maxTogether(budget, 10), 4)
      yield* budget.resize({ concurrency: 2 })
      assert.strictEqual(yield* maxTogether(budget, 10), 2)
    })
  )

  it.effect("Semaphore.release gives back the permits of ended calls", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ concurrency: 3 })
      yield* maxTogether(budget, 3)
      assert.strictEqual(yield* maxTogether(budget, 10), 3)
    })
  )

  it.effect("Ref: a budget admits no more than its limit", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits })
      yield* budget.reserve({ tokens: 60 })
      const second = yield* Effect.forkChild(budget.reserve({ tokens: 60 }))
      yield* TestClock.adjust(19_999)
      assert.isUndefined(second.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.isDefined(second.pollUnsafe())
    })
  )

  it.effect("Ref: status reads what calls have taken", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits })
      yield* budget.reserve({ tokens: 60 })
      const status = yield* budget.status
      assert.strictEqual(levelIn(status), 40)
      assert.strictEqual(status.pools.default?.inFlight, 1)
    })
  )

  it.effect("Ref: changes read what calls have taken", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits })
      const levels = yield* Effect.forkChild(Stream.runCollect(Stream.take(Stream.map(budget.changes, levelIn), 2)))
      yield* TestClock.adjust(0)
      yield* budget.reserve({ tokens: 60 })
      yield* TestClock.adjust(0)
      assert.deepStrictEqual([...(yield* Fiber.join(levels))], [100, 40])
    })
  )

  it.effect("Ref: learned reads what headers have said", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make()
      const reservation = yield* budget.reserve({ tokens: 60 })
      yield* reservation.observe({ dimensions: { tokens: { limit: 400_000, remaining: 300_000 } } })
      const { pools } = yield* budget.learned
      assert.strictEqual(pools[0]?.pool, "default")
    })
  )
})
