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
import type * as Agents from "../../Agents.ts"
import type * as Budget from "../../Budget.ts"
import type * as LlmClient from "../../LlmClient.ts"
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
  done: Schema.Finite
}) {
  override get message(): string {
    const [first] = this.missing
    const reasons = new Set(this.missing.map(({ reason }) => reason))
    const names = this.missing.map(({ agent }) => agent).join(", ")
    const what =
      reasons.size === 1
        ? `${names} failed: ${first?.reason}`
        : `${this.missing.length} failed:${this.missing.map(({ agent, reason }) => `\n  ${agent}: ${reason}`).join("")}`
    const kept = this.done === 0 ? "" : `The work of the other ${this.done} is kept. `
    return `${what}\n${kept}Run the same command again to make only the calls that are missing.`
  }
}

/** What a run is asked to do. */
export interface Options {
  readonly paths: ReadonlyArray<string>
  readonly task: Steps.Task
  readonly agents: number
  readonly out: string
  readonly mode: Screen.Mode
  readonly cap?: Agents.Cap | undefined
  /** Said first: who answers. */
  readonly provider: string
  /** Writes down what happens, for a report. */
  readonly recorder?: Recorder.Recorder | undefined
}

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
  const { mode, out, recorder, task } = options
  const fs = yield* FileSystem.FileSystem
  const { join } = yield* Path.Path
  const resultsPath = join(out, "results.jsonl")
  const summaryPath = join(out, "summary.md")
  const writing = (path: string) => Output.writing(path, "--out")
  const say = (line: string) => (mode === "live" || mode === "plain" ? Console.log(line) : Effect.void)

  const { binary, documents } = yield* Documents.read(options.paths)
  const chunks = Split.split(documents, options.agents)
  yield* Effect.andThen(Output.folder(out), Lock.hold(out)).pipe(writing(out))
  const before = Results.parse(
    (yield* writing(resultsPath)(fs.exists(resultsPath)))
      ? yield* writing(resultsPath)(fs.readFileString(resultsPath))
      : ""
  )

  const bytes = chunks.reduce((sum, chunk) => sum + chunk.bytes, 0)
  const skipped = binary === 0 ? "" : ` (${binary} left out: not text)`
  yield* say(
    `${View.counted(chunks.length, "agent")}, ${View.counted(documents.length, "file")}${skipped}, ${View.short(bytes)} bytes; model ${task.model}`
  )
  yield* say(options.provider)
  if (before.results.size > 0) yield* say(`Going on: ${before.results.size} answers are in ${resultsPath} already`)
  if (before.unreadable > 0)
    yield* say(`${before.unreadable} lines of ${resultsPath} cannot be read and are passed over`)

  const lock = yield* Semaphore.make(1)
  let torn = before.torn
  const append = (result: Results.Result) =>
    Effect.suspend(() => {
      const line = (torn ? "\n" : "") + Results.lineOf(result)
      return Effect.tap(fs.writeFileString(resultsPath, line, { flag: "a" }), () => Effect.sync(() => (torn = false)))
    })

  const agents = chunks.map((_, index) => Pipeline.nameOf(index, chunks.length))
  const report = yield* Effect.scoped(
    Effect.gen(function* () {
      const screen = yield* Screen.make(mode, {
        agents: new Map([
          ...chunks.map(({ bytes }, index) => [agents[index]!, bytes] as const),
          [Steps.orchestrator, 0] as const
        ]),
        calls: Pipeline.callsOf(agents.length)
      })
      if (recorder !== undefined) yield* recorder.sample
      return yield* Pipeline.run({
        task,
        chunks,
        finished: before.results,
        record: (result) => writing(resultsPath)(lock.withPermits(1)(append(result))),
        report:
          recorder === undefined
            ? screen.report
            : (event) => Effect.andThen(recorder.observe(event), screen.report(event)),
        cap: options.cap
      })
    })
  ).pipe(
    Effect.onInterrupt(() =>
      Console.error(`\nStopped. Every answer is kept in ${resultsPath}; run the same command again to go on.`)
    )
  )

  const text = Steps.summary(task, report.merged, report.parts, report.missing)
  yield* writing(summaryPath)(fs.writeFileString(summaryPath, text))
  const { calls, inputTokens, outputTokens, reused, seconds } = report
  const again = reused === 0 ? "" : ` (and ${reused} from before)`
  yield* say(
    `${report.missing.length === 0 ? "Done" : "Incomplete"} after ${View.clock(seconds)}: ${calls} calls${again}, ${View.thousands(inputTokens)} input and ${View.thousands(outputTokens)} output tokens`
  )
  yield* say(
    `${summaryPath} has ${report.missing.length === 0 ? "the answer" : "what is done"}${calls + reused === 0 ? "" : `, ${resultsPath} every call`}`
  )
  if (mode === "json") {
    const { parts: _, merged: __, missing, ...figures } = report
    yield* Console.log(JSON.stringify({ event: "done", complete: missing.length === 0, missing, ...figures }))
  }
  return report
})

/** Fails when something is missing. */
export const complete = (report: Pipeline.Report): Effect.Effect<void, Incomplete> =>
  report.missing.length === 0
    ? Effect.void
    : Effect.fail(new Incomplete({ missing: report.missing, done: report.parts.length }))
