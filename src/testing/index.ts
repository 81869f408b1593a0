/**
 * Test doubles for code that calls language models.
 *
 * @since 0.1.0
 */

/**
 * A simulated provider with rate limits, latency and faults.
 *
 * @since 0.1.0
 */
export * as ProviderSim from "./ProviderSim.ts"

/**
 * The contract of a `BudgetStore` as checks, for those who write one.
 *
 * @since 0.1.0
 */
export * as StoreContract from "./storeContract.ts"
