/**
 * The folder of a run's output: made where it is missing, and held by one run at a time.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
// Effect knows no process: who holds a lock, and whether he is still there, is asked of Node.
import { kill, pid as own } from "node:process"

/** Another run writes to the same folder. */
export class Taken extends Schema.TaggedError<Taken>("floodgate/cli/run/Taken")("Taken", {
  out: Schema.String,
  lock: Schema.String,
  pid: Schema.Finite
}) {
  override get message(): string {
    return `another run (process ${this.pid}) writes to ${this.out}: wait for its end, or choose another --out. If that process is no run, delete ${this.lock}`
  }
}

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

/** A signal of 0 is only asked whether it could be sent. What may not be sent has somebody to be sent to. */
const isAlive = (pid: number): boolean => {
  try {
    return kill(pid, 0)
  } catch (error) {
    return (error as { readonly code?: unknown }).code === "EPERM"
  }
}

/**
 * Holds the folder until the scope closes, however the run ends. A lock that a killed process left is taken over.
 */
export const hold = Effect.fnUntraced(function* (
  out: string
): Effect.fn.Return<void, PlatformError.PlatformError | Taken, FileSystem.FileSystem | Path.Path | Scope.Scope> {
  const fs = yield* FileSystem.FileSystem
  const { join } = yield* Path.Path
  const lock = join(out, "run.lock")
  const write = fs.writeFileString(lock, `${own}\n`, { flag: "wx" })
  const takeOver = Effect.gen(function* () {
    const read = Effect.map(fs.readFileString(lock), (text) => Number.parseInt(text, 10))
    // Whoever made it a moment ago may not have written his number yet.
    const pid = (yield* read) || (yield* Effect.delay(read, "200 millis"))
    if (pid > 0 && isAlive(pid)) return yield* new Taken({ out, lock, pid })
    yield* fs.remove(lock, { force: true })
    return yield* write
  })
  yield* Effect.acquireRelease(
    Effect.catchReason(write, "PlatformError", "AlreadyExists", () => takeOver),
    () => Effect.ignore(fs.remove(lock, { force: true }))
  )
})
