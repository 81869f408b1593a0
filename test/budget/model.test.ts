/** Random operations against the slow, obvious model. `FLOODGATE_SEED=n` runs one seed; `npm run test:soak` thousands. */
import { describe, it } from "@effect/vitest"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import { check } from "../support/history.ts"

const seeds = 200

describe("Budget, against the model", () => {
  it.effect(
    `stands after every step as the model does, in ${seeds} random histories`,
    () =>
      Effect.gen(function* () {
        const only = yield* Config.option(Config.Int("FLOODGATE_SEED"))
        const list = only._tag === "Some" ? [only.value] : Array.from({ length: seeds }, (_, i) => i + 1)
        yield* Effect.forEach(list, (seed) => check({ seed, steps: 80, longestMillis: 120_000 }), { discard: true })
      }),
    120_000
  )

  it.effect(
    "ends an hour of chaos with every level, permit and queue where the model says",
    () => check({ seed: 1, steps: 1_500, millis: 3_600_000, longestMillis: 90_000 }),
    120_000
  )
})
