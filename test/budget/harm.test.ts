/** Law 13: whatever one caller's code does, other callers of the pool are served as before. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Budget from "floodgate/Budget"
import * as Events from "floodgate/Events"
import { isDone } from "../support/budget.ts"
import { careless, Harm, harmed, reported, settled } from "../support/reported.ts"

/** A budget whose only place is taken, a waiting caller whose observer throws, and a caller behind it. */
const scene = (body: (reservation: Budget.Reservation) => Effect.Effect<unknown> = () => Effect.void) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const budget = yield* Scope.provide(Budget.make({ concurrency: 1, limits: { tokens: { total: 100 } } }), scope)
    const provided = Effect.provideService(Budget.TokenBudget, budget)
    const held = yield* budget.reserve({ tokens: 10 })
    yield* careless(provided(Budget.withReservation({ tokens: 10 }, body)))
    const behind = yield* Effect.forkChild(provided(Budget.consume(10)))
    yield* settled
    assert.strictEqual((yield* budget.status).pools.default!.queued, 2)
    return { behind, budget, held, provided, scope }
  })

describe("Law 13, nobody harms another", () => {
  it.live("an observer that throws is reported, and the callers behind it are served", () =>
    reported((errors) =>
      Effect.gen(function* () {
        // Regression: the error reached the caller that had ended, and no caller was admitted afterwards.
        const { behind, budget, held, provided } = yield* scene()
        assert.isTrue(Exit.isSuccess(yield* Effect.exit(held.settle({ tokens: 10 }))))
        yield* Fiber.join(behind)
        yield* provided(Budget.consume(10))
        yield* harmed(errors, 1)
        const { dimensions, inFlight, queued } = (yield* budget.status).pools.default!
        assert.deepStrictEqual([inFlight, queued, dimensions.tokens!.level], [0, 0, 60])
      }).pipe(Effect.scoped)
    )
  )

  it.live("reports all of a hundred that throw at once, and serves all others", () =>
    reported((errors) =>
      Effect.gen(function* () {
        const budget = yield* Budget.make({ concurrency: 1 })
        const provided = Effect.provideService(Budget.TokenBudget, budget)
        const held = yield* budget.reserve({})
        const others: Array<Fiber.Fiber<void, Budget.BudgetError>> = []
        for (let n = 0; n < 100; n++) {
          yield* careless(provided(Budget.consume(1)))
          others.push(yield* Effect.forkChild(provided(Budget.consume(1))))
        }
        yield* settled
        yield* budget.resize({ concurrency: 1_000 })
        yield* held.refund
        yield* Fiber.joinAll(others)
        yield* harmed(errors, 100)
      }).pipe(Effect.scoped)
    )
  )

  const ends = {
    "a change of limits that refuses it": (budget: Budget.TokenBudget["Service"]) =>
      budget.resize({ limits: { tokens: { perMinute: 1 } } }),
    "a long pause that refuses it": (budget: Budget.TokenBudget["Service"]) =>
      budget.pause({ duration: "1 hour", reason: "rateLimit" })
  }
  for (const [name, end] of Object.entries(ends)) {
    it.live(`continues after ${name}`, () =>
      reported((errors) =>
        Effect.gen(function* () {
          const { behind, budget } = yield* scene()
          assert.isTrue(Exit.isSuccess(yield* Effect.exit(end(budget))))
          assert.isTrue(Exit.isFailure(yield* Fiber.await(behind)))
          yield* harmed(errors, 1)
          assert.strictEqual((yield* budget.status).pools.default!.queued, 0)
        }).pipe(Effect.scoped)
      )
    )
  }

  it.live("closes, and interrupts the callers behind one that throws", () =>
    reported((errors) =>
      Effect.gen(function* () {
        const { behind, scope } = yield* scene()
        assert.isTrue(Exit.isSuccess(yield* Effect.exit(Scope.close(scope, Exit.void))))
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(behind)))
        yield* harmed(errors, 1)
      }).pipe(Effect.scoped)
    )
  )

  it.live("a caller whose finalizer never ends does not delay others", () =>
    reported(() =>
      Effect.gen(function* () {
        const { behind, budget, held, provided, scope } = yield* scene()
        yield* Effect.forkDetach(Effect.ensuring(provided(Budget.consume(10)), Effect.never))
        yield* settled
        yield* budget.resize({ concurrency: 2 })
        yield* held.refund
        yield* Fiber.join(behind)
        yield* settled
        const { inFlight, queued } = (yield* budget.status).pools.default!
        assert.deepStrictEqual([inFlight, queued], [0, 0])
        yield* Scope.close(scope, Exit.void)
      }).pipe(Effect.scoped, Effect.timeout("10 seconds"))
    )
  )

  it.live("no caller's code runs while another ends, changes limits, or closes", () =>
    reported(() =>
      Effect.gen(function* () {
        let isInside = false
        const seen: Array<boolean> = []
        const look = Effect.sync(() => void seen.push(isInside))
        const inside = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
          Effect.andThen(
            Effect.sync(() => (isInside = true)),
            Effect.ensuring(
              effect,
              Effect.sync(() => (isInside = false))
            )
          )
        const { behind, budget, held, provided, scope } = yield* scene(() => look)
        yield* Effect.forkChild(Stream.runForEach(budget.changes, () => look))
        yield* Effect.forkChild(provided(Effect.onExit(Budget.consume(1_000), () => look)))
        yield* settled
        yield* inside(held.refund)
        yield* settled
        yield* inside(budget.resize({ concurrency: 5 }))
        yield* Fiber.await(behind)
        yield* inside(Scope.close(scope, Exit.void))
        yield* settled
        assert.isAbove(seen.length, 2)
        assert.notInclude(seen, true)
      }).pipe(Effect.scoped)
    )
  )

  it.live("a reader of changes that throws harms nobody", () =>
    reported((errors) =>
      Effect.gen(function* () {
        const { behind, budget, held, provided } = yield* scene()
        yield* careless(Stream.runDrain(Stream.take(budget.changes, 2)))
        yield* settled
        assert.isTrue(Exit.isSuccess(yield* Effect.exit(held.settle({ tokens: 10 }))))
        yield* Fiber.join(behind)
        yield* provided(Budget.consume(10))
        yield* harmed(errors, 2)
      }).pipe(Effect.scoped)
    )
  )

  it.live("a caller that is admitted and interrupted before it resumes is refunded", () =>
    reported(() =>
      Effect.gen(function* () {
        const budget = yield* Budget.make({ concurrency: 1, limits: { tokens: { total: 100 } } })
        const provided = Effect.provideService(Budget.TokenBudget, budget)
        let hasBegun = false
        const held = yield* budget.reserve({ tokens: 10 })
        const first = yield* Effect.forkChild(
          provided(Budget.withReservation({ tokens: 50 }, () => Effect.sync(() => (hasBegun = true))))
        )
        const second = yield* Effect.forkChild(provided(Budget.consume(50)))
        yield* settled
        // The first admits it, and the second interrupts it in the same task.
        yield* Effect.sync(() => {
          Effect.runSync(held.refund)
          first.interruptUnsafe()
        })
        yield* Fiber.join(second)
        assert.isFalse(hasBegun)
        const { dimensions, inFlight } = (yield* budget.status).pools.default!
        assert.deepStrictEqual([inFlight, dimensions.tokens!.level], [0, 50])
      }).pipe(Effect.scoped)
    )
  )

  it.live("an observer of events may throw, reject, and call the budget", () =>
    reported((errors) =>
      Effect.gen(function* () {
        const rejections: Array<unknown> = []
        const onRejection = (reason: unknown) => void rejections.push(reason)
        yield* Effect.acquireRelease(
          Effect.sync(() => void process.on("unhandledRejection", onRejection)),
          () => Effect.sync(() => void process.off("unhandledRejection", onRejection))
        )
        const late = yield* Deferred.make<void>()
        let times = 0
        const observer = (): Promise<void> => {
          times++
          if (times > 20) return Promise.resolve()
          Effect.runFork(
            Effect.ensuring(
              Effect.suspend(() => Effect.scoped(budget.reserve({ tokens: 1 }))),
              Deferred.succeed(late, undefined)
            )
          )
          if (times % 2 === 0) throw new Harm()
          return Promise.reject(new Harm())
        }
        const budget: Budget.TokenBudget["Service"] = yield* Effect.provideService(
          Budget.make({ concurrency: 1 }),
          Events.Observer,
          observer
        )
        const held = yield* budget.reserve({})
        const behind = yield* Effect.forkChild(Effect.scoped(budget.reserve({})))
        yield* settled
        yield* budget.pause({ duration: 1, reason: "rateLimit" })
        yield* held.refund
        yield* Fiber.join(behind)
        yield* Deferred.await(late)
        yield* settled
        assert.isAbove(times, 1)
        assert.deepStrictEqual(rejections, [])
        assert.deepStrictEqual(errors, [])
        assert.isTrue(isDone(behind))
      }).pipe(Effect.scoped)
    )
  )
})
