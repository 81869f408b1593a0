/** `floodgate storm all --sessions`: races the strategies in the user's own sessions. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { LimitWords } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import { type Recorded, Report, Scenario, Scenarios, Strategies, Table } from "@floodgate/lab/internal"
import { invalidFlag } from "@floodgate/gateway/internal/errors"
import * as Legend from "../legend.ts"
import * as LimitFlags from "@floodgate/gateway/internal/limits"
import * as Output from "@floodgate/gateway/internal/output"
import { statusLine } from "../painter.ts"
import * as Print from "@floodgate/gateway/internal/print"
import * as Provenance from "../provenance.ts"
import * as SessionFile from "../sessions.ts"
import * as Tiers from "../tiers.ts"
import * as Threads from "./threads.ts"

/** The flags that choose sessions and limits, and one that does not go with them. */
interface OwnFlags extends LimitFlags.LimitFlagValues {
  readonly sessions: Option.Option<string>
  readonly agents: Option.Option<number>
  readonly docs: Option.Option<string>
}

/** The sessions of a file, and how long they took. */
interface OwnScenario {
  readonly options: Scenarios.SessionsOptions
  /** The comparison with the recording; undefined if others are played than were recorded. */
  readonly recorded: Recorded.RecordedSessions | undefined
  readonly notes: ReadonlyArray<string>
}

const invalid = invalidFlag("storm all")

/** Every strategy plays every call, with its whole text: more would not fit into the memory. A forecast takes more. */
const maxCalls = 20_000

/** The flags that apply to the user's own sessions only. */
const onlyWithSessions = [
  "agents",
  "inputTokensPerMinute",
  "outputTokensPerMinute",
  "requestsPerMinute",
  "tokensPerSecond",
  "burst",
  "window"
] as const

/** The sessions that the flags choose; undefined without `--sessions`. */
export const of = Effect.fnUntraced(function* (flags: OwnFlags, seed: number) {
  const { agents, docs } = flags
  if (Option.isNone(flags.sessions)) {
    for (const name of onlyWithSessions) {
      const value: Option.Option<string | number> = flags[name]
      if (Option.isSome(value)) {
        return yield* invalid(name, "nothing: the scenarios of the lab have their own", String(value.value))
      }
    }
    return undefined
  }
  if (Option.isSome(docs))
    return yield* invalid("docs", "nothing: the documentation has no sessions of yours", docs.value)
  const limits = yield* LimitFlags.checked("storm all", flags)
  const recorded = yield* SessionFile.read(flags.sessions.value)
  const max = { command: "storm all", calls: maxCalls, otherwise: "; floodgate forecast takes more" }
  const sessions = yield* SessionFile.chosen(recorded, agents, max)
  const [tier] = Tiers.anthropic
  const options: Scenarios.SessionsOptions = {
    sessions,
    limits: limits ?? tier!.limits,
    cache: SessionFile.countsCached(recorded) ? "automatic" : "breakpoints",
    latency: recorded.latency,
    seed
  }
  const { models } = recorded
  const own: OwnScenario = {
    options,
    recorded: Option.isSome(agents) ? undefined : recorded,
    notes: [
      ...(limits === undefined ? [`The limits are those of Anthropic's tier ${tier!.name}: state yours.`] : []),
      ...(models.length > 1 ? [`The ${models.length} models of the file share one set of limits here.`] : [])
    ]
  }
  return own
})

/** The time that the sessions took when they were recorded, in a sentence. */
const takenOf = ({ recorded }: OwnScenario): ReadonlyArray<string> => {
  if (recorded?.seconds === undefined || recorded.meanEndSeconds === undefined) return []
  const [seconds, mean] = [recorded.seconds, recorded.meanEndSeconds].map((value) => value.toFixed(1))
  return [`When they were recorded they took ${seconds} s, and a session had ended after ${mean} s in the mean.`]
}

/** Races all strategies, and writes the report. */
export const race = Effect.fnUntraced(function* (own: OwnScenario, report: string) {
  yield* Output.claim(report, "--report")
  const { options } = own
  const status = yield* statusLine
  yield* status(`preparing ${Words.counted(options.sessions.length, "session")}`)
  const scenario = Scenarios.fromSessions(options)
  const strategies = Strategies.of(scenario).map(({ name }) => name)
  const seed = options.seed ?? 1
  yield* status("")
  const parts = yield* Threads.race(
    strategies.map((strategy): Threads.RaceJob => ({ scenario: scenario.name, seed, strategy })),
    options
  )
  const figures = Report.Figures.assembled(scenario, parts)
  const notes = [...takenOf(own), ...own.notes]
  const section = Report.Html.ofScenario(figures)
  const html = Report.Html.render({
    title: "floodgate storm all: your own sessions",
    intro: Report.Html.raceIntro,
    sections: [{ ...section, notes: [...section.notes, ...notes] }],
    provenance: yield* Provenance.of([
      ["seed", String(seed)],
      ["limits", LimitWords.limitsText(scenario.limits)],
      ["provider model", Scenario.modelOf(scenario)]
    ])
  })
  yield* Output.write(report, html, "--report")
  yield* Print.out(`${Table.text(scenario, figures.results, (yield* Print.Room).stdout)}\n`)
  if (notes.length > 0) yield* Print.out(`${notes.join("\n")}\n`)
  yield* Legend.print(strategies)
}, Effect.scoped)
