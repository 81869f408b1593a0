/** Reads the documents of a run: the files that are named, and the text files in the folders that are named. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Schema from "effect/Schema"
import { named } from "../errors.ts"
import type { Document } from "./split.ts"

/** A path that cannot be read, or nothing to read in it. */
export class Unreadable extends Schema.TaggedError<Unreadable>("floodgate/cli/run/Unreadable")("Unreadable", {
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `${named(this.path)}: ${this.why}`
  }
}

const why = ({ reason }: PlatformError.PlatformError): string => {
  switch (reason._tag) {
    case "NotFound":
      return "there is no such file or folder; check the path"
    case "PermissionDenied":
      return "no permission to read it"
    default:
      return reason.message
  }
}

/** What has a zero byte or is not UTF-8 near its start is no text. */
const isText = (bytes: Uint8Array): boolean => {
  const head = bytes.subarray(0, 8_000)
  if (head.includes(0)) return false
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(head, { stream: true })
    return true
  } catch {
    return false
  }
}

/** The text of one file. What is no file, such as a pipe that nobody writes to, could keep its reader waiting for ever. */
export const text = Effect.fnUntraced(function* (
  path: string
): Effect.fn.Return<string, Unreadable, FileSystem.FileSystem> {
  const fs = yield* FileSystem.FileSystem
  const refuse = (error: PlatformError.PlatformError) => new Unreadable({ path, why: why(error) })
  const { type } = yield* Effect.mapError(fs.stat(path), refuse)
  if (type !== "File") return yield* new Unreadable({ path, why: `it is no file, but a ${type.toLowerCase()}` })
  const bytes = yield* Effect.mapError(fs.readFile(path), refuse)
  if (!isText(bytes)) return yield* new Unreadable({ path, why: "it is no text in UTF-8" })
  return new TextDecoder().decode(bytes)
})

/** Where a run writes by itself. */
export const defaultOut = "floodgate-out"

/** Where a run writes its results and its summary. */
export const filesIn = (join: Path.Path["join"], out: string) => ({
  results: join(out, "results.jsonl"),
  summary: join(out, "summary.md")
})

/** What a run writes to: its next start must not find it among its documents. */
export interface Own {
  readonly out: string
  readonly report: string | undefined
}

/** Not entered unless they are named themselves: nobody means them. */
const skipped = (name: string): boolean => name === "node_modules" || name.startsWith(".")

/** What was read, and how many files were left out because they are no text. */
export interface Found {
  readonly documents: ReadonlyArray<Document>
  readonly binary: number
}

/**
 * Reads files and folders, in the order in which they are named and sorted within; a file to which several ways lead once.
 * What is the run's own is passed over in folders, and refused where it is named: it would be lost.
 */
export const read = Effect.fnUntraced(function* (
  paths: ReadonlyArray<string>,
  { out, report }: Own
): Effect.fn.Return<Found, Unreadable, FileSystem.FileSystem | Path.Path> {
  const fs = yield* FileSystem.FileSystem
  const { join } = yield* Path.Path
  // By the path that no link is in.
  const documents = new Map<string, Document>()
  const folders = new Set<string>()
  const binary = new Set<string>()
  // The files, too: the folder of the documents may be that of the output.
  const written = [out, ...Object.values(filesIn(join, out)), ...(report === undefined ? [] : [report])]
  // What is not there yet is not found either.
  const own = new Set(yield* Effect.forEach(written, (path) => Effect.orElseSucceed(fs.realPath(path), () => path)))

  const visit = (path: string, isNamed: boolean): Effect.Effect<void, Unreadable> =>
    Effect.gen(function* () {
      const real = yield* fs.realPath(path)
      if (!isNamed && own.has(real)) return
      const info = yield* fs.stat(path)
      if (info.type === "Directory") {
        // Links may lead around in a circle.
        if (folders.has(real)) return
        folders.add(real)
        const names = (yield* fs.readDirectory(path)).filter((name) => !skipped(name)).sort()
        for (const name of names) {
          // A link that leads nowhere is nobody's document.
          if (yield* fs.exists(join(path, name))) yield* visit(join(path, name), false)
        }
      } else if (info.type !== "File") {
        if (isNamed) return yield* new Unreadable({ path, why: "it is no file and no folder" })
      } else if (own.has(real)) {
        return yield* new Unreadable({ path, why: "the command would write over it; choose another --report or --out" })
      } else if (!documents.has(real)) {
        const bytes = yield* fs.readFile(path)
        if (!isText(bytes)) {
          if (isNamed) return yield* new Unreadable({ path, why: "it is no text; leave it out, or name its text" })
          binary.add(real)
          return
        }
        const text = new TextDecoder().decode(bytes)
        if (text !== "") documents.set(real, { path, text })
      }
    }).pipe(
      Effect.mapError((error) => (error._tag === "Unreadable" ? error : new Unreadable({ path, why: why(error) })))
    )

  for (const path of paths) yield* visit(join(path), true)
  if (documents.size === 0) {
    return yield* new Unreadable({ path: paths.join(", "), why: "no text files there; name files or folders of text" })
  }
  return { documents: [...documents.values()], binary: binary.size }
})
