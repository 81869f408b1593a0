/** A reservation settles by itself: decorated and copied reservations are settled like plain ones. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Budget from "floodgate/Budget"
import { type Decorate, history, limits } from "../support/callHistory.ts"
import { sized } from "../support/size.ts"

const decorations: Readonly<Record<string, Decorate>> = {
  "are copied": (reservation) => ({ ...reservation }),
  "are delegated to": ({ observe, settle, fail, refund, ...fields }) => ({
    ...fields,
    observe: (said) => Effect.suspend(() => observe(said)),
    settle: (usage, outcome) => Effect.suspend(() => settle(usage, outcome)),
    fail: (failure) => Effect.suspend(() => fail(failure)),
    refund: Effect.suspend(() => refund)
  }),
  "settle by a function of somebody else's": (reservation) => ({
    ...reservation,
    settle: (...args) => Effect.asVoid(Effect.exit(reservation.settle(...args)))
  }),
  "are decorated twice": (reservation) => ({
    ...Object.assign({}, reservation),
    refund: Effect.asVoid(reservation.refund)
  })
}

describe("a budget whose reservations", () => {
  for (const [name, decorate] of Object.entries(decorations)) {
    it.effect(`${name} are settled like plain ones`, () =>
      Effect.gen(function* () {
        // Regression: `observe` and `cooldown` only settled reservations of their own class, so such a budget spent twice as much.
        for (let seed = 1; seed <= sized(1, 3); seed++) {
          const plain = yield* history(seed)
          assert.deepStrictEqual(yield* history(seed, { decorate }), plain, `seed ${seed}`)
          assert.strictEqual(plain.status.pools.default!.inFlight, 0)
        }
      })
    )
  }

  it.effect("have only own properties", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits })
      const held = yield* budget.reserve({ tokens: 10 })
      const members = [
        "agent",
        "binding",
        "charge",
        "estimate",
        "fail",
        "observe",
        "pool",
        "refund",
        "settle",
        "waited"
      ]
      assert.deepStrictEqual(Object.keys(held).sort(), members)
      assert.deepStrictEqual({ ...held }, held)
    }).pipe(Effect.scoped)
  )
})
