/** Law 4 at every point: a caller that yields after each step, and is interrupted after any number of them. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scheduler from "effect/Scheduler"
import * as Stream from "effect/Stream"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import { interruptAt } from "../support/yieldAt.ts"

const burst = 1_000
const limits = { tokens: { perSecond: 1e-9, burst } }
const steps = 60

const turns = (count: number) => Effect.replicateEffect(Effect.yieldNow, count, { discard: true })

/** As from elsewhere: it takes a few turns. */
const slowly = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.andThen(
    Effect.yieldNow,
    Effect.tap(effect, () => Effect.yieldNow)
  )

/** The memory store as if it were elsewhere. */
const elsewhere = Layer.succeed(BudgetStore.BudgetStore, {
  open: (name, options) =>
    Effect.map(BudgetStore.memory.open(name, options), (opened) => ({
      ...opened,
      drain: BudgetStore.inBatches(Stream.never),
      take: (asks) => slowly(opened.take(asks)),
      settle: (held, used, succeeded) => slowly(opened.settle(held, used, succeeded))
    }))
})

const ways: Record<string, Budget.Options & { readonly maxWait?: number; readonly elsewhere?: boolean }> = {
  "with a limit": {},
  "with slots": { concurrency: 1 },
  "with a bounded wait": { maxWait: 1e12 },
  "with slots and a bounded wait": { concurrency: 1, maxWait: 1e12 },
  "with a store elsewhere": { elsewhere: true },
  "with a store elsewhere, slots and a bounded wait": { elsewhere: true, concurrency: 1, maxWait: 1e12 }
}

/** Interrupts a caller after `before` turns without room and `after` turns with it. */
const attempt = Effect.fnUntraced(function* (way: (typeof ways)[string], before: number, after: number) {
  const { elsewhere: _, maxWait, ...options } = way
  const budget = yield* Budget.make({ limits, ...options })
  const blocker = yield* Effect.scoped(
    Effect.gen(function* () {
      const reservation = yield* budget.reserve({ tokens: burst })
      let called = false
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
      return () => called
    })
  )
  yield* turns(300)
  const { dimensions, inFlight, queued } = (yield* budget.status).pools.default!
  // A call that was let out and interrupted keeps its estimate; one that was not has taken nothing.
  const level = blocker() ? burst - 600 : burst
  assert.deepStrictEqual([queued, inFlight], [0, 0], `after ${before} + ${after} turns`)
  assert.closeTo(dimensions.tokens!.level, level, 1e-6, `after ${before} + ${after} turns`)
}, Effect.scoped)

/** The memory store, whose pools take a few turns to open, and are counted. */
const counted = (opened: Array<string>) =>
  Layer.succeed(BudgetStore.BudgetStore, {
    open: (name, options) =>
      Effect.andThen(
        Effect.sync(() => opened.push(name)),
        Effect.tap(BudgetStore.memory.open(name, options), () => Effect.yieldNow)
      )
  })

describe("Budget, interrupted", () => {
  it.effect("opens a pool once, wherever its first callers yield or are interrupted", () =>
    Effect.gen(function* () {
      for (let ops = 3; ops < 20; ops++) {
        for (let turns = 0; turns < 12; turns++) {
          const opened: Array<string> = []
          yield* Effect.gen(function* () {
            const budget = yield* Budget.make({ limits })
            const call = Effect.scoped(budget.reserve({ tokens: 1 })).pipe(
              Effect.provideService(Scheduler.MaxOpsBeforeYield, ops)
            )
            const first = yield* Effect.forkChild(call)
            const second = yield* Effect.forkChild(call)
            for (let i = 0; i < turns; i++) yield* Effect.yieldNow
            yield* Fiber.interrupt(first)
            const third = yield* Effect.forkChild(call)
            yield* Fiber.joinAll([second, third])
          }).pipe(Effect.scoped, Effect.provide(counted(opened)))
          assert.deepStrictEqual(opened, ["default"], `after ${turns} turns of ${ops} steps`)
        }
      }
    })
  )

  for (const [name, way] of Object.entries(ways)) {
    it.effect(`leaves nothing taken and nobody queued at any point, ${name}`, () =>
      Effect.gen(function* () {
        for (let turn = 0; turn < steps; turn++) {
          yield* attempt(way, turn, 0)
          yield* attempt(way, turn % 20, turn)
          yield* attempt(way, 0, turn)
        }
      }).pipe(Effect.provide(way.elsewhere === true ? elsewhere : Layer.empty))
    )
  }

  it.effect("asks a store once at a time, wherever a call ends while others move the queue on", () =>
    Effect.gen(function* () {
      // Regression: whoever found nobody in the queue gave permits back with the drain free, and others asked meanwhile.
      for (let ops = 3; ops < 20; ops++) {
        let asking = 0
        let most = 0
        const start = Effect.sync(() => (most = Math.max(most, ++asking)))
        const end = Effect.sync(() => asking--)
        const watched = Layer.succeed(BudgetStore.BudgetStore, {
          open: (name, options) =>
            Effect.map(BudgetStore.memory.open(name, options), (opened) => ({
              ...opened,
              drain: BudgetStore.inBatches(Stream.never),
              take: (asks) => Effect.ensuring(Effect.andThen(start, slowly(opened.take(asks))), end)
            }))
        })
        const call = (n: number) =>
          Effect.andThen(
            turns((n * 7) % 31),
            Budget.withReservation({ tokens: 1 }, () => turns(n % 7))
          )
        yield* Effect.forEach(
          Array.from({ length: 200 }, (_, n) => n),
          call,
          { concurrency: 3, discard: true }
        ).pipe(
          Effect.provideService(Scheduler.MaxOpsBeforeYield, ops),
          Effect.provide(Layer.provide(Budget.layer({ limits, concurrency: 50 }), watched))
        )
        assert.strictEqual(most, 1, `with ${ops} steps at a time`)
      }
    })
  )

  it.effect("takes nothing for a reservation that was granted and has not come to hand", () =>
    Effect.gen(function* () {
      // Regression: interrupted on the way back from a grant, it was kept as estimated although nobody ever had it.
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
      // Between the last step of the one and the first of the other it is at hand.
      assert.deepStrictEqual(
        lost.filter((at) => at < step - 1),
        []
      )
    }).pipe(Effect.scoped)
  )

  it.effect("goes by the limits that the store has, wherever a change or a response is interrupted", () =>
    Effect.gen(function* () {
      // Regression: between the store and us, and everybody went by the old limits until the next word.
      const requests = { perMinute: 60, burst: 3 }
      const tellings: ReadonlyArray<(budget: Budget.TokenBudget["Service"]) => Effect.Effect<void>> = [
        (budget) => budget.resize({ limits: { ...limits, requests } }),
        (budget) => budget.observe({ dimensions: { requests: { limit: 12, remaining: 12 } } })
      ]
      for (const tell of tellings) {
        const seen = { reached: false }
        for (let step = 1; !seen.reached; step++) {
          yield* Effect.gen(function* () {
            const budget = yield* Budget.make({ limits })
            yield* Effect.scoped(budget.reserve({ tokens: 0 }))
            const told = Effect.andThen(
              tell(budget),
              Effect.sync(() => (seen.reached = true))
            )
            yield* interruptAt(told, step)
            const reservation = yield* Effect.forkChild(budget.reserve({ tokens: 1 }))
            yield* turns(5)
            const charge = (yield* Fiber.join(reservation)).charge
            const { dimensions } = (yield* budget.status).pools.default!
            assert.sameMembers(Object.keys(charge), Object.keys(dimensions), `after ${step} steps`)
          }).pipe(Effect.scoped)
        }
      }
    })
  )
})
