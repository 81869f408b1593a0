import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import * as TestClock from "effect/testing/TestClock"
import { LlmProvider } from "floodgate/LlmProvider"
import { ProviderSim, Simulation } from "floodgate/testing"

const slept = Effect.as(Effect.sleep("1 hour"), "done")

describe("Simulation", () => {
  it("runs under its own clock if there is none, and reports how long it took", async () => {
    const { duration, value } = await Effect.runPromise(Simulation.run(Effect.andThen(slept, Clock.currentTimeMillis)))
    assert.strictEqual(Duration.toMillis(duration), 3_600_000)
    assert.strictEqual(value, 3_600_000)
  })

  it.effect("continues from the clock of the test, and measures from there", () =>
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

  it.effect("leaves the clock where the effect ended, even if others still sleep", () =>
    Effect.gen(function* () {
      const woken: Array<number> = []
      const others = Effect.forEach([10, 1_234, 1_235], (millis) =>
        Effect.forkChild(
          Effect.andThen(
            Effect.sleep(millis),
            Effect.sync(() => woken.push(millis))
          )
        )
      )
      yield* others
      const { duration } = yield* Simulation.run(
        Effect.andThen(
          Effect.sleep(1_234),
          Effect.promise(() => Promise.resolve())
        )
      )
      assert.strictEqual(Duration.toMillis(duration), 1_234)
      assert.strictEqual(yield* Clock.currentTimeMillis, 1_234)
      assert.deepStrictEqual(woken, [10, 1_234])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(woken, [10, 1_234, 1_235])
    })
  )

  it("can run within another simulation, and beside it", async () => {
    const inner = Simulation.run(Effect.sleep("3 seconds"))
    const outer = Effect.gen(function* () {
      yield* Effect.sleep("5 seconds")
      const both = yield* Effect.all([inner, inner], { concurrency: "unbounded" })
      yield* Effect.sleep("5 seconds")
      return both.map(({ duration }) => Duration.toSeconds(duration))
    })
    const { duration, value } = await Effect.runPromise(Simulation.run(outer))
    assert.deepStrictEqual(value, [3, 3])
    assert.strictEqual(Duration.toSeconds(duration), 13)
  })

  it.effect("takes no time for an effect that takes none", () =>
    Effect.gen(function* () {
      const { duration } = yield* Simulation.run(Effect.void)
      assert.strictEqual(Duration.toMillis(duration), 0)
    })
  )

  const millisOf = <A, E>(self: Effect.Effect<A, E>) =>
    Effect.map(Simulation.run(self), ({ duration }) => Duration.toMillis(duration))
  const yields = Effect.repeat(Effect.yieldNow, { times: 5_000 })
  // More than a fiber may do before it lets others run.
  const computes = Effect.forEach(Array.from({ length: 20_000 }), () => Effect.sync(() => 1), { discard: true })
  const promises = Effect.repeat(
    Effect.promise(() => Promise.resolve(1)),
    { times: 200 }
  )
  const busy = { yields, computes, promises, "promises, then yields": Effect.andThen(promises, yields) }

  for (const [name, work] of Object.entries(busy)) {
    const between = Effect.gen(function* () {
      // Somebody else sleeps at every moment.
      yield* Effect.forkChild(Effect.forever(Effect.sleep(1)))
      yield* work
      yield* Effect.sleep(10)
      yield* work
      yield* Effect.sleep(10)
      yield* work
    })

    it.effect(`lets no time pass while it is busy: ${name}`, () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* millisOf(work), 0)
        assert.strictEqual(yield* millisOf(between), 20)
      })
    )

    it(`lets no time pass while it is busy, under a clock of its own: ${name}`, async () => {
      assert.strictEqual(await Effect.runPromise(millisOf(work)), 0)
      assert.strictEqual(await Effect.runPromise(millisOf(between)), 20)
    })
  }

  it("stops its own clock while the effect waits for something real", async () => {
    const digest = Effect.promise(() => crypto.subtle.digest("SHA-256", new Uint8Array(1_000)))
    const self = Effect.gen(function* () {
      yield* digest
      yield* Effect.sleep(10)
      yield* digest
    })
    assert.strictEqual(await Effect.runPromise(millisOf(self)), 10)
  })

  it("dies if the effect waits for anything but time under its own clock", { tags: "full" }, async () => {
    const exit = await Effect.runPromiseExit(Simulation.run(Effect.andThen(slept, Effect.never)))
    assert.isTrue(Exit.hasDies(exit))
    assert.match(String(exit), /expected an end within a second of real time while nobody sleeps/)
  })

  it.effect("fails as the effect does", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Simulation.run(Effect.andThen(slept, Effect.fail("no"))))
      assert.strictEqual(error, "no")
    })
  )

  it.effect("draws the same numbers for the same seed, and different ones for another seed", () =>
    Effect.gen(function* () {
      const draw = (seed?: string) => Effect.map(Simulation.run(Random.next, { seed }), ({ value }) => value)
      assert.strictEqual(yield* draw(), yield* draw())
      assert.notStrictEqual(yield* draw("one"), yield* draw("two"))
    })
  )

  it.effect("reports its progress", () =>
    Effect.gen(function* () {
      const seen: Array<number> = []
      yield* Simulation.run(Effect.sleep("25 seconds"), {
        progress: (seconds) => Effect.sync(() => seen.push(seconds))
      })
      assert.deepStrictEqual(seen, [10, 20])
    })
  )

  it.effect("dies if the effect never ends", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(Simulation.run(Effect.never))
      assert.isTrue(Exit.hasDies(exit))
      assert.match(String(exit), /expected an end within a month of simulated time/)
    })
  )

  it("explains what to do if layers use another clock", async () => {
    const call = Effect.flatMap(LlmProvider, (provider) =>
      provider.create({ model: "claude-sonnet-5", max_tokens: 10, messages: [{ role: "user", content: "Hello" }] })
    )
    const exit = await Effect.runPromiseExit(Effect.provide(Simulation.run(call), ProviderSim.layer()))
    assert.match(String(exit), /a month of simulated time; .* provide its layers to the effect itself/)
  })
})
