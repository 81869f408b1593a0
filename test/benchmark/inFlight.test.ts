/** A limit of calls in flight that the provider does not name: how soon it is found, and what holding it costs. */
import { assert, describe, it } from "@effect/vitest"
import { scenario } from "../../benchmark/weather/build.ts"
import * as Engine from "../../benchmark/weather/engine.ts"
import { grid } from "../../benchmark/weather/inFlight.ts"
import * as Laws from "../../benchmark/weather/laws.ts"
import { isFull } from "../support/size.ts"

const law = await Laws.load("benchmark/weather/admission.ts")
const mean = (values: ReadonlyArray<number>): number => values.reduce((sum, value) => sum + value, 0) / values.length

describe("a limit of calls in flight that nobody has named", () => {
  // The grid of `npm run bench -- inFlight`, without the shapes in which 5 % are rejected at random, or tokens bind without headers.
  const calm = grid.filter(({ name }) => !name.includes("5 %") && name !== "tokens bind")
  const quick = calm.filter(({ latency, limit, name }) => latency === 10_000 && limit === 10 && name === "no headers")
  for (const { scenario } of isFull ? calm : quick) {
    it(`is found and held: ${scenario.name}`, () => {
      const results = [1, 2, 3].map((seed) => Engine.run(scenario, seed, law))
      assert.isAtLeast(mean(results.map(({ used }) => used)), 0.93)
      assert.isAtMost(mean(results.map(({ excess }) => excess)), 0.045)
      for (const { answered, lost } of results) {
        assert.strictEqual(lost, 0)
        assert.isAtLeast(answered, 280)
      }
    })
  }

  it("is found behind stated limits, too, and does not slow the calls down", () => {
    const weather = scenario("stated", { concurrency: 10, headers: "none", latency: { mean: 2_000, sigma: 0.5 } })
    const results = [1, 2, 3].map((seed) => Engine.run(weather, seed, law))
    assert.isAtLeast(mean(results.map(({ used }) => used)), 0.97)
    assert.isAtMost(mean(results.map(({ excess }) => excess)), 0.03)
  })

  it("gives way within seconds if it was an empty bucket", () => {
    // Regression: a window that was found in the first seconds grew by one for each ten calls that found it full.
    const weather = scenario("bucket", {
      perMinute: 600,
      headers: "none",
      told: "nothing",
      latency: { mean: 20_000, sigma: 0.5 },
      millis: 120_000
    })
    const results = [1, 2, 3].map((seed) => Engine.run(weather, seed, law))
    assert.isAtLeast(mean(results.map(({ used }) => used)), 0.9)
    assert.isAtMost(mean(results.map(({ excess }) => excess)), 0.12)
  })
})
