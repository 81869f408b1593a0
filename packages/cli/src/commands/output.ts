/** Files and folders that commands write, with errors for people. */
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

/** A flag that names a file or folder to write. What ends in a slash is a folder. */
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

/** That something cannot be written, and why. */
export const unwritten = (what: string, error: unknown): string => {
  const reason = innermost(error)
  return `cannot write ${oneLine(what)}: ${reasons[reason] ?? reason}`
}

/** The failure of using a file or folder of the output, and the flag that names it. */
export const unusable = (what: string, flag: string): Exit.Failed =>
  Exit.failure("file", `${what}; choose another ${flag}`)

/** The errors of an effect that writes to the path, as those of a flag. */
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

/** What something is that should be a file, in words. */
export const kindOf = (type: FileSystem.File.Type): string => kinds[type]

/** What there is at a path, links not followed; undefined where there is nothing. */
const look = (path: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) =>
    Effect.catchReason(fs.lstat(path), "PlatformError", "NotFound", () => Effect.undefined)
  )

/**
 * Refuses anything but a file, or nothing yet, where a command writes a file whose name it chose itself. A link could lead
 * anywhere, and a pipe keeps a writer waiting.
 */
export const ownFile = Effect.fnUntraced(function* (path: string, flag: string) {
  const info = yield* writing(path, flag)(look(path))
  if (info !== undefined && info.type !== "File") {
    return yield* unusable(`cannot write ${oneLine(path)}: it is ${kindOf(info.type)}`, flag)
  }
  return info
})

/** Refuses a folder that is a link, where nobody named it. */
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
const scratch = (directory: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped({ directory, prefix: ".floodgate-" }))

// -----------------------------------------------------------------------------
// Files
// -----------------------------------------------------------------------------

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

/** Writes a file beside the one that it replaces, so that the old one stays where the disk is full or the process ends. */
const replace = Effect.fnUntraced(function* (path: string, text: string) {
  const fs = yield* FileSystem.FileSystem
  const { basename, dirname, join } = yield* Path.Path
  yield* folder(dirname(path))
  const beside = join(yield* scratch(dirname(path)), basename(path))
  yield* Effect.andThen(fs.writeFileString(beside, text), fs.rename(beside, path))
}, Effect.scoped)

/** Writes a file whose name the command chose itself, within a folder that a flag names. */
export const replaceOwn = Effect.fnUntraced(function* (path: string, text: string, flag: string) {
  yield* ownFile(path, flag)
  yield* replace(path, text).pipe(writing(path, flag))
})

/**
 * Opens a pipe when somebody reads it. The system's own wait for a reader would keep the process from its end, whatever the
 * signal; this one hears it.
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
 * Writes a file that a flag names. A link keeps leading to it, and what is no file, such as a terminal, is written to. A
 * line on standard error says so.
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

/** As {@link replaceOwn}, and a line on standard error says so. */
export const writeOwn = Effect.fnUntraced(function* (path: string, text: string, flag: string) {
  yield* replaceOwn(path, text, flag)
  yield* Print.err(`wrote ${oneLine(path)}`)
})

/**
 * Makes sure before the work that a file for its result can be written, its folder included. Leaves nothing behind, since
 * the work may be stopped, and removes nothing. An error names the path, unless another name is given.
 */
export const claim = Effect.fnUntraced(function* (path: string, flag: string, named = path) {
  const fs = yield* FileSystem.FileSystem
  const { dirname, join, relative } = yield* Path.Path
  yield* Effect.gen(function* () {
    const real = yield* target(path)
    if (yield* fs.exists(real)) {
      const { type } = yield* fs.stat(real)
      // Its reader would take an open and a close for the end.
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

/** The same for files within a folder that a flag names, whose names the command chose itself. */
export const claimOwn = Effect.fnUntraced(function* (folder: string, names: ReadonlyArray<string>, flag: string) {
  const { join } = yield* Path.Path
  for (const name of names) yield* ownFile(join(folder, name), flag)
  yield* claim(join(folder, names[0]!), flag, folder)
})
