/** A call that is admitted at once skips most of Effect, without a difference for its caller or for layers over the budget. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import { history } from "../support/callHistory.ts"
import { pool } from "../support/budget.ts"
import { throughEffect } from "../support/drivers.ts"
import { sized } from "../support/size.ts"
import { interruptAt } from "../support/yieldAt.ts"

const limits = { tokens: { total: 1_000 } }

describe("a call that is admitted at once", () => {
  it.effect(
    "has the same events, metrics and statuses as one through Effect",
    () =>
      Effect.gen(function* () {
        for (let seed = 101; seed < 101 + sized(5, 300); seed++) {
          const plain = yield* history(seed)
          assert.isNotEmpty(plain.events)
          assert.deepStrictEqual(yield* history(seed, { onlyEffect: true }), plain, `seed ${seed}`)
        }
      }),
    { tags: "full" }
  )

  it.effect("is seen by a layer that replaces `reserve`", () =>
    Effect.gen(function* () {
      const seen: Array<number | undefined> = []
      const mine = Layer.effect(
        Budget.TokenBudget,
        Effect.map(Budget.TokenBudget, (budget) => ({
          ...budget,
          reserve: (estimate, options) => {
            seen.push(estimate.tokens)
            return budget.reserve(estimate, options)
          }
        }))
      )
      const proxied = Layer.effect(
        Budget.TokenBudget,
        Effect.map(Budget.TokenBudget, (budget) => ({
          ...budget,
          reserve: new Proxy(budget.reserve, {
            apply: (reserve, _, [estimate, options]) => {
              seen.push(estimate.tokens)
              return reserve(estimate, options)
            }
          })
        }))
      )
      for (const layer of [mine, proxied]) {
        seen.length = 0
        yield* Effect.andThen(
          Budget.withReservation({ tokens: 1 }, () => Effect.void),
          Budget.consume(2)
        ).pipe(Effect.provide(Layer.provide(layer, Budget.layer({ limits }))))
        assert.deepStrictEqual(seen, [1, 2])
      }
    })
  )

  for (const onlyEffect of [false, true]) {
    it.effect(`gives everything back, wherever it is interrupted${onlyEffect ? ", through Effect" : ""}`, () =>
      Effect.gen(function* () {
        const budget = yield* Budget.make({ limits, concurrency: 1 })
        const call = Budget.withReservation({ tokens: 500 }, () => Effect.never).pipe(
          Effect.provideService(Budget.TokenBudget, budget),
          (self) => throughEffect(self, onlyEffect)
        )
        let used = 0
        for (let step = 1; step <= 40 && used < 1_000; step++) {
          yield* interruptAt(call, step)
          const { dimensions, inFlight, queued } = yield* Effect.provideService(pool, Budget.TokenBudget, budget)
          assert.deepStrictEqual([inFlight, queued], [0, 0], `step ${step}`)
          // A call that has begun keeps its estimate. Before that it has used nothing.
          const now = 1_000 - dimensions.tokens!.level
          assert.include([used, used + 500], now, `step ${step}`)
          used = now
        }
        assert.strictEqual(used, 1_000, "the call was interrupted before and after it had begun")
      })
    )
  }

  it.effect("ends with its effect, and leaves a scope around it to the caller", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const body = Budget.withReservation({ tokens: 100 }, () =>
        Effect.addFinalizer(() => Effect.sync(() => void order.push("the body's finalizer")))
      )
      yield* Effect.scoped(
        Effect.andThen(
          body,
          Effect.sync(() => order.push("after the call"))
        )
      )
      assert.deepStrictEqual(order, ["after the call", "the body's finalizer"])
      const thrown = yield* Effect.exit(Budget.withReservation({ tokens: 1 }, (): Effect.Effect<void> => assert.fail()))
      assert.isTrue(Exit.hasDies(thrown))
      const { inFlight } = yield* pool
      assert.strictEqual(inFlight, 0)
    }).pipe(Effect.provide(Budget.layer({ limits })))
  )
})
