/** What is counted of the exchanges with a store. */
import type * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"

const damagedStates = Metric.counter("floodgate_budget_damaged_states", {
  description: "Damaged states that were read from the store",
  incremental: true
})
const storeFailures = Metric.counter("floodgate_budget_store_failures", {
  description: "Exchanges with the store that failed",
  incremental: true
})

/** Counts a damaged state of a pool. */
export const damaged = (pool: string): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(damagedStates, { pool }), 1)

/** Counts an exchange about a pool that failed. */
export const failed = (pool: string): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(storeFailures, { pool }), 1)
