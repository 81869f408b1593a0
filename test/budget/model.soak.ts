/** The long runs of model.test.ts: thousands of histories, and hours of simulated chaos. */
import { describe, it } from "@effect/vitest"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import { check } from "../support/history.ts"

describe("Budget, against the model", () => {
  it.effect(
    "stands after every step as the model does, in thousands of random histories",
    () =>
      Effect.gen(function* () {
        const seeds = yield* Config.withDefault(Config.Int("FLOODGATE_SEEDS"), 5_000)
        for (let seed = 1_000; seed < 1_000 + seeds; seed++) {
          yield* check({ seed, steps: 80, longestMillis: 120_000 })
        }
      }),
    600_000
  )

  it.effect(
    "ends ten hours of chaos with every level, permit and queue where the model says",
    () =>
      Effect.gen(function* () {
        for (let seed = 1; seed <= 10; seed++) {
          yield* check({ seed, steps: 1_500, millis: 3_600_000, longestMillis: 90_000 })
        }
      }),
    600_000
  )
})
