/**
 * The lab: simulates strategies, to compare them before they cost money.
 *
 * The rivals that are made with `effect/http` and `effect/persistence` use unstable modules: this package is made for `effect` `~4.1`.
 *
 * @stability experimental
 * @since 0.1.0
 */

/**
 * The lower bound on the time of a scenario.
 *
 * @since 0.1.0
 */
export * as Floor from "./public/floor.ts"

/**
 * Runs the same work under each strategy, in simulated time.
 *
 * @since 0.1.0
 */
export * as Race from "./public/race.ts"

/**
 * Reports of races: a page with charts, and a table.
 *
 * @since 0.1.0
 */
export * as Report from "./public/report.ts"

/**
 * Scenarios: the calls of agents, and the model of the provider.
 *
 * @since 0.1.0
 */
export * as Scenario from "./public/scenario.ts"

/**
 * The scenarios of the lab by name.
 *
 * @since 0.1.0
 */
export * as Scenarios from "./public/scenarios.ts"

/**
 * The strategies of the lab.
 *
 * @since 0.1.0
 */
export * as Strategies from "./public/strategies.ts"

/**
 * Strategies: ways to make the calls of a race.
 *
 * @since 0.1.0
 */
export * as Strategy from "./public/strategy.ts"
