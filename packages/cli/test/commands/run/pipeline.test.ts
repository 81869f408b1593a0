import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scheduler from "effect/Scheduler"
import * as TestClock from "effect/testing/TestClock"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import type * as Governor from "floodgate/Governor"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import type { Params } from "floodgate/LlmProvider"
import * as Prices from "floodgate/Prices"
import * as Retry from "floodgate/Retry"
import * as Spending from "floodgate/Spending"
import { ProviderSim, Simulation } from "floodgate/testing"
import * as Cost from "../../../src/commands/run/cost.ts"
import * as Pausing from "../../../src/commands/run/pausing.ts"
import * as Pipeline from "../../../src/commands/run/pipeline.ts"
import * as Results from "../../../src/commands/run/results.ts"
import { nextMonth } from "../../../../../test/support/calendar.ts"
import { parse, split } from "../../support/atOnce.ts"
import { summary } from "../../../src/commands/run/steps.ts"

const task = { prompt: "What must an operator know?", model: "claude-sonnet-5", maxTokens: 500 }

const chunks = split(
  [{ path: "a.md", text: "Floodgate holds calls back until the provider has room for them.\n".repeat(6_000) }],
  12
)

const limits: Limits.Limits = { inputTokens: { perSecond: 5_000, burst: 20_000 } }

/** The client of one process. */
const client = (options?: Pick<Governor.Options, "retry" | "windows">) =>
  LlmClient.layerProvider(options).pipe(
    Layer.provideMerge(Agents.layer),
    Layer.provide(Layer.effect(Budget.TokenBudget, Effect.map(Budget.TokenBudget, Pipeline.reporting))),
    Layer.provide(Budget.layer({ limits }))
  )

const live = (sim: ProviderSim.Options, options?: { readonly retry?: Retry.Policy }) =>
  client(options).pipe(Layer.provideMerge(ProviderSim.layer({ latency: { baseMillis: 300 }, ...sim })))

/** A store of results in memory, like the files of the command. */
const store = () => {
  const results = new Map<string, Results.Result>()
  const events: Array<Pipeline.RunEvent> = []
  return {
    results,
    events,
    ports: {
      finished: results as ReadonlyMap<string, Results.Result>,
      record: (result: Results.Result) => Effect.sync(() => void results.set(result.key, result)),
      report: (event: Pipeline.RunEvent) => Effect.sync(() => void events.push(event))
    }
  }
}

const settled = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.map(Simulation.run(effect), ({ value }) => value)

const stats = Effect.flatMap(ProviderSim.ProviderSim, (sim) => sim.stats)

describe("pipeline", () => {
  it.effect("makes five calls an agent and one to merge, with no rejection at a limit that binds", () =>
    Effect.gen(function* () {
      const { events, ports, results } = store()
      const report = yield* settled(Pipeline.run({ task, chunks, ...ports }))
      assert.strictEqual(report.parts.length, 12)
      assert.deepStrictEqual(report.missing, [])
      assert.strictEqual(report.calls, Pipeline.callsOf(12))
      assert.strictEqual(results.size, 61)
      assert.isAtLeast(report.seconds, 10)
      assert.strictEqual(events.filter(({ event }) => event === "answered").length, 61)
      const seen = yield* stats
      assert.strictEqual(seen.rejected, 0)
      assert.strictEqual(seen.inputTokens, report.inputTokens)
    }).pipe(Effect.provide(live({ limits })))
  )

  it.effect(
    "builds each prompt on the answers before, so that a later call has another key when an answer changes",
    () =>
      Effect.gen(function* () {
        const first = store()
        yield* settled(Pipeline.run({ task, chunks: chunks.slice(0, 1), ...first.ports }))
        const second = store()
        for (const [key, result] of first.results) {
          second.results.set(key, result.step === "draft" ? { ...result, text: "Another draft." } : result)
        }
        const report = yield* settled(Pipeline.run({ task, chunks: chunks.slice(0, 1), ...second.ports }))
        assert.strictEqual(report.reused, 3)
        assert.strictEqual(report.calls, 3)
      }).pipe(Effect.provide(live({})))
  )

  it.effect("resumes where it was interrupted, and repeats no finished call", () =>
    Effect.gen(function* () {
      const { ports, results } = store()
      const fiber = yield* Effect.forkChild(Pipeline.run({ task, chunks, ...ports }))
      yield* TestClock.adjust("8 seconds")
      yield* Fiber.interrupt(fiber)
      const kept = results.size
      assert.isAbove(kept, 5)
      assert.isBelow(kept, 61)
      const before = yield* stats
      assert.strictEqual(before.inFlight, 0)

      const report = yield* settled(Pipeline.run({ task, chunks, ...ports }))
      assert.strictEqual(report.reused, kept)
      assert.strictEqual(report.calls, 61 - kept)
      const after = yield* stats
      assert.strictEqual(after.completed, 61)
      assert.strictEqual(after.completed + after.aborted, after.accepted)
    }).pipe(Effect.provide(live({ limits })))
  )

  it.effect(
    "reports the end of every attempt that it has reported, wherever it is interrupted",
    () =>
      Effect.gen(function* () {
        const open: Array<string> = []
        for (let ops = 5; ops < 12; ops++) {
          for (let turns = 0; turns < 80; turns++) {
            const { events, ports } = store()
            const fiber = yield* Pipeline.run({ task, chunks: chunks.slice(0, 1), ...ports }).pipe(
              Effect.provideService(Scheduler.MaxOpsBeforeYield, ops),
              Effect.forkChild
            )
            for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
            yield* Fiber.interrupt(fiber)
            // Refills the bucket.
            yield* TestClock.adjust("1 minute")
            const count = (event: Pipeline.RunEvent["event"]) => events.filter((told) => told.event === event).length
            if (count("admitted") !== count("failed")) open.push(`after ${turns} turns of ${ops} steps`)
          }
        }
        assert.deepStrictEqual(open, [])
      }).pipe(Effect.provide(live({}))),
    { tags: "full" }
  )

  it.effect("keeps the work of other agents when one fails, and reports which and why", () =>
    Effect.gen(function* () {
      const { ports } = store()
      const report = yield* settled(Pipeline.run({ task, chunks, ...ports }))
      assert.strictEqual(report.parts.length, 11)
      assert.strictEqual(report.missing.length, 1)
      assert.match(report.missing[0]!.reason, /the provider failed with 500/)
      const text = summary(task, report.merged, report.parts, report.missing)
      assert.include(text, `- ${report.missing[0]!.agent} (1 file, `)
      assert.include(text, "## agent-12")
    }).pipe(
      Effect.provide(live({ limits, faults: [{ kind: "500", calls: [3] }] }, { retry: Retry.make({ attempts: 1 }) }))
    )
  )

  it.effect("stops before the job uses more than its cap", () =>
    Effect.gen(function* () {
      const { ports } = store()
      const report = yield* settled(Pipeline.run({ task, chunks, ...ports, cap: { tokens: 60_000 } }))
      const seen = yield* stats
      assert.isAtMost(seen.inputTokens + seen.outputTokens, 60_000)
      assert.match(report.missing[0]!.reason, /the job's cap of 60,000 tokens has [\d,]+ left/)
      // The next run goes on from what this one answered.
      assert.isTrue(report.retryHelps)
    }).pipe(Effect.provide(live({ limits })))
  )

  it.effect(
    "goes on after each midnight with --wait-for-reset, and says each pause once",
    () =>
      Effect.gen(function* () {
        const cap = 0.2
        const { events, ports, results } = store()
        const cost = yield* Cost.of(task.model, { maxDollars: undefined, maxDollarsPerDay: cap })
        const report = yield* Pipeline.run({ task, chunks, ...ports }).pipe(
          Spending.from((yield* Cost.periodic(cost, { results: new Map(), attempts: new Map() }))[0]!),
          Pausing.untilReset(ports.report),
          Effect.scoped,
          settled
        )
        assert.deepStrictEqual(report.missing, [])
        const days = new Map<number, number>()
        for (const { usage, when } of results.values()) {
          const day = Math.floor(when!.answered / 86_400_000)
          days.set(day, (days.get(day) ?? 0) + Prices.cost(cost.price!, usage))
        }
        assert.isAbove(days.size, 1)
        for (const dollars of days.values()) assert.isAtMost(dollars, cap)
        const paused = events.flatMap((event) => (event.event === "paused" ? [Date.parse(event.until)] : []))
        assert.deepStrictEqual(
          paused,
          Array.from({ length: days.size - 1 }, (_, n) => (n + 1) * 86_400_000)
        )
      }).pipe(Effect.provide(live({ limits }))),
    { tags: "full" }
  )

  it.effect(
    "parks 50 sessions until a spent window is reset, over a restart, and makes each call once and at its pace",
    () =>
      Effect.gen(function* () {
        const sessions = split(
          [{ path: "a.md", text: "Floodgate holds calls back until the provider has room for them.\n".repeat(6_000) }],
          50
        )
        const { events, ports, results } = store()
        /** One process after another: what the first one learned is gone, and what it wrote is there. */
        const process = Effect.forkChild(
          Pipeline.run({ task, chunks: sessions, ...ports }).pipe(
            Pausing.untilReset(ports.report),
            Effect.scoped,
            Effect.provide(client({ windows: Pausing.windows }))
          )
        )
        const untilPaused = (pauses: number) =>
          Effect.gen(function* () {
            const count = () => events.filter(({ event }) => event === "paused").length
            for (let n = 0; n < 120 && count() < pauses; n++) yield* TestClock.adjust("1 second")
            yield* TestClock.adjust("1 minute")
            assert.strictEqual((yield* stats).inFlight, 0)
          })
        const first = yield* process
        yield* untilPaused(1)
        const end = (yield* stats).windows["5h"]!.endsAt!
        assert.deepStrictEqual(
          events.flatMap((event) => (event.event === "paused" ? [Date.parse(event.until)] : [])),
          [end]
        )
        yield* Fiber.interrupt(first)
        const answered = results.size

        const second = yield* process
        yield* untilPaused(2)
        yield* TestClock.setTime(end - 1)
        const { accepted, inFlight } = yield* stats
        assert.strictEqual(inFlight, 0)
        yield* TestClock.adjust("10 seconds")
        assert.isAbove((yield* stats).accepted, accepted)
        const report = yield* settled(Fiber.join(second))
        assert.deepStrictEqual(report.missing, [])
        assert.strictEqual(report.reused, answered)
        assert.strictEqual(report.reused + report.calls, Pipeline.callsOf(50))
        const all = yield* stats
        // Each call was answered once, and nothing exceeded the limit of the pool. The window was tried every ten minutes.
        assert.strictEqual(all.accepted, Pipeline.callsOf(50))
        assert.deepStrictEqual(Object.keys(all.rejectionsBy), ["window"])
        assert.isAtMost(all.rejected, 31)
      }).pipe(
        Effect.provide(ProviderSim.layer({ limits, windows: { "5h": { dollars: 0.3 } }, latency: { baseMillis: 300 } }))
      ),
    { tags: "full" }
  )

  it.effect(
    "notes each attempt until it is answered or rejected, so that a stopped run counts what it was waiting for",
    () =>
      Effect.gen(function* () {
        const { ports, results } = store()
        const lines: Array<string> = []
        const note = (attempt: string, params: Params | undefined) =>
          Effect.sync(
            () => void lines.push(Results.lineOf({ attempt, at: 0, dollars: params === undefined ? 0 : 0.01 }))
          )
        const running = yield* Effect.forkChild(Pipeline.run({ task, chunks, ...ports, noteAttempt: note }))
        while (results.size < 20) yield* TestClock.adjust("1 second")
        const { inFlight, rejected } = yield* stats
        yield* Fiber.interrupt(running)
        assert.isAbove(inFlight, 0)
        assert.isAbove(rejected, 0)
        lines.push(...Array.from(results.values(), Results.lineOf))
        const { attempts } = parse(lines.join(""))
        const open = Array.from(attempts.values()).filter(({ dollars }) => dollars > 0)
        assert.strictEqual(open.length, inFlight)
        // They count on the day on which they were sent, and in the month, which begins on the 31st in Tokyo, where it is nine o'clock.
        const caps = {
          maxDollars: undefined,
          maxDollarsPerDay: 1,
          maxDollarsPerMonth: 2,
          monthFrom: "31 in Asia/Tokyo"
        }
        const cost = yield* Cost.of(task.model, caps)
        const purses = yield* Cost.periodic(cost, { results: new Map(), attempts })
        const spent = Effect.forEach(purses, ({ status }) => Effect.map(status, ({ spent }) => spent))
        const all = 0.01 * inFlight
        for (const amount of yield* spent) assert.closeTo(amount, all, 1e-9)
        yield* TestClock.setTime(86_400_000)
        const [day, month] = yield* spent
        assert.strictEqual(day, 0)
        assert.closeTo(month!, all, 1e-9)
        yield* TestClock.setTime(Date.parse("1970-01-30T15:00:00Z"))
        assert.deepStrictEqual(yield* spent, [0, 0])
      }).pipe(Effect.scoped, Effect.provide(live({ limits, faults: [{ kind: "429", calls: [2, 5] }] })))
  )

  it.effect.each(
    [29, 30, 31].flatMap((day) => ["UTC", "Europe/Berlin", "Asia/Beirut"].map((zone) => [day, zone] as const))
  )("begins the months of --month-from '%d in %s' where a calendar says so", ([day, zone]) =>
    Effect.gen(function* () {
      let now = Date.parse("2027-01-15T12:00:00Z")
      for (let month = 0; month < 14; month++) {
        yield* TestClock.setTime(now)
        const caps = {
          maxDollars: undefined,
          maxDollarsPerDay: undefined,
          maxDollarsPerMonth: 2,
          monthFrom: `${day} in ${zone}`
        }
        const cost = yield* Cost.of(task.model, caps)
        const [purse] = yield* Cost.periodic(cost, { results: new Map(), attempts: new Map() })
        const { until } = yield* purse!.status
        const end = nextMonth(day, zone, now)
        assert.strictEqual(new Date(until!).toISOString(), new Date(end).toISOString())
        now = end
      }
    }).pipe(Effect.scoped)
  )

  it.effect("knows when the same run would fail in the same way: no call fits into the cap, or none is valid", () =>
    Effect.gen(function* () {
      const small = yield* settled(Pipeline.run({ task, chunks, ...store().ports, cap: { tokens: 10 } }))
      assert.strictEqual(small.missing.length, 12)
      assert.isFalse(small.retryHelps)
      const wrong = yield* settled(Pipeline.run({ task: { ...task, maxTokens: 0 }, chunks, ...store().ports }))
      assert.strictEqual(wrong.missing.length, 12)
      assert.isFalse(wrong.retryHelps)
    }).pipe(Effect.provide(live({ limits })))
  )

  it.effect("knows before it starts which answers exist, and how many are cut off", () =>
    Effect.gen(function* () {
      const { ports, results } = store()
      const report = yield* settled(Pipeline.run({ task, chunks: chunks.slice(0, 2), ...ports }))
      assert.strictEqual(report.calls, 11)
      assert.strictEqual(report.cut, 0)
      const known = (asked: typeof task) =>
        Pipeline.countOf(Pipeline.knownOf({ task: asked, chunks: chunks.slice(0, 2), finished: results }))
      assert.strictEqual(known(task), 11)
      assert.strictEqual(known({ ...task, prompt: "What else?" }), 0)

      const [[key, merge]] = [...results].filter(([, { step }]) => step === "merge") as [[string, Results.Result]]
      results.set(key, { ...merge, stop: "max_tokens" })
      for (const [key, { agent, step }] of results) if (agent === "agent-1" && step === "check") results.delete(key)
      assert.strictEqual(known(task), 8)
      const again = yield* settled(Pipeline.run({ task, chunks: chunks.slice(0, 2), ...ports }))
      assert.strictEqual(again.reused, 10)
      assert.strictEqual(again.cut, 1)
    }).pipe(Effect.provide(live({ limits })))
  )

  it.effect("fails an agent whose answer cannot be kept", () =>
    Effect.gen(function* () {
      const { ports } = store()
      const record = () => Effect.fail({ message: "the disk is full" })
      const report = yield* settled(Pipeline.run({ task, chunks: chunks.slice(0, 1), ...ports, record }))
      assert.deepStrictEqual(
        report.missing.map(({ reason }) => reason),
        ["the disk is full"]
      )
      assert.isUndefined(report.merged)
    }).pipe(Effect.provide(live({})))
  )
})
