/** Agents that start agents: what their lead usually starts is foreseen. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Spending from "floodgate/Spending"

const limits = { tokens: { perSecond: 2_000, burst: 2_000 } }
const live = Effect.provide(Agents.layer.pipe(Layer.provide(Budget.layer({ limits }))))

const calls = (count: number) =>
  Effect.replicateEffect(
    Budget.withReservation({ inputTokens: 1_000 }, (held) =>
      Effect.andThen(Effect.sleep("1 second"), held.settle({ inputTokens: 1_000, outputTokens: 0 }))
    ),
    count,
    { discard: true }
  )

/** Two leads, each of which calls, starts `started` sub-agents of three calls, and calls again. */
const leads = (name: string, started = 6) =>
  ["a", "b"].map((lead) => ({
    key: `${name}-${lead}`,
    effect: Effect.andThen(
      calls(1),
      Effect.andThen(
        Agents.run(
          Array.from({ length: started }, (_, index) => ({ key: `${name}-${lead}/${index}`, effect: calls(3) }))
        ),
        calls(1)
      )
    )
  }))

const ran = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkScoped(Effect.timed(effect))
    yield* TestClock.adjust("2 minutes")
    const [took] = yield* Fiber.join(fiber)
    return Duration.toSeconds(took)
  })

describe("the sub-agents that a lead usually starts", () => {
  it.effect("are in the foreseen end of further leads, and in the words", () =>
    Effect.gen(function* () {
      yield* ran(Agents.run(leads("first")))
      const { assumptions, each, end } = yield* Agents.advise({ agents: 2 })
      assert.deepStrictEqual([each.calls, each.first.subAgents?.length], [2, 6])
      assert.include(assumptions, "Each is expected to start 6 sub-agents, as earlier ones did")
      const actual = yield* ran(Agents.run(leads("second")))
      assert.closeTo(Duration.toSeconds(end!) / actual, 1, 0.1)
      // Leads that start nothing are foreseen without sub-agents, by their name.
      yield* ran(Agents.run(leads("lonely", 0)))
      const lonely = yield* Agents.advise({ agents: 2, each: "lonely-*" })
      assert.isUndefined(lonely.each.first.subAgents)
    }).pipe(Effect.scoped, live)
  )

  it.effect("are in the foreseen end of a job from its start", () =>
    Effect.gen(function* () {
      yield* ran(Agents.run(leads("first")))
      const job = yield* Agents.fork(leads("second"))
      const { foreseen } = yield* job.status
      const actual = yield* ran(job.await)
      assert.closeTo(Duration.toSeconds(foreseen!.end) / actual, 1, 0.1)
    }).pipe(Effect.scoped, live)
  )

  it.effect("are what a lead is advised about", () =>
    Effect.gen(function* () {
      yield* ran(Agents.run(leads("first")))
      const lead = Effect.andThen(calls(1), Agents.advise({ agents: 4 }))
      const fiber = yield* Effect.forkScoped(Agents.run([{ key: "second-a", effect: lead }]))
      yield* TestClock.adjust("1 minute")
      const [outcome] = yield* Fiber.join(fiber)
      const { each } = yield* outcome!.exit
      assert.deepStrictEqual([each.calls, each.first.subAgents], [3, undefined])
    }).pipe(Effect.scoped, live)
  )

  it.effect("cost what a cap in dollars has to have room for", () =>
    Effect.gen(function* () {
      yield* ran(Agents.run(leads("first")))
      const purse = Spending.make("team", { dollars: 0.05 })
      const { caps } = yield* Agents.advise({ agents: 4, model: "my-model" }).pipe(Spending.from(purse))
      // A lead and its sub-agents make 20 calls of a tenth of a cent.
      assert.deepStrictEqual(
        caps.map(({ agents }) => agents),
        [2]
      )
    }).pipe(
      Effect.scoped,
      Effect.provide(
        Governor.layer({ prices: { "my-model": { input: 1, output: 1 } } }).pipe(
          Layer.provideMerge(Agents.layer),
          Layer.provide(Budget.layer({ limits }))
        )
      )
    )
  )
})
