import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as TestClock from "effect/testing/TestClock"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { LlmError, Overloaded, RateLimited, TimedOut } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import * as Spending from "floodgate/Spending"

/** A dollar for each million of input, two for output. */
const prices = { "my-model": { input: 1, output: 2 } }

const once = Retry.make({ attempts: 1 })

const live = Governor.layer({ prices, retry: once }).pipe(
  Layer.provideMerge(Agents.layer),
  Layer.provide(Budget.layer())
)

/** It costs at most $3: 1,000,000 tokens that are known, and as many of output. */
const call = { model: "my-model", bytes: 0, inputTokens: 1_000_000, maxTokens: 1_000_000 }

const answer = (inputTokens: number, outputTokens: number) => ({ value: "", actual: { inputTokens, outputTokens } })

const run = <A, E, R>(
  attempt: (ticket: Governor.Ticket) => Effect.Effect<Governor.Outcome<A>, E, R>,
  options?: Governor.CallOptions,
  what: Governor.Call = call
) => Effect.flatMap(Governor.Governor, (governor) => governor.run(what, attempt, options))

const reasonOf = <A>(exit: Exit.Exit<A, unknown>) => {
  const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
  const reason = error instanceof Budget.BudgetError ? error.reason : undefined
  return reason?._tag === "Denied" ? (reason.cause as Spending.SpendCapReached | Spending.CostUnknown) : reason
}

const day = 86_400_000

describe("Spending", () => {
  it.effect("spends the actual cost, and reports what is left", () =>
    Effect.gen(function* () {
      const purse = Spending.make("us", { dollars: 10, per: "day" })
      yield* run(() => Effect.succeed(answer(500_000, 250_000))).pipe(Spending.from(purse))
      const { held, left, spent, until } = yield* purse.status
      assert.deepStrictEqual({ held, left, spent, until }, { held: 0, left: 9, spent: 1, until: day })
    }).pipe(Effect.provide(live))
  )

  it.effect("refuses a call that may cost more than is left before it is sent, with what is left and until when", () =>
    Effect.gen(function* () {
      const purse = Spending.make("us", { dollars: 5, per: "day" })
      const pay = Spending.from(purse)
      yield* TestClock.setTime(day - 60_000)
      yield* pay(run(() => Effect.succeed(answer(1_000_000, 1_000_000))))
      let sent = false
      const attempt = () => Effect.sync(() => ((sent = true), answer(1, 1)))
      const exit = yield* Effect.exit(pay(run(attempt)))
      const reason = reasonOf(exit)
      assert.isFalse(sent)
      if (reason?._tag !== "SpendCapReached") return assert.fail(String(reason?._tag))
      const { asked, left, limit, until } = reason
      assert.deepStrictEqual({ asked, left, limit, until }, { asked: 3, left: 2, limit: 5, until: day })
      assert.strictEqual(
        reason.message,
        "The call may cost $3.00, but only $2.00 is left of the cap of $5.00 a day for us ($3.00 spent, $0.00 reserved by running calls): wait until 1970-01-02T00:00:00.000Z, lower max_tokens, or raise the cap"
      )
      // A millisecond before midnight nothing has changed.
      yield* TestClock.setTime(day - 1)
      assert.strictEqual(reasonOf(yield* Effect.exit(pay(run(attempt))))?._tag, "SpendCapReached")
      yield* TestClock.setTime(day)
      yield* pay(run(attempt))
      assert.isTrue(sent)
    }).pipe(Effect.provide(live))
  )

  it.effect("waits if only running calls hold the money, and refuses no call that fits when they end", () =>
    Effect.gen(function* () {
      const purse = Spending.make("us", { dollars: 4 })
      const gate = yield* Deferred.make<void>()
      const slow = run(() => Effect.as(Deferred.await(gate), answer(10_000, 5_000)))
      const fibers = yield* Effect.forEach(Array.from({ length: 20 }), () =>
        Effect.forkChild(Spending.from(purse)(slow))
      )
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* purse.status).held, 3)
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.forEach(fibers, Fiber.join)
      const { held, spent } = yield* purse.status
      assert.deepStrictEqual([held, spent], [0, 0.4])
    }).pipe(Effect.provide(live))
  )

  it.effect(
    "serves ten thousand waiting calls one after another",
    () =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 4 })
        const calls = Effect.forEach(Array.from({ length: 10_000 }), () => run(() => Effect.succeed(answer(100, 0))), {
          concurrency: "unbounded",
          discard: true
        })
        yield* Spending.from(purse)(calls)
        assert.strictEqual((yield* purse.status).spent, 1)
      }).pipe(Effect.provide(live)),
    { tags: "full" }
  )

  it.effect("takes another cap while calls run, and admits waiting calls that fit then", () =>
    Effect.gen(function* () {
      const purse = Spending.make("us", { dollars: 3 })
      const pay = Spending.from(purse)
      const gate = yield* Deferred.make<void>()
      const slow = pay(run(() => Effect.as(Deferred.await(gate), answer(1_000_000, 0))))
      const first = yield* Effect.forkChild(slow)
      const second = yield* Effect.forkChild(slow)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* purse.status).held, 3)
      yield* purse.resize({ dollars: 7 })
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* purse.status).held, 6)
      // They still hold what they reserved under the old cap.
      yield* purse.resize({ dollars: 1, reserve: "expected" })
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.forEach([first, second], Fiber.join)
      const { held, left, spent } = yield* purse.status
      assert.deepStrictEqual([held, left, spent], [0, 0, 2])
      assert.strictEqual(reasonOf(yield* Effect.exit(slow))?._tag, "SpendCapReached")
    }).pipe(Effect.provide(live))
  )

  it.effect("admits a call whose money is freed before it has begun to sleep", () =>
    Effect.gen(function* () {
      const purse = Spending.make("us", { dollars: 4 })
      const pay = Spending.from(purse)
      // All but the first have a maxWait, so that they wait in other fibers, which begin a step later.
      const bounded = pay(run(() => Effect.succeed(answer(1, 0)), { maxWait: "1 minute" }))
      const first = pay(run(() => Effect.as(Effect.yieldNow, answer(1, 0))))
      yield* Effect.forEach([first, ...Array.from({ length: 50 }, () => bounded)], (call) => call, {
        concurrency: "unbounded",
        discard: true
      })
      assert.strictEqual((yield* purse.status).held, 0)
    }).pipe(Effect.provide(live))
  )

  it.effect("gives up after maxWait, and leaves the queue", () =>
    Effect.gen(function* () {
      const purse = Spending.make("us", { dollars: 4 })
      const pay = Spending.from(purse)
      const gate = yield* Deferred.make<void>()
      const first = yield* Effect.forkChild(pay(run(() => Effect.as(Deferred.await(gate), answer(1, 1)))))
      const second = yield* Effect.forkChild(
        Effect.exit(pay(run(() => Effect.succeed(answer(1, 1)), { maxWait: "10 seconds" })))
      )
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(reasonOf(yield* Fiber.join(second))?._tag, "SpendCapReached")
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(first)
      assert.strictEqual((yield* purse.status).held, 0)
    }).pipe(Effect.provide(live))
  )

  it.effect(
    "gives back what an interrupted call reserved if it was in the queue, and spends its prompt if it was sent",
    () =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 3 })
        const pay = Spending.from(purse)
        const sent = yield* Effect.forkChild(pay(run(() => Effect.never)))
        const waits = yield* Effect.forkChild(pay(run(() => Effect.never)))
        yield* TestClock.adjust("1 second")
        yield* Fiber.interrupt(waits)
        assert.strictEqual((yield* purse.status).held, 3)
        yield* Fiber.interrupt(sent)
        const { held, spent } = yield* purse.status
        assert.deepStrictEqual([held, spent], [0, 1])
      }).pipe(Effect.provide(live))
  )

  it.effect("spends nothing for calls that are rejected or not answered, and the prompt of calls that time out", () =>
    Effect.gen(function* () {
      const purse = Spending.make("us", { dollars: 10 })
      const spentBy = (reason: LlmError["reason"]) =>
        Effect.gen(function* () {
          const before = (yield* purse.status).spent
          yield* Effect.exit(Spending.from(purse)(run(() => Effect.fail(new LlmError({ reason })))))
          const { held, spent } = yield* purse.status
          assert.strictEqual(held, 0)
          return spent - before
          // Each with a budget of its own: several failures in a row would pause a shared one.
        }).pipe(Effect.provide(live))
      assert.strictEqual(yield* spentBy(new RateLimited({ status: 429 })), 0)
      assert.strictEqual(yield* spentBy(new Overloaded({ status: 529 })), 0)
      assert.strictEqual(yield* spentBy(new TimedOut({})), 1)
    })
  )

  it.effect("spends the expected cost of an answer without usage if the cap reserves that", () =>
    Effect.gen(function* () {
      const purse = Spending.make("us", { dollars: 10 })
      yield* Spending.from(purse)(run(() => Effect.succeed({ value: "" }), {}, { ...call, maxTokens: 1_000 }))
      assert.strictEqual((yield* purse.status).spent, 1.002)
    }).pipe(Effect.provide(live))
  )

  it.effect("counts the surcharge of a fast mode, before the call and after it", () =>
    Effect.gen(function* () {
      const purse = Spending.make("us", { dollars: 5 })
      const fast = { ...call, fast: true }
      const exit = yield* Effect.exit(Spending.from(purse)(run(() => Effect.succeed(answer(1, 1)), {}, fast)))
      assert.match(reasonOf(exit)?.message ?? "", /^The call may cost \$6\.00/)
      const small = { ...fast, inputTokens: 1_000, maxTokens: 1_000 }
      yield* Spending.from(purse)(run(() => Effect.succeed(answer(1_000, 500)), {}, small))
      assert.strictEqual((yield* purse.status).spent, 0.004)
    }).pipe(Effect.provide(live))
  )

  it.effect("refuses a model without a price under a cap, and counts its calls separately without a cap", () =>
    Effect.gen(function* () {
      const other = { ...call, model: "gpt-6" }
      const capped = Spending.make("us", { dollars: 5 })
      const counted = Spending.make("them")
      const attempt = () => Effect.succeed(answer(1, 1))
      const exit = yield* Effect.exit(Spending.from(capped)(run(attempt, {}, other)))
      const reason = reasonOf(exit)
      assert.strictEqual(reason?._tag, "CostUnknown")
      assert.match(reason?.message ?? "", /"gpt-6" has no price.*add a price/)
      yield* Spending.from(counted)(run(attempt, {}, other))
      const { spent, unpriced } = yield* counted.status
      assert.deepStrictEqual([spent, unpriced], [0, 1])
    }).pipe(Effect.provide(live))
  )

  // Regression: its expected cost was reserved, and the cap was exceeded.
  it.effect("refuses a call of unlimited output if the cap reserves the most that it can cost", () =>
    Effect.gen(function* () {
      const unlimited = { ...call, maxTokens: undefined }
      const attempt = () => Effect.succeed(answer(1, 1))
      const refused = Spending.from(Spending.make("us", { dollars: 5 }))(run(attempt, {}, unlimited))
      const reason = reasonOf(yield* Effect.exit(refused))
      assert.strictEqual(reason?._tag, "CostUnknown")
      assert.match(reason?.message ?? "", /cap for us cannot be enforced: set max_tokens, add maxOutput to the price/)
      // It waits for another cap when this one is set.
      const full = Spending.make("full", { dollars: 3 })
      const late = Spending.make("late")
      const gate = yield* Deferred.make<void>()
      const running = yield* Effect.forkChild(
        Spending.from(full)(run(() => Effect.as(Deferred.await(gate), answer(1, 1))))
      )
      yield* TestClock.adjust(1)
      yield* full.resize({ dollars: 3, reserve: "expected" })
      const waits = run(attempt, {}, { ...unlimited, inputTokens: 1_000_000 }).pipe(
        Spending.from(full),
        Spending.from(late)
      )
      const waiting = yield* Effect.forkChild(Effect.exit(waits))
      yield* TestClock.adjust(1)
      yield* late.resize({ dollars: 100 })
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(running)
      assert.strictEqual(reasonOf(yield* Fiber.join(waiting))?._tag, "CostUnknown")
      // The expected cost is known.
      for (const cap of [{ dollars: 5, reserve: "expected" as const }, undefined]) {
        yield* Spending.from(Spending.make("us", cap))(run(attempt, {}, unlimited))
      }
    }).pipe(Effect.provide(live))
  )

  it.effect("spends all that was reserved for an answer of unknown usage", () =>
    Effect.gen(function* () {
      const most = Spending.make("most", { dollars: 5 })
      const expected = Spending.make("expected", { dollars: 5, reserve: "expected" })
      const unknown = run(() => Effect.succeed({ value: "" }))
      yield* unknown.pipe(Spending.from(most), Spending.from(expected))
      assert.strictEqual((yield* most.status).spent, 3)
      const { held, spent } = yield* expected.status
      assert.isBelow(spent, 3)
      assert.isAbove(spent, 0.9)
      assert.strictEqual(held, 0)
    }).pipe(Effect.provide(live))
  )

  for (const [isReached, isBusy] of [
    ["a", "b"],
    ["b", "a"]
  ]) {
    it.effect(
      `refuses a call at once if ${isReached} is used up, although running calls hold the money of ${isBusy}`,
      () =>
        Effect.gen(function* () {
          const gate = yield* Deferred.make<void>()
          const [reached, busy] = [Spending.make(isReached!, { dollars: 3 }), Spending.make(isBusy!, { dollars: 3 })]
          yield* Spending.from(reached)(run(() => Effect.succeed(answer(1_000_000, 0))))
          const running = yield* Effect.forkChild(
            Spending.from(busy)(run(() => Effect.as(Deferred.await(gate), answer(1, 1)))),
            { startImmediately: true }
          )
          const asked = yield* Effect.forkChild(
            Effect.exit(run(() => Effect.succeed(answer(1, 1))).pipe(Spending.from(reached), Spending.from(busy))),
            { startImmediately: true }
          )
          yield* TestClock.adjust(0)
          const exit = asked.pollUnsafe()
          assert.isDefined(exit, "it does not wait")
          assert.strictEqual(reasonOf(yield* Fiber.join(asked))?._tag, "SpendCapReached")
          yield* Deferred.succeed(gate, undefined)
          yield* Fiber.join(running)
        }).pipe(Effect.provide(live))
    )
  }

  it.effect("waits for the reset of a cap only if the call may wait for so long", () =>
    Effect.gen(function* () {
      const purse = Spending.make("job", { dollars: 3, per: "day" })
      const waits: Array<number> = []
      yield* TestClock.setTime(10 * day + day / 2)
      yield* Spending.from(purse)(run(() => Effect.succeed(answer(3_000_000, 0))))
      const ask = (maxWait: number) =>
        Effect.exit(run(() => Effect.succeed(answer(1, 1)), { maxWait })).pipe(
          Spending.from(purse),
          Spending.waitForReset(({ until }) => waits.push(until))
        )
      assert.strictEqual(reasonOf(yield* ask(day / 2 - 1))?._tag, "SpendCapReached")
      assert.deepStrictEqual(waits, [])
      const patient = yield* Effect.forkChild(ask(day / 2))
      yield* TestClock.adjust(day / 2)
      assert.strictEqual((yield* Fiber.join(patient))._tag, "Success")
      assert.deepStrictEqual(waits, [11 * day])
    }).pipe(Effect.provide(live))
  )

  it.effect("takes from all purses or from none, and once from each", () =>
    Effect.gen(function* () {
      const outer = Spending.make("all", { dollars: 100 })
      const inner = Spending.make("agent", { dollars: 2 })
      const both = <A, E, R>(self: Effect.Effect<A, E, R>) => self.pipe(Spending.from(inner), Spending.from(outer))
      const exit = yield* Effect.exit(both(run(() => Effect.succeed(answer(1, 1)))))
      assert.strictEqual(reasonOf(exit)?._tag, "SpendCapReached")
      assert.strictEqual((yield* outer.status).held, 0)
      const small = { ...call, inputTokens: 1_000, maxTokens: 1_000 }
      yield* both(run(() => Effect.succeed(answer(1_000, 0)), { purses: [outer, inner] }, small))
      assert.strictEqual((yield* outer.status).spent, 0.001)
      assert.strictEqual((yield* inner.status).spent, 0.001)
    }).pipe(Effect.provide(live))
  )

  it.effect("runs calls with a far too large max_tokens together if the cap reserves the expected cost", () =>
    Effect.gen(function* () {
      const purse = Spending.make("us", { dollars: 2, reserve: "expected" })
      const gate = yield* Deferred.make<void>()
      const large = { model: "my-model", bytes: 0, inputTokens: 1_000, maxTokens: 1_000_000 }
      const slow = run(() => Effect.as(Deferred.await(gate), answer(1_000, 100)), {}, large)
      const fibers = yield* Effect.forEach(Array.from({ length: 20 }), () =>
        Effect.forkChild(Spending.from(purse)(slow))
      )
      yield* TestClock.adjust("1 hour")
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.forEach(fibers, Fiber.join)
      assert.strictEqual((yield* purse.status).spent, 0.024)
    }).pipe(Effect.provide(live))
  )

  it.effect("is not overspent by retries, interruptions and failures of many agents, in any order", () =>
    Effect.gen(function* () {
      const purse = Spending.make("us", { dollars: 30, per: "1 hour" })
      const paid: Array<{ readonly at: number; readonly dollars: number }> = []
      const attempt = Effect.gen(function* () {
        yield* Effect.sleep((yield* Random.nextIntBetween(1, 600)) * 1_000)
        const dice = yield* Random.next
        if (dice < 0.2) return yield* new LlmError({ reason: new RateLimited({ status: 429 }) })
        const used = answer(yield* Random.nextIntBetween(0, 1_000_000), yield* Random.nextIntBetween(0, 1_000_000))
        const dollars = used.actual.inputTokens / 1e6 + (2 * used.actual.outputTokens) / 1e6
        paid.push({ at: yield* Clock.currentTimeMillis, dollars })
        return used
      })
      const one = Effect.gen(function* () {
        yield* Effect.sleep((yield* Random.nextIntBetween(0, 7_200)) * 1_000)
        const patience = (yield* Random.nextIntBetween(10, 3_000)) * 1_000
        yield* Effect.timeoutOption(
          run(() => attempt, { retry: Retry.make({ attempts: 3, base: "1 second" }) }),
          patience
        )
      })
      const all = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 300 }), () => Effect.exit(Spending.from(purse)(one)), {
          concurrency: "unbounded"
        })
      )
      yield* TestClock.adjust("8 hours")
      yield* Fiber.join(all)
      assert.isAbove(paid.length, 25)
      for (const { at } of paid) {
        const dollars = paid
          .filter((other) => other.at > at - 3_600_000 && other.at <= at)
          .reduce((sum, other) => sum + other.dollars, 0)
        assert.isAtMost(dollars, 30.000001)
      }
      assert.strictEqual((yield* purse.status).held, 0)
    }).pipe(Effect.provide(live), Random.withSeed("purses"))
  )

  it.effect("caps agents and their job in dollars, and counts what each cost", () =>
    Effect.gen(function* () {
      const small = { model: "my-model", bytes: 0, inputTokens: 500_000, maxTokens: 250_000 }
      const calls = (count: number) =>
        Effect.forEach(
          Array.from({ length: count }),
          () => run(() => Effect.succeed(answer(500_000, 250_000)), {}, small),
          { discard: true }
        )
      const outcomes = yield* Agents.run(
        [
          { key: "a", effect: calls(2) },
          { key: "b", effect: calls(5), cap: { dollars: 3 } },
          { key: "c", effect: calls(5) }
        ],
        { cap: { dollars: 7.5 }, concurrency: 1 }
      )
      assert.deepStrictEqual(
        outcomes.map(({ exit, key, used }) => [key, reasonOf(exit)?._tag, used.dollars]),
        [
          ["a", undefined, 2],
          ["b", "SpendCapReached", 3],
          ["c", "SpendCapReached", 2]
        ]
      )
      const messages = outcomes.map(({ exit }) => reasonOf(exit)?.message ?? "")
      assert.match(messages[1]!, /only \$0\.00 is left of the cap of \$3\.00 for agent "b"/)
      assert.match(messages[2]!, /only \$0\.50 is left of the cap of \$7\.50 for the job/)
    }).pipe(Effect.provide(live))
  )
})
