import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import type * as CliError from "effect/cli/CliError"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as TestConsole from "effect/testing/TestConsole"
import { join } from "node:path"
import { forecastCommand } from "../../src/commands/forecast.ts"
import { stormCommand } from "../../src/commands/storm.ts"

const services = Layer.fresh(Layer.mergeAll(NodeServices.layer, TestConsole.layer))

const root = Command.make("floodgate").pipe(Command.withSubcommands([stormCommand, forecastCommand]))

/** The output of a command, or the errors of an invalid one. */
const floodgate = (...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const errors = yield* Command.runWith(root, { version: "0", renderErrors: false })(args).pipe(
      Effect.as([] as ReadonlyArray<string>),
      Effect.catchIf(
        (error): error is CliError.ShowHelp => Predicate.isTagged(error, "ShowHelp"),
        (help) => Effect.succeed(help.errors.map((error) => error.message))
      )
    )
    const out = (yield* TestConsole.logLines).map(String).join("\n")
    return { errors, out }
  })

const folder = Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped({ prefix: "floodgate-" }))

describe("floodgate storm", () => {
  it.effect("prints one JSON object with the scenario and the results", () =>
    Effect.gen(function* () {
      const { errors, out } = yield* floodgate(
        "storm",
        "--json",
        "--strategy",
        "floodgate",
        "--strategy",
        "incident-fix"
      )
      assert.deepStrictEqual(errors, [])
      const { results, scenario } = JSON.parse(out)
      assert.strictEqual(scenario.agents, 12)
      assert.strictEqual(scenario.firstTokens, 150_000)
      assert.include(scenario.provider, "rejections charged")
      assert.deepStrictEqual(
        results.map((result: { readonly strategy: string }) => result.strategy),
        ["incident-fix", "floodgate"]
      )
      assert.deepStrictEqual(Object.keys(results[0]), [
        "strategy",
        "makespanSeconds",
        "floorSeconds",
        "ratio",
        "rejections",
        "retries",
        "failedCalls",
        "failedAgents",
        "p50Seconds",
        "p99Seconds",
        "fairness",
        "meanEndSeconds",
        "tokensUsed",
        "finished"
      ])
    }).pipe(Effect.provide(services))
  )

  it.effect("prints the same bytes for the same seed", () =>
    Effect.gen(function* () {
      const call = floodgate("storm", "--json", "--agents", "5", "--seed", "3", "--strategy", "full-jitter")
      const once = yield* Effect.provide(call, services)
      const twice = yield* Effect.provide(call, services)
      assert.strictEqual(once.out, twice.out)
    })
  )

  it.effect("shows the mean end of sessions", () =>
    Effect.gen(function* () {
      const race = ["storm", "--scenario", "sessions", "--agents", "2", "--strategy", "uncached-queue"]
      const { errors, out } = yield* floodgate(...race)
      assert.deepStrictEqual(errors, [])
      assert.match(out, /the first 40 turns of 2 recorded sessions/)
      assert.match(out, /mean\s/)
      assert.match(out, /uncached-queue .*first come, first served|uncached-queue  /)
    }).pipe(Effect.provide(services))
  )

  it.effect("names the invalid flag", () =>
    Effect.gen(function* () {
      const wrong = (...args: ReadonlyArray<string>) =>
        Effect.map(Effect.provide(floodgate("storm", ...args), services), ({ errors }) => errors.join("\n"))
      assert.include(yield* wrong("--agents", "0"), "--agents")
      assert.include(yield* wrong("--first-tokens", "9000000"), "--first-tokens")
      assert.include(yield* wrong("--scenario", "many", "--rate", "5"), "--rate")
      assert.include(
        yield* wrong("--scenario", "sessions", "--burst", "5"),
        '--burst: "5". Expected: nothing: the scenario sessions has its own'
      )
      assert.include(yield* wrong("--strategy", "hope"), "--strategy")
      assert.include(yield* wrong("--speed", "2"), '--speed: "2". Expected: nothing: only a trace has a speed')
      const trace = ["--trace", "t.csv"]
      assert.include(yield* wrong(...trace, "--calls", "9"), '--calls: "9". Expected: nothing: a trace has its own')
      assert.include(yield* wrong(...trace, "--scenario", "many"), '--scenario: "many". Expected: nothing: the trace')
      assert.include(
        yield* wrong(...trace, "--agents", "9"),
        '--agents: "9". Expected: nothing: each call of a trace is'
      )
      assert.include(yield* wrong("--scenario", "many", "--agents", "100001"), "at most 100000")
    })
  )

  it.effect("names the unreadable trace", () =>
    Effect.gen(function* () {
      const unreadable = (path: string) =>
        Effect.map(Effect.flip(Effect.provide(floodgate("storm", "--trace", path), services)), String)
      const other = join(import.meta.dirname, "storm.test.ts")
      assert.include(yield* unreadable(other), `${other}: line 1 is not a line of a trace: expected the columns`)
      const folder = import.meta.dirname
      assert.include(yield* unreadable(folder), `${folder}: it is a folder, not a file`)
    })
  )

  it.effect("reports the length of a trace that is too long to simulate, unless it is replayed faster", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const trace = join(yield* folder, "trace.csv")
      yield* fs.writeFileString(
        trace,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00,9,9\n2024-03-01 00:00:00,9,9\n"
      )
      const args = ["storm", "--trace", trace, "--strategy", "floodgate"]
      const { errors } = yield* floodgate(...args)
      assert.include(errors.join("\n"), "at most 29 days: this one's last call comes 60 days after its first")
      assert.include((yield* floodgate(...args, "--speed", "3")).out, "2 calls of a trace")
    }).pipe(Effect.scoped, Effect.provide(services))
  )

  it.effect("replays a trace, and writes a report and charts", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const at = yield* folder
      const calls = Array.from(
        { length: 30 },
        (_, number) => `2024-01-01 00:00:${String(number).padStart(2, "0")}.5,9000,20`
      )
      yield* fs.writeFileString(join(at, "trace.csv"), `TIMESTAMP,ContextTokens,GeneratedTokens\n${calls.join("\n")}\n`)
      const args = [
        "--speed",
        "max",
        "--strategy",
        "floodgate",
        "--report",
        join(at, "report.html"),
        "--svg",
        join(at, "svg")
      ]
      const { errors, out } = yield* floodgate("storm", "--trace", join(at, "trace.csv"), ...args)
      assert.deepStrictEqual(errors, [])
      assert.include(out, "30 calls of a trace dealt to 30 agents, as fast as possible")
      assert.include(yield* fs.readFileString(join(at, "report.html")), 'id="figures"')
      assert.deepStrictEqual((yield* fs.readDirectory(join(at, "svg"))).sort(), [
        "trace-floodgate-gantt.svg",
        "trace-floodgate-levels.svg",
        "trace-makespan.svg"
      ])
    }).pipe(Effect.scoped, Effect.provide(services))
  )
})

describe("floodgate forecast", () => {
  it.effect("treats a limit as a bucket and says so, unless --window is given", () =>
    Effect.gen(function* () {
      const args = ["forecast", "--input-tokens-per-minute", "4000000", "--json"]
      const given = (...window: ReadonlyArray<string>) =>
        Effect.map(Effect.provide(floodgate(...args, ...window), services), ({ out }) => out)
      const unsaid = yield* given()
      assert.strictEqual(unsaid, yield* given("--window", "bucket"))
      assert.notStrictEqual(unsaid, yield* given("--window", "sliding"))
    })
  )

  // Regression: the answer to --deadline was printed, and missing in the report.
  it.effect("also answers --deadline in the report, and says how it was made", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const report = join(yield* folder, "forecast.html")
      const html = (deadline: string) =>
        Effect.andThen(
          floodgate(
            "forecast",
            "--tokens-per-second",
            "60000",
            "--burst",
            "200000",
            "--deadline",
            deadline,
            "--report",
            report
          ),
          fs.readFileString(report)
        )
      const enough = yield* html("1 minute")
      assert.include(enough, "Enough for 60.0 s: as given. Takes 41.5 s under the limits as given.")
      assert.include(enough, '<li class="good"><b>41.5 s</b>')
      assert.include(enough, "<dt>limits</dt><dd>60,000 tokens/s (bucket of 200,000)</dd>")
      const tooShort = yield* html("30 seconds")
      assert.include(tooShort, "None of these is enough for 30.0 s.")
      assert.include(tooShort, '<li class="bad"><b>41.5 s</b>')
    }).pipe(Effect.scoped, Effect.provide(services))
  )

  it.effect("counts the calls of a trace as they were recorded", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const trace = join(yield* folder, "trace.csv")
      yield* fs.writeFileString(trace, "Timestamp,Request tokens,Response tokens\n5,500000,90000\n6,100,9000\n")
      const { out } = yield* floodgate("forecast", "--trace", trace)
      assert.include(out, "2 calls, 500,100 input and 99,000 output tokens")
    }).pipe(Effect.scoped, Effect.provide(services))
  )

  it.effect("says how long it takes, what binds and how many agents help", () =>
    Effect.gen(function* () {
      const { out } = yield* floodgate("forecast", "--tokens-per-second", "60000", "--burst", "200000", "--json")
      const { forecasts, workload } = JSON.parse(out)
      assert.deepStrictEqual(workload, { agents: 12, calls: 60, inputTokens: 2_460_000, outputTokens: 12_000 })
      assert.strictEqual(forecasts[0].binding, "tokens")
      assert.closeTo(forecasts[0].seconds, 41.5, 1)
      assert.strictEqual(forecasts[0].agents.length, 12)
    }).pipe(Effect.provide(services))
  )

  it.effect(
    "compares tiers if no limits are given, and names the cheapest that meets a deadline",
    () =>
      Effect.gen(function* () {
        const many = yield* floodgate("forecast", "--agents", "1000", "--calls", "1", "--requests-per-minute", "600")
        assert.match(many.out, / of 1,000 /)
        const { out } = yield* floodgate("forecast", "--agents", "60", "--deadline", "1 minute")
        for (const text of ["Start", "Build", "Scale", "Enough for 60.0 s: Scale."]) assert.include(out, text)
      }).pipe(Effect.provide(services)),
    { tags: "full" }
  )

  it.effect("reads documents as run would, and writes a report", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const at = yield* folder
      yield* fs.writeFileString(join(at, "a.md"), "The gate opens when the bucket has room.\n".repeat(2_000))
      const { errors, out } = yield* floodgate("forecast", at, "--agents", "4", "--report", join(at, "forecast.html"))
      assert.deepStrictEqual(errors, [])
      assert.include(out, "Workload: 4 agents, 20 calls")
      assert.include(yield* fs.readFileString(join(at, "forecast.html")), "floodgate forecast")
    }).pipe(Effect.scoped, Effect.provide(services))
  )

  it.effect("names the invalid option", () =>
    Effect.gen(function* () {
      const wrong = (...args: ReadonlyArray<string>) =>
        Effect.map(Effect.provide(floodgate("forecast", ...args), services), ({ errors }) => errors.join("\n"))
      for (const deadline of ["soon", "5 moons", "0 min", "Infinity"]) {
        assert.match(yield* wrong("--deadline", deadline), /--deadline.*: a duration such as "10 minutes"/)
      }
      assert.include(yield* wrong("--tokens", "100"), "--tokens")
      assert.include(yield* wrong("--agents", "1000000000"), "at most 1,000,000 calls of all agents")
    })
  )

  // Regression: it said "bucket of 400,000", and played a burst of 5 % that is safe in any window. A limit that was stated
  // made a run against Anthropic slower than none.
  it.effect("treats limits as buckets, as Anthropic documents, and says so", () =>
    Effect.gen(function* () {
      const of = (...args: ReadonlyArray<string>) =>
        Effect.map(floodgate("forecast", "--input-tokens-per-minute", "400000", ...args), ({ out }) => out)
      assert.include(yield* of(), "Limits: 400,000 input tokens/min (bucket of 400,000)")
      assert.include(yield* of("--window", "sliding"), "Limits: 400,000 input tokens/min (any 60 s)")
    }).pipe(Effect.provide(services))
  )

  // It said that the agents themselves bind, that one of 12 helps, and that it takes 0.0 s.
  it.effect("names the calls that never fit, and prints nothing else for a workload that never ends", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const report = join(yield* folder, "forecast.html")
      const { out } = yield* floodgate("forecast", "--input-tokens-per-minute", "100000", "--report", report)
      assert.match(out, /as given +never done +input tokens +- +- +- +-\n/)
      const misfit = "12 calls cannot fit; the first is agent-1's with 149,800 input tokens of 100,000"
      assert.include(out, misfit)
      const html = yield* fs.readFileString(report)
      assert.include(html, `${misfit}.`)
      assert.notInclude(html, '<div data-chart="')
    }).pipe(Effect.scoped, Effect.provide(services))
  )

  it.effect("prints no figures as JSON if calls never fit", () =>
    Effect.gen(function* () {
      const { out } = yield* floodgate("forecast", "--input-tokens-per-minute", "100000", "--json")
      const [{ agents, agentsThatHelp, binding, refused, seconds, waits }] = JSON.parse(out).forecasts
      assert.deepStrictEqual(
        { agentsThatHelp, binding, seconds, waits },
        { agentsThatHelp: null, binding: "inputTokens", seconds: null, waits: null }
      )
      assert.deepStrictEqual(agents[0], { name: "agent-1", finishSeconds: null, waits: null })
      assert.strictEqual(refused.length, 12)
    }).pipe(Effect.provide(services))
  )
})
