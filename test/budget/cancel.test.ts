/** Law 4 at every point: a caller yields after each step, and is interrupted after any number of steps. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import { isDone, make, pool, start } from "../support/budget.ts"
import { sized } from "../support/size.ts"
import { interruptAt } from "../support/yieldAt.ts"

const burst = 1_000
const limits = { tokens: { perSecond: 1e-9, burst } }
const perSecond = (rate: number, burst: number) => ({ tokens: { perSecond: rate, burst } })
const steps = sized(40, 60)
const many = sized(10_000, 100_000)

const turns = (count: number) => Effect.replicateEffect(Effect.yieldNow, count, { discard: true })

const ways: Record<string, Budget.Options & { readonly maxWait?: number }> = {
  "with a limit": {},
  "with permits": { concurrency: 1 },
  "with a bounded wait": { maxWait: 1e12 },
  "with permits and a bounded wait": { concurrency: 1, maxWait: 1e12 }
}

/** Interrupts a caller after `before` turns while it must wait, and `after` turns after it is admitted. */
const attempt = Effect.fnUntraced(function* (way: (typeof ways)[string], before: number, after: number) {
  const { maxWait, ...options } = way
  const budget = yield* Budget.make({ limits, ...options })
  let called = false
  yield* Effect.scoped(
    Effect.gen(function* () {
      const reservation = yield* budget.reserve({ tokens: burst })
      const caller = yield* Budget.withReservation(
        { tokens: 600 },
        () => {
          called = true
          return Effect.never
        },
        { maxWait }
      ).pipe(
        Effect.provideService(Budget.TokenBudget, budget),
        Effect.provideService(Scheduler.MaxOpsBeforeYield, 3),
        Effect.forkChild
      )
      yield* turns(before)
      yield* reservation.refund
      yield* turns(after)
      yield* Fiber.interrupt(caller)
    })
  )
  yield* turns(300)
  const { dimensions, inFlight, queued } = (yield* budget.status).pools.default!
  // A call that began keeps its estimate. One that did not begin is charged nothing.
  const level = called ? burst - 600 : burst
  assert.deepStrictEqual([queued, inFlight], [0, 0], `after ${before} + ${after} turns`)
  assert.closeTo(dimensions.tokens!.level, level, 1e-6, `after ${before} + ${after} turns`)
}, Effect.scoped)

describe("Budget, interrupted", () => {
  for (const [name, way] of Object.entries(ways)) {
    it.effect(`leaves no charge and no queued call at any point, ${name}`, () =>
      Effect.gen(function* () {
        for (let turn = 0; turn < steps; turn++) {
          yield* attempt(way, turn, 0)
          yield* attempt(way, turn % 20, turn)
          yield* attempt(way, 0, turn)
        }
      })
    )
  }

  it.effect("charges nothing for a reservation whose caller is interrupted before it resumes", () =>
    Effect.gen(function* () {
      // Regression: a caller that was interrupted between admission and resuming was charged its estimate.
      const budget = yield* Budget.make({ limits })
      const level = Effect.map(budget.status, ({ pools }) => pools.default!.dimensions.tokens!.level)
      yield* Effect.scoped(budget.reserve({ tokens: 0 }))
      const lost: Array<number> = []
      const seen = { reached: false }
      let step = 0
      while (!seen.reached) {
        step++
        const before = yield* level
        const call = Effect.andThen(
          budget.reserve({ tokens: 1 }),
          Effect.sync(() => (seen.reached = true))
        )
        yield* interruptAt(Effect.scoped(call), step)
        if (!seen.reached && before - (yield* level) > 0.5) lost.push(step)
      }
      // Here the call is admitted, and its caller has not resumed.
      assert.deepStrictEqual(
        lost.filter((at) => at < step - 1),
        []
      )
    }).pipe(Effect.scoped)
  )

  it.effect(`restores tokens and permits exactly when ${many} waiters are interrupted at once`, () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const holding = Budget.withReservation({ tokens: 10 }, () => Deferred.await(gate))
      const holders = yield* Effect.forEach([1, 2, 3], () => start(holding))
      const fibers = yield* Effect.forEach(Array.from({ length: many }), () => Effect.forkChild(Budget.consume(10)))
      yield* Effect.yieldNow
      assert.strictEqual((yield* pool).queued, many)
      yield* Fiber.interruptAll(fibers)
      const { dimensions, inFlight, queued } = yield* pool
      assert.deepStrictEqual([queued, inFlight, dimensions.tokens!.level], [0, 3, 970])
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.joinAll(holders)
      assert.isTrue(isDone(yield* start(Budget.consume(10))))
    }).pipe(Effect.provide(make({ limits: perSecond(0.001, 1_000), concurrency: 3 })))
  )

  it.effect("charges nothing for a waiter that times out, loses a race, or fails with its siblings", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      yield* budget.reserve({ tokens: 1_000 })
      yield* Effect.flip(
        Effect.all([Budget.consume(500), Effect.timeout(Budget.consume(600), 0), Effect.fail("sibling")], {
          concurrency: "unbounded"
        })
      )
      const raced = yield* start(Effect.race(Budget.consume(1_000), Effect.sleep(100)))
      yield* TestClock.adjust(100)
      assert.isTrue(isDone(raced))
      const { dimensions, queued } = yield* pool
      assert.deepStrictEqual([queued, dimensions.tokens!.level], [0, 100])
    }).pipe(Effect.scoped, Effect.provide(make({ limits: perSecond(1_000, 1_000) })))
  )

  it.effect("admits the waiters behind at the instant that a waiter is interrupted", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      yield* budget.reserve({ tokens: 1_000 })
      const large = yield* start(Budget.consume(1_000))
      const small = yield* start(Budget.consume(100))
      yield* TestClock.adjust(100)
      assert.isFalse(isDone(small))
      yield* Fiber.interrupt(large)
      yield* Effect.yieldNow
      assert.isTrue(isDone(small))
      assert.strictEqual((yield* pool).dimensions.tokens!.level, 0)
    }).pipe(Effect.scoped, Effect.provide(make({ limits: perSecond(1_000, 1_000) })))
  )

  it.effect("interrupts its waiters and later callers when it closes", () =>
    Effect.gen(function* () {
      // Regression: a reservation of a closed budget waited for ever.
      const { budget, waiter } = yield* Effect.scoped(
        Effect.gen(function* () {
          const budget = yield* Budget.make({ limits: perSecond(1, 1), concurrency: 1 })
          yield* budget.reserve({ tokens: 1 })
          const waiting = Effect.scoped(budget.reserve({ tokens: 1 }))
          return { budget, waiter: yield* Effect.forkDetach(waiting, { startImmediately: true }) }
        })
      )
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(waiter)))
      for (const how of [{}, { maxWait: 1 }, { maxWait: "1 day" }] as const) {
        const exit = yield* Effect.exit(Effect.scoped(budget.reserve({ tokens: 1 }, how)))
        assert.isTrue(Exit.hasInterrupts(exit))
      }
    })
  )
})
