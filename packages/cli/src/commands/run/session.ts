/**
 * One run over documents: reads the results of earlier runs, runs the pipeline, stores every result at once, and writes the summary.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import type * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Terminal from "effect/Terminal"
import type * as Agents from "floodgate/Agents"
import type * as Budget from "floodgate/Budget"
import type * as LlmClient from "floodgate/LlmClient"
import type { Params } from "floodgate/LlmProvider"
import * as Spending from "floodgate/Spending"
import type * as Exit from "@floodgate/gateway/internal/exit"
import * as Words from "floodgate/internal/words"
import * as Output from "@floodgate/gateway/internal/output"
import * as Print from "@floodgate/gateway/internal/print"
import { oneLine } from "@floodgate/gateway/internal/text"
import type * as Confirm from "./confirm.ts"
import * as Cost from "./cost.ts"
import * as Documents from "./documents.ts"
import * as Lock from "./lock.ts"
import * as Pausing from "./pausing.ts"
import * as Pipeline from "./pipeline.ts"
import * as Plan from "./plan.ts"
import type * as Recorder from "./recorder.ts"
import type * as Results from "./results.ts"
import * as Screen from "./screen.ts"
import type { Assignment } from "./selection.ts"
import * as Steps from "./steps.ts"
import * as Store from "./store.ts"
import * as View from "./view.ts"

/** Some of the agents failed. */
export class Incomplete extends Schema.TaggedError<Incomplete>("floodgate/cli/run/Incomplete")("Incomplete", {
  missing: Schema.Array(Schema.Struct({ agent: Schema.String, documents: Schema.String, reason: Schema.String })),
  /** Agents that finished. */
  done: Schema.Finite,
  /** Whether the same command may get further. */
  retryHelps: Schema.Boolean,
  /** The fault of the address, the key or the model, if no call was answered. */
  wrongStart: Schema.optional(Schema.String)
}) {
  override get message(): string {
    if (this.wrongStart !== undefined) return this.wrongStart
    const [first] = this.missing
    const reasons = new Set(this.missing.map(({ reason }) => reason))
    const names = this.missing.map(({ agent }) => agent).join(", ")
    const what =
      reasons.size === 1
        ? `${names} failed: ${first?.reason}`
        : `${this.missing.length} failed:${this.missing.map(({ agent, reason }) => `\n  ${agent}: ${reason}`).join("")}`
    const kept = this.done === 0 ? "" : `The work of the other ${this.done} is kept. `
    const next = this.retryHelps
      ? "Run the same command again to make only the calls that are missing."
      : "The same command would fail again: first correct what is reported above."
    return `${what}\n${kept}${next}`
  }
}

/** The options of a run. */
export interface Options {
  readonly work: Assignment
  readonly task: Steps.Task
  readonly out: string
  /** Whether the user named that folder. Only then may it be a link. */
  readonly outIsNamed: boolean
  readonly mode: Screen.DisplayMode
  readonly cap?: Agents.Cap | undefined
  readonly cost: Cost.Cost
  /** Whether calls wait for the reset of a cap or of a window. Otherwise they fail. */
  readonly waitForReset: boolean
  /** Whether answers cost money; otherwise the output says what they would cost. */
  readonly costs: boolean
  /** A line that names the provider, printed first. */
  readonly provider: string
  /** Records the run for a report. */
  readonly recorder?: Recorder.RunRecorder | undefined
  /** Asks for confirmation before the first call, if that is needed. */
  readonly confirm?: Confirm.Confirm | undefined
}

// -----------------------------------------------------------------------------
// Messages
// -----------------------------------------------------------------------------

/** The lines at the start of a run. */
const opening = (
  { provider, task, work: { chunks, found } }: Options,
  { results }: Store.Paths,
  { known, unreadable }: { readonly known: number; readonly unreadable: number }
): ReadonlyArray<string> => {
  const bytes = chunks.reduce((sum, chunk) => sum + chunk.bytes, 0)
  const agents = Words.counted(chunks.length, "agent")
  const files = Words.counted(found.documents.length, "file")
  return [
    `${agents}, ${files}${Documents.leftOutText(found.leftOut)}, ${Words.compact(bytes)} bytes; model ${task.model}`,
    provider,
    ...(known > 0 ? [`Resuming: ${results} has ${Words.counted(known, "answer")} of this task`] : []),
    ...(unreadable > 0 ? [`Skipped in ${results}: ${Words.counted(unreadable, "line")} that cannot be read`] : [])
  ]
}

/** The number of incomplete answers, if there are any. */
const cutOff = ({ task }: Options, { cut }: Pipeline.RunReport): ReadonlyArray<string> =>
  cut > 0
    ? [
        `Cut off at --max-tokens ${Words.thousands(task.maxTokens)}: ${Words.counted(cut, "answer")}; raise it for complete ones`
      ]
    : []

/** The lines at the end of a run. */
const closing = (
  options: Options,
  report: Pipeline.RunReport,
  dollars: number | undefined,
  { results, summary }: Store.Paths
): ReadonlyArray<string> => {
  const { calls, inputTokens, missing, outputTokens, reused, seconds } = report
  const isDone = missing.length === 0
  const again = reused === 0 ? "" : ` (and ${Words.thousands(reused)} from before)`
  const used = `${Words.thousands(inputTokens)} input and ${Words.thousands(outputTokens)} output tokens`
  const cost =
    dollars === undefined || calls === 0 ? "" : `, ${options.costs ? "" : "which would cost "}${Words.dollars(dollars)}`
  const every = calls + reused === 0 ? "" : `, ${results} every call`
  return [
    `${isDone ? "Done" : "Incomplete"} after ${View.clock(seconds)}: ${Words.counted(calls, "call")}${again}, ${used}${cost}`,
    ...cutOff(options, report),
    `${summary} has ${isDone ? "the answer" : "what is done"}${every}`
  ]
}

/** The end of a run as JSON. */
const closingJson = (
  { merged: _, missing, parts: __, ...figures }: Pipeline.RunReport,
  dollars: number | undefined
) => ({
  event: "done",
  complete: missing.length === 0,
  missing,
  ...figures,
  dollars: dollars ?? null
})

// -----------------------------------------------------------------------------
// The run
// -----------------------------------------------------------------------------

/** Runs the pipeline, and returns its report even if the run is incomplete. */
export const run = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<
  Pipeline.RunReport,
  Exit.CommandError | Lock.FolderInUse,
  | Scope.Scope
  | LlmClient.LlmClient
  | Agents.Meter
  | Budget.TokenBudget
  | FileSystem.FileSystem
  | Path.Path
  | Terminal.Terminal
> {
  const { cap, confirm, cost, mode, out, outIsNamed, recorder, task } = options
  const { chunks } = options.work
  const { join } = yield* Path.Path
  const paths = Documents.filesIn(join, out)
  const say = (lines: ReadonlyArray<string>) =>
    mode === "live" || mode === "plain" ? Print.out(lines.join("\n")) : Effect.void

  if (!outIsNamed) yield* Output.ownFolder(out, "--out")
  yield* Effect.andThen(Output.folder(out), Lock.hold(out)).pipe(Output.writing(out, "--out"))
  yield* Store.checkSummary(paths)
  const { before, note, record } = yield* Store.open(paths)
  const plan = Plan.make(task, chunks, Pipeline.knownOf({ task, chunks, finished: before.results }))
  let { known } = plan
  yield* say(opening(options, paths, { known, unreadable: before.unreadable }))
  if (confirm !== undefined && plan.calls > 0) yield* confirm(plan)

  const agents = chunks.map(({ bytes }, index) => [Pipeline.nameOf(index, chunks.length), bytes] as const)
  const report = yield* Effect.gen(function* () {
    const show = yield* Screen.make(mode, {
      agents: new Map([...agents, [Steps.orchestrator, 0]]),
      calls: Pipeline.callsOf(agents.length)
    })
    if (recorder !== undefined) yield* recorder.sample
    const report = (event: Pipeline.RunEvent) => Effect.andThen(recorder?.observe(event) ?? Effect.void, show(event))
    const keep = (result: Results.Result) => Effect.tap(record(result), () => Effect.sync(() => known++))
    // An attempt that cannot be noted is sent nevertheless: if its answer cannot be written either, that ends the run.
    const noted = (attempt: string, params: Params | undefined) =>
      Effect.flatMap(Clock.currentTimeMillis, (at) =>
        Effect.ignore(note({ attempt, at, dollars: params === undefined ? 0 : Cost.maxOf(cost, params) }))
      )
    const noteAttempt = cost.periods.length === 0 ? undefined : noted
    const finished = before.results
    const run = Pipeline.run({ task, chunks, finished, record: keep, report, noteAttempt, cap })
    const purses = [cost.purse, ...(yield* Cost.periodic(cost, before))]
    return yield* purses
      .reduce((self, purse) => Spending.from(purse)(self), run)
      .pipe(options.waitForReset ? Pausing.untilReset(report) : identity)
  }).pipe(
    Effect.scoped,
    Effect.onInterrupt(() => {
      const kept = ` Every answer is kept in ${oneLine(paths.results)}; run the same command again to resume.`
      return Print.err(`\nStopped.${known > 0 ? kept : ""}`)
    })
  )

  const text = Steps.summary(task, report.merged, report.parts, report.missing)
  yield* Output.replaceOwn(paths.summary, text, "--out")
  const dollars = cost.price === undefined ? undefined : (yield* cost.purse.status).total
  if (report.wrongStart === undefined) yield* say(closing(options, report, dollars, paths))
  if (mode === "quiet") for (const line of cutOff(options, report)) yield* Print.err(`floodgate: ${line}`)
  if (mode === "json") yield* Print.json(closingJson(report, dollars))
  return report
})

/** Fails if something is missing. */
export const complete = ({ parts, ...report }: Pipeline.RunReport): Effect.Effect<void, Incomplete> =>
  report.missing.length === 0 ? Effect.void : Effect.fail(new Incomplete({ ...report, done: parts.length }))
