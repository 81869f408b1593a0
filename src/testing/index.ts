/**
 * Test doubles for code that calls language models.
 *
 * @stability stable
 * @since 0.1.0
 */

/**
 * A simulated provider with rate limits, latency and faults.
 *
 * @since 0.1.0
 */
export * as ProviderSim from "./ProviderSim.ts"

/**
 * The workload of coding agents: conversations that grow, pauses for tools, and sub-agents.
 *
 * @since 0.5.0
 */
export * as Sessions from "./Sessions.ts"

/**
 * Runs an effect in simulated time, and measures how long it took.
 *
 * @since 0.1.0
 */
export * as Simulation from "./Simulation.ts"

/**
 * The contract of every budget store, as checks.
 *
 * @since 0.2.0
 */
export * as StoreContract from "./StoreContract.ts"
