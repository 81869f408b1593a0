/**
 * `@floodgate/cli/lab` of version 0.4 is the package `@floodgate/lab` now. This module passes its names on.
 *
 * @deprecated use `@floodgate/lab`; this subpath goes with version 0.6
 * @since 0.1.0
 */
export * from "@floodgate/lab/internal"
