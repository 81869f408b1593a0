/**
 * Reads a store for the command `floodgate`. It is not part of the public API and changes without notice, so the command requires the
 * exact version of this package that it was built with.
 *
 * @since 0.5.0
 */
export { caps, status } from "./status.ts"
