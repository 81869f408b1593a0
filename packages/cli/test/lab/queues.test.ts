import { assert, describe, it, vi } from "@effect/vitest"
import Bottleneck from "bottleneck"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import PQueue from "p-queue"
import * as Queues from "../../src/lab/strategies/queues.ts"

const seconds = 60
/** A call lasts longer than an interval. */
const callMillis = 2_500

/** When calls that come in pairs every 100 ms start, by the queue of the lab. */
const startsOf = (make: ReturnType<typeof Queues.intervals>, sizes: ReadonlyArray<number>) =>
  Effect.gen(function* () {
    const admit = yield* make
    const starts: Array<number> = []
    const fiber = yield* Effect.forkChild(
      Effect.forEach(
        sizes,
        (size, index) =>
          Effect.andThen(
            Effect.delay(admit(size), arrival(index)),
            Effect.map(Clock.currentTimeMillis, (now) => void (starts[index] = now))
          ),
        { concurrency: "unbounded", discard: true }
      )
    )
    yield* TestClock.adjust(`${seconds} seconds`)
    yield* Fiber.join(fiber)
    return starts
  })

const arrival = (index: number): number => 100 * Math.floor(index / 2)

/** The same by a package, in time that is faked. */
const startsOfPackage = async (
  make: () => (size: number, started: () => Promise<void>) => unknown,
  sizes: ReadonlyArray<number>
) => {
  vi.useFakeTimers()
  try {
    const schedule = make()
    const from = Date.now()
    const starts: Array<number> = []
    for (const [index, size] of sizes.entries()) {
      setTimeout(() => {
        void schedule(size, async () => {
          starts[index] = Date.now() - from
          await new Promise((resolve) => setTimeout(resolve, callMillis))
        })
      }, arrival(index))
    }
    await vi.advanceTimersByTimeAsync(seconds * 1_000)
    return starts
  } finally {
    vi.useRealTimers()
  }
}

describe("the queues of others", () => {
  it.effect("start calls when p-queue does", () =>
    Effect.gen(function* () {
      const sizes = Array.from({ length: 20 }, () => 1)
      const make = () => {
        const queue = new PQueue({ intervalCap: 3, interval: 1_000 })
        return (_: number, started: () => Promise<void>) => queue.add(started)
      }
      const theirs = yield* Effect.promise(() => startsOfPackage(make, sizes))
      assert.deepStrictEqual(yield* startsOf(Queues.intervals(3, 1_000), sizes), theirs)
    })
  )

  it.effect("start calls when Bottleneck does, within its heartbeat of 250 ms", () =>
    Effect.gen(function* () {
      const sizes = [150, 150, 14, 14, 90, 200, 3, 70, 14, 14]
      const make = () => {
        const limiter = new Bottleneck({
          reservoir: 200,
          reservoirIncreaseAmount: 60,
          reservoirIncreaseInterval: 1_000,
          reservoirIncreaseMaximum: 200
        })
        return (weight: number, started: () => Promise<void>) => limiter.schedule({ weight }, started)
      }
      const theirs = yield* Effect.promise(() => startsOfPackage(make, sizes))
      const ours = yield* startsOf(Queues.reservoir(200, 60, 1_000), sizes)
      for (const [index, at] of ours.entries()) assert.closeTo(at, theirs[index]!, 250, `call ${index}`)
    })
  )
})
