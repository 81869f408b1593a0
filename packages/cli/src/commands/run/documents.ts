/** Reads the documents of a run: the named files, and the text files in the named folders. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import { createHash } from "node:crypto"
import type * as Exit from "@floodgate/gateway/internal/exit"
import { isText, reading, sizeText, unreadable } from "@floodgate/gateway/internal/files"
import * as Output from "@floodgate/gateway/internal/output"
import * as Words from "floodgate/internal/words"
import * as Glob from "./glob.ts"
import type { Document } from "./split.ts"

/** The default output folder. */
export const defaultOut = "floodgate-out"

/** The files to which a run writes its results and its summary. */
export const filesIn = (join: Path.Path["join"], out: string) => ({
  results: join(out, "results.jsonl"),
  attempts: join(out, "attempts.jsonl"),
  summary: join(out, "summary.md")
})

/** The output paths of a run, which must not be read as documents by the next run. */
export interface OutputPaths {
  readonly out: string
  readonly report: string | undefined
}

/** Which of the files in a folder are documents. */
export interface FileFilter {
  readonly include: ReadonlyArray<Glob.Matcher>
  readonly exclude: ReadonlyArray<Glob.Matcher>
  readonly followLinks: boolean
}

/** The default selection. */
const everything: FileFilter = { include: [], exclude: [], followLinks: false }

// -----------------------------------------------------------------------------
// Files that are left out
// -----------------------------------------------------------------------------

/** Folders that are read only if they are named themselves. */
const isHidden = (name: string): boolean => name === "node_modules" || name.startsWith(".")

/** Text that is not a document: drawings, generated files, and keys. `--include` selects it. */
const isUnlikely = Glob.matcher(
  "{*.svg,*.lock,*-lock.json,*-lock.yaml,npm-shrinkwrap.json,go.sum,*.map,*.min.js,*.min.css,*.pem,*.key}"
)!

/** The reasons in words that fit one file and several. */
const skipReasons = {
  excluded: "excluded",
  notIncluded: "not included",
  unlikely: "SVG, lock files and the like",
  link: "links",
  notFile: "not a file",
  notText: "not text",
  same: "the same as another"
} as const

/** The reason to leave out a file. */
export type SkipReason = keyof typeof skipReasons

/** A file in a folder that is not read as a document. */
export interface LeftOut {
  readonly path: string
  readonly why: SkipReason
}

/** The reason to leave out a file, in words. */
export const skipReasonText = (why: SkipReason): string => skipReasons[why]

/** Says how many files are left out and why, without those that the user's own patterns leave out. */
export const leftOutText = (leftOut: ReadonlyArray<LeftOut>): string => {
  const surprising = leftOut.filter(({ why }) => why !== "excluded" && why !== "notIncluded")
  if (surprising.length === 0) return ""
  const groups = [...Map.groupBy(surprising, ({ why }) => why)]
  const reasons = groups.map(([why, all]) =>
    groups.length === 1 ? skipReasons[why] : `${all.length} ${skipReasons[why]}`
  )
  return ` (${Words.thousands(surprising.length)} left out: ${reasons.join(", ")})`
}

// -----------------------------------------------------------------------------
// Reading
// -----------------------------------------------------------------------------

/** The largest document. */
const maxFileBytes = 64e6
/** All documents are held in memory. */
const maxBytes = 256e6

/** The documents, and the files that were left out. */
export interface DocumentSet {
  readonly documents: ReadonlyArray<Document>
  readonly leftOut: ReadonlyArray<LeftOut>
  /** Whether a folder was among the paths, so that the selection applies. */
  readonly hasFolder: boolean
}

/** The real paths of a run's output. */
const pathsOf = Effect.fnUntraced(function* ({ out, report }: OutputPaths) {
  const fs = yield* FileSystem.FileSystem
  const { join } = yield* Path.Path
  // The files as well as the folder, because the documents may be in the same folder as the output.
  const written = [out, ...Object.values(filesIn(join, out)), ...(report === undefined ? [] : [report])]
  // A path that does not exist yet cannot be found as a document, so its form does not matter.
  return new Set(yield* Effect.forEach(written, (path) => Effect.orElseSucceed(fs.realPath(path), () => path)))
})

const tooLarge = (path: string, size: bigint): Exit.CommandError =>
  unreadable(
    path,
    size > maxFileBytes
      ? `it has ${sizeText(Number(size))}, and a document has at most ${sizeText(maxFileBytes)}: split it, or leave it out with --exclude`
      : `with it the documents have more than ${sizeText(maxBytes)}, the most that a run may have: leave some out with --exclude`
  )

/** The reason why the selection leaves out a file of a folder; undefined if it does not. */
const notSelected = ({ exclude, include }: FileFilter, within: string): SkipReason | undefined => {
  if (exclude.some((matches) => matches(within))) return "excluded"
  if (include.length > 0) return include.some((matches) => matches(within)) ? undefined : "notIncluded"
  return isUnlikely(within) ? "unlikely" : undefined
}

/**
 * Reads files and folders in the given order, sorted within folders. Files with the same content are read once. The run's own output
 * is skipped in folders, and refused if it is named, because the run would overwrite it.
 */
export const read = Effect.fnUntraced(function* (
  paths: ReadonlyArray<string>,
  written: OutputPaths,
  selection: FileFilter = everything
): Effect.fn.Return<DocumentSet, Exit.CommandError, FileSystem.FileSystem | Path.Path> {
  const fs = yield* FileSystem.FileSystem
  const { join } = yield* Path.Path
  const { exclude, followLinks } = selection
  const documents: Array<Document> = []
  const leftOut: Array<LeftOut> = []
  /** The real paths of files and the hashes of their contents. */
  const seen = new Set<string>()
  let total = 0
  const own = yield* pathsOf(written)

  const readFile = Effect.fnUntraced(function* (path: string, real: string, size: bigint, isNamed: boolean) {
    if (size > maxFileBytes || total + Number(size) > maxBytes) return yield* tooLarge(path, size)
    const bytes = yield* fs.readFile(path)
    if (!isText(bytes)) {
      if (isNamed) return yield* unreadable(path, "it is not text in UTF-8; leave it out, or convert it")
      return void leftOut.push({ path, why: "notText" })
    }
    const hash = createHash("sha256").update(bytes).digest("hex")
    const text = new TextDecoder().decode(bytes)
    if (text === "") return
    if (seen.has(hash)) return void leftOut.push({ path, why: "same" })
    seen.add(hash)
    total += bytes.length
    documents.push({ path, text })
  })

  /** Visits a path. `within` is its path below a named folder, or undefined if the path itself was named. */
  const visit = (path: string, within: string | undefined): Effect.Effect<void, Exit.CommandError> =>
    Effect.gen(function* () {
      if (within !== undefined && !followLinks && (yield* fs.lstat(path)).type === "SymbolicLink") {
        leftOut.push({ path, why: "link" })
        return
      }
      const real = yield* fs.realPath(path)
      if (within !== undefined && own.has(real)) return
      const { size, type } = yield* fs.stat(path)
      if (type === "Directory") {
        // Links may be circular.
        if (seen.has(real)) return
        seen.add(real)
        for (const name of (yield* fs.readDirectory(path)).filter((name) => !isHidden(name)).sort()) {
          const child = within === undefined || within === "" ? name : `${within}/${name}`
          if (exclude.some((matches) => matches(child))) leftOut.push({ path: join(path, name), why: "excluded" })
          else yield* visit(join(path, name), child)
        }
        return
      }
      const why = within === undefined ? undefined : notSelected(selection, within)
      if (why !== undefined) leftOut.push({ path, why })
      else if (type !== "File") {
        if (within === undefined) {
          return yield* unreadable(path, `it is ${Output.kindOf(type)}, not a file or folder`)
        }
        leftOut.push({ path, why: "notFile" })
      } else if (own.has(real)) {
        return yield* unreadable(path, "the command would write over it; choose another --report or --out")
      } else if (!seen.has(real)) {
        seen.add(real)
        yield* readFile(path, real, size, within === undefined)
      }
    }).pipe(
      // A broken link, or a file that was just deleted, is not a document.
      Effect.catchReason("PlatformError", "NotFound", (reason, error) =>
        within === undefined ? Effect.fail(error) : Effect.void
      ),
      reading(path)
    )

  let hasFolder = false
  for (const path of paths.map((path) => join(path))) {
    hasFolder ||= (yield* Effect.orElseSucceed(fs.stat(path), () => undefined))?.type === "Directory"
    yield* visit(path, undefined)
  }
  if (documents.length === 0) {
    const why = `no text files there${leftOutText(leftOut)}; name files or folders of text`
    return yield* unreadable(paths.join(", "), why)
  }
  return { documents, leftOut, hasFolder }
})
