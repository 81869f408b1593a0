/** Calls that are parked until a window of a subscription, or a cap, begins anew. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { LlmError, Overloaded, RateLimited } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import * as Signals from "floodgate/Signals"
import * as Spending from "floodgate/Spending"

const hour = 3_600_000
const model = "claude-sonnet-5"
const parked = Effect.flatMap(Governor.Governor, (governor) => governor.parked)

/** An account whose window of five hours is spent until `resetsAt` of the provider's clock. */
const account = (resetsAt = 5 * hour, places?: Governor.Call["places"]) => {
  const state = { resetsAt, aheadBy: 0, isOpen: false, starts: [] as Array<string>, sentAt: [] as Array<number> }
  const call = (name: string, options: Governor.CallOptions = {}) =>
    Effect.flatMap(Governor.Governor, (governor) =>
      governor.run(
        { model, bytes: 10, maxTokens: 10, account: "key", places },
        () =>
          Effect.gen(function* () {
            const now = yield* Clock.currentTimeMillis
            const isOpen = state.isOpen || now - state.aheadBy >= state.resetsAt
            const resetsAt = isOpen ? state.resetsAt + 5 * hour : state.resetsAt
            const signal = Signals.fromHeaders({
              "anthropic-ratelimit-unified-status": isOpen ? "allowed" : "rejected",
              "anthropic-ratelimit-unified-representative-claim": "five_hour",
              "anthropic-ratelimit-unified-5h-utilization": isOpen ? "0.1" : "1",
              "anthropic-ratelimit-unified-5h-reset": String(resetsAt / 1_000)
            })
            if (isOpen) state.starts.push(name)
            state.sentAt.push(now)
            yield* Effect.sleep("1 second")
            if (isOpen) return { value: name, actual: { inputTokens: 1, outputTokens: 1 }, signal }
            const retryAfter = Duration.millis(state.resetsAt - (now - state.aheadBy))
            return yield* new LlmError({ reason: new RateLimited({ status: 429, signal, retryAfter }) })
          }),
        { agent: name.split("/")[0]!, park: true, ...options }
      )
    )
  const many = (names: ReadonlyArray<string>, options?: Governor.CallOptions) =>
    Effect.forkChild(Effect.forEach(names, (name) => Effect.exit(call(name, options)), { concurrency: "unbounded" }))
  return { state, call, many }
}

/** Ten requests a second, of which ten may come at once. */
const live = (options: Governor.Options = {}) =>
  Governor.layer(options).pipe(
    Layer.provideMerge(Agents.layer),
    Layer.provide(Budget.layer({ limits: { requests: { perSecond: 10, burst: 10 } } }))
  )

const names = (count: number) => Array.from({ length: count }, (_, n) => `agent-${n}/0`)
const values = (exits: ReadonlyArray<Exit.Exit<string, unknown>>) =>
  exits.map((exit) => (Exit.isSuccess(exit) ? exit.value : undefined))
const causeOf = (exit: Exit.Exit<unknown, unknown>): unknown => {
  const error = Exit.findErrorOption(exit)
  const found = error._tag === "Some" ? error.value : undefined
  return found instanceof Budget.BudgetError && found.reason._tag === "Denied" ? found.reason.cause : found
}

/** A call has found the window spent: one that parks, but may not wait. */
const spent = (options: Governor.CallOptions = { maxWait: 0 }) =>
  Effect.gen(function* () {
    const all = account()
    const first = yield* all.many(["first/0"], options)
    yield* TestClock.adjust("2 seconds")
    assert.isTrue(Exit.isFailure((yield* Fiber.join(first))[0]!))
    return all
  })

describe("a parked call", () => {
  it.effect("goes on once after the reset, in the order in which it was parked, at the pace of its pool", () =>
    Effect.gen(function* () {
      // Without `park`, it pauses its pool for an hour.
      const { many, state } = yield* spent({ park: false })
      // 50 sessions, of which each has two calls.
      const all = names(50).flatMap((name) => [name, name.replace("/0", "/1")])
      const running = yield* many(all)
      yield* TestClock.setTime(5 * hour - 1)
      assert.lengthOf(yield* parked, 100)
      assert.deepStrictEqual(state.starts, [])
      const sent = state.sentAt.length
      // One try in ten minutes, all by the first.
      assert.isAtMost(sent, 1 + 30)
      yield* TestClock.adjust("10 seconds")
      assert.isAbove(state.starts.length, 0)
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(values(yield* Fiber.join(running)), all)
      assert.deepStrictEqual(state.starts.toSorted(), all.toSorted())
      for (const name of names(50)) {
        assert.isBelow(state.starts.indexOf(name), state.starts.indexOf(name.replace("/0", "/1")))
      }
      const times = state.sentAt.slice(sent)
      for (const from of times) assert.isAtMost(times.filter((at) => at >= from && at < from + 1_000).length, 20)
      assert.deepStrictEqual(yield* parked, [])
    }).pipe(Effect.provide(live()))
  )

  it.effect("goes on although calls that do not park have paused all of its places", () =>
    Effect.gen(function* () {
      const places = ["one", "other"].map((name) => ({ name, model, account: name }))
      const { call, many, state } = account(5 * hour, { places })
      const all = names(20)
      const running = yield* Effect.forkChild(
        Effect.forEach(all, (name, n) => Effect.exit(Effect.delay(call(name), 100 * n)), { concurrency: "unbounded" })
      )
      for (const name of ["one", "other"]) yield* many([`${name}/0`], { park: false, places: [name] })
      yield* TestClock.adjust("65 minutes")
      assert.lengthOf(yield* parked, 20)
      yield* TestClock.setTime(5 * hour - 1)
      assert.deepStrictEqual(state.starts, [])
      assert.isAtMost(state.sentAt.length, 22 + 60)
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(values(yield* Fiber.join(running)), all)
    }).pipe(Effect.provide(live()))
  )

  it.effect("goes on when a try finds the window open, and waits on when the reset moves", () =>
    Effect.gen(function* () {
      const { many, state } = yield* spent()
      const early = yield* many(names(20))
      yield* TestClock.adjust("15 minutes")
      state.isOpen = true
      yield* TestClock.adjust("6 minutes")
      assert.deepStrictEqual(values(yield* Fiber.join(early)), names(20))

      state.isOpen = false
      const late = yield* many(names(20))
      yield* TestClock.adjust("5 seconds")
      assert.lengthOf(yield* parked, 20)
      state.resetsAt += 2 * hour
      yield* TestClock.setTime(5 * hour + 60_000)
      yield* TestClock.adjust("10 minutes")
      assert.lengthOf(yield* parked, 20)
      assert.lengthOf(state.starts, 20)
      yield* TestClock.setTime(7 * hour)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(values(yield* Fiber.join(late)), names(20))
      assert.lengthOf(state.starts, 40)
    }).pipe(Effect.provide(live()))
  )

  it.effect.each([-90_000, 90_000])("survives a clock that is off by %i ms, and is answered once", (aheadBy) =>
    Effect.gen(function* () {
      const { many, state } = yield* spent()
      const running = yield* many(names(20))
      yield* TestClock.adjust("5 seconds")
      state.aheadBy = aheadBy
      yield* TestClock.setTime(5 * hour - 1)
      const sent = state.sentAt.length
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual(values(yield* Fiber.join(running)), names(20))
      assert.deepStrictEqual(state.starts.toSorted(), names(20).toSorted())
      assert.isAtMost(state.sentAt.length - sent, 3 * 20)
    }).pipe(Effect.provide(live()))
  )

  it.effect("keeps its turn before a call of its agent that comes after the reset", () =>
    Effect.gen(function* () {
      const { many, state } = yield* spent()
      const first = yield* many([...Array(150).keys()].map((n) => `agent/${n}`))
      yield* TestClock.setTime(5 * hour + 5_000)
      assert.isBelow(state.starts.length, 100)
      const last = yield* many(["agent/last"])
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(first)
      yield* Fiber.join(last)
      assert.deepStrictEqual(
        state.starts,
        [...Array(150).keys(), "last"].map((n) => `agent/${n}`)
      )
    }).pipe(Effect.provide(live()))
  )

  it.effect("is listed without what it sends, and cancelled with the refusal that it would have got", () =>
    Effect.gen(function* () {
      const { many } = yield* spent()
      const running = yield* many(names(3))
      yield* TestClock.adjust("1 second")
      const list = yield* parked
      assert.deepInclude(list[1], { agent: "agent-1", model, account: "key", until: 5 * hour, job: undefined })
      assert.match(list[1]!.message, /5h is used up: wait until/)
      const governor = yield* Governor.Governor
      assert.isTrue(yield* governor.unpark(list[1]!.id))
      assert.isFalse(yield* governor.unpark(list[1]!.id))
      for (const id of ["", "x", "9999", "__proto__"]) assert.isFalse(yield* governor.unpark(id))
      yield* TestClock.setTime(5 * hour)
      yield* TestClock.adjust("10 seconds")
      const exits = yield* Fiber.join(running)
      assert.deepStrictEqual(values(exits), ["agent-0/0", undefined, "agent-2/0"])
      assert.instanceOf(causeOf(exits[1]!), Spending.WindowShareUsed)
    }).pipe(Effect.provide(live()))
  )

  it.effect("is refused as others are while its window is used up, but accepts calls, and its pool is paused", () =>
    Effect.gen(function* () {
      const { call, state } = account()
      state.isOpen = true
      const governor = yield* Governor.Governor
      const signal = Signals.fromHeaders({
        "anthropic-ratelimit-unified-status": "allowed",
        "anthropic-ratelimit-unified-5h-utilization": "1",
        "anthropic-ratelimit-unified-5h-reset": "18000"
      })
      const request = { model, bytes: 10, maxTokens: 10, account: "key" }
      yield* governor.run(request, () => Effect.succeed({ value: "", signal }), { park: true })
      const reason = new RateLimited({ status: 429, retryAfter: Duration.hours(1) })
      const limited = Effect.fail(new LlmError({ reason }))
      yield* Effect.exit(governor.run(request, () => limited, { maxWait: "1 minute" }))
      const refused = yield* Effect.forkChild(Effect.exit(call("late/0", { maxWait: "1 minute" })))
      yield* TestClock.adjust("2 minutes")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(refused)))
    }).pipe(Effect.provide(live()))
  )

  it.effect("leaves nothing behind when it is interrupted, parked or on its way", () =>
    Effect.gen(function* () {
      const { many, state } = yield* spent()
      const running = yield* many(names(150))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(running)
      assert.deepStrictEqual(yield* parked, [])
      const again = yield* many(names(150))
      yield* TestClock.setTime(5 * hour + 1_500)
      yield* Fiber.interrupt(again)
      const { length } = state.starts
      assert.isBelow(length, 100)
      assert.deepStrictEqual(yield* parked, [])
      const last = yield* many(names(150))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(values(yield* Fiber.join(last)), names(150))
      assert.lengthOf(state.starts, length + 150)
    }).pipe(Effect.provide(live()))
  )

  it.effect("is bounded by its maxWait and its deadline, but not by the time of its retries", () =>
    Effect.gen(function* () {
      const { call, many } = yield* spent()
      const short = yield* many(["short/0"], { maxWait: "4 hours" })
      const dead = yield* Effect.forkChild(Effect.exit(call("dead/0").pipe(Retry.withDeadline("4 hours"))))
      yield* TestClock.adjust("1 second")
      assert.instanceOf(causeOf((yield* Fiber.join(short))[0]!), Spending.WindowShareUsed)
      assert.instanceOf(causeOf(yield* Fiber.join(dead)), Spending.WindowShareUsed)
      let attempts = 0
      const governor = yield* Governor.Governor
      const failing = Effect.suspend(() =>
        attempts++ === 0
          ? Effect.fail(new LlmError({ reason: new Overloaded({ status: 529 }) }))
          : Effect.succeed({ value: "answer", actual: { inputTokens: 1, outputTokens: 1 } })
      )
      const other = yield* Effect.forkChild(
        governor.run({ model, bytes: 10, maxTokens: 10, account: "other" }, () => failing, { park: true })
      )
      assert.strictEqual(yield* Effect.andThen(TestClock.adjust("1 minute"), Fiber.join(other)), "answer")
    }).pipe(Effect.provide(live({ retry: Retry.make({ maxElapsed: "1 minute" }) })))
  )

  it.effect("waits for a cap that begins again, and goes on soon after an operator has raised it", () =>
    Effect.gen(function* () {
      const { call, state } = account()
      state.isOpen = true
      const purse = Spending.make("daily", { dollars: 0.00015, per: "day", reserve: "expected" })
      const one = (name: string, options?: Governor.CallOptions) =>
        Effect.forkChild(Effect.exit(call(name, { purses: [purse], ...options })))
      const spend = Effect.gen(function* () {
        for (let n = 0; n < 10; n++) {
          yield* one(`a/${n}`, { park: false })
          yield* TestClock.adjust("2 seconds")
        }
      })
      yield* spend
      const refused = yield* one("b/0", { park: false })
      const waiting = yield* one("c/0")
      yield* TestClock.adjust("59 seconds")
      assert.instanceOf(causeOf(yield* Fiber.join(refused)), Spending.SpendCapReached)
      assert.lengthOf(yield* parked, 1)
      yield* TestClock.setTime(24 * hour)
      yield* TestClock.adjust("2 seconds")
      assert.isTrue(Exit.isSuccess(yield* Fiber.join(waiting)))
      yield* spend
      const raised = yield* one("d/0")
      yield* TestClock.adjust("330 seconds")
      assert.lengthOf(yield* parked, 1)
      yield* purse.resize({ dollars: 1, per: "day", reserve: "expected" })
      yield* TestClock.adjust("61 seconds")
      assert.isTrue(Exit.isSuccess(yield* Fiber.join(raised)))
    }).pipe(Effect.provide(live()))
  )

  it.effect("of an agent waits with Agents.run, and fails there without `park`", () =>
    Effect.gen(function* () {
      const { call } = yield* spent()
      const agents = names(5).map((key) => ({ key, effect: call(key, { agent: key, park: undefined }) }))
      const refused = yield* Agents.run(agents)
      for (const { exit } of refused) assert.isTrue(Exit.isFailure(exit))
      const job = yield* Effect.forkChild(Agents.run(agents, { park: true }))
      yield* TestClock.adjust("1 second")
      assert.lengthOf(yield* parked, 5)
      yield* TestClock.setTime(5 * hour + 10_000)
      for (const { exit } of yield* Fiber.join(job)) assert.isTrue(Exit.isSuccess(exit))
    }).pipe(Effect.provide(live({ windows: { "5h": { share: 1 } } })))
  )
})
