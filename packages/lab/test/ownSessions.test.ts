/** Sessions on their way from a recording through the lab to a report. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { Stepwise } from "floodgate/internal"
import { LlmProvider } from "floodgate/LlmProvider"
import { ProviderSim, Sessions, Simulation } from "floodgate/testing"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { Floor, Race, Recorded, Report, Scenarios, Strategies } from "../src/internal.ts"
import { type Bar, lanesOf } from "../src/report/bars.ts"

const strategy = (wanted: string) => Strategies.all.find(({ name }) => name === wanted)!

type SessionTurn = Sessions.SessionAgent["turns"][number]

const turn = (fields: Partial<SessionTurn>): SessionTurn => ({
  inputTokens: 10_000,
  cachedTokens: 0,
  outputTokens: 100,
  pauseMillis: 0,
  subAgents: [],
  ...fields
})

const limits = { inputTokens: { perMinute: 1_000_000, window: "bucket" as const } }

/** A lead with a sub-agent that it waits for, and one in the background; it begins 7 seconds after another session. */
const sessions: ReadonlyArray<Sessions.Session> = [
  {
    name: "session-1",
    lead: { path: "0", turns: [turn({}), turn({ inputTokens: 11_000, cachedTokens: 10_000, pauseMillis: 30_000 })] }
  },
  {
    name: "session-2",
    lead: {
      path: "0",
      turns: [
        turn({
          inputTokens: 20_000,
          pauseMillis: 7_000,
          subAgents: [
            {
              path: "0/1",
              turns: [turn({ pauseMillis: 500 }), turn({ inputTokens: 12_000, cachedTokens: 10_000, pauseMillis: 900 })]
            },
            {
              path: "0/2",
              turnsMeanwhile: 1,
              turns: [turn({ inputTokens: 15_000, outputTokens: 900, pauseMillis: 600 })]
            }
          ]
        }),
        turn({ inputTokens: 21_000, cachedTokens: 20_000, pauseMillis: 1_000 }),
        turn({ inputTokens: 22_000, cachedTokens: 21_000, pauseMillis: 2_000 })
      ]
    }
  }
]

/** Plays sessions, and writes what a gateway would record of them. */
const recordingOf = (sessions: ReadonlyArray<Sessions.Session>) =>
  Effect.gen(function* () {
    const scripts = sessions.map((session) => Sessions.script(session))
    const lines: Array<string> = []
    const { create } = yield* LlmProvider
    yield* Effect.forEach(
      scripts,
      (script) =>
        Sessions.run(script, ({ agent, params }) =>
          Effect.gen(function* () {
            const at = yield* Clock.currentTimeMillis
            const { value } = yield* create(params)
            const answer = ((yield* Clock.currentTimeMillis) - at) / 1_000
            const [session = "", ...below] = agent.split("/")
            const parent = below.length === 0 ? "" : [session, ...below.slice(0, -1)].join("/")
            const { cache_creation_input_tokens, cache_read_input_tokens, input_tokens, output_tokens } = value.usage
            const [written, read] = [cache_creation_input_tokens ?? 0, cache_read_input_tokens ?? 0]
            const time = new Date(at).toISOString().replace("T", " ").replace("Z", "")
            const input = input_tokens + written + read
            lines.push(
              [
                time,
                input,
                output_tokens,
                "m",
                agent,
                "0.000",
                session,
                parent,
                read,
                written,
                "",
                answer.toFixed(3)
              ].join()
            )
          })
        ),
      { concurrency: "unbounded", discard: true }
    )
    const head =
      "TIMESTAMP,ContextTokens,GeneratedTokens,Model,Agent,WaitSeconds,Session,Parent,CachedTokens,CacheWrittenTokens,PauseSeconds,AnswerSeconds"
    return `${[head, ...lines].join("\n")}\n`
  }).pipe(
    Effect.provide(
      ProviderSim.layer({
        cache: "breakpoints",
        latency: { baseMillis: 2_000, perInputTokenMillis: 0, perOutputTokenMillis: 10 },
        ...Sessions.providerOptions(sessions.map((session) => Sessions.script(session)))
      })
    )
  )

describe("your own sessions", () => {
  it("are the same after they were played, recorded and read", async () => {
    const { value } = await Effect.runPromise(Simulation.run(recordingOf(sessions)))
    const read = Stepwise.drained(Recorded.parseSteps(value))
    assert.deepStrictEqual(read.unreadable, [])
    // Of a pause in which the lead waited for a sub-agent, only what is left after its end is known.
    const [first, second] = sessions
    const [start, ...later] = second!.lead.turns
    assert.deepStrictEqual(read.sessions, [
      first!,
      {
        name: "session-2",
        lead: { path: "0", turns: [start!, { ...later[0]!, pauseMillis: 0 }, { ...later[1]!, pauseMillis: 800 }] }
      }
    ])
  })

  it("begin when they were begun, and take in the lab as long as they took", async () => {
    const { value } = await Effect.runPromise(Simulation.run(recordingOf(sessions)))
    const read = Stepwise.drained(Recorded.parseSteps(value))
    const scenario = Scenarios.fromSessions({ sessions: read.sessions, latency: read.latency, limits })
    assert.deepStrictEqual(
      scenario.agents.map(({ startsAtMillis }) => startsAtMillis),
      [0, 7_000]
    )
    const { result } = await Effect.runPromise(Race.run(scenario, strategy("floodgate-estimates")))
    assert.strictEqual(result.failedCalls, 0)
    assert.closeTo(result.makespanSeconds, read.seconds!, 0.1)
    assert.closeTo(Floor.floor(scenario).seconds, read.seconds!, 0.1)
  })

  it(
    "of real agents take as long in the lab as they took, within 10 %",
    { tags: "full", timeout: 120_000 },
    async () => {
      // 27 minutes of Claude Code 2.1.332 and the agents of four SDKs, recorded by test/clients/sessions.test.ts.
      const text = readFileSync(join(import.meta.dirname, "./fixtures/half-hour.csv"), "utf8")
      const { latency, meanEndSeconds, seconds, sessions, unreadable } = Stepwise.drained(Recorded.parseSteps(text))
      assert.deepStrictEqual([sessions.length, unreadable.length], [9, 0])
      const limit = { perMinute: 50_000, burst: 200_000, window: "bucket" as const }
      const scenario = Scenarios.fromSessions({ sessions, latency, limits: { inputTokens: limit } })
      const { result } = await Effect.runPromise(Race.run(scenario, strategy("floodgate-estimates")))
      assert.strictEqual(result.failedCalls, 0)
      assert.closeTo(result.makespanSeconds / seconds!, 1, 0.1)
      assert.closeTo(result.meanEndSeconds! / meanEndSeconds!, 1, 0.1)
    }
  )

  it("are drawn as one lane each, in which they run, wait and pause", async () => {
    const scenario = Scenarios.fromSessions({
      sessions,
      limits: { inputTokens: { perMinute: 30_000, window: "bucket" } }
    })
    const run = await Effect.runPromise(Race.run(scenario, strategy("floodgate")))
    const { bars } = Report.Figures.runFigures(scenario, run)
    assert.deepStrictEqual(new Set(bars.map(({ agent }) => agent)), new Set(["session-1", "session-2"]))
    assert.deepStrictEqual(new Set(bars.map(({ what }) => what)), new Set(["runs", "waits", "pauses"]))
    for (const session of ["session-1", "session-2"]) {
      const lane = bars.filter(({ agent }) => agent === session)
      for (const [index, { from }] of lane.entries()) {
        if (index > 0) assert.strictEqual(from, lane[index - 1]!.to, "bars follow each other")
      }
    }
    const html = Report.Html.render({
      title: "t",
      intro: "i",
      sections: [Report.Html.ofScenario(Report.Figures.scenarioFigures(scenario, [run]))]
    })
    assert.include(html, "Sessions, each as one bar with its waits")
    assert.include(html, "pausing for tools")
  })
})

describe("a lane", () => {
  const bar = (what: Bar["what"], from: number, to: number, agent = "s"): Bar => ({ agent, what, from, to })
  const shown = (...bars: ReadonlyArray<Bar>) => lanesOf(bars).map(({ from, to, what }) => `${what} ${from}-${to}`)

  it("runs while any call runs, waits while all wait, and pauses in between", () => {
    assert.deepStrictEqual(shown(bar("waits", 0, 4), bar("runs", 4, 6), bar("runs", 9, 10)), [
      "waits 0-4",
      "runs 4-6",
      "pauses 6-9",
      "runs 9-10"
    ])
    assert.deepStrictEqual(shown(bar("waits", 0, 9), bar("runs", 2, 4), bar("runs", 3, 5)), [
      "waits 0-2",
      "runs 2-5",
      "waits 5-9"
    ])
  })

  it("shows failures over everything, keeps rejections as marks, and keeps sessions apart", () => {
    assert.deepStrictEqual(shown(bar("runs", 0, 9), bar("failed", 2, 3), bar("rejected", 5, 5)), [
      "runs 0-2",
      "failed 2-3",
      "runs 3-9",
      "rejected 5-5"
    ])
    assert.deepStrictEqual(lanesOf([bar("runs", 0, 2, "a"), bar("runs", 1, 3, "b")]), [
      bar("runs", 0, 2, "a"),
      bar("runs", 1, 3, "b")
    ])
    assert.deepStrictEqual(lanesOf([]), [])
  })
})
