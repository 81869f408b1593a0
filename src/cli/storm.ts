/**
 * `floodgate storm`: the incident, and what each strategy makes of it, in simulated time.
 *
 * @since 0.1.0
 */
import * as CliError from "effect/cli/CliError"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { Race, Scenario, Strategies, Table } from "../lab/index.ts"

const names = Strategies.all.map(({ name }) => name)

const flags = {
  agents: Flag.Int("agents").pipe(Flag.withDescription("Agents that start at once"), Flag.withDefault(12)),
  calls: Flag.Int("calls").pipe(Flag.withDescription("Calls that each agent makes in turn"), Flag.withDefault(5)),
  firstTokens: Flag.Int("first-tokens").pipe(
    Flag.withDescription("Tokens of an agent's first call, output included"),
    Flag.withDefault(150_000)
  ),
  tokens: Flag.Int("tokens").pipe(
    Flag.withDescription("Tokens of each later call, output included"),
    Flag.withDefault(14_000)
  ),
  outputTokens: Flag.Int("output-tokens").pipe(
    Flag.withDescription("Output tokens of each call, within its tokens"),
    Flag.withDefault(200)
  ),
  rate: Flag.Finite("rate").pipe(
    Flag.withDescription("Tokens a second that the provider grants"),
    Flag.withDefault(60_000)
  ),
  burst: Flag.Finite("burst").pipe(
    Flag.withDescription("Tokens that its bucket holds; a window holds a minute's worth"),
    Flag.withDefault(200_000)
  ),
  concurrency: Flag.Int("concurrency").pipe(
    Flag.withDescription("Calls that the provider takes at once (default: no limit)"),
    Flag.optional
  ),
  rejections: Flag.Literals("rejections", ["free", "charged"]).pipe(
    Flag.withDescription("Whether a rejected request counts against the limits"),
    Flag.withDefault("charged")
  ),
  headers: Flag.Literals("headers", ["none", "rounded", "exact", "openai", "wrong"]).pipe(
    Flag.withDescription("What responses tell of the limits"),
    Flag.withDefault("none")
  ),
  window: Flag.Literals("window", ["bucket", "sliding", "fixed"]).pipe(
    Flag.withDescription("How the provider counts"),
    Flag.withDefault("bucket")
  ),
  latencyPerToken: Flag.Finite("latency-per-token").pipe(
    Flag.withDescription("Milliseconds per output token, besides 500 a call and 0.01 per input token"),
    Flag.withDefault(10)
  ),
  seed: Flag.Int("seed").pipe(Flag.withDescription("The same seed gives the same figures"), Flag.withDefault(1)),
  strategy: Flag.Literals("strategy", names).pipe(
    Flag.withDescription("Only this strategy; may be repeated (default: the usual five)"),
    Flag.atLeast(0)
  ),
  json: Flag.Boolean("json").pipe(
    Flag.withDescription("One JSON object: the scenario and an array of results"),
    Flag.withDefault(false)
  )
}

/** A scenario, or the help with an error that names the flag. */
const scenarioOf = (options: Scenario.Options): Effect.Effect<Scenario.Scenario, CliError.ShowHelp> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(Scenario.make(options))
    } catch (error) {
      const match =
        error instanceof RangeError ? /^Scenario\.(\w+): expected (.*), got (.*)$/.exec(error.message) : null
      if (match === null) throw error
      const [, name, expected, value] = match
      const option = name!.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
      const invalid = new CliError.InvalidValue({ kind: "flag", option, expected: expected!, value: value! })
      return Effect.fail(new CliError.ShowHelp({ commandPath: ["floodgate", "storm"], errors: [invalid] }))
    }
  })

/** A line that is written over while it changes, where standard error is a terminal; nothing elsewhere. */
const statusLine = Effect.gen(function* () {
  const stdio = yield* Stdio.Stdio
  if (!(yield* stdio.stderrIsTerminal)) return () => Effect.void
  return (text: string): Effect.Effect<void> =>
    Effect.ignore(Stream.run(Stream.succeed(`\r\u001b[2K${text}`), stdio.stderr({ endOnDone: false })))
})

/**
 * The command.
 *
 * @category commands
 * @since 0.1.0
 */
export const stormCommand = Command.make(
  "storm",
  flags,
  Effect.fnUntraced(function* ({ concurrency, json, strategy, ...options }) {
    const scenario = yield* scenarioOf({ ...options, concurrency: Option.getOrUndefined(concurrency) })
    const strategies =
      strategy.length === 0 ? Strategies.usual : Strategies.all.filter(({ name }) => strategy.includes(name))
    const status = yield* statusLine
    const results: Array<Race.Result> = []
    for (const one of strategies) {
      const progress = ({ calls, completed, seconds }: Race.Progress) =>
        status(`${one.name}: ${Scenario.thousands(seconds)} s simulated, ${completed} of ${calls} calls done`)
      results.push((yield* Race.run(scenario, one, { progress })).result)
    }
    yield* status("")
    yield* Console.log(
      json
        ? JSON.stringify({ scenario: Table.scenarioJson(scenario), results }, undefined, 2)
        : Table.text(scenario, results)
    )
  })
).pipe(
  Command.withDescription(
    "The incident in simulated time: the same work under each strategy, in seconds. Without flags: 12 agents of 5 calls, 2.472M tokens, against 60,000 tokens a second."
  ),
  Command.withExamples([
    { command: "floodgate storm", description: "The incident, where a rejected request counts" },
    { command: "floodgate storm --rejections free", description: "The same where rejections cost nothing" },
    {
      command: "floodgate storm --agents 40 --strategy floodgate --strategy oracle --json",
      description: "Two strategies, for a program to read"
    }
  ])
)
