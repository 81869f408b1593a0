/**
 * Strategies: ways to make the calls of a race.
 *
 * @stability experimental
 * @since 0.1.0
 */
export type { Strategy, StrategyClient } from "../strategy.ts"
