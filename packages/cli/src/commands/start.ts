/**
 * `floodgate start`: a tour. First it races common strategies and Floodgate in several scenarios, in simulated time; then the official
 * SDK with and without Floodgate, over real HTTP.
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Terminal from "effect/Terminal"
import { Matrix, Race, Report, Scenario, Scenarios, Strategies } from "@floodgate/lab/internal"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as Legend from "./legend.ts"
import * as Painter from "./painter.ts"
import * as Print from "@floodgate/gateway/internal/print"
import { painting } from "./paint.ts"
import * as Racing from "./racing.ts"
import { modeOf } from "./run.ts"
import * as Duel from "./start/duel.ts"
import * as View from "./start/view.ts"
import { aligned, hung } from "@floodgate/gateway/internal/text"

const heading = (text: string) => Print.out(`\n== ${text}\n`)

// -----------------------------------------------------------------------------
// In simulated time
// -----------------------------------------------------------------------------

/** The scenarios of the tour. */
const raced = ["incident", "neighbour", "outage-at-start", "random-rejections", "undeclared-concurrency", "sessions"]

/** The way in which the progress is shown. */
type Mode = Effect.Success<ReturnType<typeof modeOf>>

const simulated = Effect.fnUntraced(function* (mode: Mode) {
  yield* Print.out("== In simulated time: common strategies, and Floodgate\n")
  const races: Array<Matrix.RaceResults> = []
  for (const [index, name] of raced.entries()) {
    if (mode === "plain") yield* Print.out(`${index + 1} of ${raced.length}: ${name}`)
    const runs = yield* Racing.race(Scenarios.byName(name)!, Strategies.usual)
    races.push({ name, results: runs.map(({ result }) => result) })
  }
  if (mode === "plain") yield* Print.out("")
  const { stdout } = yield* Print.Room
  const described = raced.map((name) => [name, new Map(Scenarios.described).get(name)!] as const)
  const width = Math.max(...described.map(([name]) => name.length)) + 2
  yield* Print.painted(Matrix.text(races, stdout, yield* painting))
  yield* Print.out(
    [
      "",
      "Simulated seconds until all of the work was done, or the number of lost calls; beside it the 429s.",
      "floodgate-as-installed has default settings, as in a first program. floodgate-estimates knows the limits, and floodgate-unknown the tokens of each call. floodgate, hand-written, Effect's limiter and Bottleneck know both.",
      "",
      Report.Verdict.ofRaces(races).text,
      "",
      ...described.map(([name, what]) => `${name.padEnd(width)}${hung(what, width, stdout)}`),
      ""
    ].join("\n")
  )
  yield* Legend.print(Strategies.usual.map(({ name }) => name))
})

// -----------------------------------------------------------------------------
// Over HTTP
// -----------------------------------------------------------------------------

const look = ({ sides }: Duel.Duel) =>
  Effect.forEach(sides, ({ agents, name, stats, waits }) =>
    Effect.zipWith(stats, waits, (stats, waits): View.SideView => ({ name, agents, stats, waits }))
  )

const frame = "100 millis"
/** The interval of progress lines without a terminal. */
const lines = "5 seconds"

/** Draws the duel in place as long as the scope lasts, or prints a line now and then. */
const show = Effect.fnUntraced(function* (duel: Duel.Duel, mode: Mode) {
  if (mode === "live") {
    const terminal = yield* Terminal.Terminal
    const paint = yield* painting
    const painter = Painter.make(terminal, (line) => View.painted(line, paint))
    const draw = Effect.gen(function* () {
      yield* painter.draw(View.draw(yield* look(duel), yield* duel.seconds, yield* Painter.sizeOf(terminal)))
    })
    yield* Effect.addFinalizer(() => Effect.andThen(draw, painter.end))
    return yield* Effect.asVoid(Effect.forkScoped(Effect.repeat(draw, Schedule.spaced(frame))))
  }
  const line = Effect.gen(function* () {
    yield* Effect.sleep(lines)
    yield* Print.out(View.plain(yield* look(duel), yield* duel.seconds))
  })
  yield* Effect.forkScoped(Effect.forever(line))
})

const overHttp = Effect.fnUntraced(function* (mode: Mode) {
  yield* heading("The incident at half its size, over real HTTP and in real time")
  yield* Print.out(
    [
      "@anthropic-ai/sdk with default settings, and the same SDK with Floodgate's middleware, which knows the limits but not the tokens.",
      `Each has a provider of its own: ${Scenario.modelOf(Duel.scenario)}.`,
      ""
    ].join("\n")
  )
  const duel = yield* Duel.make
  yield* Effect.scoped(
    Effect.gen(function* () {
      yield* show(duel, mode)
      yield* Effect.forEach(duel.sides, ({ run }) => run, { concurrency: "unbounded", discard: true })
    })
  )
  const looks = yield* look(duel)
  const oracle = yield* Race.run(Duel.scenario, Strategies.oracle)
  yield* Print.out(["", ...View.summary(looks, oracle.result.makespanSeconds)].join("\n"))
  return View.countsOf(looks[1]!).lost
}, Effect.scoped)

/** The command that calls the tool. In a clone, npm provides the right version of Node. */
const self = import.meta.url.endsWith(".ts") ? "npm run -s floodgate --" : "npx floodgate"

const next = [
  "",
  "Next:",
  ...aligned([
    [`  ${self} run docs --prompt "..."`, "your own documents"],
    [`  ${self} storm --help`, "other scenarios, other sizes"],
    [`  ${self} lab --explain`, "how each strategy is configured, and why"],
    [`  ${self} lab`, "every strategy in every scenario, as one report"]
  ])
].join("\n")

/** The command. */
export const startCommand = Command.make("start", {}, () =>
  Effect.gen(function* () {
    const mode = yield* modeOf({ quiet: false, json: false })
    yield* simulated(mode)
    const lost = yield* overHttp(mode)
    yield* Print.out(next)
    if (lost > 0) {
      const what = `${lost} calls were lost with Floodgate, which must not happen`
      return yield* Exit.failure("failed", `${what}: please report it with the output above`)
    }
  })
).pipe(
  Command.withDescription(
    "A tour in about half a minute. First it compares common strategies with Floodgate in several scenarios, in simulated time. Then it runs the official SDK with and without Floodgate over real HTTP. It needs no key and no network, and writes nothing."
  ),
  Command.withExamples([{ command: "floodgate start", description: "Needs no key and no network" }])
)
