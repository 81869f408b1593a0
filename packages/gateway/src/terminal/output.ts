/** Writes files and folders, with errors for people. */
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Schedule from "effect/Schedule"
// Effect's file system has no way to open a pipe without waiting.
import { constants, openSync } from "node:fs"
import { Socket } from "node:net"
import { innermost } from "./errors.ts"
import * as Exit from "./exit.ts"
import * as Print from "./print.ts"
import { oneLine } from "./text.ts"

/** A flag that names a file or folder to write. A path that ends in a slash is a folder. */
export const flag = (name: string, what: "file" | "folder"): Flag.Flag<string> =>
  Flag.String(name).pipe(
    Flag.withMetavar(`<${what}>`),
    Flag.filter(
      (path) => path !== "" && (what === "folder" || !path.endsWith("/")),
      () => `a ${what}`
    )
  )

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

const reasons: Readonly<Record<string, string>> = {
  EACCES: "no permission",
  EISDIR: "it is a folder",
  ELOOP: "its links lead around in a circle",
  ENAMETOOLONG: "the name is too long",
  ENOENT: "there is no such folder",
  ENOSPC: "the disk is full",
  ENOTDIR: "a part of it is a file",
  EPERM: "no permission",
  EPIPE: "nobody reads it any more",
  EROFS: "the disk cannot be written to"
}

/** Says that something cannot be written, and why. */
export const unwritten = (what: string, error: unknown): string => {
  const reason = innermost(error)
  return `cannot write ${oneLine(what)}: ${reasons[reason] ?? reason}`
}

/** The error for an output file or folder that cannot be used. `flag` names it. */
export const unusable = (what: string, flag: string): Exit.CommandError =>
  Exit.failure("file", `${what}; choose another ${flag}`)

/** Turns the errors of an effect that writes to a path into errors that name the flag. */
export const writing =
  (path: string, flag: string) =>
  <A, E, R>(effect: Effect.Effect<A, E | PlatformError.PlatformError, R>) =>
    Effect.catchTag(effect, "PlatformError", (error) => Effect.fail(unusable(unwritten(path, error), flag)))

// -----------------------------------------------------------------------------
// Kinds of files
// -----------------------------------------------------------------------------

const kinds: Readonly<Record<FileSystem.File.Type, string>> = {
  BlockDevice: "a device",
  CharacterDevice: "a device",
  Directory: "a folder",
  FIFO: "a pipe",
  File: "a file",
  Socket: "a socket",
  SymbolicLink: "a link",
  Unknown: "of an unknown kind"
}

/** The type of a file in words. */
export const kindOf = (type: FileSystem.File.Type): string => kinds[type]

/** Information on a path, without following links; undefined if nothing is there. */
const look = (path: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) =>
    Effect.catchReason(fs.lstat(path), "PlatformError", "NotFound", () => Effect.undefined)
  )

/**
 * Refuses an existing path that is not a regular file, for names that the command chose itself: a link could lead anywhere, and a pipe
 * would block the writer.
 */
export const ownFile = Effect.fnUntraced(function* (path: string, flag: string) {
  const info = yield* writing(path, flag)(look(path))
  if (info !== undefined && info.type !== "File") {
    return yield* unusable(`cannot write ${oneLine(path)}: it is ${kindOf(info.type)}`, flag)
  }
  return info
})

/** Refuses a folder that is a link, unless the user named it. */
export const ownFolder = Effect.fnUntraced(function* (path: string, flag: string) {
  const info = yield* writing(path, flag)(look(path))
  if (info?.type === "SymbolicLink") {
    return yield* unusable(`cannot write ${oneLine(path)}: it is a link, and no flag names it`, flag)
  }
})

// -----------------------------------------------------------------------------
// Folders
// -----------------------------------------------------------------------------

/**
 * Makes a folder and its parents one by one. Node's recursive option never ends below `/proc`, where existing folders cannot have new
 * ones.
 */
export const folder = (
  path: string
): Effect.Effect<void, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const { dirname } = yield* Path.Path
    if (yield* fs.exists(path)) return
    // A missing drive has no parent; making it fails with the right error.
    if (dirname(path) !== path) yield* folder(dirname(path))
    yield* Effect.catchReason(fs.makeDirectory(path), "PlatformError", "AlreadyExists", () => Effect.void)
  })

/**
 * A temporary folder within another one. It is removed with the scope, and no other command writes to it, even one that was started at
 * the same time for the same files.
 */
const scratch = (directory: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped({ directory, prefix: ".floodgate-" }))

// -----------------------------------------------------------------------------
// Files
// -----------------------------------------------------------------------------

/** The target of a path, which need not exist yet. A link to a missing file is followed, too. */
const target = (path: string): Effect.Effect<string, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const { dirname, resolve } = yield* Path.Path
    if (yield* fs.exists(path)) {
      const real = yield* fs.realPath(path)
      // A pipe behind `/dev/stdout` has no path of its own.
      return (yield* fs.exists(real)) ? real : path
    }
    return yield* fs.readLink(path).pipe(
      Effect.flatMap((next) => target(resolve(dirname(path), next))),
      Effect.orElseSucceed(() => path)
    )
  })

/** The mode of files that say who has called what: only their owner may read and write them. */
export const ownerOnly = 0o600

/** Gives a file that was there before the mode {@link ownerOnly}. The file of another owner keeps its mode, and that is said. */
export const restrict = Effect.fnUntraced(function* (path: string) {
  const fs = yield* FileSystem.FileSystem
  yield* Effect.catchTag(fs.chmod(path, ownerOnly), "PlatformError", (error) =>
    Print.err(`${oneLine(path)} stays readable for others: ${innermost(error)}`)
  )
})

/** Writes a file and waits until the disk has it. Otherwise a power failure could leave it empty under its new name. */
const writeThrough = Effect.fnUntraced(function* (path: string, text: string, mode: number | undefined) {
  const fs = yield* FileSystem.FileSystem
  const file = yield* fs.open(path, { flag: "w", ...(mode !== undefined && { mode }) })
  yield* file.writeAll(new TextEncoder().encode(text))
  yield* file.sync
}, Effect.scoped)

/** Waits until the disk has the names of a folder. Not all systems can open one. */
const syncFolder = (path: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) => Effect.flatMap(fs.open(path), ({ sync }) => sync)).pipe(
    Effect.scoped,
    Effect.ignore
  )

/**
 * Writes a new file and renames it to the old one, which therefore survives a full disk, the end of the process and a power failure.
 */
const replace = Effect.fnUntraced(function* (path: string, text: string, mode?: number) {
  const fs = yield* FileSystem.FileSystem
  const { basename, dirname, join } = yield* Path.Path
  yield* folder(dirname(path))
  const beside = join(yield* scratch(dirname(path)), basename(path))
  yield* writeThrough(beside, text, mode)
  yield* fs.rename(beside, path)
  yield* syncFolder(dirname(path))
}, Effect.scoped)

/** Writes a file with a name that the command chose, in a folder that a flag names. */
export const replaceOwn = Effect.fnUntraced(function* (path: string, text: string, flag: string, mode?: number) {
  yield* ownFile(path, flag)
  yield* replace(path, text, mode).pipe(writing(path, flag))
})

/**
 * Opens a pipe when it has a reader. A signal can interrupt this wait, unlike the system's own.
 */
const openPipe = Effect.fnUntraced(function* (path: string) {
  const opened = Effect.try({
    try: () => openSync(path, constants.O_WRONLY | constants.O_NONBLOCK),
    catch: (error) => error
  })
  const hasNoReader = (error: unknown) => innermost(error) === "ENXIO"
  return yield* Effect.catchIf(opened, hasNoReader, () =>
    Effect.andThen(
      Print.err(`waiting for a reader of ${oneLine(path)}`),
      Effect.retry(opened, { schedule: Schedule.spaced("100 millis"), while: hasNoReader })
    )
  )
})

/** Writes to a pipe as its reader reads. */
const writePipe = (path: string, text: string) =>
  Effect.flatMap(openPipe(path), (fd) =>
    Effect.callback<void, unknown>((resume) => {
      const socket = new Socket({ fd, readable: false, writable: true })
      socket.on("error", (error) => resume(Effect.fail(error)))
      socket.end(text, () => resume(Effect.void))
      return Effect.sync(() => socket.destroy())
    })
  )

/**
 * Writes a file that a flag names. Links are followed, and a path that is not a file, such as a terminal, is written to. A line on
 * standard error names the path.
 */
export const write = Effect.fnUntraced(function* (path: string, text: string, flag: string) {
  const fs = yield* FileSystem.FileSystem
  yield* Effect.gen(function* () {
    const real = yield* target(path)
    const type = (yield* fs.exists(real)) ? (yield* fs.stat(real)).type : "File"
    if (type === "File") yield* replace(real, text)
    else if (type === "FIFO") {
      yield* Effect.mapError(writePipe(real, text), (error) => unusable(unwritten(path, error), flag))
    } else yield* fs.writeFileString(real, text)
  }).pipe(writing(path, flag))
  yield* Print.err(`wrote ${oneLine(path)}`)
})

/** {@link replaceOwn}, with a line on standard error that names the path. */
export const writeOwn = Effect.fnUntraced(function* (path: string, text: string, flag: string) {
  yield* replaceOwn(path, text, flag)
  yield* Print.err(`wrote ${oneLine(path)}`)
})

/**
 * Checks, before the work, that its result can be written to a file and that the file's folder can be made. It leaves no files and
 * removes none, because the work may be stopped. Errors name the path, or `named` if it is given.
 */
export const claim = Effect.fnUntraced(function* (path: string, flag: string, named = path) {
  const fs = yield* FileSystem.FileSystem
  const { dirname, join, relative } = yield* Path.Path
  yield* Effect.gen(function* () {
    const real = yield* target(path)
    if (yield* fs.exists(real)) {
      const { type } = yield* fs.stat(real)
      // Opening and closing the pipe would look like its end to the reader.
      if (type === "FIFO") return
      yield* fs.writeFileString(real, "", { flag: "a" })
      if (type !== "File") return
    }
    let there = dirname(real)
    while (dirname(there) !== there && !(yield* fs.exists(there))) there = dirname(there)
    const trial = join(yield* scratch(there), relative(there, real))
    yield* Effect.andThen(folder(dirname(trial)), fs.writeFileString(trial, ""))
  }).pipe(Effect.scoped, writing(named, flag))
})

/** {@link claim} for files with names that the command chose, in a folder that a flag names. */
export const claimOwn = Effect.fnUntraced(function* (folder: string, names: ReadonlyArray<string>, flag: string) {
  const { join } = yield* Path.Path
  for (const name of names) yield* ownFile(join(folder, name), flag)
  yield* claim(join(folder, names[0]!), flag, folder)
})
