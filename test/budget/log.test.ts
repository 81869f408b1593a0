import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"

/** The log lines of a program under a budget, each with its second. */
const linesOf = (
  options: Budget.Options,
  program: Effect.Effect<unknown, Budget.BudgetError, Budget.TokenBudget | Scope.Scope>
): Effect.Effect<ReadonlyArray<string>, Budget.BudgetError> => {
  const lines: Array<string> = []
  const logger = Logger.make<unknown, void>(({ date, message }) => {
    lines.push(`${date.getTime() / 1_000} ${String(message)}`)
  })
  const live = Budget.layerLog.pipe(Layer.provideMerge(Budget.layer(options)))
  return Effect.as(Effect.scoped(Effect.provide(program, live)), lines).pipe(Effect.provide(Logger.layer([logger])))
}

const limits = { inputTokens: { perSecond: 1_000, burst: 400_000 } }
/** Uses tokens at once. */
const take = (inputTokens: number, options?: Budget.ReserveOptions) =>
  Effect.scoped(Effect.flatMap(Budget.TokenBudget, (budget) => budget.reserve({ inputTokens }, options)))
const start = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkScoped(effect, { startImmediately: true })

describe("the log of a budget", () => {
  it.effect("has a line when calls begin to wait, one when the wait is over, and none in between", () =>
    Effect.gen(function* () {
      const lines = yield* linesOf(
        { limits },
        Effect.gen(function* () {
          yield* take(360_000)
          yield* start(Effect.forEach([0, 1, 2], () => take(50_000), { concurrency: "unbounded" }))
          yield* TestClock.adjust("20 minutes")
        })
      )
      assert.deepStrictEqual(lines, [
        '0 waiting 110 s for input tokens of pool "default": 3 calls, 40K of 400K left',
        '111 the wait of pool "default" is over after 111 s: up to 3 calls waited'
      ])
    })
  )

  it.effect("has no line for waits below a second", () =>
    Effect.gen(function* () {
      const lines = yield* linesOf(
        { limits },
        Effect.gen(function* () {
          yield* take(400_000)
          for (let n = 0; n < 20; n++) {
            yield* start(take(700))
            yield* TestClock.adjust("900 millis")
          }
          yield* TestClock.adjust("1 minute")
        })
      )
      assert.deepStrictEqual(lines, [])
    })
  )

  it.effect("says when calls wait for something else: a pause, then a limit", () =>
    Effect.gen(function* () {
      const lines = yield* linesOf(
        { limits },
        Effect.gen(function* () {
          const budget = yield* Budget.TokenBudget
          yield* take(400_000)
          yield* budget.pause({ duration: "10 seconds", reason: "overload" })
          yield* TestClock.adjust("2 seconds")
          yield* start(take(30_000))
          yield* TestClock.adjust("2 minutes")
        })
      )
      assert.deepStrictEqual(lines, [
        '0 pausing pool "default" for 10 s: the provider fails or cannot be reached',
        '10 waiting 20 s for input tokens of pool "default": 1 call, 10K of 400K left',
        '31 the wait of pool "default" is over after 31 s: 1 call waited'
      ])
    })
  )

  it.effect("says when a pause without waiting calls is over", () =>
    Effect.gen(function* () {
      const pause = Effect.flatMap(Budget.TokenBudget, (budget) =>
        budget.pause({ duration: "30 seconds", reason: "rateLimit" })
      )
      const lines = yield* linesOf({ limits }, Effect.andThen(pause, TestClock.adjust("1 minute")))
      assert.deepStrictEqual(lines, [
        '0 pausing pool "default" for 30 s: the provider rejected a call because of a limit',
        '30 the pause of pool "default" is over after 30 s'
      ])
    })
  )

  it.effect("says that calls wait for another call to end", () =>
    Effect.gen(function* () {
      const lines = yield* linesOf(
        { limits, concurrency: 1 },
        Effect.gen(function* () {
          const running = yield* start(Budget.withReservation({ inputTokens: 1 }, () => Effect.never))
          yield* start(take(1))
          yield* TestClock.adjust("1 minute")
          yield* Fiber.interrupt(running)
          yield* TestClock.adjust("1 minute")
        })
      )
      assert.deepStrictEqual(lines, [
        '0 waiting 2 s for a place in pool "default": 1 call, 1 in flight',
        '61 the wait of pool "default" is over after 61 s: 1 call waited'
      ])
    })
  )

  it.effect("names a pool without its account, unless two would be called so", () =>
    Effect.gen(function* () {
      const waitsAt = (...accounts: ReadonlyArray<string>) =>
        linesOf(
          { limits: { pools: { "sonnet-5": limits } } },
          Effect.gen(function* () {
            for (const account of accounts) {
              yield* take(400_000, { account, pool: "sonnet-5" })
              yield* start(take(100_000, { account, pool: "sonnet-5" }))
            }
            yield* TestClock.adjust("10 seconds")
          })
        )
      const namesIn = (lines: ReadonlyArray<string>) => lines.map((line) => /pool "([^"]*)"/.exec(line)![1])
      const [one, other] = ["api.anthropic.com/9f86d081884c", "api.anthropic.com/0f86d081884d"]
      assert.deepStrictEqual(namesIn(yield* waitsAt(one)), ["sonnet-5"])
      assert.includeMembers(namesIn(yield* waitsAt(one, other)), [`${one}/sonnet-5`, `${other}/sonnet-5`])
    })
  )

  it.effect("has at most one line a second for each pool", () =>
    Effect.gen(function* () {
      const few = { inputTokens: { perSecond: 20_000, burst: 20_000 } }
      const options = { limits: { pools: { a: few, b: few } } }
      const lines = yield* linesOf(
        options,
        Effect.gen(function* () {
          const budget = yield* Budget.TokenBudget
          for (let n = 0; n < 400; n++) {
            yield* start(take(n % 50 < 3 ? 20_000 : 1, { pool: n % 2 === 0 ? "a" : "b" }))
            if (n % 60 === 30) yield* budget.pause({ duration: (n % 7) * 500, reason: "rateLimit", pool: "a" })
            yield* TestClock.adjust(150)
          }
        })
      )
      assert.isAbove(lines.length, 4)
      for (const pool of ["a", "b"]) {
        const times = lines.filter((line) => line.includes(`pool "${pool}"`)).map((line) => Number.parseFloat(line))
        times.slice(1).forEach((time, index) => assert.isAtLeast(time - times[index]!, 1))
      }
    })
  )

  it.effect("goes on where a call waits that had waited for a limit that was removed", () =>
    Effect.gen(function* () {
      const lines = yield* linesOf(
        { limits, concurrency: 1 },
        Effect.gen(function* () {
          const budget = yield* Budget.TokenBudget
          yield* take(400_000)
          yield* start(take(500))
          yield* TestClock.adjust("100 millis")
          const running = yield* start(Budget.withReservation({}, () => Effect.never, { priority: 1 }))
          yield* budget.resize({ limits: {} })
          yield* TestClock.adjust("10 seconds")
          yield* Fiber.interrupt(running)
          yield* TestClock.adjust("1 minute")
        })
      )
      assert.lengthOf(lines, 2)
      assert.match(lines[1]!, /the wait of pool "default" is over after \d+ s: 1 call waited$/)
    })
  )

  it.effect("ends with the budget", () =>
    Effect.gen(function* () {
      const lines = yield* linesOf({ limits }, Effect.andThen(take(400_000), start(take(200_000))))
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(lines, [])
    })
  )
})
