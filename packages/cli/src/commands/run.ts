/** `floodgate run`: runs agents over your own documents. */
import * as CliError from "effect/cli/CliError"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Retry from "floodgate/Retry"
import * as Files from "@floodgate/gateway/internal/files"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as LimitFlags from "@floodgate/gateway/internal/limits"
import * as Output from "@floodgate/gateway/internal/output"
import * as Print from "@floodgate/gateway/internal/print"
import * as Redis from "@floodgate/gateway/internal/redis"
import * as Telemetry from "@floodgate/gateway/internal/telemetry"
import * as Answering from "./run/answering.ts"
import * as Confirm from "./run/confirm.ts"
import * as Cost from "./run/cost.ts"
import * as Documents from "./run/documents.ts"
import * as DryRun from "./run/dryRun.ts"
import * as Pausing from "./run/pausing.ts"
import * as Pipeline from "./run/pipeline.ts"
import * as Recorder from "./run/recorder.ts"
import type * as Screen from "./run/screen.ts"
import * as Selection from "./run/selection.ts"
import * as Session from "./run/session.ts"
import { version } from "./version.ts"
import { withLab } from "./withLab.ts"

// -----------------------------------------------------------------------------
// Flags
// -----------------------------------------------------------------------------

const flags = {
  paths: Argument.String("path").pipe(
    Argument.filter(
      (path) => path !== "",
      () => "a file or folder"
    ),
    Argument.withDescription("Files, or folders of text files"),
    Argument.atLeast(1)
  ),
  prompt: Flag.String("prompt").pipe(Flags.optional("What to do with the documents")),
  promptFile: Flag.String("prompt-file").pipe(
    Flag.withMetavar("<file>"),
    Flags.optional("A file with the prompt, instead of --prompt")
  ),
  ...Selection.flags,
  agents: Flags.count("agents").pipe(
    Flags.optional(
      `Agents, each with an equal share of the documents (default: ${Selection.usualAgents}, at most one per line)`
    )
  ),
  model: Flags.text("model", "the name of a model").pipe(Flags.byDefault("The model", "claude-sonnet-5")),
  maxTokens: Flags.count("max-tokens", Flags.maxOutputTokens).pipe(
    Flags.byDefault("The most output tokens of one call", 1_024)
  ),
  out: Output.flag("out", "folder").pipe(
    Flags.optional(
      `Folder for results.jsonl and summary.md; a stopped run resumes from it (default: ${Documents.defaultOut})`
    )
  ),
  dryRun: Flags.toggle(
    "dry-run",
    "Show what would be sent, its size, how long it takes and what it costs; send and write nothing. Each call counts with the earlier answers in its prompt, and nothing as cached"
  ),
  yes: Flags.toggle("yes", "Do not ask for confirmation before the first call to a paid provider", "y"),
  concurrency: LimitFlags.concurrency,
  attempts: Flags.count("attempts", 1_000).pipe(
    Flags.optional(
      "Attempts that one call may make (default: 5, without those that a rate limit or an outage ends); waits double from 2 s to a minute, or last as long as the provider asks"
    )
  ),
  capTokens: Flags.count("cap-tokens").pipe(
    Flags.optional("The most tokens that all calls together may use (default: no cap)")
  ),
  maxUsd: Flags.positive("max-usd", 1_000_000).pipe(
    Flags.optional(
      "The most that this run may cost in dollars; a call that may cost more is not sent (default: no cap)"
    )
  ),
  maxUsdPerDay: Flags.positive("max-usd-per-day", 1_000_000).pipe(
    Flags.optional(
      "The most that this run may cost in dollars on one UTC day, and with --redis all runs that share the budget; what it cost that day before it was stopped counts (default: no cap)"
    )
  ),
  maxUsdPerMonth: Flags.positive("max-usd-per-month", 1_000_000).pipe(
    Flags.optional("The same for a month, such as the API credits of a subscription (default: no cap)")
  ),
  monthFrom: Flags.text("month-from", "a day of the month").pipe(
    Flags.optional(
      "The day on which a month begins, and its time zone, such as 15 or '15 in Europe/Berlin' (default: 1, in UTC)"
    )
  ),
  waitForReset: Flags.toggle(
    "wait-for-reset",
    "When the cap of a day or a month or a window of a subscription is used up, pause until the reset, instead of failing"
  ),
  ...LimitFlags.flags,
  ...Redis.flags,
  report: Output.flag("report", "file").pipe(
    Flags.optional("Write a report with charts when it ends: one HTML file that opens offline")
  ),
  quiet: Flags.toggle("quiet", "Print only errors", "q"),
  json: Flags.toggle("json", "Print every event and then the report as JSON lines")
}

const usage = (message: string): CliError.ShowHelp =>
  new CliError.ShowHelp({
    commandPath: ["floodgate", "run"],
    errors: [new CliError.UserError({ cause: message, userMessage: message })]
  })

/** The prompt is part of every call, so it must be short. */
const maxPromptBytes = 1e6

const promptOf = Effect.fnUntraced(function* (prompt: Option.Option<string>, file: Option.Option<string>) {
  if (Option.isSome(prompt) && Option.isSome(file)) return yield* usage("Give --prompt or --prompt-file, not both")
  if (Option.isSome(file)) {
    const text = yield* Files.text(file.value, maxPromptBytes)
    if (text.trim() === "") return yield* usage(`${file.value} is empty: say in it what to do with the documents`)
    return text
  }
  const text = Option.getOrElse(prompt, () => "").trim()
  return text === "" ? yield* usage("Say what to do with the documents: --prompt TEXT or --prompt-file FILE") : text
})

// -----------------------------------------------------------------------------
// The command
// -----------------------------------------------------------------------------

/** Chooses how a command shows its progress: as a live picture on a terminal that can redraw, otherwise in plain lines. */
export const modeOf = (given: { readonly quiet: boolean; readonly json: boolean }) =>
  Effect.map(TerminalCapabilities.TerminalCapabilities, ({ canAnimate }): Screen.DisplayMode => {
    if (given.json) return "json"
    if (given.quiet) return "quiet"
    return canAnimate ? "live" : "plain"
  })

/** The command. */
export const runCommand = Command.make(
  "run",
  flags,
  Effect.fnUntraced(function* (given) {
    const prompt = yield* promptOf(given.prompt, given.promptFile)
    const limits = yield* LimitFlags.checked("run", given)
    const mode = yield* modeOf(given)
    const out = Option.getOrElse(given.out, () => Documents.defaultOut)
    const report = Option.getOrUndefined(given.report)
    const task = { prompt, model: given.model, maxTokens: given.maxTokens }
    const concurrency = Option.getOrUndefined(given.concurrency)
    const cost = yield* Cost.of(given.model, {
      maxDollars: Option.getOrUndefined(given.maxUsd),
      maxDollarsPerDay: Option.getOrUndefined(given.maxUsdPerDay),
      maxDollarsPerMonth: Option.getOrUndefined(given.maxUsdPerMonth),
      monthFrom: Option.getOrUndefined(given.monthFrom)
    })
    const work = yield* Selection.assignmentOf("run", given, { out, report })
    if (given.dryRun) return yield* DryRun.show({ work, task, out, limits, concurrency, cost, json: given.json })
    const Report = report === undefined ? undefined : yield* withLab("--report", () => import("./run/report.ts"))
    const recorder = report === undefined ? undefined : Recorder.make()
    const store = yield* Redis.storeOf(given)
    const answering = yield* Answering.fromConfig({
      limits,
      concurrency,
      retry: Retry.make({ attempts: Option.getOrUndefined(given.attempts) }),
      windows: given.waitForReset ? Pausing.windows : undefined,
      // The live picture already shows this, and `--quiet` hides it.
      log: mode === "plain" || mode === "json",
      wrap: recorder?.wrap
    })
    if (report !== undefined) yield* Output.claim(report, "--report")
    const { canPrompt } = yield* TerminalCapabilities.TerminalCapabilities
    const about = {
      planned: Pipeline.callsOf(work.chunks.length),
      provider: answering.provider,
      cost,
      costs: answering.costs
    }
    const written =
      report === undefined || recorder === undefined || Report === undefined
        ? Effect.void
        : Report.write(report, { limits, model: given.model, recorder, ...about })
    const asks = answering.costs && canPrompt && !given.yes
    const outcome = yield* Session.run({
      work,
      task,
      out,
      outIsNamed: Option.isSome(given.out),
      mode,
      cap: Option.isNone(given.capTokens) ? undefined : { tokens: given.capTokens.value },
      provider: answering.notice,
      cost,
      waitForReset: given.waitForReset,
      costs: answering.costs,
      recorder,
      confirm: asks ? yield* Confirm.onTerminal(answering.provider, cost) : undefined
    }).pipe(
      Effect.provide(store === undefined ? answering.layer : Layer.provideMerge(answering.layer, store)),
      // A report is also written after a stopped or failed run.
      Effect.onError(() => Effect.ignore(written)),
      Effect.tap(() => written),
      Telemetry.around({ name: "floodgate", version, span: "floodgate run" })
    )
    const summary = yield* answering.summary
    if (summary !== undefined && (mode === "live" || mode === "plain")) yield* Print.out(summary)
    yield* Session.complete(outcome)
  }, Effect.scoped)
).pipe(
  Command.withDescription(
    "Splits documents between agents. Every agent reads, extracts, drafts, checks and finishes, all under one budget, and an orchestrator merges the results into summary.md. With ANTHROPIC_API_KEY it calls Anthropic (ANTHROPIC_BASE_URL sets another address), otherwise the embedded simulated provider. Limits that are not set are learned from the responses. Ctrl-C keeps finished calls; the same command resumes."
  ),
  Command.withExamples([
    {
      command: 'floodgate run docs README.md --prompt "What must an operator know?"',
      description: "Twelve agents over a folder and a file"
    },
    {
      command: "floodgate run reports --prompt-file task.md --agents 40 --out out --json",
      description: "Forty agents, events as JSON lines"
    },
    {
      command: 'floodgate run docs --prompt "List the decisions" --redis redis://127.0.0.1:6379',
      description: "One limit shared by all runs that use this Redis; see floodgate status"
    },
    {
      command: 'floodgate run docs --prompt "List the decisions" --input-tokens-per-minute 400000',
      description: "With your tier's limit, so that the first calls need not find it"
    },
    {
      command: 'floodgate run docs --prompt "List the decisions" --max-usd-per-day 10 --wait-for-reset',
      description: "At most $10 a day: it pauses until midnight UTC, and goes on"
    }
  ])
)
