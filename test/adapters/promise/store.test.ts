/** Floodgates that share their budget in a store that the program brings. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Floodgate from "floodgate/promise"

const limits = { requests: { total: 2 } }
const call = (floodgate: Floodgate.Floodgate) =>
  floodgate
    .run({ model: "m" }, async () => "answer")
    .catch((error: unknown) => (error instanceof Floodgate.RefusedError ? error.reason : error))

/** A store in memory, and how often it was opened and closed. */
const counted = () => {
  const values = new Map<string, BudgetStore.Stored>()
  const uses = { opened: 0, closed: 0 }
  const store: BudgetStore.Store = {
    read: (key) => Effect.sync(() => values.get(key)),
    swap: (key, expected, next) =>
      Effect.sync(() => {
        if (values.get(key)?.version === expected) values.set(key, next)
        return values.get(key)
      })
  }
  const open = Effect.acquireRelease(
    Effect.sync(() => (uses.opened++, store)),
    () => Effect.sync(() => uses.closed++)
  )
  return { uses, layer: Layer.unwrap(Effect.map(open, (store) => BudgetStore.layer(store))) }
}

describe("the option store of floodgate/promise", () => {
  it("shares one budget between floodgates, and is closed with each of them", async () => {
    const { layer, uses } = counted()
    const one = Floodgate.create({ limits, store: layer })
    const two = Floodgate.create({ limits, store: layer })
    assert.deepStrictEqual([await call(one), await call(two), await call(one)], ["answer", "answer", "used"])
    assert.deepStrictEqual(uses, { opened: 2, closed: 0 })
    await one.dispose()
    assert.deepStrictEqual(uses, { opened: 2, closed: 1 })
    await two.dispose()
    assert.deepStrictEqual(uses, { opened: 2, closed: 2 })
  })

  it("must be a layer, and the only store", () => {
    const { layer } = counted()
    const create = (options: object) => () => Floodgate.create(options)
    assert.throws(create({ store: "redis://localhost" }), RangeError, /store: expected a layer of a store/)
    assert.throws(create({ store: layer, redis: "redis://localhost" }), RangeError, /store and redis, got both/)
  })
})
