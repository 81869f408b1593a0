import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Scenario, Scenarios } from "@floodgate/lab/internal"
import { fanOut } from "../../benchmark/advice/fanOut.ts"
import { randomWeather } from "../../benchmark/advice/weathers.ts"

describe("the study of advice", () => {
  it.live("follows advice in the incident, loses nothing, and ends when it was foreseen", () =>
    Effect.gen(function* () {
      const { foreseen, lost, max, rejected } = yield* fanOut(Scenario.make({ agents: 40 }), "advised")
      assert.strictEqual(lost, 0)
      assert.strictEqual(rejected, 0)
      assert.isAtMost(max, 20)
      assert.deepStrictEqual(
        foreseen.map(({ when }) => when),
        ["start", "early", "middle"]
      )
      for (const { actual, foreseen: end } of foreseen) assert.closeTo(end / actual, 1, 0.2)
    })
  )

  it.live("foresees the end under a limit of calls in flight that nobody names", () =>
    Effect.gen(function* () {
      const { foreseen } = yield* fanOut(Scenarios.byName("undeclared-concurrency", { agents: 60 })!, "advised")
      const { actual, foreseen: end } = foreseen.find(({ when }) => when === "middle")!
      assert.closeTo(actual / end, 1, 0.2)
    })
  )

  it.live("draws the same weather for the same seed, and loses nothing in it", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(randomWeather(8), randomWeather(8))
      const weather = { ...randomWeather(8), agents: randomWeather(8).agents.slice(0, 20) }
      const [one, other] = [yield* fanOut(weather, "advised"), yield* fanOut(weather, "advised")]
      assert.strictEqual(one.lost, 0)
      assert.strictEqual(one.seconds, other.seconds)
    })
  )
})
