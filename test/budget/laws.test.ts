/** The laws of the budget over random histories, judged by sums over what callers see. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import type { Make } from "../support/history.ts"
import { type Law, laws } from "../support/laws.ts"
import { isFull, sized } from "../support/size.ts"
import { MapStore } from "../support/store.ts"

describe("Budget", () => {
  for (const [name, law] of Object.entries<Law>(laws)) {
    it.effect(name, () => Effect.map(law(Budget.make, isFull ? 1 : 1 / 30), (result) => assert.isUndefined(result)))
  }
})

const makeShared: Make = (options) => Effect.provide(Budget.make(options), BudgetStore.layer(new MapStore()))

/** Laws that hold to the millisecond. With a store, a sent commit is not undone, and the error of clocks is held back. */
const exact = ["law 3, order", "law 5, work-conserving"]

/** Laws about what is learned, or of long histories. A store plays the same steps, so only `npm run test:full` checks them there. */
const local = ["law 9", "law 10", "law 11", "law 12", "law 13", "law 14", "law 17"].flatMap((law) =>
  Object.keys(laws).filter((name) => name.startsWith(`${law},`))
)

describe("Budget in a store", () => {
  for (const [name, law] of Object.entries<Law>(laws)) {
    if (exact.includes(name) || (!isFull && local.includes(name))) continue
    // Each waiting call reads the store again and again, so `npm test` plays histories with short waits.
    const [part, first] = sized([1 / 100, 13], [1, 1])
    it.effect(name, () => Effect.map(law(makeShared, part, first), (result) => assert.isUndefined(result)))
  }
})
