/** Conversations whose prompts grow: their forecasts and the advice about them, against simulations of the same. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Accounting from "floodgate/Accounting"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Forecast from "floodgate/Forecast"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import * as Spending from "floodgate/Spending"
import { ProviderSim, Sessions, Simulation } from "floodgate/testing"
import { sized } from "../support/size.ts"

/** Fewer turns that grow by more: the last prompts are as long. */
const { growth, turns } = sized({ growth: 8_000, turns: 5 }, { growth: 2_000, turns: 20 })
const first = 10_000
const outputTokens = 200
const latency = { baseMillis: 500, perInputTokenMillis: 0, perOutputTokenMillis: 10 }

const scripts = (count: number, name = "agent") =>
  Array.from({ length: count }, (_, number) =>
    Sessions.script({
      name: `${name}-${number}`,
      lead: {
        path: "0",
        turns: Array.from({ length: turns }, (_, index) => ({
          inputTokens: first + index * growth,
          cachedTokens: index === 0 ? 0 : first + (index - 1) * growth,
          outputTokens,
          pauseMillis: 0,
          subAgents: []
        }))
      }
    })
  )

/** A provider that counts only uncached input, and one that counts all of it. */
const ways = [
  {
    name: "only uncached input",
    accounting: Accounting.anthropic,
    cache: "breakpoints",
    cachedShare: 1,
    limits: { inputTokens: { perMinute: 120_000, burst: 60_000, window: "bucket" } }
  },
  {
    name: "everything",
    accounting: Accounting.openai,
    cache: "automatic",
    cachedShare: 0,
    limits: { tokens: { perMinute: 1_500_000, burst: 200_000, window: "bucket" } }
  }
] as const

type Way = (typeof ways)[number]

const work = ({ cachedShare }: Way): Forecast.Work => ({
  calls: turns,
  first: { inputTokens: first, outputTokens, duration: 2_500 },
  growth,
  cachedShare
})

/** A small `max_tokens`, because OpenAI counts one that is larger than the prompt. */
const play = (script: Sessions.AgentScript) =>
  Sessions.run(script, ({ params }) => LlmClient.create({ ...params, max_tokens: 1_000 }))

const provided = ({ accounting, cache, limits }: Way, all: ReadonlyArray<Sessions.AgentScript>) => {
  const provider = ProviderSim.layer({
    ...Sessions.providerOptions(all),
    cache,
    limits,
    counting: cache === "automatic" ? "openai" : "usage",
    latency
  })
  return Effect.provide(
    LlmClient.layerProvider({ accounting }).pipe(
      Layer.provideMerge(Agents.layer),
      Layer.provideMerge(Budget.layer({ limits })),
      Layer.provideMerge(provider),
      Layer.fresh
    )
  )
}

/** Plays sessions, of which so many run at once, and returns the seconds. */
const job = Effect.fnUntraced(function* (all: ReadonlyArray<Sessions.AgentScript>, concurrency: number) {
  const from = yield* Clock.currentTimeMillis
  const agents = all.map((script) => ({ key: script.agent, effect: Effect.orDie(play(script)) }))
  const outcomes = yield* Agents.run(agents, { concurrency })
  assert.isTrue(outcomes.every(({ exit }) => exit._tag === "Success"))
  return ((yield* Clock.currentTimeMillis) - from) / 1_000
})

const simulated = (way: Way, count: number, concurrency: number) => {
  const all = scripts(count)
  return Effect.map(Simulation.run(provided(way, all)(job(all, concurrency))), ({ value }) => value)
}

/** Conversations run in the pool; then it is asked. */
const asked = (way: Way, seen: number, options: Agents.AdviseOptions) => {
  const all = scripts(seen, "seen")
  const program = Effect.gen(function* () {
    yield* job(all, seen)
    yield* Effect.sleep("10 minutes")
    return yield* Agents.advise(options)
  })
  return Effect.map(Simulation.run(provided(way, all)(program)), ({ value }) => value)
}

describe("the calls of an agent", () => {
  const calls = (more: Partial<Forecast.Work>) =>
    Forecast.uniform({ agents: 1, calls: 4, first: { inputTokens: 100, outputTokens: 1 }, ...more })[0]!.calls
  const inputs = (more: Partial<Forecast.Work>) => calls(more).map(({ inputTokens }) => inputTokens)

  it("grow from the second on, which may be stated, and read what was said before", () => {
    assert.deepStrictEqual(inputs({}), [100, 100, 100, 100])
    assert.deepStrictEqual(inputs({ growth: 10 }), [100, 110, 120, 130])
    assert.deepStrictEqual(inputs({ growth: 10, later: { inputTokens: 50, outputTokens: 1 } }), [100, 50, 60, 70])
    assert.deepStrictEqual(inputs({ growth: 10, cachedShare: 1 }), [100, 10, 10, 10])
    assert.deepStrictEqual(inputs({ growth: 10, cachedShare: 0.5 }), [100, 60, 65, 70])
    assert.deepStrictEqual(
      calls({ growth: 10, cachedShare: 0.5 }).map(({ cacheReadTokens = 0 }) => cacheReadTokens),
      [0, 50, 55, 60]
    )
  })

  it("wait for tools from the second on, as long as `later` says if it says so", () => {
    const pauses = (more: Partial<Forecast.Work>) => calls(more).map(({ pause }) => pause)
    assert.deepStrictEqual(pauses({ pause: "9 seconds" }), [undefined, "9 seconds", "9 seconds", "9 seconds"])
    const later = { inputTokens: 50, outputTokens: 1, pause: "2 seconds" } as const
    assert.deepStrictEqual(pauses({ pause: "9 seconds", later }), [undefined, "2 seconds", "2 seconds", "2 seconds"])
  })

  it("are refused with a growth or a share that cannot be", () => {
    assert.throws(() => calls({ growth: -1 }), "Forecast.uniform: growth: expected a number from 0 up to 2^53, got -1")
    assert.throws(
      () => calls({ cachedShare: 1.1 }),
      "Forecast.uniform: cachedShare: expected a number from 0 to 1, got 1.1"
    )
  })

  it.effect("cost what is written to the cache and read from it", () =>
    Effect.gen(function* () {
      const first = { inputTokens: 1e6, outputTokens: 0 }
      const each = { calls: 2, first, growth: 1e6, cachedShare: 1 }
      // Two millions are written for $12.50 each, and one is read for $1.
      const room = (dollars: number) =>
        Effect.map(
          Agents.advise({ model: "m", agents: 3, each }).pipe(Spending.from(Spending.make("team", { dollars }))),
          ({ caps }) => caps[0]?.agents
        )
      assert.deepStrictEqual([yield* room(25.9), yield* room(26.1), yield* room(79)], [0, 1, undefined])
    }).pipe(
      Effect.provide(
        Layer.provideMerge(
          Governor.layer({ prices: { m: { input: 10, output: 0, cacheWrite: 12.5, cacheRead: 1 } } }),
          Layer.provideMerge(Agents.layer, Budget.layer({ limits: { inputTokens: { perMinute: 1e8 } } }))
        )
      )
    )
  )
})

describe.each(ways)("conversations where the provider counts $name", (way) => {
  it.live("end when their forecast says", () =>
    Effect.gen(function* () {
      const seconds = yield* simulated(way, 8, 8)
      const workload = Forecast.uniform({ agents: 8, ...work(way) })
      const forecast = Duration.toSeconds(Forecast.make(workload, { limits: way.limits }).duration)
      const alone = (turns * (latency.baseMillis + outputTokens * latency.perOutputTokenMillis)) / 1_000
      assert.isAbove(seconds, 2 * alone)
      assert.closeTo(forecast, seconds, 0.1 * seconds)
    })
  )

  it.live("are advised as the pool has seen them", () =>
    Effect.gen(function* () {
      const { agents, each } = yield* asked(way, 4, { agents: 8 })
      assert.strictEqual(each.calls, turns)
      assert.closeTo(each.first.inputTokens, first, 0.02 * first)
      assert.closeTo(each.growth!, growth, 0.05 * growth)
      assert.closeTo(each.cachedShare!, way.cachedShare, 0.05)
      assert.isBelow(agents, 8)
    })
  )

  it.live("end in about the time of the best number of agents at once, with the advised number", () =>
    Effect.gen(function* () {
      const advice = Agents.advise({ agents: 6, each: work(way) })
      const { value } = yield* Simulation.run(provided(way, [])(advice))
      assert.isBelow(value.agents, 6)
      const advised = yield* simulated(way, 6, value.agents)
      const others = yield* Effect.forEach([2, 6], (count) => simulated(way, 6, count))
      assert.isAtMost(advised, 1.15 * Math.min(...others))
    })
  )

  it.live(
    "end in about the time of the best of more numbers, with the number that is advised after some were seen",
    () =>
      Effect.gen(function* () {
        const { agents } = yield* asked(way, 4, { agents: 12 })
        const advised = yield* simulated(way, 12, agents)
        const others = yield* Effect.forEach([1, 3, 6, 12], (count) => simulated(way, 12, count))
        assert.isAtMost(advised, 1.15 * Math.min(...others))
      }),
    { tags: "full" }
  )

  it.live("are not taken for one conversation if many share a name", () =>
    Effect.gen(function* () {
      const all = scripts(4)
      const program = Effect.gen(function* () {
        yield* Effect.forEach(all, play, { concurrency: "unbounded" }).pipe(
          Effect.provideService(Budget.Agent, "session")
        )
        yield* Effect.sleep("10 minutes")
        return yield* Agents.advise()
      })
      const { each } = (yield* Simulation.run(provided(way, all)(program))).value
      assert.strictEqual(each.calls, 4 * turns)
      assert.isUndefined(each.growth)
    })
  )

  it.live("are advised as they are stated", () =>
    Effect.gen(function* () {
      const flat: Forecast.Work = { calls: 3, first: { inputTokens: 100, outputTokens: 10 } }
      assert.deepStrictEqual((yield* asked(way, 4, { each: flat })).each, flat)
    })
  )

  it.live("are advised as usual if the pool has seen too few", () =>
    Effect.gen(function* () {
      assert.isUndefined((yield* asked(way, 2, {})).each.growth)
    })
  )
})
