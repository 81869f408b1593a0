import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Events from "floodgate/Events"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import * as Spending from "floodgate/Spending"

/** A dollar for each million of input, two for output. */
const prices = { "my-model": { input: 1, output: 2 } }
const day = 86_400_000

/** It costs at most $3: a million tokens that are known, and as many of output. */
const call = { model: "my-model", bytes: 0, inputTokens: 1_000_000, maxTokens: 1_000_000 }

type CapTurn = Extract<Events.Event, { readonly type: "cap" }>

/** Runs a test with what the governor reports of caps, as events and as lines of the log. */
const watched = <A, E>(
  test: (events: ReadonlyArray<CapTurn>, lines: ReadonlyArray<string>) => Effect.Effect<A, E, Governor.Governor>
) =>
  Effect.suspend(() => {
    const events: Array<CapTurn> = []
    const lines: Array<string> = []
    const live = Governor.layer({ prices, retry: Retry.make({ attempts: 1 }) }).pipe(
      Layer.provide(Budget.layer()),
      Layer.provide(Layer.succeed(Events.Observer, (event) => void (event.type === "cap" && events.push(event)))),
      Layer.provideMerge(
        Logger.layer([Logger.make(({ logLevel, message }) => void lines.push(`${logLevel}: ${String(message)}`))])
      )
    )
    return Effect.provide(test(events, lines), live)
  })

const run = (
  purse: Spending.Purse,
  outputTokens: number,
  {
    after = Effect.void,
    agent,
    inputTokens = 1,
    maxWait,
    what = call
  }: {
    readonly after?: Effect.Effect<unknown>
    readonly agent?: string
    readonly inputTokens?: number
    readonly maxWait?: string
    readonly what?: Governor.Call
  } = {}
) =>
  Effect.flatMap(Governor.Governor, (governor) =>
    governor.run(what, () => Effect.as(after, { value: "", actual: { inputTokens, outputTokens } }), {
      agent,
      maxWait: maxWait as never
    })
  ).pipe(Spending.from(purse))

const causeOf = <A>(exit: Exit.Exit<A, unknown>): Error | undefined => {
  const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
  return error instanceof Budget.BudgetError && error.reason._tag === "Denied"
    ? (error.reason.cause as Error)
    : undefined
}

describe("a cap that is reached", () => {
  it.effect("let a call go in peace that is interrupted in the moment in which it gets what it waited for", () =>
    watched(() =>
      Effect.gen(function* () {
        // Regression: its caller resumed in a later task, and threw.
        const governor = yield* Governor.Governor
        const purse = Spending.make("ours", { dollars: 4 })
        const ask = governor.run(call, () => Effect.never, { purses: [purse] })
        const first = yield* Effect.forkChild(ask)
        const second = yield* Effect.forkChild(ask)
        yield* TestClock.adjust(0)
        yield* Effect.andThen(
          purse.resize({ dollars: 10 }),
          Effect.sync(() => second.interruptUnsafe())
        )
        yield* TestClock.adjust(0)
        yield* Fiber.interrupt(first)
        const { held, queued } = yield* purse.status
        assert.deepStrictEqual([held, queued], [0, 0])
      })
    )
  )

  it.effect(
    "refuse a call that they have no room for, also while others wait for what running calls have reserved",
    () =>
      watched(() =>
        Effect.gen(function* () {
          // Regression: it stood behind them, and if it was admitted later, its ledger was charged twice.
          const governor = yield* Governor.Governor
          const purse = Spending.make("ours", { dollars: 4 })
          const ends = yield* Deferred.make<void>()
          const answer = Effect.as(Deferred.await(ends), { value: 0, actual: { inputTokens: 1, outputTokens: 1 } })
          const ask = (more: Partial<Governor.Call> = {}) =>
            governor.run({ ...call, ...more }, () => answer, { purses: [purse] })
          const calls = [yield* Effect.forkChild(ask()), yield* Effect.forkChild(ask())]
          yield* TestClock.adjust(0)
          assert.strictEqual((yield* purse.status).queued, 1)
          const refused = yield* Effect.forkChild(Effect.flip(ask({ inputTokens: 3_000_000 })))
          yield* TestClock.adjust(0)
          assert.include((yield* Fiber.join(refused)).message, "may cost $5.00")
          yield* Deferred.succeed(ends, undefined)
          yield* Effect.forEach(calls, Fiber.join)
          assert.strictEqual((yield* purse.status).held, 0)
        })
      )
  )

  it.effect("is reported once, and again when calls fit", () =>
    watched((events, lines) =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 5.5, per: "day" })
        yield* run(purse, 1_000_000)
        yield* run(purse, 250_000)
        assert.deepStrictEqual(events, [])
        assert.isFalse((yield* purse.status).isReached)
        for (let call = 0; call < 3; call++) assert.isTrue(Exit.isFailure(yield* Effect.exit(run(purse, 1))))
        const base = { type: "cap", pool: "my-model", cap: "us", limit: 5.5 }
        const reached = { ...base, at: 0, isReached: true, spent: 2.500002, left: 2.999998, until: day }
        assert.deepStrictEqual(events, [reached] as never)
        assert.isTrue((yield* purse.status).isReached)
        // A small call fits, and the cap is reached all the same.
        yield* run(purse, 1, { what: { ...call, inputTokens: 1, maxTokens: 1 } })
        assert.strictEqual(events.length, 1)
        yield* TestClock.setTime(day - 1)
        assert.isTrue((yield* purse.status).isReached)
        yield* TestClock.setTime(day)
        assert.isFalse((yield* purse.status).isReached)
        yield* run(purse, 1)
        assert.deepStrictEqual(events.slice(1), [
          { ...base, at: day, isReached: false, spent: 0, left: 5.5, until: undefined }
        ] as never)
        assert.deepStrictEqual(lines, [
          "Warn: The cap of $5.50 for us is reached: $2.50 spent, so calls that may cost more than the $3.00 left are refused until 1970-01-02T00:00:00.000Z",
          "Info: The cap of $5.50 for us is open again: $5.50 left"
        ])
      })
    )
  )

  it.effect("is reported as open by the first call of the next day, also if nobody looks at the cap", () =>
    watched((events) =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 3.5, per: "day" })
        yield* run(purse, 1_000_000)
        yield* Effect.exit(run(purse, 1))
        yield* TestClock.setTime(day)
        yield* run(purse, 1)
        assert.deepStrictEqual(
          events.map(({ at, isReached }) => ({ at, isReached })),
          [
            { at: 0, isReached: true },
            { at: day, isReached: false }
          ]
        )
      })
    )
  )

  it.effect("is reported when it refuses a call that has waited for it", () =>
    watched((events) =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 5 })
        const gate = yield* Deferred.make<void>()
        const first = yield* Effect.forkChild(
          run(purse, 1_000_000, { after: Deferred.await(gate), inputTokens: 1_000_000 })
        )
        yield* Effect.yieldNow
        const second = yield* Effect.forkChild(Effect.exit(run(purse, 1)))
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(events, [])
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(first)
        assert.isTrue(Exit.isFailure(yield* Fiber.join(second)))
        assert.deepStrictEqual(
          events.map(({ isReached, left, spent }) => ({ isReached, left, spent })),
          [{ isReached: true, left: 2, spent: 3 }]
        )
      })
    )
  )

  for (const [how, change] of [
    ["raises it", (purse: Spending.Purse) => purse.resize({ dollars: 9 })],
    ["removes it", (purse: Spending.Purse) => purse.resize(undefined)],
    ["resets it", (purse: Spending.Purse) => purse.reset]
  ] as const) {
    it.effect(`is open as soon as an operator ${how}`, () =>
      watched((events) =>
        Effect.gen(function* () {
          const purse = Spending.make("us", { dollars: 3 })
          yield* run(purse, 500_000)
          yield* Effect.exit(run(purse, 1))
          yield* change(purse)
          assert.deepStrictEqual(
            events.map(({ isReached }) => isReached),
            [true, false]
          )
        })
      )
    )
  }

  it.effect("is not reached by a call that is larger than all of it", () =>
    watched((events) =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 2 })
        assert.isTrue(Exit.isFailure(yield* Effect.exit(run(purse, 1))))
        assert.deepStrictEqual(events, [])
        assert.isFalse((yield* purse.status).isReached)
      })
    )
  )

  it.effect("is asked for in the order of the names in the store, so that no two calls wait for each other", () =>
    watched(() =>
      Effect.gen(function* () {
        const governor = yield* Governor.Governor
        const [later, first] = [
          Spending.make("later", { dollars: 3 }, { key: "2" }),
          Spending.make("first", { dollars: 3 }, { key: "1" })
        ]
        const gate = yield* Deferred.make<void>()
        const running = yield* Effect.forkChild(run(later, 1, { after: Deferred.await(gate) }))
        yield* Effect.yieldNow
        const both = yield* Effect.forkChild(
          governor.run(call, () => Effect.succeed({ value: "", actual: { inputTokens: 1, outputTokens: 1 } }), {
            purses: [later, first]
          })
        )
        yield* TestClock.adjust(1)
        assert.deepStrictEqual([(yield* first.status).held, (yield* later.status).queued], [3, 1])
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(running)
        yield* Fiber.interrupt(both)
      })
    )
  )

  it.effect("writes twenty lines in a minute, and one more for those that are left out, if any are", () =>
    watched((_, lines) =>
      Effect.gen(function* () {
        const reach = (times: number) =>
          Effect.replicateEffect(
            Effect.gen(function* () {
              const purse = Spending.make("us", { dollars: 3 })
              yield* run(purse, 500_000)
              yield* Effect.exit(run(purse, 1))
            }),
            times
          )
        yield* reach(20)
        assert.strictEqual(lines.length, 20)
        yield* TestClock.adjust("59999 millis")
        yield* reach(1)
        assert.strictEqual(lines.length, 20)
        yield* TestClock.adjust(1)
        yield* reach(20)
        assert.strictEqual(lines[20], "Warn: 1 more change of caps in dollars within a minute")
        assert.strictEqual(lines.length, 41)
        yield* TestClock.adjust("1 minute")
        yield* reach(1)
        assert.strictEqual(lines.length, 42)
        assert.notInclude(lines[41], "more change")
      })
    )
  )

  it.effect("writes a bounded number of lines, whatever number of caps there is", () =>
    watched((events, lines) =>
      Effect.gen(function* () {
        const spend = Effect.gen(function* () {
          const purse = Spending.make("an invented agent", { dollars: 3 })
          yield* run(purse, 500_000)
          yield* Effect.exit(run(purse, 1))
        })
        for (let agent = 0; agent < 100; agent++) yield* spend
        assert.strictEqual(events.length, 100)
        assert.strictEqual(lines.length, 20)
        yield* TestClock.adjust("1 minute")
        yield* spend
        assert.strictEqual(lines[20], "Warn: 80 more changes of caps in dollars within a minute")
        assert.strictEqual(lines.length, 22)
      })
    )
  )
})

describe("a call that waits for money", () => {
  it.effect("is listed with its agent, what it asks for and how long it has waited", () =>
    watched(() =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 4 })
        const gate = yield* Deferred.make<void>()
        const first = yield* Effect.forkChild(run(purse, 1, { after: Deferred.await(gate), agent: "a" }))
        yield* TestClock.adjust("1 second")
        const more = yield* Effect.forEach(Array.from({ length: 40 }), () =>
          Effect.forkChild(run(purse, 1, { agent: "b" }))
        )
        yield* TestClock.adjust("2 seconds")
        const { queued, waiting } = yield* purse.status
        assert.strictEqual(queued, 40)
        assert.deepStrictEqual(
          waiting,
          Array.from({ length: 32 }, () => ({ agent: "b", dollars: 3, waitedMillis: 2_000 }))
        )
        yield* Deferred.succeed(gate, undefined)
        yield* Effect.forEach([first, ...more], Fiber.join)
        const after = yield* purse.status
        assert.deepStrictEqual([after.queued, after.waiting], [0, []])
      })
    )
  )

  it.effect("is served by weight between agents", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const purse = Spending.make("us", { dollars: 12.5 })
      const order: Array<string> = []
      const one = (agent: string, weight: number, millis: number) =>
        Effect.gen(function* () {
          const attempt = Effect.sync(() => order.push(agent)).pipe(
            Effect.andThen(Effect.sleep(millis)),
            Effect.as({ value: "", actual: { inputTokens: 1, outputTokens: 0 } })
          )
          yield* Effect.forkChild(governor.run(call, () => attempt, { agent, weight, purses: [purse] }))
          yield* Effect.yieldNow
        })
      // Four fit.
      for (let n = 0; n < 4; n++) yield* one("x", 1, 1_000)
      for (let n = 0; n < 3; n++) yield* one("a", 1, 60_000)
      for (let n = 0; n < 3; n++) yield* one("b", 3, 60_000)
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(order, ["x", "x", "x", "x", "a", "b", "b", "b"])
    }).pipe(
      Effect.provide(
        Governor.layer({ prices, retry: Retry.make({ attempts: 1 }) }).pipe(Layer.provide(Budget.layerUnlimited))
      )
    )
  )

  it.effect("is refused after its maxWait in words that name the cap, and may be tried again", () =>
    watched((events) =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 4 })
        const first = yield* Effect.forkChild(run(purse, 1, { after: Effect.never }))
        const second = yield* Effect.forkChild(Effect.exit(run(purse, 1, { maxWait: "10 seconds" })))
        yield* TestClock.adjust(9_999)
        assert.strictEqual((yield* purse.status).queued, 1)
        yield* TestClock.adjust(1)
        const cause = causeOf(yield* Fiber.join(second))
        if (!(cause instanceof Spending.SpendCapReached)) return assert.fail(String(cause))
        assert.match(
          cause.message,
          /^The call may cost \$3\.00 at most \(about \$1\.01 is expected; max_tokens allows 1,000,000 tokens of output, and [\d,]+ are expected\), and running calls have reserved too much of the cap of \$4\.00 for us \(\$0\.00 spent, \$3\.00 reserved by running calls\): run fewer calls at once, lower max_tokens, or raise the cap$/
        )
        assert.isTrue(cause.isRetryable)
        // Money that is reserved is not spent.
        assert.deepStrictEqual(events, [])
        yield* Fiber.interrupt(first)
      })
    )
  )

  it.effect("is told what is spent, what is reserved, and why it may cost much more than is expected", () =>
    watched(() =>
      Effect.gen(function* () {
        const purse = Spending.make("us", { dollars: 4 })
        yield* run(purse, 0, { inputTokens: 2_000_000, what: { ...call, inputTokens: 2_000_000, maxTokens: 1 } })
        const running = yield* Effect.forkChild(
          run(purse, 1, { after: Effect.never, what: { ...call, inputTokens: 0, maxTokens: 500_000 } })
        )
        yield* TestClock.adjust("1 second")
        const what = { model: "my-model", bytes: 700_000, maxTokens: 1_000_000 }
        const cause = causeOf(yield* Effect.exit(run(purse, 1, { what })))
        assert.match(
          cause!.message,
          /^The call may cost \$2\.70 at most \(about \$\S+ is expected; max_tokens allows 1,000,000 tokens of output, and [\d,]+ are expected; its prompt was not counted, so each byte of it is taken for a token\), but only \$2\.00 is left of the cap of \$4\.00 for us \(\$2\.00 spent, \$1\.00 reserved by running calls\): lower max_tokens, or raise the cap$/
        )
        yield* Fiber.interrupt(running)
      })
    )
  )
})
