/** Sessions from a gateway's recording to a forecast. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as Scope from "effect/Scope"
import * as TestConsole from "effect/testing/TestConsole"
import { join } from "node:path"
import * as Cli from "../../src/commands/index.ts"
import * as Record from "../../../gateway/src/command/record.ts"
import { services } from "../../../gateway/test/support/services.ts"

/** Runs the command; what it printed, and its errors. */
const floodgate = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
  const [before, errorsBefore] = [yield* TestConsole.logLines, yield* TestConsole.errorLines]
  yield* Effect.exit(Cli.runWith(args))
  const lines = yield* TestConsole.logLines
  const errors = yield* TestConsole.errorLines
  return {
    out: lines.slice(before.length).join("\n"),
    err: errors.slice(errorsBefore.length).join("\n").replaceAll(/\s+/g, " ")
  }
})

const around = <E>(
  test: (at: string) => Effect.Effect<void, E, Effect.Services<ReturnType<typeof floodgate>> | Scope.Scope>
) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    yield* test(yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" }))
  }).pipe(Effect.scoped, Effect.provide(services()))

type Call = Parameters<Effect.Success<ReturnType<typeof Record.open>>>[0]

/** Two sessions of three turns each, the second with a sub-agent, recorded as the gateway records them. */
const recording = Effect.fnUntraced(function* (path: string) {
  const call = (at: number, agentId: string, how: Partial<Call> = {}): Call => ({
    at: Date.UTC(2026, 11, 1) + 1_000 * at,
    model: "claude-sonnet-5-5",
    agent: "name-in-clear",
    inputTokens: 30_000,
    cachedTokens: 0,
    cacheWrittenTokens: 30_000,
    outputTokens: 100,
    waitedMillis: 0,
    answeredMillis: 2_000,
    pauseMillis: undefined,
    sessionId: agentId[0]!,
    agentId,
    parentId: undefined,
    ...how
  })
  const later = { inputTokens: 31_000, cachedTokens: 30_000, cacheWrittenTokens: 1_000 }
  yield* Effect.scoped(
    Effect.map(Record.open(path), (record) => {
      for (const one of [
        call(0, "x"),
        call(0, "y"),
        call(3, "y1", { parentId: "y" }),
        call(12, "x", later),
        call(12, "y", later),
        call(24, "x", later),
        call(24, "y", later)
      ])
        record(one)
    })
  )
})

describe("floodgate forecast --sessions", () => {
  it.effect("says how long recorded sessions take under other limits, and with more of them", () =>
    around((at) =>
      Effect.gen(function* () {
        const file = join(at, "sessions.csv")
        yield* recording(file)
        const loose = yield* floodgate("forecast", "--sessions", file, "--input-tokens-per-minute", "1000000", "--json")
        const first = JSON.parse(loose.out)
        assert.deepInclude(first.workload, {
          agents: 2,
          calls: 7,
          inputTokens: 3 * 30_000 + 4 * 1_000,
          cachedTokens: 4 * 30_000,
          recordedSeconds: 26,
          models: ["claude-sonnet-5-5"]
        })
        assert.strictEqual(first.forecasts[0].seconds, 26)
        const tight = ["--input-tokens-per-minute", "60000", "--burst", "40000", "--json"]
        // 94,000 tokens, of which 40,000 are there: 54 seconds for the others, and the last turns.
        const [under] = JSON.parse((yield* floodgate("forecast", "--sessions", file, ...tight)).out).forecasts
        assert.isAtLeast(under.seconds, 54)
        assert.strictEqual(under.binding, "inputTokens")
        const many = yield* floodgate("forecast", "--sessions", file, "--agents", "5", ...tight)
        const { forecasts, workload } = JSON.parse(many.out)
        assert.deepInclude(workload, { agents: 5, calls: 17, recordedSeconds: null })
        assert.isAbove(forecasts[0].seconds, 2 * under.seconds)
        assert.strictEqual(loose.err + many.err, "")
      })
    )
  )

  it.effect("prices what the cache reads and writes, and says whether it counts", () =>
    around((at) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const file = join(at, "sessions.csv")
        yield* recording(file)
        const { out } = yield* floodgate("forecast", "--sessions", file, "--model", "claude-sonnet-5-5")
        assert.match(
          out,
          /2 sessions, 7 calls, 94,000 input and 700 output tokens; beside them 120,000 read from the cache/
        )
        assert.match(out, /They took 26\.0 s when they were recorded\./)
        assert.match(out, /does not count against the limits, as at Anthropic/)
        const asOpenAi = (yield* fs.readFileString(file)).replaceAll("claude-sonnet-5-5", "gpt-6")
        yield* fs.writeFileString(file, asOpenAi)
        const other = (yield* floodgate("forecast", "--sessions", file)).out
        assert.match(other, /214,000 input and 700 output tokens; of them 120,000 read from the cache/)
      })
    )
  )

  it.effect("writes a report", () =>
    around((at) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const file = join(at, "sessions.csv")
        yield* recording(file)
        yield* floodgate("forecast", "--sessions", file, "--report", join(at, "report.html"))
        const html = yield* fs.readFileString(join(at, "report.html"))
        assert.include(html, "2 sessions, 7 calls")
        assert.notInclude(html, "name-in-clear")
      })
    )
  )

  it.effect("reads a table, and names damaged lines", () =>
    around((at) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const file = join(at, "table.csv")
        const damaged = Array.from({ length: 7 }, () => "a,0,0,x,0,1")
        const lines = [
          "session,path,pause,input,cached,output",
          "a,0,0,20000,0,100",
          ...damaged,
          "a,0,5,21000,20000,100"
        ]
        yield* fs.writeFileString(file, lines.join("\n"))
        const { err, out } = yield* floodgate("forecast", "--sessions", file)
        assert.match(out, /1 session, 2 calls, 21,000 input and 200 output tokens; beside them 20,000/)
        assert.match(err, /table\.csv: skipped line 3: input: expected a whole number/)
        assert.match(err, /table\.csv: skipped line 7: .* skipped 2 more lines/)
      })
    )
  )

  for (const [what, text, problem] of [
    [
      "an empty file",
      "",
      /expected a recording of a gateway or a table .*, got nothing: record some with floodgate gateway --record FILE/
    ],
    ["another file", "# Notes\nnothing\n", /expected a recording of a gateway or a table .*: record some with/],
    [
      "a file of 0.4",
      "TIMESTAMP,ContextTokens,GeneratedTokens,Model,Agent,WaitSeconds\n2026-12-01 00:00:00.000,10,5,m,a,0.000\n",
      /it has calls but no sessions, as a trace or a file that version 0\.4 recorded: .*or play its calls with --trace/
    ],
    [
      "a recording without calls",
      "TIMESTAMP,ContextTokens,GeneratedTokens,Model,Agent,WaitSeconds,Session,Parent,CachedTokens,CacheWrittenTokens,PauseSeconds,AnswerSeconds\n",
      /it has no calls; record some with/
    ],
    [
      "a recording that is damaged throughout",
      "TIMESTAMP,ContextTokens,GeneratedTokens,Model,Agent,WaitSeconds,Session,Parent,CachedTokens,CacheWrittenTokens,PauseSeconds,AnswerSeconds\nx\n",
      /line 2: expected 12 cells, got 1; record some with/
    ]
  ] as const) {
    it.effect(`says what to do with ${what}`, () =>
      around((at) =>
        Effect.gen(function* () {
          const fs = yield* FileSystem.FileSystem
          const file = join(at, "sessions.csv")
          yield* fs.writeFileString(file, text)
          assert.match((yield* floodgate("forecast", "--sessions", file)).err, problem)
        })
      )
    )
  }

  it.effect("still reads a file of 0.4 as a trace, and a recording, too", () =>
    around((at) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const old = join(at, "old.csv")
        const lines = [
          "TIMESTAMP,ContextTokens,GeneratedTokens,Model,Agent,WaitSeconds",
          "2026-12-01 00:00:00.000,10,5,m,a,0.000"
        ]
        yield* fs.writeFileString(old, `${lines.join("\n")}\n`)
        assert.match((yield* floodgate("forecast", "--trace", old)).out, /1 agent, 1 call, 10 input/)
        const file = join(at, "sessions.csv")
        yield* recording(file)
        assert.match((yield* floodgate("forecast", "--trace", file)).out, /7 agents, 7 calls, 214,000 input/)
      })
    )
  )

  for (const [args, problem] of [
    [["--trace", "t.csv"], /--trace ".*t\.csv" does not apply: the sessions are the workload/],
    [["--tokens", "5"], /--tokens "5" does not apply: the sessions have their own/],
    [["--output-tokens", "5"], /--output-tokens "5" does not apply: the sessions have their own/],
    [["docs"], /--sessions ".*s\.csv" does not apply: the documents are the workload/],
    [["--agents", "0"], /--agents: expected a whole number above 0, got "0"/],
    [["--agents", "1000000"], /--agents: expected at most 1,000,000 calls of all sessions, got "3,500,000 calls"/],
    // Regression: all sessions were made, and then refused.
    [["--agents", "1000000000000"], /at most 1,000,000 calls of all sessions, got "3,500,000,000,000 calls"/]
  ] as const) {
    it.effect(`refuses ${args.join(" ")}`, () =>
      around((at) =>
        Effect.gen(function* () {
          const file = join(at, "s.csv")
          yield* recording(file)
          assert.match((yield* floodgate("forecast", "--sessions", file, ...args)).err, problem)
        })
      )
    )
  }
})

describe("floodgate storm all --sessions", () => {
  it.live(
    "races every strategy in your own sessions, and writes a report",
    () =>
      around((at) =>
        Effect.gen(function* () {
          const fs = yield* FileSystem.FileSystem
          const file = join(at, "sessions.csv")
          yield* recording(file)
          const flags = ["--input-tokens-per-minute", "60000", "--burst", "40000", "--report", join(at, "lab.html")]
          const { err, out } = yield* floodgate("storm", "all", "--sessions", file, "--agents", "3", ...flags)
          assert.match(out, /Scenario own-sessions: 3 sessions with 10 calls, as recorded/)
          assert.match(out, /60,000 input tokens\/min \(bucket of 40,000\)/)
          for (const name of ["sdk-2", "floodgate-as-installed", "oracle"]) assert.include(out, name)
          assert.notInclude(out, "When they were recorded")
          assert.notInclude(err, "floodgate:")
          const html = yield* fs.readFileString(join(at, "lab.html"))
          assert.include(html, "Sessions, each as one bar with its waits")
          assert.notInclude(html, "name-in-clear")
        })
      ),
    { tags: "full", timeout: 120_000 }
  )

  for (const [args, problem] of [
    [["--agents", "3"], /--agents "3" does not apply: the scenarios of the lab have their own/],
    [["--input-tokens-per-minute", "5"], /--input-tokens-per-minute "5" does not apply: the scenarios of the lab have/],
    [
      ["--sessions", "FILE", "--docs", "docs"],
      /--docs "docs" does not apply: the documentation has no sessions of yours/
    ],
    [["--sessions", "FILE", "--burst", "5"], /--burst: expected a limit on tokens beside it, got "5"/],
    [
      ["--sessions", "FILE", "--agents", "100000"],
      /--agents: expected at most 20,000 calls of all sessions; floodgate forecast takes more/
    ],
    [["--sessions", "nowhere.csv"], /nowhere\.csv: there is no such file or folder; check the path/]
  ] as const) {
    it.effect(`refuses ${args.join(" ")}`, () =>
      around((at) =>
        Effect.gen(function* () {
          const file = join(at, "s.csv")
          yield* recording(file)
          const { err } = yield* floodgate("storm", "all", ...args.map((arg) => (arg === "FILE" ? file : arg)))
          assert.match(err, problem)
        })
      )
    )
  }
})
