import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { ProviderSim, Simulation } from "floodgate/testing"
import { Harm, harmed, reported } from "./support/reported.ts"
import { together } from "./support/together.ts"

const capped = (options: Budget.Options) => Agents.layer.pipe(Layer.provide(Budget.layer({ ...options })))

const unlimited = capped({ limits: { tokens: { perSecond: 1_000_000 } } })

const failureOf = <A, E>(exit: Exit.Exit<A, E>): E | undefined =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined

const times = (count: number, tokens: number) =>
  Effect.forEach(Array.from({ length: count }), () => Budget.consume(tokens), { discard: true })

describe("Agents", () => {
  describe("run", () => {
    it.effect("keeps the outcome of every agent when some fail", () =>
      Effect.gen(function* () {
        const outcomes = yield* Agents.run([
          { key: "a", effect: Effect.succeed(1) },
          { key: "b", effect: Effect.fail("no" as const) },
          { key: "c", effect: Effect.delay(Effect.succeed(3), 0) },
          { key: "d", effect: Effect.die("a bug") }
        ]).pipe(Effect.forkChild, Effect.tap(TestClock.adjust(1)), Effect.flatMap(Fiber.join))
        assert.deepStrictEqual(
          outcomes.map(({ exit, key }) => [key, exit]),
          [
            ["a", Exit.succeed(1)],
            ["b", Exit.fail("no" as const)],
            ["c", Exit.succeed(3)],
            ["d", Exit.die("a bug")]
          ]
        )
      }).pipe(Effect.provide(unlimited))
    )

    it.effect("gives each agent's key to its calls, so that one with many calls does not delay the others", () =>
      Effect.gen(function* () {
        const order: Array<string> = []
        const call = Effect.flatMap(Budget.consume(1_000), () =>
          Effect.map(Effect.service(Budget.Agent), (agent) => order.push(agent))
        )
        const many = Effect.forEach(Array.from({ length: 20 }), () => call, { concurrency: "unbounded", discard: true })
        const fiber = yield* Effect.forkChild(
          Agents.run([
            { key: "greedy", effect: many },
            { key: "modest", effect: Effect.andThen(call, call) }
          ])
        )
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(fiber)
        assert.isBelow(order.lastIndexOf("modest"), 5)
      }).pipe(Effect.provide(capped({ limits: { tokens: { perSecond: 1_000, burst: 1_000 } } })))
    )

    it.effect("runs no more agents at once than the concurrency", () =>
      Effect.gen(function* () {
        let running = 0
        let peak = 0
        const agent = Effect.sync(() => {
          peak = Math.max(peak, ++running)
        }).pipe(Effect.andThen(Effect.sleep(10)), Effect.ensuring(Effect.sync(() => running--)))
        const agents = Array.from({ length: 9 }, (_, n) => ({ key: `${n}`, effect: agent }))
        const fiber = yield* Effect.forkChild(Agents.run(agents, { concurrency: 3 }))
        yield* TestClock.adjust(30)
        const outcomes = yield* Fiber.join(fiber)
        assert.strictEqual(peak, 3)
        assert.strictEqual(outcomes.filter(({ exit }) => Exit.isSuccess(exit)).length, 9)
      }).pipe(Effect.provide(unlimited))
    )

    it.effect("dies when two agents share a key", () =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(
          Agents.run([
            { key: "a", effect: Effect.void },
            { key: "a", effect: Effect.void }
          ])
        )
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      }).pipe(Effect.provide(unlimited))
    )

    it.effect("interrupts every agent when it is interrupted", () =>
      Effect.gen(function* () {
        let interrupted = 0
        const agent = Effect.onInterrupt(Effect.never, () => Effect.sync(() => void interrupted++))
        const fiber = yield* Effect.forkChild(Agents.run(["a", "b", "c"].map((key) => ({ key, effect: agent }))))
        yield* TestClock.adjust(1)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(interrupted, 3)
      }).pipe(Effect.provide(unlimited))
    )
  })

  describe("work", () => {
    /** When the last of six agents ends, and the last of six that have three times as many calls. */
    const ends = (work: boolean) =>
      Effect.gen(function* () {
        const agent = (key: string, calls: number) => ({
          key,
          effect: times(calls, 1_000),
          work: work ? calls * 1_000 : undefined
        })
        const agents = Array.from({ length: 6 }, (_, n) => [agent(`small-${n}`, 10), agent(`large-${n}`, 30)]).flat()
        const fiber = yield* Effect.forkChild(Agents.run(agents))
        for (let second = 0; second < 250; second++) yield* TestClock.adjust("1 second")
        const outcomes = yield* Fiber.join(fiber)
        const last = (kind: string) =>
          Math.max(
            ...outcomes.flatMap(({ elapsed, key }) => (key.startsWith(kind) ? [Duration.toSeconds(elapsed)] : []))
          )
        return [last("small"), last("large")] as const
      }).pipe(Effect.provide(capped({ limits: { tokens: { perSecond: 1_000 } } })))

    it.effect("is shared equally if it is unknown, so the agent with more to do ends last", () =>
      Effect.map(ends(false), ([small, large]) => {
        assert.closeTo(small, 119, 2)
        assert.closeTo(large, 239, 1)
      })
    )

    it.effect("is shared by the remaining work if it is stated, so that all end together", () =>
      Effect.map(ends(true), ([small, large]) => {
        assert.isAbove(small, 220)
        assert.closeTo(large, 239, 1)
      })
    )

    it.effect("throws unless it is a number above zero", () =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(Agents.run([{ key: "a", effect: Effect.void, work: 0 }]))
        assert.include(String(exit), "agents[0].work: expected a finite number > 0, got 0")
      }).pipe(Effect.provide(unlimited))
    )
  })

  describe("caps", () => {
    it.effect("refuses the call that would pass an agent's tokens, and names what is left", () =>
      Effect.gen(function* () {
        const [small, large] = yield* Agents.run(
          [
            { key: "small", effect: times(2, 400) },
            { key: "large", effect: times(3, 400) }
          ],
          { capPerAgent: { tokens: 1_000 } }
        )
        assert.isTrue(Exit.isSuccess(small!.exit))
        const error = failureOf(large!.exit)
        assert.instanceOf(error, Budget.BudgetError)
        assert.strictEqual(error.reason._tag, "Denied")
        assert.isFalse(error.isRetryable)
        assert.instanceOf(error.reason.cause, Agents.CapReached)
        assert.deepInclude(error.reason.cause, {
          key: "large",
          cap: "agent",
          unit: "tokens",
          asked: 400,
          left: 200,
          limit: 1_000
        })
        assert.strictEqual(
          error.message,
          'Agent "large" asks for 400 tokens, but its cap of 1,000 tokens has 200 left: raise the cap, or give the agent less to do'
        )
        assert.deepStrictEqual(large!.used, { tokens: 800, calls: 2, dollars: 0 })
      }).pipe(Effect.provide(unlimited))
    )

    it.effect("bounds the calls of all agents together", () =>
      Effect.gen(function* () {
        const agents = ["a", "b", "c"].map((key) => ({ key, effect: times(5, 1) }))
        const outcomes = yield* Agents.run(agents, { cap: { calls: 7 }, concurrency: 1 })
        assert.deepStrictEqual(
          outcomes.map(({ used }) => used.calls),
          [5, 2, 0]
        )
        assert.strictEqual(
          (failureOf(outcomes[2]!.exit) as Budget.BudgetError).message,
          'Agent "c" asks for 1 call, but the job\'s cap of 7 calls has 0 left: raise the cap, or give the agent less to do'
        )
      }).pipe(Effect.provide(unlimited))
    )

    it.effect("also bounds the usage of an agent's own agents", () =>
      Effect.gen(function* () {
        const inner = Agents.run(["a", "b"].map((key) => ({ key, effect: times(2, 10) })))
        const [outcome] = yield* Agents.run([{ key: "outer", effect: inner }], { capPerAgent: { calls: 3 } })
        assert.deepStrictEqual(outcome!.used, { tokens: 30, calls: 3, dollars: 0 })
        if (!Exit.isSuccess(outcome!.exit)) return assert.fail("the outer agent failed")
        assert.deepStrictEqual(
          outcome!.exit.value.map(({ exit }) => Exit.isSuccess(exit)),
          [true, false]
        )
        assert.include(
          String(failureOf(outcome!.exit.value[1]!.exit)),
          'Agent "outer" asks for 1 call, but its cap of 3 calls'
        )
      }).pipe(Effect.provide(unlimited))
    )

    it.effect("has a refusal that survives encoding as JSON", () =>
      Effect.gen(function* () {
        const [outcome] = yield* Agents.run([{ key: "a", effect: times(2, 400) }], { capPerAgent: { calls: 1 } })
        const error = failureOf(outcome!.exit)
        assert.instanceOf(error, Budget.BudgetError)
        const codec = Schema.toCodecJson(Budget.BudgetError)
        const copy = Schema.decodeUnknownSync(codec)(JSON.parse(JSON.stringify(Schema.encodeSync(codec)(error))))
        assert.strictEqual(copy.message, error.message)
        assert.isFalse(copy.isRetryable)
      }).pipe(Effect.provide(unlimited))
    )

    it.effect("is foreseen: below the cap a call would start, and at the cap it would be refused", () =>
      Effect.gen(function* () {
        const foreseen = Effect.flatMap(Budget.TokenBudget, (budget) => budget.foresee({ inputTokens: 400 }))
        const agent = Effect.gen(function* () {
          const first = yield* foreseen
          yield* times(1, 400)
          const second = yield* foreseen
          const { reason } = yield* Effect.flip(times(1, 400))
          assert.deepStrictEqual([first.refusal, second.refusal], [undefined, reason])
        })
        const [outcome] = yield* Agents.run([{ key: "a", effect: agent, cap: { tokens: 500 } }])
        assert.deepStrictEqual(outcome!.exit, Exit.void)
        assert.strictEqual(outcome!.used.calls, 1)
      }).pipe(Effect.provide(unlimited))
    )

    it.effect("lets an agent handle the refusal and go on", () =>
      Effect.gen(function* () {
        const agent = times(10, 100).pipe(
          Effect.catchReason("BudgetError", "Denied", ({ cause }) =>
            cause instanceof Agents.CapReached ? Effect.succeed(cause.left) : Effect.fail(cause)
          )
        )
        const [outcome] = yield* Agents.run([{ key: "a", effect: agent, cap: { tokens: 250 } }])
        assert.deepStrictEqual(outcome!.exit, Exit.succeed(50))
      }).pipe(Effect.provide(unlimited))
    )

    it.effect("counts what was used, not what was estimated, once a call is settled", () =>
      Effect.gen(function* () {
        const call = Budget.withReservation({ inputTokens: 500, outputTokens: 400 }, (reservation) =>
          reservation.settle({ inputTokens: 100, outputTokens: 20 })
        )
        const agent = Effect.forEach([1, 2, 3, 4], () => call, { discard: true })
        const [outcome] = yield* Agents.run([{ key: "a", effect: agent, cap: { tokens: 1_300 } }])
        assert.isTrue(Exit.isSuccess(outcome!.exit))
        assert.deepStrictEqual(outcome!.used, { tokens: 480, calls: 4, dollars: 0 })
      }).pipe(Effect.provide(unlimited))
    )

    it.effect("counts nothing for a rejected call, however often it is rejected", () =>
      Effect.gen(function* () {
        const call = (yield* LlmClient.LlmClient).create({
          model: "claude-sonnet-5",
          max_tokens: 100,
          messages: [{ role: "user", content: "x".repeat(1_000) }]
        })
        const { value: outcomes } = yield* Simulation.run(
          Agents.run([{ key: "a", effect: call }], { capPerAgent: { calls: 1 } })
        )
        assert.isTrue(Exit.isSuccess(outcomes[0]!.exit))
        const { inputTokens, outputTokens, rejected } = yield* (yield* ProviderSim.ProviderSim).stats
        assert.strictEqual(rejected, 3)
        const { dollars, ...used } = outcomes[0]!.used
        assert.deepStrictEqual(used, { tokens: inputTokens + outputTokens, calls: 1 })
        assert.isBelow(Math.abs(dollars - (2 * inputTokens + 10 * outputTokens) / 1e6), 1e-9)
      }).pipe(
        Effect.provide(
          LlmClient.layerProvider().pipe(
            Layer.provideMerge(Agents.layer),
            Layer.provide(Budget.layer()),
            Layer.provideMerge(ProviderSim.layer({ faults: [{ kind: "429", calls: [1, 2, 3] }] }))
          )
        )
      )
    )

    it.effect("counts nothing for a call that is interrupted while it waits", () =>
      Effect.gen(function* () {
        yield* Budget.consume(1_000)
        const agent = Effect.andThen(Effect.timeoutOption(Budget.consume(900), 100), Budget.consume(900))
        const job = yield* Agents.fork([{ key: "a", effect: agent, cap: { tokens: 1_000 } }])
        yield* TestClock.adjust(899)
        assert.strictEqual((yield* job.status).done, 0)
        // The budget keeps a little back.
        yield* TestClock.adjust(2)
        const [outcome] = yield* job.await
        assert.isTrue(Exit.isSuccess(outcome!.exit))
        assert.deepStrictEqual(outcome!.used, { tokens: 900, calls: 1, dollars: 0 })
      }).pipe(Effect.provide(capped({ limits: { tokens: { perSecond: 1_000, burst: 1_000 } } })))
    )

    it.effect("ends an agent, or the whole job, in the millisecond in which its time is up", () =>
      Effect.gen(function* () {
        const job = yield* Agents.fork(
          [
            { key: "slow", effect: Effect.never, cap: { time: "2 seconds" } },
            { key: "endless", effect: Effect.never }
          ],
          { cap: { time: "5 seconds" } }
        )
        yield* TestClock.adjust(1_999)
        assert.strictEqual((yield* job.status).done, 0)
        yield* TestClock.adjust(1)
        assert.strictEqual((yield* job.status).done, 1)
        yield* TestClock.adjust(2_999)
        assert.strictEqual((yield* job.status).done, 1)
        yield* TestClock.adjust(1)
        const [slow, endless] = yield* job.await
        assert.deepInclude(failureOf(slow!.exit), { _tag: "CapReached", unit: "time", key: "slow", cap: "agent" })
        assert.deepInclude(failureOf(endless!.exit), { _tag: "CapReached", unit: "time", key: "endless", cap: "job" })
        assert.deepStrictEqual(endless!.elapsed, Duration.seconds(5))
        assert.match(String(failureOf(slow!.exit)), /Agent "slow" ran out of its time of 2s: raise the cap/)
        assert.match(String(failureOf(endless!.exit)), /Agent "endless" ran out of the job's time of 5s: raise the cap/)
      }).pipe(Effect.scoped, Effect.provide(unlimited))
    )

    /** Agents that start one after the other, after the job's time has ended with the first of them. */
    const afterTheJob = Effect.gen(function* () {
      const started: Array<string> = []
      const agents = ["a", "b", "c"].map((key) => ({
        key,
        effect: Effect.andThen(
          Effect.sync(() => started.push(key)),
          Budget.withReservation({ tokens: 1 }, () => Effect.never)
        )
      }))
      const job = yield* Agents.fork(agents, { concurrency: 1, cap: { time: "1 second" } })
      yield* TestClock.adjust(1_000)
      const outcomes = yield* job.await
      assert.deepStrictEqual(started, ["a"])
      for (const { exit } of outcomes)
        assert.deepInclude(failureOf(exit), { _tag: "CapReached", unit: "time", cap: "job" })
      assert.deepStrictEqual(
        outcomes.map(({ used }) => used.calls),
        [1, 0, 0]
      )
    }).pipe(Effect.scoped, Effect.provide(unlimited))

    // Regression: each of them started, and sent a call before it was ended.
    it.effect("starts no agent after the job's time", () => afterTheJob)

    it.effect("starts no agent after the job's time, even if a timer fires a moment early", () =>
      Effect.flatMap(Clock.Clock, (clock) => {
        const late = (now: number) => now - Math.sign(now)
        return Effect.provideService(afterTheJob, Clock.Clock, {
          ...clock,
          sleep: (duration) => clock.sleep(duration),
          currentTimeMillisUnsafe: () => late(clock.currentTimeMillisUnsafe()),
          currentTimeMillis: Effect.map(clock.currentTimeMillis, late)
        })
      })
    )
  })

  describe("fork", () => {
    it.effect("reports progress until the last agent has ended", () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const job = yield* Agents.fork([
          { key: "a", effect: Budget.consume(10) },
          { key: "b", effect: Effect.andThen(Deferred.await(gate), Effect.fail("no")) }
        ])
        const seen = yield* Effect.forkChild(Stream.runCollect(job.progress))
        yield* TestClock.adjust(1)
        yield* Deferred.succeed(gate, undefined)
        const last = Array.from(yield* Fiber.join(seen)).at(-1)
        assert.deepStrictEqual(last, {
          agents: [
            { key: "a", state: "succeeded", startedAfter: Duration.zero, used: { tokens: 10, calls: 1, dollars: 0 } },
            { key: "b", state: "failed", startedAfter: Duration.zero, used: { tokens: 0, calls: 0, dollars: 0 } }
          ],
          done: 2,
          used: { tokens: 10, calls: 1, dollars: 0 },
          foreseen: undefined
        })
      }).pipe(Effect.scoped, Effect.provide(unlimited))
    )

    it.effect("never goes backwards, though calls use less than was estimated, fail or are refunded", () =>
      Effect.gen(function* () {
        const call = (use: (held: Budget.Reservation) => Effect.Effect<void>) =>
          Effect.andThen(
            Budget.withReservation({ inputTokens: 500, outputTokens: 400 }, (held) =>
              Effect.andThen(Effect.sleep("1 second"), use(held))
            ),
            Effect.sleep("1 second")
          )
        const job = yield* Agents.fork([
          { key: "a", effect: call(({ settle }) => settle({ inputTokens: 100, outputTokens: 20 })) },
          { key: "b", effect: call(({ refund }) => refund) },
          { key: "c", effect: call(() => Effect.void) }
        ])
        const seen = yield* Effect.forkChild(Stream.runCollect(job.progress))
        for (let millis = 0; millis < 3_000; millis += 250) yield* TestClock.adjust(250)
        const all = Array.from(yield* Fiber.join(seen))
        for (const of of [(each: Agents.Progress) => each.used.tokens, (each: Agents.Progress) => each.used.calls]) {
          assert.deepStrictEqual(
            all.map(of),
            all.map(of).toSorted((one, other) => one - other)
          )
        }
        // An end of unknown usage counts as estimated.
        assert.deepStrictEqual(all.at(-1)!.used, { tokens: 120 + 900, calls: 2, dollars: 0 })
        const outcomes = yield* job.await
        assert.strictEqual(
          outcomes.reduce((sum, { used }) => sum + used.tokens, 0),
          1_020
        )
      }).pipe(Effect.scoped, Effect.provide(unlimited))
    )

    it.effect("cancels one agent, whose place in the queue is free at once", () =>
      Effect.gen(function* () {
        yield* Budget.consume(1_000)
        const job = yield* Agents.fork([
          { key: "large", effect: Budget.consume(1_000) },
          { key: "small", effect: Effect.delay(Budget.consume(100), 1) }
        ])
        yield* TestClock.adjust(200)
        assert.strictEqual((yield* job.status).done, 0)
        assert.isTrue(yield* job.cancel("large"))
        const [large, small] = yield* job.await
        assert.isTrue(Exit.isFailure(large!.exit) && Cause.hasInterruptsOnly(large!.exit.cause))
        assert.strictEqual(large!.used.tokens, 0)
        assert.isTrue(Exit.isSuccess(small!.exit))
        assert.isFalse(yield* job.cancel("large"))
        assert.isFalse(yield* job.cancel("nobody"))
      }).pipe(Effect.scoped, Effect.provide(capped({ limits: { tokens: { perSecond: 1_000, burst: 1_000 } } })))
    )

    it.effect("cancels an agent that waits for its place at once", () =>
      Effect.gen(function* () {
        const agents = ["a", "b"].map((key) => ({ key, effect: Effect.never }))
        const job = yield* Agents.fork(agents, { concurrency: 1 })
        assert.isTrue(yield* job.cancel("b"))
        const { agents: states, done } = yield* job.status
        assert.deepStrictEqual([states.map(({ state }) => state), done], [["running", "cancelled"], 1])
        assert.isFalse(yield* job.cancel("b"))
        assert.isTrue(yield* job.cancel("a"))
        const [, waiting] = yield* job.await
        assert.isTrue(Exit.isFailure(waiting!.exit) && Cause.hasInterruptsOnly(waiting!.exit.cause))
      }).pipe(Effect.scoped, Effect.provide(unlimited))
    )

    it.effect("cancels an agent that cancels itself in its first steps", () =>
      Effect.gen(function* () {
        const known = yield* Deferred.make<Agents.Job<void, never>>()
        const suicidal = Effect.flatMap(Deferred.await(known), (job) =>
          Effect.andThen(Effect.forkChild(job.cancel("b"), { startImmediately: true }), Effect.sleep("1 minute"))
        )
        const agents = [
          { key: "a", effect: Effect.sleep("1 second") },
          { key: "b", effect: suicidal }
        ]
        const job = yield* Agents.fork(agents, { concurrency: 1 })
        yield* Deferred.succeed(known, job)
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(
          (yield* job.status).agents.map(({ state }) => state),
          ["succeeded", "cancelled"]
        )
      }).pipe(Effect.scoped, Effect.provide(unlimited))
    )

    it.effect("makes every caller that cancels an agent wait until it has ended", () =>
      Effect.gen(function* () {
        const job = yield* Agents.fork([
          { key: "a", effect: Effect.onInterrupt(Effect.never, () => Effect.sleep("5 seconds")) }
        ])
        const first = yield* Effect.forkChild(job.cancel("a"))
        yield* TestClock.adjust("1 second")
        const second = yield* Effect.forkChild(job.cancel("a"))
        yield* TestClock.adjust(3_999)
        assert.deepStrictEqual([first.pollUnsafe(), second.pollUnsafe()], [undefined, undefined])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(second)], [true, true])
        assert.isFalse(yield* job.cancel("a"))
      }).pipe(Effect.scoped, Effect.provide(unlimited))
    )

    // Regression: the stream never ended, and the agents seemed to run.
    it.effect("ends its progress when the scope closes, with every agent cancelled", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const agents = ["a", "b"].map((key) => ({ key, effect: Effect.never }))
        const job = yield* Scope.provide(Agents.fork(agents, { concurrency: 1 }), scope)
        const seen = yield* Effect.forkChild(Stream.runCollect(job.progress))
        yield* TestClock.adjust(1)
        yield* Scope.close(scope, Exit.void)
        const last = (yield* Fiber.join(seen)).at(-1)!
        assert.deepStrictEqual(
          last.agents.map(({ state }) => state),
          ["cancelled", "cancelled"]
        )
        assert.deepStrictEqual(yield* job.status, last)
      }).pipe(Effect.provide(unlimited))
    )

    it.effect("cancels all agents, including those that have not started", () =>
      Effect.gen(function* () {
        let started = 0
        const agent = Effect.andThen(
          Effect.sync(() => void started++),
          Effect.never
        )
        const job = yield* Agents.fork(
          ["a", "b", "c", "d"].map((key) => ({ key, effect: agent })),
          { concurrency: 2 }
        )
        yield* TestClock.adjust(1)
        yield* job.cancelAll
        const outcomes = yield* job.await
        assert.strictEqual(started, 2)
        assert.deepStrictEqual(
          (yield* job.status).agents.map(({ state }) => state),
          ["cancelled", "cancelled", "cancelled", "cancelled"]
        )
        assert.strictEqual(outcomes.length, 4)
      }).pipe(Effect.scoped, Effect.provide(unlimited))
    )
  })

  describe("layer", () => {
    // Regression: the layer was built once for the whole program, and both clients used the first budget.
    it.effect("counts for its own budget if a program has two", () =>
      Effect.gen(function* () {
        const budgets = yield* together([100, 1_000].map((total) => capped({ limits: { tokens: { total } } })))
        const exits = yield* Effect.forEach(budgets, (budget) =>
          Effect.exit(Effect.provideContext(Budget.consume(500), budget))
        )
        assert.deepStrictEqual(exits.map(Exit.isSuccess), [false, true])
      }).pipe(Effect.scoped)
    )

    it.effect("counts a call once if it is provided twice", () =>
      Effect.gen(function* () {
        const [outcome] = yield* Agents.run([{ key: "a", effect: times(3, 100) }], { capPerAgent: { calls: 3 } })
        assert.isTrue(Exit.isSuccess(outcome!.exit))
        assert.deepStrictEqual(outcome!.used, { tokens: 300, calls: 3, dollars: 0 })
      }).pipe(Effect.provide(Agents.layer.pipe(Layer.provide(unlimited))))
    )

    it.effect("counts over a budget without limits", () =>
      Effect.gen(function* () {
        const [outcome] = yield* Agents.run([{ key: "a", effect: times(3, 100) }], { capPerAgent: { calls: 2 } })
        assert.isTrue(Exit.isFailure(outcome!.exit))
        assert.strictEqual(outcome!.used.calls, 2)
      }).pipe(Effect.provide(Agents.layer.pipe(Layer.provide(Budget.layerUnlimited))))
    )

    describe("beside the client, and not between it and the budget", () => {
      const bare = Budget.layer({ limits: { tokens: { perSecond: 1_000_000 } } })
      const beside = LlmClient.layerProvider().pipe(
        Layer.provide(bare),
        Layer.provideMerge(ProviderSim.layer({ latency: { baseMillis: 0 } })),
        Layer.merge(unlimited)
      )
      const params = { model: "m", max_tokens: 9, messages: [{ role: "user" as const, content: "Hi" }] }
      const ways: Readonly<Record<string, Effect.Effect<unknown, unknown, LlmClient.LlmClient>>> = {
        "a client's create": LlmClient.create(params),
        "a client's stream": Stream.runDrain(LlmClient.stream(params)),
        "a budget": Effect.provide(times(1, 100), bare),
        "a budget without limits": Effect.provide(times(1, 100), Budget.layerUnlimited)
      }
      const outcomeOf = (way: string, agent: Partial<Agents.Agent<never, never, never>>, options?: Agents.Options) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(Agents.run([{ ...agent, key: "a", effect: ways[way]! }], options))
          yield* TestClock.adjust("1 minute")
          const [outcome] = yield* Fiber.join(fiber)
          return outcome!
        })

      const uses: ReadonlyArray<readonly [string, Partial<Agents.Agent<never, never, never>>, Agents.Options?]> = [
        ["a cap on calls", { cap: { calls: 10 } }],
        ["a cap on tokens", { cap: { tokens: 10_000 } }],
        ["a cap of each agent", {}, { capPerAgent: { calls: 10 } }],
        ["a cap of the job", {}, { cap: { calls: 10 } }],
        ["stated work", { work: 100 }]
      ]
      const cases = Object.keys(ways).flatMap((way) =>
        uses.map(([what, agent, options]) => [what, way, agent, options] as const)
      )

      it.effect.each(cases)(
        "%s of an agent that calls through %s dies with a RangeError without a layer that counts",
        ([, ...use]) =>
          Effect.gen(function* () {
            const { exit } = yield* outcomeOf(...use)
            const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
            assert.instanceOf(defect, RangeError)
            assert.include(defect.message, "Agents.layer between")
            const sim = yield* ProviderSim.ProviderSim
            assert.strictEqual((yield* sim.stats).requests, 0)
          }).pipe(Effect.provide(beside))
      )

      it.effect("a cap also applies to an agent's own agents, which have none", () =>
        Effect.gen(function* () {
          const inner = Effect.flatMap(outcomeOf("a budget", {}), ({ exit }) => exit)
          const [outer] = yield* Agents.run([{ key: "outer", effect: inner, cap: { calls: 10 } }])
          const { exit } = outer!
          assert.instanceOf(Exit.isFailure(exit) && Cause.squash(exit.cause), RangeError)
        }).pipe(Effect.provide(beside))
      )

      it.effect.each(Object.keys(ways))(
        "an agent without a cap on tokens or calls needs no layer that counts: %s",
        (way) =>
          Effect.gen(function* () {
            const { exit } = yield* outcomeOf(way, { cap: { time: "1 hour" } })
            assert.isTrue(Exit.isSuccess(exit))
          }).pipe(Effect.provide(beside))
      )
    })
  })

  it.live("ends although an agent's own observer throws", () =>
    reported((errors) =>
      Effect.gen(function* () {
        const harms = Effect.withFiber<void>((fiber) => {
          fiber.addObserver(() => {
            throw new Harm()
          })
          return Effect.yieldNow
        })
        const agents = [
          { key: "careless", effect: harms },
          { key: "careful", effect: Effect.yieldNow }
        ]
        const outcomes = yield* Effect.timeout(Agents.run(agents), "5 seconds")
        assert.deepStrictEqual(
          outcomes.map(({ exit }) => exit._tag),
          ["Success", "Success"]
        )
        yield* harmed(errors, 1)
      }).pipe(Effect.provide(Layer.provideMerge(Agents.layer, Budget.layer())))
    )
  )

  it.effect("keeps twelve agents within a limit that binds, with no rejection", () =>
    Effect.gen(function* () {
      const call = LlmClient.create({
        model: "claude-sonnet-5",
        max_tokens: 100,
        messages: [{ role: "user", content: "x".repeat(40_000) }]
      })
      const agents = Array.from({ length: 12 }, (_, n) => ({
        key: `agent-${n}`,
        effect: Effect.forEach([1, 2, 3, 4, 5], () => call, { discard: true })
      }))
      const { value: outcomes } = yield* Simulation.run(Agents.run(agents, { cap: { tokens: 10_000_000 } }))
      const sim = yield* ProviderSim.ProviderSim
      const stats = yield* sim.stats
      assert.strictEqual(outcomes.filter(({ exit }) => Exit.isSuccess(exit)).length, 12)
      assert.strictEqual(stats.rejected, 0)
      assert.strictEqual(
        outcomes.reduce((sum, { used }) => sum + used.tokens, 0),
        stats.inputTokens + stats.outputTokens
      )
    }).pipe(
      Effect.provide(
        LlmClient.layerProvider().pipe(
          Layer.provideMerge(Agents.layer),
          Layer.provide(Budget.layer({ limits: { inputTokens: { perSecond: 20_000, burst: 60_000 } } })),
          Layer.provideMerge(
            ProviderSim.layer({
              limits: { inputTokens: { perSecond: 20_000, burst: 60_000 } },
              latency: { baseMillis: 300 },
              outputTokens: 50
            })
          )
        )
      )
    )
  )
})
