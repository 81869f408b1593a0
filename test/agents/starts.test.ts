/** When a job starts the agents that its advice allows. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Agents from "floodgate/Agents"
import type * as Forecast from "floodgate/Forecast"
import * as Budget from "floodgate/Budget"

const call = { inputTokens: 10, outputTokens: 10, duration: 1_000 }
const each: Forecast.Work = { calls: 3, first: call }

/** An agent of the job. Its calls go through the budget, which learns from them. */
const agent = Effect.replicateEffect(
  Budget.withReservation(call, (held) => Effect.andThen(Effect.sleep(call.duration), held.settle(call))),
  each.calls,
  { discard: true }
)

describe("a job with the concurrency advised", () => {
  it.effect("asks again when its advice expires, also while its agents end one after another", () =>
    Effect.gen(function* () {
      const agents = Array.from({ length: 30 }, (_, index) => ({ key: `agent-${index}`, effect: agent }))
      const job = yield* Effect.forkChild(Agents.run(agents, { concurrency: "advised", advice: { each } }))
      for (let second = 0; second < 30; second++) yield* TestClock.adjust("1 second")
      const exit = job.pollUnsafe()
      if (exit?._tag !== "Success") return assert.fail("the job has not ended")
      const starts = exit.value.map(({ startedAfter }) => Duration.toSeconds(startedAfter!))
      // Nothing limits them, so each round adds as many as run. One agent after another would take a minute and a half.
      assert.strictEqual(starts.filter((seconds) => seconds < 1).length, 1)
      assert.isAtMost(starts.at(-1)!, 15)
    }).pipe(Effect.provide(Agents.layer.pipe(Layer.provide(Budget.layer({})))))
  )

  it.effect("waits for the rest of an advice that is shorter than a timer can be", () =>
    Effect.gen(function* () {
      const clock = yield* Clock.Clock
      let reads = 0
      // Without a bound, a job that waits again and again would hang the test.
      const bounded = new Proxy(clock, {
        get: (target, name) => {
          if (++reads > 10_000) throw new Error("the rest never passes")
          return Reflect.get(target, name)
        }
      })
      const first = yield* Deferred.make<void>()
      const agents = [Deferred.await(first), Effect.void, Effect.void].map((effect, index) => ({
        key: `agent-${index}`,
        effect: Effect.andThen(effect, Effect.sleep(index === 0 ? 0 : "10 seconds"))
      }))
      // A timer of the second after the first of these times, set at the other, fires before that second is over.
      yield* TestClock.setTime(195299.48971828358)
      const run = Agents.run(agents, { concurrency: "advised", advice: { each } })
      const job = yield* Effect.forkChild(Effect.provideService(run, Clock.Clock, bounded), { startImmediately: true })
      yield* TestClock.setTime(195608.91128224906)
      yield* Deferred.succeed(first, undefined)
      yield* TestClock.adjust("1 minute")
      const outcomes = yield* Fiber.join(job)
      assert.isTrue(outcomes.every(({ exit }) => Exit.isSuccess(exit)))
    }).pipe(Effect.provide(Agents.layer.pipe(Layer.provide(Budget.layer({})))))
  )
})
