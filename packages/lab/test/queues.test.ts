/**
 * Packages that are raced run in simulated time: they start calls when they do in a program. What is modelled instead, the retries
 * of the SDK, comes when the SDK's own do.
 */
import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it, vi } from "@effect/vitest"
import Bottleneck from "bottleneck"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Simulation } from "floodgate/testing"
import PQueue from "p-queue"
import * as SimulatedPackage from "../src/strategies/simulatedPackage.ts"
import { attemptsOfClient, attemptsOfModel, failures, params } from "./support/attempts.ts"

/** A call lasts longer than an interval. */
const callMillis = 2_500

const arrival = (index: number): number => 100 * Math.floor(index / 2)

type Schedule = (size: number) => SimulatedPackage.Add

/** When calls that come in pairs every 100 ms start, in simulated time. */
const startsInSimulation = (load: Effect.Effect<Schedule, never, Scope.Scope>, sizes: ReadonlyArray<number>) =>
  Effect.gen(function* () {
    const schedule = yield* load
    const starts: Array<number> = []
    const job = (index: number) =>
      Effect.andThen(
        Effect.map(Clock.currentTimeMillis, (now) => void (starts[index] = now)),
        Effect.sleep(callMillis)
      )
    yield* Effect.forEach(
      sizes,
      (size, index) => Effect.delay(SimulatedPackage.queued(schedule(size), job(index)), arrival(index)),
      { concurrency: "unbounded", discard: true }
    )
    return starts
  }).pipe(
    Effect.scoped,
    Simulation.run,
    Effect.map(({ value }) => value)
  )

/** The same by the package as a program imports it, in time that is faked. */
const startsInProgram = async (make: () => Schedule, sizes: ReadonlyArray<number>) => {
  vi.useFakeTimers()
  try {
    const schedule = make()
    const from = Date.now()
    const starts: Array<number> = []
    for (const [index, size] of sizes.entries()) {
      setTimeout(() => {
        void schedule(size)(async () => {
          starts[index] = Date.now() - from
          await new Promise((resolve) => setTimeout(resolve, callMillis))
        })
      }, arrival(index))
    }
    await vi.advanceTimersByTimeAsync(60_000)
    return starts
  } finally {
    vi.useRealTimers()
  }
}

describe("packages in simulated time", () => {
  it.effect("p-queue starts calls at the same times as in a program", () =>
    Effect.gen(function* () {
      const sizes = Array.from({ length: 20 }, () => 1)
      const make = (Queue: typeof PQueue): Schedule => {
        const queue = new Queue({ intervalCap: 3, interval: 1_000 })
        return () => (job) => queue.add(job)
      }
      const loaded = Effect.map(SimulatedPackage.load<{ readonly default: typeof PQueue }>("p-queue"), (module) =>
        make(module.default)
      )
      const inProgram = yield* Effect.promise(() => startsInProgram(() => make(PQueue), sizes))
      assert.deepStrictEqual(yield* startsInSimulation(loaded, sizes), inProgram)
      assert.isAtLeast(inProgram.at(-1)!, 6_000)
    })
  )

  it.effect("Bottleneck starts calls at the same times as in a program", () =>
    Effect.gen(function* () {
      const sizes = [150, 150, 14, 14, 90, 200, 3, 70, 14, 14]
      const make = (Limiter: typeof Bottleneck): Schedule => {
        const limiter = new Limiter({
          reservoir: 200,
          reservoirIncreaseAmount: 60,
          reservoirIncreaseInterval: 1_000,
          reservoirIncreaseMaximum: 200
        })
        return (weight) => (job) => limiter.schedule({ weight }, job)
      }
      const loaded = Effect.map(SimulatedPackage.load<typeof Bottleneck>("bottleneck/light.js"), make)
      const inProgram = yield* Effect.promise(() => startsInProgram(() => make(Bottleneck), sizes))
      assert.deepStrictEqual(yield* startsInSimulation(loaded, sizes), inProgram)
      assert.isAtLeast(inProgram.at(-1)!, 6_000)
    })
  )

  it.effect("leave no timer behind when a race is over", () =>
    Effect.gen(function* () {
      let started = 0
      yield* Simulation.run(
        Effect.gen(function* () {
          const race = Effect.gen(function* () {
            const Limiter = yield* SimulatedPackage.load<typeof Bottleneck>("bottleneck/light.js")
            const limiter = new Limiter({ reservoir: 1, reservoirIncreaseAmount: 1, reservoirIncreaseInterval: 1_000 })
            for (let job = 0; job < 9; job++) void limiter.schedule(async () => started++)
            yield* Effect.sleep("2500 millis")
          })
          yield* Effect.scoped(race)
          yield* Effect.sleep("1 minute")
        })
      )
      assert.strictEqual(started, 3)
    })
  )
})

describe("the retries of the SDK, modelled", () => {
  for (const [name, retries] of [
    ["sdk-2", 2],
    ["sdk-10", 10]
  ] as const) {
    for (const [what, answers] of [...failures, ["connections that are refused", ["refused"]]] as typeof failures) {
      it.effect(
        `${name} sends when the SDK does, after ${what}`,
        () =>
          Effect.gen(function* () {
            const theirs = yield* Effect.promise(() =>
              attemptsOfClient(answers, (fetch) =>
                new Anthropic({ apiKey: "test", maxRetries: retries, logLevel: "off", fetch }).messages.create(params)
              )
            )
            assert.deepStrictEqual(yield* attemptsOfModel(name, answers), theirs)
            assert.strictEqual(theirs.length, what.startsWith("what cannot") ? 1 : retries + 1)
          }),
        { tags: "full" }
      )
    }
  }
})
