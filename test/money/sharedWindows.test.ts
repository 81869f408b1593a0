/** The long windows of an account that processes share through a store. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Governor from "floodgate/Governor"
import { LlmError, RateLimited } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import * as Signals from "floodgate/Signals"
import { MapStore } from "../support/store.ts"

const hour = 3_600_000
const model = "m"
const prices = { m: { input: 1, output: 0, maxOutput: 1 } }

/** An account with a window of five hours that holds so many dollars. It tells whole percents, as providers do. */
const account = (dollars: number, before = 0) => {
  const state = { spent: before * dollars, starts: [] as Array<number>, resetsAt: 5 * hour }
  /** It tells the fraction when it begins to answer, unless nothing is told. */
  const call = (cost: number, isTold = true) =>
    Effect.flatMap(Governor.Governor, (governor) =>
      governor.run({ model, bytes: 0, inputTokens: Math.round(cost * 1e6), maxTokens: 1, account: "key" }, (ticket) =>
        Effect.gen(function* () {
          state.starts.push(state.spent / dollars)
          const used = Math.floor((100 * state.spent) / dollars + 1e-6) / 100
          if (isTold) {
            yield* ticket.observeLimits(
              Signals.fromHeaders({
                "anthropic-ratelimit-unified-status": "allowed",
                "anthropic-ratelimit-unified-5h-utilization": String(used),
                "anthropic-ratelimit-unified-5h-reset": String(state.resetsAt / 1_000)
              })
            )
          }
          yield* Effect.sleep("20 seconds")
          state.spent += cost
          return { value: used, actual: { inputTokens: Math.round(cost * 1e6), outputTokens: 0 } }
        })
      )
    )
  return { state, call }
}

/** A process with a governor of its own. */
const process = (store: BudgetStore.Store | undefined, options: Governor.Options = {}) =>
  Layer.build(
    Governor.layer({ windows: { "5h": { share: 0.7 } }, prices, retry: Retry.make({ attempts: 1 }), ...options }).pipe(
      Layer.provide(Budget.layerUnlimited),
      Layer.provide(store === undefined ? Layer.empty : BudgetStore.layer(store))
    )
  )

const windowOf = Effect.flatMap(Governor.Governor, ({ windows }) =>
  Effect.map(windows, (all) => all.find(({ name }) => name === "5h"))
)

/** Agents that call one after another, until they are refused. */
const agents = (count: number, call: Effect.Effect<unknown, unknown, Governor.Governor>) =>
  Effect.forEach(Array.from({ length: count }), () => Effect.exit(Effect.forever(call)), {
    concurrency: "unbounded",
    discard: true
  })

const passing = (minutes: number) =>
  Effect.forEach(Array.from({ length: minutes * 3 }), () => TestClock.adjust("20 seconds"), { discard: true })

describe("windows that processes share", () => {
  it.effect("have a size that one process learns and another one knows before its first call", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      const { call, state } = account(10)
      const first = yield* process(store)
      const running = yield* Effect.forkChild(Effect.provideContext(agents(1, call(0.1)), first))
      yield* passing(10)
      yield* Fiber.interrupt(running)
      const learned = yield* Effect.provideContext(windowOf, first)
      assert.closeTo(learned!.dollars!, 10, 1)
      const second = yield* process(store)
      assert.isUndefined(yield* Effect.provideContext(windowOf, second))
      // The first call of an account reads its record.
      const one = yield* Effect.forkChild(Effect.provideContext(call(0.1), second))
      yield* TestClock.adjust("1 second")
      const told = yield* Effect.provideContext(windowOf, second)
      assert.deepInclude(told, { dollars: learned!.dollars, resetsAt: 5 * hour })
      // What was told and spent meanwhile may count twice until the next response.
      assert.isAtLeast(told!.used, state.spent / 10 + 0.01 - 1e-9)
      assert.isAtMost(told!.used, state.spent / 10 + 0.01 + 0.02)
      yield* Fiber.interrupt(one)
    }).pipe(Effect.scoped)
  )

  it.effect.each([
    ["two", 2],
    ["five", 5]
  ] as const)("are exceeded by at most one call of each of %s processes that know nothing", ([, count]) =>
    Effect.gen(function* () {
      const store = new MapStore()
      const { call, state } = account(20)
      const contexts = yield* Effect.forEach(Array.from({ length: count }), () => process(store))
      const running = yield* Effect.forEach(contexts, (context) =>
        Effect.forkChild(Effect.provideContext(agents(20, call(0.04)), context))
      )
      yield* passing(60)
      for (const fiber of running) assert.isDefined(fiber.pollUnsafe())
      const used = state.spent / 20
      assert.isAtMost(used, 0.7 + 0.01 + count * 0.002)
      assert.isAtLeast(used, 0.7 * 0.95)
      // All have measured the size of the whole window, and not that of their part.
      for (const context of contexts) {
        const { dollars } = (yield* Effect.provideContext(windowOf, context))!
        assert.closeTo(dollars!, 20, 3)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("leave each of several processes its part of what is left when all begin at once with a known size", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      const { call, state } = account(10, 0.5)
      const contexts = [yield* process(store), yield* process(store)]
      for (const context of contexts) {
        const calls = yield* Effect.forkChild(Effect.provideContext(agents(1, call(0.05)), context))
        yield* passing(5)
        yield* Fiber.interrupt(calls)
      }
      yield* passing(5)
      const before = state.starts.length
      for (const context of contexts) {
        yield* Effect.forkChild(Effect.provideContext(agents(200, call(0.05, false)), context))
      }
      yield* TestClock.adjust("3 seconds")
      const together = (state.starts.length - before) * 0.005
      assert.isAtMost(state.spent / 10 + together, 0.7 + 0.01)
      assert.isAtLeast(together, 0.01)
    }).pipe(Effect.scoped)
  )

  it.effect("hold back no calls of an account without windows, also after a rest", () =>
    Effect.gen(function* () {
      const context = yield* process(new MapStore())
      const { call, state } = account(10)
      const plain = Effect.provideContext(call(0.01, false), context)
      for (const starts of [1, 51]) {
        yield* Effect.forkChild(
          Effect.forEach(Array.from({ length: starts }), () => plain, { concurrency: "unbounded" })
        )
        yield* TestClock.adjust(1)
        assert.lengthOf(state.starts, starts === 1 ? 1 : 52)
        yield* passing(5)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("are kept as known while the store is away, holds something else, or belongs to a later version", () =>
    Effect.gen(function* () {
      for (const value of ["{", '{"format":1,"windows":{"5h":{"used":-1}}}', '{"format":2}', undefined]) {
        const store = new MapStore()
        if (value !== undefined) yield* store.swap("windows:key", undefined, { version: "1", value }, 1)
        else store.isAway = true
        const { call, state } = account(10)
        const context = yield* process(store)
        const running = yield* Effect.forkChild(Effect.provideContext(agents(5, call(0.1)), context))
        yield* passing(20)
        assert.isDefined(running.pollUnsafe())
        assert.closeTo(state.spent / 10, 0.69, 0.02)
        const left = yield* Effect.exit(store.read("windows:key"))
        if (value === '{"format":2}') assert.deepInclude(left, { value: { version: "1", value } })
        else if (value !== undefined) assert.match(JSON.stringify(left), /"size/)
        state.resetsAt += 5 * hour
        state.spent = 0
      }
    }).pipe(Effect.scoped)
  )
})

describe("a spent window that processes share", () => {
  /** An account whose window is spent until it is opened, and when it was asked. */
  const spent = () => {
    const state = { isOpen: false, asked: [] as Array<number>, answered: 0 }
    const call = Effect.flatMap(Governor.Governor, (governor) =>
      governor.run(
        { model, bytes: 10, maxTokens: 10, account: "key" },
        () =>
          Effect.gen(function* () {
            state.asked.push(yield* Clock.currentTimeMillis)
            const { isOpen } = state
            const signal = Signals.fromHeaders({
              "anthropic-ratelimit-unified-status": isOpen ? "allowed" : "rejected",
              "anthropic-ratelimit-unified-representative-claim": "five_hour",
              "anthropic-ratelimit-unified-5h-utilization": isOpen ? "0.1" : "1",
              "anthropic-ratelimit-unified-5h-reset": String((5 * hour) / 1_000)
            })
            yield* Effect.sleep("1 second")
            if (!isOpen) return yield* new LlmError({ reason: new RateLimited({ status: 429, signal }) })
            state.answered++
            return { value: "", actual: { inputTokens: 1, outputTokens: 1 }, signal }
          }),
        { maxWait: "6 hours" }
      )
    )
    return { state, call }
  }

  it.effect("is tried by one of them every ten minutes, and the calls of all follow within 10 s", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      const { call, state } = spent()
      const contexts = [yield* process(store, { retry: Retry.make() }), yield* process(store, { retry: Retry.make() })]
      for (const context of contexts) {
        for (let n = 0; n < 20; n++) yield* Effect.forkChild(Effect.provideContext(call, context))
        yield* TestClock.adjust("30 seconds")
      }
      const first = state.asked.length
      yield* passing(58)
      // Six in an hour, and not six of each process.
      assert.isAtMost(state.asked.length - first, 6)
      assert.isAtLeast(state.asked.length - first, 5)
      state.isOpen = true
      const asked = state.asked.length
      for (let n = 0; n < 600 && state.asked.length === asked; n++) yield* TestClock.adjust("1 second")
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(state.answered, 40)
      assert.strictEqual(state.asked.length, asked + 40)
    }).pipe(Effect.scoped)
  )

  it.effect("is tried by another process once the one that tried it has ended", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      const { call, state } = spent()
      const [one, other] = [
        yield* process(store, { retry: Retry.make() }),
        yield* process(store, { retry: Retry.make() })
      ]
      const gone = yield* Effect.forkChild(Effect.provideContext(call, one))
      yield* TestClock.adjust("2 seconds")
      yield* Effect.forkChild(Effect.provideContext(call, other))
      yield* passing(1)
      yield* Fiber.interrupt(gone)
      const asked = state.asked.length
      yield* passing(11)
      assert.strictEqual(state.asked.length, asked + 1)
    }).pipe(Effect.scoped)
  )
})
