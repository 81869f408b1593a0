/**
 * Scenarios: the calls that agents make, and the model of the provider.
 *
 * **Details**
 *
 * A scenario is a value. Its calls and their sizes are fixed before anything runs, so every strategy gets the same work.
 *
 * @stability experimental
 * @since 0.1.0
 */
export { make, type Options, type Scenario, type ScenarioCall } from "../scenario.ts"
