/**
 * The scenarios of the lab by name.
 *
 * @stability experimental
 * @since 0.1.0
 */
export { allNames, byName } from "../scenarios.ts"
