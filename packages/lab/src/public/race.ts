/**
 * Runs the same work under each strategy: the strategy's real code, in simulated time, against `ProviderSim`.
 *
 * @stability experimental
 * @since 0.1.0
 */
export { race, run } from "../race.ts"
export type { RaceResult, RaceRun } from "../runs.ts"
