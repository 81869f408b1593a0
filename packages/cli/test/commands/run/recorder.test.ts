import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import { Report } from "@floodgate/lab/internal"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import { LlmProvider } from "floodgate/LlmProvider"
import { ProviderSim, Simulation } from "floodgate/testing"
import * as Pipeline from "../../../src/commands/run/pipeline.ts"
import * as Recorder from "../../../src/commands/run/recorder.ts"
import type { Result } from "../../../src/commands/run/results.ts"
import { split } from "../../support/atOnce.ts"

const task = { prompt: "What must an operator know?", model: "claude-sonnet-5", maxTokens: 500 }
const chunks = split([{ path: "a.md", text: "The gate opens when the bucket has room.\n".repeat(600) }], 3)
const agents = [1, 2, 3].map((n) => `agent-${n}`)
const limits: Limits.Limits = { requests: { perMinute: 600, window: "bucket" }, inputTokens: { perMinute: 100_000 } }

/** Records a run of three agents, and returns its figures. */
const recording = (finished: Map<string, Result>, sim: ProviderSim.Options = {}) => {
  const recorder = Recorder.make()
  const ports = {
    finished: new Map(finished) as ReadonlyMap<string, Result>,
    record: (result: Result) => Effect.sync(() => void finished.set(result.key, result)),
    report: recorder.observe
  }
  const live = LlmClient.layerProvider().pipe(
    Layer.provideMerge(Agents.layer),
    Layer.provideMerge(
      Layer.effect(Budget.TokenBudget, Effect.map(Budget.TokenBudget, Pipeline.reporting)).pipe(
        Layer.provide(Budget.layer({ limits }))
      )
    ),
    Layer.provide(Layer.effect(LlmProvider, Effect.map(LlmProvider, recorder.wrap))),
    Layer.provide(ProviderSim.layer({ limits, ...sim }))
  )
  const run = Effect.scoped(Effect.andThen(recorder.sample, Pipeline.run({ task, chunks, ...ports }))).pipe(
    Effect.provide(live)
  )
  const section = () =>
    Report.Run.section({ recorded: recorder.recorded, agents, provider: "simulated", limits, summary: "3 agents" })
  const shown = () =>
    [...Report.Html.render({ title: "", intro: "", sections: [section()] }).matchAll(/data-chart="(\w+)"/g)].map(
      ([, chart]) => chart
    )
  return { run, section, shown, recorder }
}

const outcomes = (section: Report.Html.ReportSection) => section.rows.map((row) => row[1])

describe("recorder", () => {
  it.effect("records a run from its first call on", () =>
    Effect.gen(function* () {
      const { recorder, run, section, shown } = recording(new Map())
      yield* TestClock.adjust("1 minute")
      yield* Simulation.run(run)
      assert.strictEqual(recorder.recorded.calls[0]?.askedAt, 0)
      assert.deepStrictEqual(outcomes(section()), ["done", "done", "done"])
      assert.deepStrictEqual(shown(), ["gantt", "levels", "rate", "latency"])
    })
  )

  // Regression: the report had no agents, claimed that there was no limit, and drew one rectangle around 0.
  it.effect("reports that all answers are from an earlier run, and draws no empty chart", () =>
    Effect.gen(function* () {
      const finished = new Map<string, Result>()
      yield* Simulation.run(recording(finished).run)
      const { run, section, shown } = recording(finished)
      yield* Simulation.run(run)
      const { figures, notes } = section()
      assert.deepStrictEqual(outcomes(section()), ["done", "done", "done"])
      assert.strictEqual(figures.dimension, "input tokens")
      assert.isAbove(figures.limitPerSecond, 0)
      assert.include(notes, "All 16 answers come from earlier runs; nothing was sent.")
      assert.strictEqual(section().verdict.text, "Done: all 16 calls answered, all of them in earlier runs.")
      assert.isFalse(notes.some((note) => note.includes("No limit is known")))
      // The results have the times of their calls.
      assert.deepStrictEqual(shown(), ["gantt", "latency"])
    })
  )

  it.effect("draws no bars for answers without known times", () =>
    Effect.gen(function* () {
      const finished = new Map<string, Result>()
      yield* Simulation.run(recording(finished).run)
      for (const [key, { when: _, ...result }] of finished) finished.set(key, result)
      const { run, section, shown } = recording(finished)
      yield* Simulation.run(run)
      assert.include(section().notes, "It is not known when 16 of them came.")
      assert.deepStrictEqual(shown(), [])
    })
  )

  // Regression: after a resume, the report had only the second half.
  it.effect("shows the whole job after a resume, without the time between", () =>
    Effect.gen(function* () {
      const finished = new Map<string, Result>()
      const slow = { latency: { baseMillis: 10_000 } }
      const fiber = yield* Effect.forkChild(recording(finished, slow).run)
      yield* TestClock.adjust("25 seconds")
      yield* Fiber.interrupt(fiber)
      const before = finished.size
      assert.isAbove(before, 0)
      yield* TestClock.adjust("1 hour")
      const { run, section } = recording(finished, slow)
      yield* Simulation.run(run)
      const { figures, rows, verdict } = section()
      const [{ bars, done, planned, resumed }] = figures.runs as [Report.Figures.RunFigures]
      assert.deepStrictEqual([done, planned], [16, 16])
      assert.strictEqual(bars.filter(({ what }) => what === "earlier").length, before)
      // The orchestrator is not among the agents that are shown.
      assert.strictEqual(bars.filter(({ what }) => what === "runs").length, 15 - before)
      const [at] = resumed as [number]
      assert.strictEqual(resumed.length, 1)
      assert.isAbove(at, 9)
      assert.isBelow(at, 30)
      for (const { from, to, what } of bars) assert.isTrue(what === "earlier" ? to <= at : from >= at)
      assert.match(
        verdict.text,
        new RegExp(`^Done: all 16 calls answered, ${before} of them in earlier runs; this one took`)
      )
      const answers = rows.map((row) => row[2])
      assert.isTrue(answers.every((text) => /^5 \(\d before\)$/.test(text!)))
    })
  )

  // Regression: all agents were reported as failed, and only one of three requests was counted.
  it.effect("distinguishes stopped from failed, and counts unanswered requests", () =>
    Effect.gen(function* () {
      const { recorder, run, section, shown } = recording(new Map(), { latency: { baseMillis: 10_000 } })
      const fiber = yield* Effect.forkChild(run)
      yield* TestClock.adjust("4 seconds")
      yield* Fiber.interrupt(fiber)
      const { figures } = section()
      assert.deepStrictEqual(outcomes(section()), ["stopped", "stopped", "stopped"])
      const sent = recorder.recorded.calls.flatMap(({ attempts }) => attempts)
      const reserved = sent.reduce((sum, { charge }) => sum + (charge?.inputTokens ?? 0), 0)
      assert.isAbove(reserved, 0)
      const admitted = figures.runs[0]!.rates.reduce((sum, { from, perSecond, to }) => sum + perSecond * (to - from), 0)
      assert.closeTo(admitted, reserved, 10)
      assert.deepStrictEqual(shown(), ["gantt", "levels", "rate"])
    })
  )

  it.effect("marks an agent as failed if its call failed", () =>
    Effect.gen(function* () {
      const { run, section } = recording(new Map(), { faults: [{ kind: "400", rate: 1 }] })
      yield* Simulation.run(run)
      assert.deepStrictEqual(outcomes(section()), ["failed", "failed", "failed"])
    })
  )

  it("looks at each call a few times, however many agents there are: Ctrl-C must not wait for the report", () => {
    const agents = Array.from({ length: 1_000 }, (_, index) => `agent-${index}`)
    let looks = 0
    const calls = agents.map((agent) => ({
      get call() {
        looks++
        return { agent }
      },
      askedAt: 0,
      endedAt: 1,
      outcome: "ok" as const,
      attempts: []
    }))
    const recorded = { calls, levels: [], outcomes: new Map(), earlier: [] }
    const { rows } = Report.Run.section({ recorded, agents, provider: "simulated", summary: "1,000 agents" })
    assert.strictEqual(rows.length, agents.length)
    assert.isAtMost(looks, 10 * agents.length)
  })
})
