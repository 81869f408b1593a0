/** How long the retry loop waits between attempts whose failures are not the call's own. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as TestClock from "effect/testing/TestClock"
import * as Loop from "../../src/retry/loop.ts"

/** Always the longest wait that chance allows. */
const slowest = { nextIntUnsafe: () => Number.MAX_SAFE_INTEGER, nextDoubleUnsafe: () => 1 - Number.EPSILON }

/** The waits of a call whose attempts fail for these reasons, one after the other. */
const waitsOf = Effect.fnUntraced(function* (failures: ReadonlyArray<"own" | "limits">) {
  const waits: Array<number> = []
  let made = 0
  const budget = {
    track: <A>(call: A) => call,
    take: Effect.succeed(Duration.zero),
    giveBack: Effect.void,
    balance: Effect.succeed(1)
  }
  const rules = { backoff: Schedule.spaced("1 second"), attempts: 100, maxElapsed: Duration.hours(10) }
  const call = yield* Effect.forkChild(
    Loop.retry(rules, {
      budget,
      deadline: Infinity,
      attempt: () =>
        Effect.suspend(() => {
          const failure = failures[made++]
          return failure === undefined ? Effect.succeed("done") : Effect.fail(failure)
        }),
      judge: (failure: "own" | "limits") => ({
        isRetryable: true,
        retryAfter: undefined,
        isOwn: failure === "own",
        failure
      }),
      finish: (error) => error,
      waits: (_, millis) => void waits.push(millis)
    }).pipe(Effect.provideService(Random.Random, slowest))
  )
  yield* TestClock.adjust("9 hours")
  assert.strictEqual(yield* Fiber.join(call), "done")
  return waits
})

describe("waits for the provider's limits", () => {
  it.effect("are two seconds at most at first, and grow to a minute where nothing else happens", () =>
    Effect.gen(function* () {
      const waits = yield* waitsOf(Array.from({ length: 12 }, () => "limits" as const))
      assert.deepStrictEqual(
        waits.map((millis) => Math.round(millis / 1_000)),
        [2, 2, 2, 2, 2, 4, 8, 16, 32, 60, 60, 60]
      )
    })
  )

  it.effect("begin anew after a failure of the call's own: the limits have let it through", () =>
    Effect.gen(function* () {
      const long = Array.from({ length: 10 }, () => "limits" as const)
      const waits = yield* waitsOf([...long, "own", "limits"])
      assert.isAbove(waits[9]!, 30_000)
      assert.isAtMost(waits[11]!, 2_000)
    })
  )
})
