/** Files and folders that commands write, with errors for people. */
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Schema from "effect/Schema"
import { innermost, named, printable } from "./errors.ts"

/** A flag that names a file or folder to write. What ends in a slash is a folder. */
export const flag = (name: string, what: "file" | "folder"): Flag.Flag<string> =>
  Flag.String(name).pipe(
    Flag.withMetavar(`<${what}>`),
    Flag.filter(
      (path) => path !== "" && (what === "folder" || !path.endsWith("/")),
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
 * there takes no other.
 */
export const folder = (
  path: string
): Effect.Effect<void, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const { dirname } = yield* Path.Path
    if (yield* fs.exists(path)) return
    // A drive that is not there is in no folder: the error is of making it.
    if (dirname(path) !== path) yield* folder(dirname(path))
    yield* Effect.catchReason(fs.makeDirectory(path), "PlatformError", "AlreadyExists", () => Effect.void)
  })

/**
 * A folder in another that lasts as long as the scope, and that no other command writes to: one that was started at the
 * same moment may well write to the same files.
 */
const ownFolder = (directory: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped({ directory, prefix: ".floodgate-" }))

/** What a path leads to, though it may not be there yet: a link to nothing is a link all the same. */
const target = (path: string): Effect.Effect<string, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const { dirname, resolve } = yield* Path.Path
    if (yield* fs.exists(path)) {
      const real = yield* fs.realPath(path)
      // A pipe to which `/dev/stdout` leads has no path of its own.
      return (yield* fs.exists(real)) ? real : path
    }
    return yield* fs.readLink(path).pipe(
      Effect.flatMap((next) => target(resolve(dirname(path), next))),
      Effect.orElseSucceed(() => path)
    )
  })

/**
 * Writes a file, in its folder, beside the one that it replaces, so that what was there stays where the disk is full or the
 * process ends. A link keeps leading to it, and what is no file, such as a terminal, is written to.
 */
export const replace = (
  path: string,
  text: string
): Effect.Effect<void, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const { basename, dirname, join } = yield* Path.Path
    const real = yield* target(path)
    if ((yield* fs.exists(real)) && (yield* fs.stat(real)).type !== "File") return yield* fs.writeFileString(real, text)
    yield* folder(dirname(real))
    const beside = join(yield* ownFolder(dirname(real)), basename(real))
    yield* Effect.andThen(fs.writeFileString(beside, text), fs.rename(beside, real))
  }).pipe(Effect.scoped)

/**
 * Makes sure that a file can be written, its folder included: that it cannot be must be told before the work of which it
 * tells. Leaves nothing behind, since the work may be stopped, and takes nothing away. An error names the path, if nothing
 * else.
 */
export const claim = Effect.fnUntraced(function* (path: string, flag: string, named = path) {
  const fs = yield* FileSystem.FileSystem
  const { dirname, join, relative } = yield* Path.Path
  yield* Effect.gen(function* () {
    const real = yield* target(path)
    if (yield* fs.exists(real)) {
      yield* fs.writeFileString(real, "", { flag: "a" })
      if ((yield* fs.stat(real)).type !== "File") return
    }
    let there = dirname(real)
    while (dirname(there) !== there && !(yield* fs.exists(there))) there = dirname(there)
    const trial = join(yield* ownFolder(there), relative(there, real))
    yield* Effect.andThen(folder(dirname(trial)), fs.writeFileString(trial, ""))
  }).pipe(Effect.scoped, writing(named, flag))
})

/** Writes a file, and says so on standard error: standard output belongs to the answer. */
export const write = Effect.fnUntraced(function* (path: string, text: string, flag: string) {
  yield* replace(path, text).pipe(writing(path, flag))
  yield* Console.error(printable(`wrote ${path}`))
})
