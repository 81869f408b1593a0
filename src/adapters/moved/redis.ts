/**
 * `floodgate/redis` of version 0.3 is the package `@floodgate/redis` now. This module only reports the move.
 *
 * @since 0.4.0
 * @deprecated use `@floodgate/redis`; this subpath goes with version 0.5
 */
throw new Error(
  'floodgate/redis is now a package of its own: run npm install @floodgate/redis, and import it from "@floodgate/redis".'
)
