/** Folders that commands write to. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"

/**
 * Makes a folder and those above it, one by one: Node's own recursive way never ends below `/proc`, where a folder that is
 * there takes no other.
 */
export const make = (
  path: string
): Effect.Effect<void, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const { dirname } = yield* Path.Path
    if (yield* fs.exists(path)) return
    yield* make(dirname(path))
    yield* Effect.catchReason(fs.makeDirectory(path), "PlatformError", "AlreadyExists", () => Effect.void)
  })
