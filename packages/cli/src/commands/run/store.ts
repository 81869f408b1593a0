/** The files of a run in its folder: `results.jsonl`, `attempts.jsonl` under a cap for each day, and `summary.md`. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Semaphore from "effect/Semaphore"
import { Stepwise } from "floodgate/internal"
import { sizeText } from "@floodgate/gateway/internal/files"
import * as Output from "@floodgate/gateway/internal/output"
import { oneLine } from "@floodgate/gateway/internal/text"
import type * as Documents from "./documents.ts"
import * as Results from "./results.ts"
import * as Steps from "./steps.ts"

/** The files that a run writes. */
export type Paths = ReturnType<typeof Documents.filesIn>

const flag = "--out"

/** All results are held in memory. */
const maxBytes = 256e6

/** The text of a file of an earlier run; empty if there is none. A file that is too large, or not a regular file, is refused. */
const read = Effect.fnUntraced(function* (path: string) {
  const fs = yield* FileSystem.FileSystem
  const info = yield* Output.ownFile(path, flag)
  if (info === undefined) return ""
  if (info.size > maxBytes) {
    const what = `cannot read ${oneLine(path)}: it has ${sizeText(Number(info.size))}, and a run reads at most ${sizeText(maxBytes)}`
    return yield* Output.unusable(what, flag)
  }
  return yield* fs.readFileString(path).pipe(Output.writing(path, flag))
})

/** The results of earlier runs, and the attempts that they do not answer. */
export const load = Effect.fnUntraced(function* ({ attempts, results }: Paths) {
  const before = yield* read(attempts)
  const answers = yield* read(results)
  return yield* Stepwise.yielding(Results.parseSteps(before === "" ? answers : `${before}\n${answers}`))
})

/** Refuses to overwrite a summary that no run has written. */
export const checkSummary = Effect.fnUntraced(function* ({ results, summary }: Paths) {
  const fs = yield* FileSystem.FileSystem
  const info = yield* Output.ownFile(summary, flag)
  if (info === undefined || (yield* Output.ownFile(results, flag)) !== undefined) return
  const isOurs =
    info.size <= maxBytes && Steps.isSummary(yield* fs.readFileString(summary).pipe(Output.writing(summary, flag)))
  if (isOurs) return
  const what = `cannot write ${oneLine(summary)}: it exists and no run has written it`
  return yield* Output.unusable(what, flag)
})

/** Opens the results of a run, to resume it. */
export const open = Effect.fnUntraced(function* (paths: Paths) {
  const fs = yield* FileSystem.FileSystem
  const { results: path } = paths
  const before = yield* load(paths)
  const one = yield* Semaphore.make(1)
  let torn = before.torn
  const append = (result: Results.Result) =>
    Effect.suspend(() => {
      const line = (torn ? "\n" : "") + Results.lineOf(result)
      // A failed write may leave a part of the line.
      torn = true
      return Effect.tap(fs.writeFileString(path, line, { flag: "a" }), () => Effect.sync(() => (torn = false)))
    })
  return {
    before,
    /** Adds a result. */
    record: (result: Results.Result) => append(result).pipe(one.withPermits(1), Output.writing(path, flag)),
    /** Adds an attempt, in a line of its own even if a crash cut off the last one. */
    note: (attempt: Results.SentAttempt) =>
      fs.writeFileString(paths.attempts, `\n${Results.lineOf(attempt)}`, { flag: "a" }).pipe(one.withPermits(1))
  }
})
