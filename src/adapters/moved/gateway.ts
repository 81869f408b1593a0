/**
 * `floodgate/gateway` of version 0.3 is the package `@floodgate/gateway` now. This module only reports the move.
 *
 * @since 0.4.0
 * @deprecated use `@floodgate/gateway`; this subpath goes with version 0.5
 */
throw new Error(
  'floodgate/gateway is now a package of its own: run npm install @floodgate/gateway, and import it from "@floodgate/gateway".'
)
