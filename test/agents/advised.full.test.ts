/** Jobs that start as many agents as help. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Agents from "floodgate/Agents"
import type * as Forecast from "floodgate/Forecast"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { ProviderSim, Simulation } from "floodgate/testing"
import { countingAtOnce } from "../support/atOnce.ts"

const limits = { tokens: { perSecond: 60_000, burst: 200_000 } }
/** The agents of the incident. */
const each: Forecast.Work = {
  calls: 5,
  first: { inputTokens: 149_800, outputTokens: 200, duration: "4 seconds" },
  later: { inputTokens: 13_800, outputTokens: 200, duration: "3 seconds" }
}

const provided = (options: Budget.Options = { limits }) =>
  Effect.provide(Layer.fresh(Agents.layer.pipe(Layer.provide(Budget.layer(options)))))

const calls = ({ calls, first, later = first }: Forecast.Work) =>
  Effect.forEach(
    Array.from({ length: calls }, (_, index) => (index === 0 ? first : later)),
    ({ duration = 1_000, inputTokens, outputTokens }) =>
      Budget.withReservation({ inputTokens, outputTokens }, (held) =>
        Effect.andThen(Effect.sleep(duration), held.settle({ inputTokens, outputTokens }))
      ),
    { discard: true }
  )

const jobOf = (count: number, work: Forecast.Work, around: ReturnType<typeof countingAtOnce>["around"]) =>
  Array.from({ length: count }, (_, index) => ({ key: `agent-${index}`, effect: around(calls(work)) }))

/** A job, how many of its agents ran at once, and how long it took. */
const job = Effect.fnUntraced(function* (count: number, work: Forecast.Work, options: Agents.Options) {
  const { around, seen } = countingAtOnce()
  const now = yield* Clock.currentTimeMillis
  const outcomes = yield* Agents.run(jobOf(count, work, around), options)
  return { outcomes, max: seen.max, seconds: ((yield* Clock.currentTimeMillis) - now) / 1_000 }
})

/** Runs a job in simulated time. */
const run = (count: number, work: Forecast.Work, options: Agents.Options, budget?: Budget.Options) =>
  Effect.map(Simulation.run(provided(budget)(job(count, work, options))), ({ value }) => value)

describe("Agents", () => {
  describe("advise", () => {
    it.live(
      "warns of a limit of calls in flight that rejections have shown, and says how many more all would get",
      () =>
        Effect.gen(function* () {
          const work: Forecast.Work = { calls: 20, first: { inputTokens: 1_000, outputTokens: 100 } }
          const create = Effect.flatMap(LlmClient.LlmClient, (client) =>
            client.create({ model: "claude-sonnet-5", max_tokens: 100, messages: [{ role: "user", content: "Hello" }] })
          )
          /** The rejections of a job of 40 agents. */
          const rejected = Effect.fnUntraced(function* (name: string, concurrency: number | "unbounded") {
            const { stats } = yield* ProviderSim.ProviderSim
            const before = (yield* stats).rejected
            yield* Agents.run(
              Array.from({ length: 40 }, (_, index) => ({
                key: `${name}-${index}`,
                effect: Effect.replicateEffect(create, 20, { discard: true })
              })),
              { concurrency }
            )
            return (yield* stats).rejected - before
          })
          const asking = Effect.gen(function* () {
            yield* rejected("first", "unbounded")
            const advice = yield* Agents.advise({ agents: 40, each: work })
            return { advice, few: yield* rejected("few", advice.agents), all: yield* rejected("all", "unbounded") }
          })
          const live = LlmClient.layerProvider().pipe(
            Layer.provideMerge(Layer.provide(Agents.layer, Budget.layer())),
            Layer.provideMerge(ProviderSim.layer({ limits: {}, concurrency: 4 }))
          )
          const { value } = yield* Simulation.run(Effect.provide(asking, live))
          const { agents, harms, saves, text } = value.advice
          assert.deepStrictEqual(
            harms.map(({ by }) => by),
            ["inFlight"]
          )
          assert.match(
            text,
            / All at once would do harm: the provider refuses calls beyond 4 at once, which nobody stated\. All at once would be rejected about 10 more times\./
          )
          assert.deepStrictEqual([agents, saves.rejections, value.few], [4, 10, 0])
          assert.closeTo(value.all, saves.rejections, 2)
        })
    )
  })

  describe('with the concurrency "advised"', () => {
    it.live("runs a fan-out of 104 with few agents at once, in about the time of the best number", () =>
      Effect.gen(function* () {
        const advised = yield* run(104, each, { concurrency: "advised", advice: { each } })
        const others = yield* Effect.forEach([6, 12, 104], (concurrency) =>
          Effect.map(run(104, each, { concurrency }), ({ seconds }) => seconds)
        )
        assert.isAtMost(advised.max, 30)
        assert.isAtMost(advised.seconds, 1.1 * Math.min(...others))
        assert.isTrue(advised.outcomes.every(({ exit }) => Exit.isSuccess(exit)))
      })
    )

    it.live("starts all agents at once where nothing limits them", () =>
      Effect.gen(function* () {
        const small: Forecast.Work = { calls: 2, first: { inputTokens: 10, outputTokens: 10, duration: 1_000 } }
        const { max, seconds } = yield* run(30, small, { concurrency: "advised", advice: { each: small } })
        assert.strictEqual(max, 30)
        assert.strictEqual(seconds, 2)
      })
    )

    it.live("is as good for an orchestrator that keeps the advised number until the advice expires", () =>
      Effect.gen(function* () {
        const { around, seen } = countingAtOnce()
        const waiting = jobOf(40, each, around)
        const running = new Set<Fiber.Fiber<unknown, unknown>>()
        const orchestrator = Effect.gen(function* () {
          while (waiting.length > 0) {
            const { agents, expiresAfter } = yield* Agents.advise({
              agents: waiting.length,
              running: running.size,
              each
            })
            const atOnce = Math.max(1, running.size + agents)
            const until = (yield* Clock.currentTimeMillis) + Duration.toMillis(expiresAfter)
            for (let left = 1; left > 0 && waiting.length > 0; left = until - (yield* Clock.currentTimeMillis)) {
              for (const { effect } of waiting.splice(0, Math.max(0, atOnce - running.size))) {
                const fiber = yield* Effect.forkChild(effect)
                running.add(fiber)
                fiber.addObserver(() => running.delete(fiber))
              }
              const ended = Effect.raceAll([...running].map((fiber) => Fiber.await(fiber)))
              yield* Effect.timeoutOption(ended, Math.max(1, until - (yield* Clock.currentTimeMillis)))
            }
          }
          yield* Effect.forEach([...running], (fiber) => Fiber.await(fiber))
          return (yield* Clock.currentTimeMillis) / 1_000
        })
        const { value: seconds } = yield* Simulation.run(provided()(orchestrator))
        const others = yield* Effect.forEach([6, 12, 40], (concurrency) =>
          Effect.map(run(40, each, { concurrency }), ({ seconds }) => seconds)
        )
        assert.isAtMost(seen.max, 20)
        assert.isAtMost(seconds, 1.1 * Math.min(...others))
      })
    )

    it.live("says what started when", () =>
      Effect.gen(function* () {
        const { max, outcomes } = yield* run(50, each, { concurrency: "advised", advice: { each } })
        const starts = outcomes.map(({ startedAfter }) => Duration.toSeconds(startedAfter!))
        assert.deepStrictEqual(
          starts,
          starts.toSorted((a, b) => a - b)
        )
        const first = starts.filter((seconds) => seconds === 0).length
        assert.isAtLeast(first, 4)
        assert.isAtMost(first, max)
        assert.isAbove(starts.at(-1)!, 20)
      })
    )

    it.live("begins with one agent if nothing is known of the agents, and learns from their calls", () =>
      Effect.gen(function* () {
        const { max, outcomes, seconds } = yield* run(60, each, { concurrency: "advised" })
        assert.strictEqual(outcomes.filter(({ startedAfter }) => Duration.toSeconds(startedAfter!) === 0).length, 1)
        assert.isAtMost(max, 30)
        // The floor is 202 s.
        assert.isAtMost(seconds, 1.2 * 202)
      })
    )

    it.live("adds agents in rounds if no limit of the pool is known", () =>
      Effect.gen(function* () {
        const small: Forecast.Work = { calls: 8, first: { inputTokens: 10, outputTokens: 10, duration: 2_000 } }
        const { max, outcomes } = yield* run(100, small, { concurrency: "advised", advice: { each: small } }, {})
        const startedBy = (seconds: number) =>
          outcomes.filter(({ startedAfter }) => Duration.toSeconds(startedAfter!) <= seconds).length
        assert.strictEqual(startedBy(0), 1)
        assert.isAtMost(startedBy(5), 8)
        assert.isAbove(max, 16)
      })
    )

    it.effect("runs fewer while others use the pool, and more when they have left", () =>
      Effect.gen(function* () {
        const others = yield* Effect.forkChild(
          Effect.forEach(
            Array.from({ length: 40 }, (_, index) => `other-${index}`),
            (agent) => Effect.provideService(calls({ ...each, calls: 8 }), Budget.Agent, agent),
            { concurrency: "unbounded" }
          )
        )
        yield* TestClock.adjust("1 second")
        const own = yield* Effect.forkChild(job(20, each, { concurrency: "advised", advice: { each } }))
        yield* TestClock.adjust("1 hour")
        const { max, outcomes } = yield* Fiber.join(own)
        assert.isAbove(max, 3)
        assert.strictEqual(outcomes.filter(({ startedAfter }) => Duration.toSeconds(startedAfter!) === 0).length, 1)
        assert.isTrue(outcomes.every(({ exit }) => Exit.isSuccess(exit)))
        yield* Fiber.join(others)
      }).pipe(provided())
    )

    it.effect("goes on while agents fail or are cancelled before they start", () =>
      Effect.gen(function* () {
        const agents = Array.from({ length: 30 }, (_, index) => ({
          key: `${index}`,
          effect: index % 3 === 0 ? Effect.fail("no") : calls(each)
        }))
        const fiber = yield* Effect.forkChild(
          Effect.scoped(
            Effect.gen(function* () {
              const job = yield* Agents.fork(agents, { concurrency: "advised", advice: { each } })
              yield* Effect.sleep("1 second")
              assert.isTrue(yield* job.cancel("29"))
              return yield* job.await
            })
          )
        )
        yield* TestClock.adjust("1 hour")
        const outcomes = yield* Fiber.join(fiber)
        assert.strictEqual(outcomes.filter(({ exit }) => Exit.isSuccess(exit)).length, 19)
        assert.isUndefined(outcomes[29]!.startedAfter)
        assert.isTrue(Exit.hasInterrupts(outcomes[29]!.exit))
      }).pipe(provided())
    )

    it.effect("ends what runs and starts nothing more when it is interrupted", () =>
      Effect.gen(function* () {
        const { around, seen } = countingAtOnce()
        const job = Agents.run(jobOf(50, each, around), { concurrency: "advised", advice: { each } })
        const fiber = yield* Effect.forkChild(job)
        yield* TestClock.adjust("5 seconds")
        assert.isAbove(seen.now, 0)
        yield* Fiber.interrupt(fiber)
        const { max } = seen
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(seen, { now: 0, max })
      }).pipe(provided())
    )

    it.effect("needs to know the pool, and names the option if it does not", () =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(
          Agents.run([{ key: "a", effect: Effect.void }], {
            concurrency: "advised",
            advice: { model: "claude-haiku-5" }
          })
        )
        assert.include(String(exit), 'Agents.run: advice: No pool is known for "claude-haiku-5"')
        assert.throws(
          () => Effect.runSync(Agents.run([], { advice: {} }) as never),
          'Agents.run: advice: expected the concurrency "advised" beside it'
        )
      }).pipe(provided({ limits: { pools: { "opus-5": limits } } }))
    )
  })
})
