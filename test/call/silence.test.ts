import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import { setAhead, sleepingBy } from "../support/clock.ts"
import * as Silence from "../../src/call/silence.ts"

describe("silence", () => {
  it.effect("is measured by monotonic time, which setting the wall clock does not change", () =>
    Effect.gen(function* () {
      let ahead = 0
      const connection = new AbortController()
      const arrivals: Array<(chunk: Uint8Array) => void> = []
      const source = { read: () => new Promise<Uint8Array>((resolve) => arrivals.push(resolve)), cancel: () => {} }
      const clock = setAhead(yield* Clock.Clock, () => ahead)
      const patience = { silence: Duration.minutes(1), stalled: () => Effect.succeed("stalled") }
      const { read } = yield* Silence.bound(source, connection, patience).pipe(
        Effect.provideService(Clock.Clock, clock)
      )
      const first = read()
      yield* TestClock.adjust("50 seconds")
      arrivals[0]!(new Uint8Array(1))
      yield* Effect.promise(() => first)
      const second = read().then(
        () => "came",
        (error: unknown) => error
      )
      yield* TestClock.adjust("5 seconds")
      ahead = 3_600_000
      yield* TestClock.adjust("54 seconds")
      assert.isFalse(connection.signal.aborted)
      ahead = -3_600_000
      yield* TestClock.adjust("999 millis")
      assert.isFalse(connection.signal.aborted)
      yield* TestClock.adjust("1 millis")
      assert.isTrue(connection.signal.aborted)
      assert.strictEqual(yield* Effect.promise(() => second), "stalled")
    })
  )

  it.effect("ends if data arrives while its error is being made, and the next read has its own limit", () =>
    Effect.gen(function* () {
      const connection = new AbortController()
      const arrivals: Array<(chunk: Uint8Array) => void> = []
      const source = { read: () => new Promise<Uint8Array>((resolve) => arrivals.push(resolve)), cancel: () => {} }
      let made = 0
      // As if the error came from a package that must be loaded first.
      const stalled = () =>
        Effect.delay(
          Effect.sync(() => `stalled ${++made}`),
          "5 seconds"
        )
      const { isStalled, read } = yield* Silence.bound(source, connection, { silence: Duration.minutes(1), stalled })
      const first = read()
      yield* TestClock.adjust("62 seconds")
      const chunk = new Uint8Array(1)
      arrivals[0]!(chunk)
      assert.strictEqual(yield* Effect.promise(() => first), chunk)
      const second = read().catch((error: unknown) => error)
      yield* TestClock.adjust("50 seconds")
      assert.strictEqual(made, 1)
      assert.isFalse(connection.signal.aborted)
      arrivals[1]!(chunk)
      assert.strictEqual(yield* Effect.promise(() => second), chunk)
      const third = read().catch((error: unknown) => error)
      yield* TestClock.adjust("65 seconds")
      const error = yield* Effect.promise(() => third)
      assert.strictEqual(error, "stalled 2")
      assert.isTrue(isStalled(error))
      assert.isTrue(connection.signal.aborted)
    })
  )

  /** Opens a source that stays silent from now on. Its read gives the error. */
  const silent = Effect.fnUntraced(function* (silence: Duration.Input, stalled = () => Effect.succeed(silence)) {
    const connection = new AbortController()
    const source = { read: () => new Promise<Uint8Array>(() => {}), cancel: () => {} }
    const patience = { silence: Duration.fromInputUnsafe(silence), stalled: stalled as () => Effect.Effect<unknown> }
    const { isStalled, read } = yield* Silence.bound(source, connection, patience)
    let error: unknown
    void read().catch((thrown: unknown) => {
      error = thrown
    })
    return {
      isAborted: () => connection.signal.aborted,
      isStalled: () => error !== undefined && isStalled(error)
    }
  })

  it.effect("is bounded for each source by its own limit, whichever began first", () =>
    Effect.gen(function* () {
      const long = yield* silent("1 minute")
      yield* TestClock.adjust("10 seconds")
      const short = yield* silent("5 seconds")
      yield* TestClock.adjust("4999 millis")
      assert.isFalse(short.isAborted())
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual([short.isAborted(), short.isStalled()], [true, true])
      yield* TestClock.adjust("44999 millis")
      assert.isFalse(long.isAborted())
      // The error of the first stays the error of its reads, although the second is checked later.
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual([long.isAborted(), long.isStalled(), short.isStalled()], [true, true, true])
    })
  )

  it.effect("is bounded although the error of another source never comes", () =>
    Effect.gen(function* () {
      const stuck = yield* silent("5 seconds", () => Effect.never)
      const next = yield* silent("6 seconds")
      yield* TestClock.adjust("6 seconds")
      assert.deepStrictEqual([stuck.isAborted(), next.isAborted()], [false, true])
    })
  )

  it.effect("is watched again after all earlier sources were closed", () =>
    Effect.gen(function* () {
      const first = yield* Effect.scoped(silent("5 seconds"))
      yield* TestClock.adjust("10 seconds")
      const second = yield* silent("5 seconds")
      yield* TestClock.adjust("4999 millis")
      assert.deepStrictEqual([first.isAborted(), second.isAborted()], [false, false])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual([first.isAborted(), second.isAborted()], [false, true])
    })
  )

  it.effect("keeps no timer, and so no process alive, once all sources were closed", () =>
    Effect.gen(function* () {
      let timers = 0
      const clock = yield* Clock.Clock
      const sleep: Clock.Clock["sleep"] = (duration) =>
        Effect.suspend(() => {
          timers++
          return Effect.ensuring(
            clock.sleep(duration),
            Effect.sync(() => timers--)
          )
        })
      const watched = Effect.gen(function* () {
        yield* Effect.scoped(silent("1 minute"))
        yield* TestClock.adjust(1)
        assert.strictEqual(timers, 0)
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* silent("1 minute")
            yield* TestClock.adjust(1)
            assert.strictEqual(timers, 1)
          })
        )
        yield* TestClock.adjust(1)
        assert.strictEqual(timers, 0)
      })
      yield* Effect.provideService(watched, Clock.Clock, sleepingBy(clock, sleep))
    })
  )
})
