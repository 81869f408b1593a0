/** Files and folders that commands write, with errors for people. */
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Schema from "effect/Schema"
import { innermost, named, printable } from "./errors.ts"

/** A flag that names a file or folder to write. */
export const flag = (name: string, what: "file" | "folder"): Flag.Flag<string> =>
  Flag.String(name).pipe(
    Flag.withMetavar(`<${what}>`),
    Flag.filter(
      (path) => path !== "",
      () => `a ${what}`
    )
  )

const words: Readonly<Record<string, string>> = {
  EACCES: "no permission",
  EISDIR: "it is a folder",
  ENOENT: "there is no such folder",
  ENOSPC: "the disk is full",
  ENOTDIR: "a part of it is a file",
  EPERM: "no permission",
  EROFS: "the disk cannot be written to"
}

/** That something cannot be written, and why. */
export const unwritten = (what: string, error: unknown): string => {
  const why = innermost(error)
  return `cannot write ${named(what)}: ${words[why] ?? why}`
}

/** A file or folder of the output that cannot be written. */
export class Unwritable extends Schema.TaggedError<Unwritable>("floodgate/cli/Unwritable")("Unwritable", {
  what: Schema.String,
  /** What names it. */
  flag: Schema.String
}) {
  override get message(): string {
    return `${this.what}; choose another ${this.flag}`
  }
}

/** The errors of whatever writes to the path, as those of a flag. */
export const writing =
  (path: string, flag: string) =>
  <A, E, R>(effect: Effect.Effect<A, E | PlatformError.PlatformError, R>) =>
    Effect.catchTag(effect, "PlatformError", (error) =>
      Effect.fail(new Unwritable({ what: unwritten(path, error), flag }))
    )

/**
 * Makes a folder and those above it, one by one: Node's own recursive way never ends below `/proc`, where a folder that is
 * there takes no other. Gives the topmost that it made, if any.
 */
export const folder = (
  path: string
): Effect.Effect<string | undefined, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const { dirname } = yield* Path.Path
    if (yield* fs.exists(path)) return undefined
    const above = yield* folder(dirname(path))
    const make = Effect.as(fs.makeDirectory(path), path)
    const made = yield* Effect.catchReason(make, "PlatformError", "AlreadyExists", () => Effect.undefined)
    return above ?? made
  })

/** What a path leads to, though it may not be there yet: a link to nothing is a link all the same. */
const target = (path: string): Effect.Effect<string, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const { dirname, resolve } = yield* Path.Path
    const led = fs.readLink(path).pipe(
      Effect.flatMap((next) => target(resolve(dirname(path), next))),
      Effect.orElseSucceed(() => path)
    )
    return yield* Effect.catchReason(fs.realPath(path), "PlatformError", "NotFound", () => led)
  })

/**
 * Writes a file beside the one that it replaces, so that what was there stays where the disk is full or the process ends. A
 * link keeps leading to it, and what is no file, such as a terminal, is written to.
 */
export const replace = (
  path: string,
  text: string
): Effect.Effect<void, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const real = yield* target(path)
    if ((yield* fs.exists(real)) && (yield* fs.stat(real)).type !== "File") return yield* fs.writeFileString(real, text)
    const beside = `${real}.new`
    yield* Effect.andThen(fs.writeFileString(beside, text), fs.rename(beside, real)).pipe(
      Effect.onError(() => Effect.ignore(fs.remove(beside, { force: true })))
    )
  })

/**
 * Makes sure that a file can be written, its folder included: that it cannot be must be told before the work of which it
 * tells. Leaves nothing behind, since the work may be stopped. An error names the path, if nothing else.
 */
export const claim = Effect.fnUntraced(function* (path: string, flag: string, named = path) {
  const fs = yield* FileSystem.FileSystem
  const { dirname } = yield* Path.Path
  yield* Effect.gen(function* () {
    const wasThere = yield* fs.exists(path)
    const made = yield* folder(dirname(path))
    const real = yield* target(path)
    yield* fs
      .writeFileString(real, "", { flag: "a" })
      .pipe(Effect.ensuring(made === undefined ? Effect.void : Effect.ignore(fs.remove(made, { recursive: true }))))
    if (!wasThere) yield* fs.remove(real, { force: true })
  }).pipe(
    // A command that was started at the same moment may just have taken away the folder that both of them claim.
    Effect.retry({ times: 3, while: ({ reason }) => reason._tag === "NotFound" }),
    writing(named, flag)
  )
})

/** Writes a file in its folder, and says so on standard error: standard output belongs to the answer. */
export const write = Effect.fnUntraced(function* (path: string, text: string, flag: string) {
  const { dirname } = yield* Path.Path
  yield* Effect.andThen(folder(dirname(path)), replace(path, text)).pipe(writing(path, flag))
  yield* Console.error(printable(`wrote ${path}`))
})
