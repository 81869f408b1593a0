/** Law 8 at the budget: an event that concerns all waiting calls takes time in proportion to their number. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Budget from "floodgate/Budget"
import { sized } from "../support/size.ts"

const many = sized(10_000, 100_000)

const limits = { tokens: { perSecond: 0.001, burst: 1_000 } }

/** A budget whose burst is used up, and this many waiting calls, each of its own agent. */
const crowded = Effect.fnUntraced(function* (count: number) {
  const budget = yield* Budget.make({ limits })
  yield* budget.reserve({ tokens: 1_000 })
  const fibers: Array<Fiber.Fiber<unknown, Budget.BudgetError>> = []
  for (let i = 0; i < count; i++) {
    const waiter = Effect.scoped(budget.reserve({ tokens: 50 }, { agent: `${i}` }))
    fibers.push(yield* Effect.forkDetach(waiter, { startImmediately: true }))
  }
  return { budget, fibers }
})

const reasons = (fibers: ReadonlyArray<Fiber.Fiber<unknown, Budget.BudgetError>>) =>
  Effect.map(
    Effect.forEach(fibers, (fiber) => Effect.flip(Fiber.join(fiber))),
    (errors) => new Set(errors.map(({ reason }) => reason._tag))
  )

describe("Budget with many agents that wait", () => {
  it.effect(`closes, also with ${many} of them`, () =>
    Effect.gen(function* () {
      // Regression: for each waiting call, all agents were searched for the next one.
      const { fibers } = yield* Effect.scoped(crowded(many))
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      assert.isTrue(exits.every(Exit.hasInterrupts))
    })
  )

  it.effect("refuses calls that can never fit a smaller limit", () =>
    Effect.gen(function* () {
      const { budget, fibers } = yield* crowded(1_000)
      yield* budget.resize({ limits: { tokens: { total: 10 } } })
      assert.deepStrictEqual([...(yield* reasons(fibers))], ["EstimateTooLarge"])
    }).pipe(Effect.scoped)
  )

  it.effect("refuses all calls when the provider asks to wait for hours", () =>
    Effect.gen(function* () {
      const { budget, fibers } = yield* crowded(1_000)
      yield* budget.pause({ duration: "5 hours", reason: "rateLimit" })
      assert.deepStrictEqual([...(yield* reasons(fibers))], ["WaitTooLong"])
    }).pipe(Effect.scoped)
  )
})
