/**
 * One run over files: reads the documents and what earlier runs left, runs the pipeline, keeps every result as it comes,
 * and writes the summary.
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type * as Terminal from "effect/Terminal"
import type * as Agents from "floodgate/Agents"
import type * as Budget from "floodgate/Budget"
import type * as LlmClient from "floodgate/LlmClient"
import * as Words from "../../words.ts"
import { printable } from "../errors.ts"
import * as Output from "../output.ts"
import * as Documents from "./documents.ts"
import * as Lock from "./lock.ts"
import * as Pipeline from "./pipeline.ts"
import type * as Recorder from "./recorder.ts"
import * as Results from "./results.ts"
import * as Screen from "./screen.ts"
import * as Split from "./split.ts"
import * as Steps from "./steps.ts"
import * as View from "./view.ts"

/** Some of the agents failed. */
export class Incomplete extends Schema.TaggedError<Incomplete>("floodgate/cli/run/Incomplete")("Incomplete", {
  missing: Schema.Array(Schema.Struct({ agent: Schema.String, documents: Schema.String, reason: Schema.String })),
  /** Agents that finished. */
  done: Schema.Finite,
  /** Whether the same command may get further; undefined where it starts anew. */
  retryHelps: Schema.UndefinedOr(Schema.Boolean)
}) {
  override get message(): string {
    const [first] = this.missing
    const reasons = new Set(this.missing.map(({ reason }) => reason))
    const names = this.missing.map(({ agent }) => agent).join(", ")
    const what =
      reasons.size === 1
        ? `${names} failed: ${first?.reason}`
        : `${this.missing.length} failed:${this.missing.map(({ agent, reason }) => `\n  ${agent}: ${reason}`).join("")}`
    if (this.retryHelps === undefined) return what
    const kept = this.done === 0 ? "" : `The work of the other ${this.done} is kept. `
    const next = this.retryHelps
      ? "Run the same command again to make only the calls that are missing."
      : "The same command would fail in the same way: change what it says above."
    return `${what}\n${kept}${next}`
  }
}

/** What a run is asked to do. */
export interface Options {
  readonly paths: ReadonlyArray<string>
  readonly task: Steps.Task
  readonly agents: number
  readonly out: string
  /** The file of the report, if one is written. */
  readonly report?: string | undefined
  readonly mode: Screen.Mode
  readonly cap?: Agents.Cap | undefined
  /** Whether the same command goes on from what this one leaves; if not, it starts anew, and does not say what is kept. */
  readonly goesOn: boolean
  /** Said first: who answers. */
  readonly provider: string
  /** Writes down what happens, for a report. */
  readonly recorder?: Recorder.Recorder | undefined
}

// -----------------------------------------------------------------------------
// What is said
// -----------------------------------------------------------------------------

/** Where a run writes. */
type Paths = ReturnType<typeof Documents.filesIn>

/** What a run works on, in lines. */
const opening = (
  { provider, task }: Options,
  { results }: Paths,
  { binary, documents }: Documents.Found,
  chunks: ReadonlyArray<Split.Chunk>,
  { known, unreadable }: { readonly known: number; readonly unreadable: number }
): ReadonlyArray<string> => {
  const bytes = chunks.reduce((sum, chunk) => sum + chunk.bytes, 0)
  const skipped = binary === 0 ? "" : ` (${binary} left out: not text)`
  const agents = Words.counted(chunks.length, "agent")
  const files = Words.counted(documents.length, "file")
  return [
    `${agents}, ${files}${skipped}, ${View.short(bytes)} bytes; model ${task.model}`,
    provider,
    ...(known > 0 ? [`Going on: ${Words.counted(known, "answer")} of this task in ${results} already`] : []),
    ...(unreadable > 0 ? [`Passed over in ${results}: ${Words.counted(unreadable, "line")} that cannot be read`] : [])
  ]
}

/** That answers are not whole, where there are any. */
const cutOff = ({ goesOn, task }: Options, { cut }: Pipeline.Report): ReadonlyArray<string> =>
  goesOn && cut > 0
    ? [
        `Cut at --max-tokens ${Words.thousands(task.maxTokens)}: ${Words.counted(cut, "answer")}; raise it for whole ones`
      ]
    : []

/** What became of it, in lines. */
const closing = (options: Options, report: Pipeline.Report, { results, summary }: Paths): ReadonlyArray<string> => {
  const { calls, inputTokens, missing, outputTokens, reused, seconds } = report
  const isDone = missing.length === 0
  const again = reused === 0 ? "" : ` (and ${Words.thousands(reused)} from before)`
  const used = `${Words.thousands(inputTokens)} input and ${Words.thousands(outputTokens)} output tokens`
  const every = calls + reused === 0 ? "" : `, ${results} every call`
  return [
    `${isDone ? "Done" : "Incomplete"} after ${View.clock(seconds)}: ${Words.counted(calls, "call")}${again}, ${used}`,
    ...cutOff(options, report),
    ...(options.goesOn ? [`${summary} has ${isDone ? "the answer" : "what is done"}${every}`] : [])
  ]
}

/** The same for a program. */
const closingJson = ({ merged: _, missing, parts: __, ...figures }: Pipeline.Report): string =>
  JSON.stringify({ event: "done", complete: missing.length === 0, missing, ...figures })

// -----------------------------------------------------------------------------
// The run
// -----------------------------------------------------------------------------

const writing = (path: string) => Output.writing(path, "--out")

/** What earlier runs left in the file, and what adds a result to it. */
const openResults = Effect.fnUntraced(function* (path: string, goesOn: boolean) {
  const fs = yield* FileSystem.FileSystem
  if (!goesOn) yield* fs.remove(path, { force: true })
  const text = yield* Effect.catchReason(fs.readFileString(path), "PlatformError", "NotFound", () => Effect.succeed(""))
  const before = Results.parse(text)
  const one = yield* Semaphore.make(1)
  let torn = before.torn
  const append = (result: Results.Result) =>
    Effect.suspend(() => {
      const line = (torn ? "\n" : "") + Results.lineOf(result)
      // Of a line that could not be written a part may be there.
      torn = true
      return Effect.tap(fs.writeFileString(path, line, { flag: "a" }), () => Effect.sync(() => (torn = false)))
    })
  return { before, record: (result: Results.Result) => append(result).pipe(one.withPermits(1), writing(path)) }
})

/** Runs it, and gives what became of it; a run that is not complete is in the report. */
export const run = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<
  Pipeline.Report,
  Documents.Unreadable | Output.Unwritable | Lock.Taken,
  | Scope.Scope
  | LlmClient.LlmClient
  | Agents.Meter
  | Budget.TokenBudget
  | FileSystem.FileSystem
  | Path.Path
  | Terminal.Terminal
> {
  const { cap, goesOn, mode, out, recorder, task } = options
  const { join } = yield* Path.Path
  const paths = Documents.filesIn(join, out)
  const say = (lines: ReadonlyArray<string>) =>
    mode === "live" || mode === "plain" ? Console.log(printable(lines.join("\n"))) : Effect.void

  const found = yield* Documents.read(options.paths, { out, report: options.report })
  const chunks = Split.split(found.documents, options.agents)
  yield* Effect.andThen(Output.folder(out), Lock.hold(out)).pipe(writing(out))
  const { before, record } = yield* openResults(paths.results, goesOn).pipe(writing(paths.results))
  let known = Pipeline.knownOf({ task, chunks, finished: before.results })
  yield* say(opening(options, paths, found, chunks, { known, unreadable: before.unreadable }))

  const agents = chunks.map(({ bytes }, index) => [Pipeline.nameOf(index, chunks.length), bytes] as const)
  const report = yield* Effect.gen(function* () {
    const show = yield* Screen.make(mode, {
      agents: new Map([...agents, [Steps.orchestrator, 0]]),
      calls: Pipeline.callsOf(agents.length)
    })
    if (recorder !== undefined) yield* recorder.sample
    const report = (event: Pipeline.Event) => Effect.andThen(recorder?.observe(event) ?? Effect.void, show(event))
    const keep = (result: Results.Result) => Effect.tap(record(result), () => Effect.sync(() => known++))
    return yield* Pipeline.run({ task, chunks, finished: before.results, record: keep, report, cap })
  }).pipe(
    Effect.scoped,
    Effect.onInterrupt(() => {
      const kept = ` Every answer is kept in ${paths.results}; run the same command again to go on.`
      return Console.error(printable(`\nStopped.${goesOn && known > 0 ? kept : ""}`))
    })
  )

  const text = Steps.summary(task, report.merged, report.parts, report.missing)
  yield* Output.replace(paths.summary, text).pipe(writing(paths.summary))
  yield* say(closing(options, report, paths))
  if (mode === "quiet") for (const line of cutOff(options, report)) yield* Console.error(`floodgate: ${line}`)
  if (mode === "json") yield* Console.log(closingJson(report))
  return report
})

/** Fails when something is missing. */
export const complete = (report: Pipeline.Report, goesOn: boolean): Effect.Effect<void, Incomplete> => {
  const { missing, parts } = report
  const retryHelps = goesOn ? report.retryHelps : undefined
  return missing.length === 0 ? Effect.void : Effect.fail(new Incomplete({ missing, done: parts.length, retryHelps }))
}
