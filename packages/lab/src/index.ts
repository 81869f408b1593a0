/**
 * The lab: simulates strategies, to compare them before they cost money.
 *
 * The rivals that are made with `effect/http` and `effect/persistence` use unstable modules: this package is made for `effect` `~4.1`.
 *
 * @stability experimental
 * @since 0.1.0
 */

/**
 * The page of the documentation about sessions.
 *
 * @since 0.5.0
 */
export * as AgentsAtWork from "./sessions/document.ts"

/**
 * The AWS backoff study of the jitter variants that `Retry` offers.
 *
 * @since 0.1.0
 */
export * as AwsStudy from "./awsStudy.ts"

/**
 * The page of the documentation.
 *
 * @since 0.1.0
 */
export * as Document from "./document.ts"

/**
 * The lower bound on the time of a scenario.
 *
 * @since 0.1.0
 */
export * as Floor from "./floor.ts"

/**
 * Scenarios and strategies on one screen.
 *
 * @since 0.2.0
 */
export * as Matrix from "./matrix.ts"

/**
 * Runs the same work under each strategy, in simulated time.
 *
 * @since 0.1.0
 */
export * as Race from "./race.ts"

/**
 * Sessions that a gateway has recorded.
 *
 * @since 0.5.0
 */
export * as Recorded from "./recorded.ts"

/**
 * Reports: one HTML file that opens offline, and charts as SVG.
 *
 * @since 0.1.0
 */
export * as Report from "./report/index.ts"

/**
 * Scenarios: the calls of agents, and the model of the provider.
 *
 * @since 0.1.0
 */
export * as Scenario from "./scenario.ts"

/**
 * The scenarios by name, and workloads from traces.
 *
 * @since 0.1.0
 */
export * as Scenarios from "./scenarios.ts"

/**
 * The strategies by name.
 *
 * @since 0.1.0
 */
export * as Strategies from "./strategies/index.ts"

/**
 * What a strategy is.
 *
 * @since 0.1.0
 */
export * as Strategy from "./strategy.ts"

/**
 * Results as tables.
 *
 * @since 0.1.0
 */
export * as Table from "./table.ts"
