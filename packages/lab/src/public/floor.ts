/**
 * The lower bound on the time of a scenario under any strategy, computed from the scenario alone.
 *
 * @stability experimental
 * @since 0.1.0
 */
export { floor } from "../floor.ts"
