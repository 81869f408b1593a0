/**
 * The strategies of the lab.
 *
 * @stability experimental
 * @since 0.1.0
 */
export { all, usual } from "../strategies/index.ts"
