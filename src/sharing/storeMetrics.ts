/** Counts the exchanges with a store. */
import type * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type { StateSpec } from "./stateSpec.ts"
import type { Shared } from "./state.ts"

const damagedStates = Metric.counter("floodgate_budget_damaged_states", {
  description: "Damaged states that were read from the store",
  incremental: true
})
const storeFailures = Metric.counter("floodgate_budget_store_failures", {
  description: "Exchanges with the store that failed",
  incremental: true
})

/** Counts a damaged state of a pool or a ledger. */
export const damaged = (noun: StateSpec<Shared>["noun"], name: string): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(damagedStates, { [noun]: name }), 1)

/** Counts an exchange about a pool or a ledger that failed. */
export const failed = (noun: StateSpec<Shared>["noun"], name: string): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(storeFailures, { [noun]: name }), 1)
