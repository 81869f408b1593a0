import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import { Simulation } from "floodgate/testing"

const slept = Effect.as(Effect.sleep("1 hour"), "done")

describe("Simulation", () => {
  it("runs under a clock of its own where there is none, and says how long it took", async () => {
    const { duration, value } = await Effect.runPromise(Simulation.run(Effect.andThen(slept, Clock.currentTimeMillis)))
    assert.strictEqual(Duration.toMillis(duration), 3_600_000)
    assert.strictEqual(value, 3_600_000)
  })

  it.effect("goes on with the clock of the test, and measures from there", () =>
    Effect.gen(function* () {
      const first = yield* Simulation.run(Effect.sleep(1_234))
      const from = yield* Clock.currentTimeMillis
      const second = yield* Simulation.run(Effect.andThen(Effect.sleep(77), Clock.currentTimeMillis))
      assert.deepStrictEqual(
        [first, second].map(({ duration }) => Duration.toMillis(duration)),
        [1_234, 77]
      )
      assert.strictEqual(second.value, from + 77)
    })
  )

  it.effect("takes no time for what takes none", () =>
    Effect.gen(function* () {
      const { duration } = yield* Simulation.run(Effect.void)
      assert.strictEqual(Duration.toMillis(duration), 0)
    })
  )

  it.effect("fails as the effect does", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Simulation.run(Effect.andThen(slept, Effect.fail("no"))))
      assert.strictEqual(error, "no")
    })
  )

  it.effect("draws the same numbers for the same seed, and others for another", () =>
    Effect.gen(function* () {
      const draw = (seed?: string) => Effect.map(Simulation.run(Random.next, { seed }), ({ value }) => value)
      assert.strictEqual(yield* draw(), yield* draw())
      assert.notStrictEqual(yield* draw("one"), yield* draw("two"))
    })
  )

  it.effect("tells how far it is", () =>
    Effect.gen(function* () {
      const seen: Array<number> = []
      yield* Simulation.run(Effect.sleep("25 seconds"), {
        progress: (seconds) => Effect.sync(() => seen.push(seconds))
      })
      assert.deepStrictEqual(seen, [10, 20])
    })
  )

  it.effect("dies when there is no end", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(Simulation.run(Effect.never))
      assert.isTrue(Exit.hasDies(exit))
      assert.match(String(exit), /expected an end within a month of simulated time/)
    })
  )
})
