/** `floodgate forecast`: predicts how long a workload takes and what it costs. */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Accounting from "floodgate/Accounting"
import { Advice, Latency, Stepwise } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import * as Forecast from "floodgate/Forecast"
import * as Prices from "floodgate/Prices"
import { invalidFlag, orInvalid } from "@floodgate/gateway/internal/errors"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as Printed from "./forecast/printed.ts"
import * as LimitFlags from "@floodgate/gateway/internal/limits"
import * as Simulated from "./simulated.ts"
import * as Output from "@floodgate/gateway/internal/output"
import { statusLine } from "./painter.ts"
import * as Print from "@floodgate/gateway/internal/print"
import * as Provenance from "./provenance.ts"
import * as Cost from "./run/cost.ts"
import * as Documents from "./run/documents.ts"
import * as Selection from "./run/selection.ts"
import * as Workload from "./run/workload.ts"
import * as Tiers from "./tiers.ts"
import { withLab } from "./withLab.ts"

// -----------------------------------------------------------------------------
// Flags
// -----------------------------------------------------------------------------

/** The models whose prices are compared by default: the current one of each of Anthropic's classes. */
const usualModels = ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"]

const flags = {
  paths: Argument.String("path").pipe(
    Argument.withDescription("Files, or folders of text files: the workload of run"),
    Argument.variadic()
  ),
  ...Selection.flags,
  trace: Flags.trace("A trace as the workload: CSV of the Azure LLM inference or BurstGPT format"),
  sessions: Flags.sessions("Sessions of agents as the workload"),
  agents: Flags.count("agents").pipe(
    Flags.optional(
      "Agents; with --trace, the agents make its calls as fast as possible; with --sessions, so many sessions, by repeating those of the file (default: 12, or the trace's arrivals, or the sessions of the file)"
    )
  ),
  calls: Flags.optionalCount("calls", "Calls that each agent makes in turn", "5"),
  firstTokens: Flags.optionalCount("first-tokens", "Tokens of an agent's first call, output included", "150000"),
  tokens: Flags.optionalCount("tokens", "Tokens of each later call, output included", "14000"),
  outputTokens: Flags.optionalCount("output-tokens", "Output tokens of each call", "200"),
  model: Flag.String("model").pipe(
    Flag.withMetavar("<name>"),
    Flag.withDescription(`Show the cost with this model; may be repeated (default: ${usualModels.join(", ")})`),
    Flag.atLeast(0)
  ),
  concurrency: LimitFlags.concurrency,
  latencyPerToken: Simulated.latencyPerToken,
  deadline: Flags.duration("deadline").pipe(
    Flags.optional('Show which tier meets this deadline, such as "10 minutes"')
  ),
  ...LimitFlags.flags,
  report: Output.flag("report", "file").pipe(
    Flags.optional("Write a report with charts: one HTML file that opens offline")
  ),
  json: Flags.toggle("json", "Print one JSON object")
}

const invalid = invalidFlag("forecast")

// -----------------------------------------------------------------------------
// Workloads
// -----------------------------------------------------------------------------

const attempt = orInvalid("forecast", "Forecast")

/** A forecast of more calls takes minutes. */
const maxCalls = 1_000_000

interface WorkloadFlags extends Selection.SelectionFlags {
  readonly trace: Option.Option<string>
  readonly sessions: Option.Option<string>
  readonly agents: Option.Option<number>
  readonly latencyPerToken: Option.Option<number>
  readonly calls: Option.Option<number>
  readonly firstTokens: Option.Option<number>
  readonly tokens: Option.Option<number>
  readonly outputTokens: Option.Option<number>
  readonly report: Option.Option<string>
}

/** A workload, and what its calls use: they may read from a cache, which costs less. */
interface GivenWorkload {
  readonly agents: Forecast.Workload
  readonly uses: ReadonlyArray<Accounting.Actual>
  /** Facts about sessions, beside their sizes; undefined for any other workload. */
  readonly sessions: Printed.SessionFacts | undefined
}

/** Refuses flags that do not apply to the kind of workload. */
const onlyOf = Effect.fnUntraced(function* (wanted: WorkloadFlags) {
  const { paths, sessions, trace } = wanted
  if (paths.length === 0) yield* Selection.withoutFolder("forecast", wanted)
  const file = Option.orElse(sessions, () => trace)
  if (Option.isSome(file) && paths.length > 0) {
    const flag = Option.isSome(sessions) ? "sessions" : "trace"
    return yield* invalid(flag, "nothing: the documents are the workload", file.value)
  }
  if (Option.isSome(sessions) && Option.isSome(trace)) {
    return yield* invalid("trace", "nothing: the sessions are the workload", trace.value)
  }
  if (Option.isNone(file) && paths.length === 0) return
  const of = Option.isSome(sessions) ? "the sessions have their own" : "the trace has its own"
  const own = Option.isSome(file) ? of : "the documents decide"
  const others = [
    "calls",
    "firstTokens",
    "tokens",
    ...(Option.isSome(file) ? (["outputTokens"] as const) : [])
  ] as const
  for (const name of others) {
    const value = wanted[name]
    if (Option.isSome(value)) return yield* invalid(name, `nothing: ${own}`, String(value.value))
  }
})

/** The workload of a file of sessions. */
const ofSessions = Effect.fnUntraced(function* (path: string, { agents, latencyPerToken }: WorkloadFlags) {
  const [SessionFile, SessionWorkload] = yield* withLab("--sessions", () =>
    Promise.all([import("./sessions.ts"), import("./forecast/sessions.ts")])
  )
  const recorded = yield* SessionFile.read(path)
  const sessions = yield* SessionFile.chosen(recorded, agents, { command: "forecast", calls: maxCalls })
  const latency = {
    ...(recorded.latency ?? Latency.usual),
    ...(Option.isSome(latencyPerToken) && { perOutputTokenMillis: latencyPerToken.value })
  }
  const countsCached = SessionFile.countsCached(recorded)
  const uses = SessionWorkload.usesOf(sessions)
  return {
    agents: SessionWorkload.workloadOf(sessions, latency, countsCached),
    uses,
    sessions: {
      cachedTokens: uses.reduce((sum, { cacheReadTokens = 0 }) => sum + cacheReadTokens, 0),
      countsCached,
      recordedSeconds: Option.isNone(agents) ? recorded.seconds : undefined,
      models: recorded.models
    }
  }
})

/** The workload of anything else. */
const ofCalls = Effect.fnUntraced(function* (wanted: WorkloadFlags) {
  const { paths, trace } = wanted
  const calls = Option.getOrElse(wanted.calls, () => 5)
  const firstTokens = Option.getOrElse(wanted.firstTokens, () => 150_000)
  const tokens = Option.getOrElse(wanted.tokens, () => 14_000)
  const outputTokens = Option.getOrElse(wanted.outputTokens, () => 200)
  const agents = Option.getOrElse(wanted.agents, () => 12)
  if (Option.isSome(trace)) {
    const Trace = yield* withLab("--trace", () => import("./trace.ts"))
    const recorded = yield* Trace.read(trace.value)
    return yield* Stepwise.yielding(Trace.workloadOf(recorded, Option.getOrUndefined(wanted.agents)))
  }
  if (paths.length > 0) {
    const own = { out: Documents.defaultOut, report: Option.getOrUndefined(wanted.report) }
    const { chunks } = yield* Selection.assignmentOf("forecast", wanted, own)
    return chunks.map(({ bytes }, number) => ({
      name: `agent-${number + 1}`,
      calls: Workload.ofDocuments(bytes, outputTokens)
    }))
  }
  for (const [option, value] of [
    ["first-tokens", firstTokens],
    ["tokens", tokens]
  ] as const) {
    if (value <= outputTokens) {
      return yield* invalid(option, `more than the ${outputTokens} output tokens`, String(value))
    }
  }
  if (agents * calls > maxCalls) {
    const [option, given] = agents > maxCalls ? ["agents", agents] : ["calls", calls]
    return yield* invalid(option, `at most ${Words.thousands(maxCalls)} calls of all agents`, String(given))
  }
  return yield* attempt(() =>
    Forecast.uniform({
      agents,
      calls,
      first: { inputTokens: firstTokens - outputTokens, outputTokens },
      later: { inputTokens: tokens - outputTokens, outputTokens }
    })
  )
})

const workloadOf = Effect.fnUntraced(function* (
  wanted: WorkloadFlags
): Effect.fn.Return<
  GivenWorkload,
  Effect.Error<ReturnType<typeof ofCalls>> | Effect.Error<ReturnType<typeof ofSessions>>,
  Effect.Services<ReturnType<typeof ofCalls>> | Effect.Services<ReturnType<typeof ofSessions>>
> {
  yield* onlyOf(wanted)
  if (Option.isSome(wanted.sessions)) return yield* ofSessions(wanted.sessions.value, wanted)
  const agents = yield* ofCalls(wanted)
  return { agents, uses: agents.flatMap(({ calls }) => calls), sessions: undefined }
})

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/**
 * The number of agents that help: the smallest number of calls at once with which the workload takes at most 2 % longer than with all
 * agents. Sessions
 * pause, so for them it is the number of sessions at once.
 */
const agentsThatHelp = ({ agents, sessions }: GivenWorkload, options: Forecast.Options): Effect.Effect<number> => {
  const max = Math.max(1, Math.min(agents.length, options.concurrency ?? Infinity))
  const limited = (count: number) => (sessions === undefined ? { concurrency: count } : { atOnce: count })
  return Advice.fewestAsQuick(max, 0.02, (count) =>
    Effect.map(Forecast.makeEffect(agents, { ...options, ...limited(count) }), ({ duration }) =>
      Duration.toMillis(duration)
    )
  )
}

/** The forecast for one tier. */
const answerOf = Effect.fnUntraced(function* (
  workload: GivenWorkload,
  { limits, name }: Tiers.Tier,
  conditions: Omit<Forecast.Options, "limits">
): Effect.fn.Return<Printed.TierForecast> {
  const options = { ...conditions, limits }
  const forecast = yield* Forecast.makeEffect(workload.agents, options)
  return { tier: name, limits, forecast, agentsThatHelp: yield* agentsThatHelp(workload, options) }
})

/** The forecasts for all tiers; shows the progress. */
const answersOf = Effect.fnUntraced(function* (
  workload: GivenWorkload,
  tiers: ReadonlyArray<Tiers.Tier>,
  conditions: Omit<Forecast.Options, "limits">
) {
  const status = yield* statusLine
  return yield* Effect.forEach(tiers, (tier, index) =>
    Effect.andThen(
      status(`forecast ${index + 1} of ${tiers.length}: limits ${tier.name}`),
      answerOf(workload, tier, conditions)
    )
  )
}, Effect.scoped)

const costsOf = (
  uses: ReadonlyArray<Accounting.Actual>,
  models: ReadonlyArray<string>
): ReadonlyArray<Printed.ModelCost> =>
  models.map((model) => {
    const price = Prices.find(model)
    return { model, dollars: Cost.sumOf(price, uses), asOf: price?.asOf }
  })

// -----------------------------------------------------------------------------
// The command
// -----------------------------------------------------------------------------

/** The command. */
export const forecastCommand = Command.make(
  "forecast",
  flags,
  Effect.fnUntraced(function* ({ concurrency, latencyPerToken, ...given }) {
    const deadline = Option.getOrUndefined(given.deadline)
    const workload = yield* workloadOf({ ...given, latencyPerToken })
    const limits = yield* LimitFlags.checked("forecast", given)
    const conditions = {
      concurrency: Option.getOrUndefined(concurrency),
      latency: { perOutputTokenMillis: Option.getOrUndefined(latencyPerToken) }
    }
    const tiers: ReadonlyArray<Tiers.Tier> = limits === undefined ? Tiers.anthropic : [{ name: "as given", limits }]
    const answers = yield* answersOf(workload, tiers, conditions)
    const enough = answers.find(
      ({ forecast }) =>
        deadline !== undefined &&
        forecast.refused.length === 0 &&
        Duration.isLessThanOrEqualTo(forecast.duration, deadline)
    )
    const models = given.model.length === 0 ? usualModels : [...new Set(given.model)]
    const printed: Printed.Printed = {
      agents: workload.agents.length,
      answers,
      sessions: workload.sessions,
      costs: costsOf(workload.uses, models),
      monthly: new Map(tiers.flatMap(({ monthly, name }) => (monthly === undefined ? [] : [[name, monthly] as const]))),
      limits,
      deadline: deadline === undefined ? undefined : { duration: deadline, tier: enough?.tier }
    }
    if (Option.isSome(given.report)) {
      const Report = yield* withLab("--report", () => import("./forecast/report.ts"))
      yield* Output.claim(given.report.value, "--report")
      const provenance = yield* Provenance.of([["limits", Printed.limitsTextOf(printed)]])
      yield* Output.write(given.report.value, Report.html(printed, provenance), "--report")
    }
    yield* given.json ? Print.json(Printed.jsonOf(printed), 2) : Print.out(Printed.text(printed))
  })
).pipe(
  Command.withDescription(
    "Predicts how long a workload takes, which limit binds, how many agents help, which tier is enough, and what it costs."
  ),
  Command.withExamples([
    { command: "floodgate forecast --tokens-per-second 60000 --burst 200000", description: "The incident" },
    {
      command: 'floodgate forecast docs --agents 8 --deadline "2 minutes"',
      description: "Your documents, under each tier"
    },
    {
      command: "floodgate forecast --trace calls.csv --input-tokens-per-minute 400000",
      description: "A recorded hour"
    },
    {
      command: "floodgate forecast --sessions sessions.csv --agents 40 --input-tokens-per-minute 400000",
      description: "Sessions that the gateway has recorded, 40 of them at once"
    }
  ])
)
