/** The flags of `run` and `forecast` that choose documents. */
import type * as CliError from "effect/cli/CliError"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as Path from "effect/Path"
import { invalidFlag } from "@floodgate/gateway/internal/errors"
import type * as Exit from "@floodgate/gateway/internal/exit"
import { Stepwise } from "floodgate/internal"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as Documents from "./documents.ts"
import * as Glob from "./glob.ts"
import * as Split from "./split.ts"

const patterns = (name: string, text: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar("<glob>"),
    Flag.filter(
      (pattern) => Glob.matcher(pattern) !== undefined,
      () => 'a pattern such as "*.md" or "drafts/**"'
    ),
    Flag.withDescription(text),
    Flag.atLeast(0)
  )

/** The flags. */
export const flags = {
  include: patterns(
    "include",
    'Read only these files of a folder, such as "*.md"; may be repeated (default: all text except SVG, lock files and the like)'
  ),
  exclude: patterns("exclude", 'Leave these files of a folder out, such as "drafts/**"; may be repeated'),
  followLinks: Flags.toggle("follow-links", "Follow links within folders (default: they are left out)")
}

/** The values of these flags. */
export interface SelectionFlags {
  readonly paths: ReadonlyArray<string>
  readonly agents: Option.Option<number>
  readonly include: ReadonlyArray<string>
  readonly exclude: ReadonlyArray<string>
  readonly followLinks: boolean
}

/** The default number of agents. */
export const usualAgents = 12

/** The documents of a run and the part of each agent. */
export interface Assignment {
  readonly found: Documents.DocumentSet
  readonly chunks: ReadonlyArray<Split.Chunk>
}

/** Refuses flags that choose files of a folder, because no folder is read. */
export const withoutFolder = Effect.fnUntraced(function* (
  command: string,
  { exclude, followLinks, include }: Omit<SelectionFlags, "agents" | "paths">
) {
  const stray = { include: include[0], exclude: exclude[0], followLinks: followLinks ? "true" : undefined }
  for (const [name, value] of Object.entries(stray)) {
    const expected = "nothing: there is no folder among the paths"
    if (value !== undefined) return yield* invalidFlag(command)(name, expected, value)
  }
})

/** Reads the documents and splits them. An explicit number of agents must not exceed the number of lines. */
export const assignmentOf = Effect.fnUntraced(function* (
  command: string,
  given: SelectionFlags,
  own: Documents.OutputPaths
): Effect.fn.Return<Assignment, Exit.CommandError | CliError.ShowHelp, FileSystem.FileSystem | Path.Path> {
  const matchers = (patterns: ReadonlyArray<string>) => patterns.map((pattern) => Glob.matcher(pattern)!)
  const found = yield* Documents.read(given.paths, own, {
    include: matchers(given.include),
    exclude: matchers(given.exclude),
    followLinks: given.followLinks
  })
  if (!found.hasFolder) yield* withoutFolder(command, given)
  const chunks = yield* Stepwise.yielding(
    Split.splitSteps(
      found.documents,
      Option.getOrElse(given.agents, () => usualAgents)
    )
  )
  if (Option.isSome(given.agents) && given.agents.value > chunks.length) {
    const expected = `at most ${chunks.length}: the documents have no more lines to share`
    return yield* invalidFlag(command)("agents", expected, String(given.agents.value))
  }
  return { found, chunks }
})
