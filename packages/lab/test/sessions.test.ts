import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import { Floor, Race, Scenario, Scenarios, Strategies } from "@floodgate/lab/internal"
import { LlmProvider } from "floodgate/LlmProvider"
import { inputTokens } from "floodgate/internal/testing"
import { ProviderSim, Simulation } from "floodgate/testing"
import { sized } from "../../../test/support/size.ts"
import { resultOf, strategy } from "./support/race.ts"

/** A scenario of a few sessions, which takes a fraction of a second. */
const small = (name: string, agents = sized(3, 6)): Scenario.Scenario => Scenarios.byName(name, { agents })!

const firstOf = (log: ReadonlyArray<ProviderSim.Entry>): ReadonlyMap<string, ProviderSim.Entry> => {
  const first = new Map<string, ProviderSim.Entry>()
  for (const entry of log) if (!first.has(entry.agent!)) first.set(entry.agent!, entry)
  return first
}

describe("sessions", () => {
  it("are shipped as numbers of at most 60 KB, with their source and licence", () => {
    const text = readFileSync(new URL("../src/sessions/table.ts", import.meta.url), "utf8")
    assert.isAtMost(Buffer.byteLength(text), 60_000)
    assert.match(text, /callanjfox\/kv-cache-tester \(Weka\), Apache-2.0/)
    const rows = text.slice(text.indexOf("`\n") + 2)
    assert.notMatch(rows.slice(0, rows.indexOf("`")), /[^\d,/\n]/)
  })

  it("are 36 recorded ones, two of which start sub-agents", () => {
    const { agents } = Scenarios.byName("sessions")!
    assert.strictEqual(agents.length, 36)
    for (const { calls } of agents) assert.isAtMost(calls.length, 40)
    assert.deepStrictEqual(
      agents.filter(({ calls, name }) => calls.some(({ agent }) => agent !== name)).map(({ name }) => name),
      ["0267", "0277"]
    )
  })

  for (const name of Scenarios.namesOfSessions) {
    it(`${name} has a floor, a provider model in words, and the same calls each time`, () => {
      const scenario = small(name)
      assert.isAbove(Floor.floor(scenario).seconds, 10)
      assert.include(Scenario.modelOf(scenario), "for 5 minutes, and")
      assert.deepStrictEqual(Scenario.callsOf(scenario), Scenario.callsOf(small(name)))
      const names = Scenario.callsOf(scenario).map(Scenario.nameOf)
      assert.strictEqual(new Set(names).size, names.length)
    })

    it.effect(`${name} is counted by the provider as its calls say`, () =>
      Effect.gen(function* () {
        const scenario = small(name, 2)
        const calls = Scenario.callsOf(scenario)
        const { countTokens } = yield* LlmProvider
        for (const call of calls) {
          const params = Scenario.paramsOf(call)
          assert.strictEqual(Scenario.keyOf(params), Scenario.nameOf(call))
          assert.strictEqual((yield* countTokens(params)).value, call.inputTokens)
        }
      }).pipe(
        Effect.provide(ProviderSim.layer({ ...Scenario.providerOf(small(name, 2)), latency: undefined })),
        Simulation.run
      )
    )

    it.effect(`${name} is solved by the oracle without a rejection`, () =>
      Effect.gen(function* () {
        const result = yield* resultOf(small(name), "oracle")
        assert.strictEqual(result.failedCalls, 0)
        assert.strictEqual(result.rejections, 0)
        assert.isAtLeast(result.makespanSeconds, result.floorSeconds)
        assert.isAtMost(result.meanEndSeconds!, result.makespanSeconds)
      })
    )
  }

  it("have limits for as many sessions as there are", () => {
    const perMinute = (name: string, agents?: number) => Scenarios.byName(name, { agents })!.limits.inputTokens!
    // A quarter of the size: 1M a minute for 60 sessions are 150,000 for 36.
    assert.deepStrictEqual(perMinute("sessions"), { perMinute: 150_000, burst: 150_000, window: "bucket" })
    assert.deepStrictEqual(perMinute("sessions", 18), { perMinute: 75_000, burst: 75_000, window: "bucket" })
    assert.deepStrictEqual(perMinute("sessions-small-burst"), { perMinute: 300_000, burst: 60_000, window: "bucket" })
  })

  it("have no turn that exceeds the burst even without a cache hit that the table has", () => {
    for (const scenario of Scenarios.namesOfSessions.flatMap((name) => [small(name, 1), Scenarios.byName(name)!])) {
      const { burst } = scenario.limits.inputTokens!
      for (const call of Scenario.callsOf(scenario)) {
        assert.isAtMost(Scenario.countedInput(scenario, call), burst!, `${scenario.name} ${Scenario.nameOf(call)}`)
      }
    }
  })

  it("have the agents that one prompt has started, level by level, and those of a fan-out", () => {
    const levelsOf = (name: string) => {
      const agents = new Set(Scenario.callsOf(Scenarios.byName(name)!).map(({ agent }) => agent))
      const counts: Array<number> = []
      for (const agent of agents) {
        const depth = agent.split("/").length - 1
        counts[depth] = (counts[depth] ?? 0) + 1
      }
      return counts
    }
    assert.deepStrictEqual(Scenarios.namesOfTrees.map(levelsOf), [
      [1, 8, 42, 141, 416, 270],
      [1, 100]
    ])
  })

  it.effect("read from the provider's cache what they say, because no pause outlasts it", () =>
    Effect.gen(function* () {
      const scenario = { ...small("sessions", sized(6, 12)), limits: {} }
      const { log, result } = yield* Race.run(scenario, strategy("fixed-retry"))
      assert.strictEqual(result.failedCalls, 0)
      const expected = Scenario.callsOf(scenario)
        .map(({ agent, cachedTokens, inputTokens }) => `${agent} ${inputTokens} ${cachedTokens}`)
        .toSorted()
      const actual = log.map(({ agent, cacheReadTokens = 0, inputTokens }) =>
        [agent, inputTokens + cacheReadTokens, cacheReadTokens].join(" ")
      )
      assert.deepStrictEqual(actual.toSorted(), expected)
      const [read, all] = log.reduce(
        ([read, all], { cacheReadTokens = 0, inputTokens }) => [
          read + cacheReadTokens,
          all + inputTokens + cacheReadTokens
        ],
        [0, 0]
      )
      assert.isAbove(read! / all!, 0.9)
    })
  )

  it.effect("come back cold, all at once", () =>
    Effect.gen(function* () {
      const scenario = { ...small("sessions-cold", 12), limits: {} }
      const { log } = yield* Race.run(scenario, strategy("fixed-retry"))
      const leads = [...firstOf(log)].filter(([agent]) => !agent.includes("/"))
      assert.strictEqual(leads.length, 12)
      for (const [, { at, cacheReadTokens }] of leads) {
        assert.isAtMost(at, 10_000)
        assert.strictEqual(cacheReadTokens, 0)
      }
    })
  )

  it.effect("fan out: sub-agents begin at once and read the lead's tools and system prompt", () =>
    Effect.gen(function* () {
      const scenario = { ...Scenarios.byName("sessions-fan-out")!, limits: {} }
      const { log } = yield* Race.run(scenario, strategy("fixed-retry"))
      const [lead, ...subAgents] = [...firstOf(log).values()]
      assert.strictEqual(lead?.agent, "lead")
      assert.strictEqual(subAgents.length, 48)
      for (const { at, cacheReadTokens, inputTokens } of subAgents) {
        assert.strictEqual(at, subAgents[0]!.at)
        assert.isAbove(cacheReadTokens!, 3 * inputTokens)
      }
    })
  )

  it.effect("at a provider that counts everything, empty its limit although they read from the cache", () =>
    Effect.gen(function* () {
      const scenario = small("sessions-openai", 2)
      const { log } = yield* Race.run(scenario, strategy("oracle"))
      const last = log.at(-1)!
      const all = log.reduce((sum, { cacheReadTokens = 0, inputTokens }) => sum + inputTokens + cacheReadTokens, 0)
      const { burst, perMinute } = scenario.limits.inputTokens!
      assert.isAbove(log.reduce((sum, { cacheReadTokens = 0 }) => sum + cacheReadTokens, 0) / all, 0.8)
      const refilled = burst! + (perMinute! * last.at) / 60_000
      assert.isAtMost(all, refilled + 1)
    })
  )

  it.effect(
    "tell strategies apart, and show what knowing the cache is worth",
    () =>
      Effect.gen(function* () {
        const scenario = small("sessions", 12)
        const known = yield* resultOf(scenario, "uncached-queue")
        const whole = yield* resultOf(scenario, "hand-written")
        assert.deepStrictEqual([known.failedCalls, known.rejections, whole.failedCalls], [0, 0, 0])
        assert.isAbove(whole.makespanSeconds, 1.2 * known.makespanSeconds)
        assert.isAbove(whole.meanEndSeconds!, 1.2 * known.meanEndSeconds!)
      }),
    { tags: "full" }
  )

  it("are raced with a queue that knows what is cached, which other scenarios have not", () => {
    const namesOf = (name: string) => Strategies.of(Scenarios.byName(name)!).map((one) => one.name)
    for (const name of Scenarios.namesOfSessions) assert.include(namesOf(name), "uncached-queue")
    for (const name of [...Scenarios.names, ...Scenarios.namesOfPlaces]) {
      assert.notInclude(namesOf(name), "uncached-queue")
    }
  })

  it("are of the kind that Sessions counts", () => {
    const [call] = Scenario.callsOf(small("sessions", 1))
    assert.strictEqual(inputTokens(Scenario.paramsOf(call!)), call!.inputTokens)
  })
})
