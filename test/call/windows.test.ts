/** The long windows of a subscription: a provider that counts them, and calls that are kept to a share. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"
import { LlmError, RateLimited } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import * as Signals from "floodgate/Signals"
import * as Spending from "floodgate/Spending"

const hour = 3_600_000
/** A million tokens of output cost a dollar, and a window holds ten. */
const prices = { "claude-test": { input: 0, output: 1 } }
const size = 10_000_000

/** A provider with a window of five hours that begins with its first call. It counts a call when it has answered. */
class Subscription {
  used = 0
  resetsAt = 0
  /** The fraction that was spent at the end of each window. */
  readonly ended: Array<number> = []

  private renew(now: number): void {
    if (now < this.resetsAt) return
    if (this.resetsAt > 0) this.ended.push(this.used / size)
    this.used = 0
    this.resetsAt = now + 5 * hour
  }
  spend(tokens: number, now: number): void {
    this.renew(now)
    this.used += tokens
  }
  /** The headers of a response, as the provider begins it. */
  headers(now: number): Record<string, string> {
    this.renew(now)
    return {
      "anthropic-ratelimit-unified-status": "allowed",
      "anthropic-ratelimit-unified-representative-claim": "five_hour",
      "anthropic-ratelimit-unified-5h-utilization": (Math.floor((this.used / size) * 100) / 100).toString(),
      "anthropic-ratelimit-unified-5h-reset": String(Math.round(this.resetsAt / 1_000)),
      "anthropic-ratelimit-unified-7d-utilization": "0.1",
      "anthropic-ratelimit-unified-7d-reset": String(7 * 24 * 3_600)
    }
  }
}

const once = Retry.make({ attempts: 1 })
const live = (windows: Governor.Options["windows"], learned?: Estimator.Learned) =>
  Governor.layer({ prices, retry: once, windows, learned }).pipe(Layer.provide(Budget.layerUnlimited))

/** A call that uses this many tokens. */
const ask = (
  provider: Subscription,
  tokens: number,
  how: Governor.CallOptions = {},
  starts: (used: number) => void = () => {}
) =>
  Effect.flatMap(Governor.Governor, (governor) =>
    governor.run(
      { model: "claude-test", bytes: 10, maxTokens: tokens, account: "key" },
      () =>
        Effect.gen(function* () {
          const signal = Signals.fromHeaders(provider.headers(yield* Clock.currentTimeMillis))
          starts(provider.used / size)
          yield* Effect.sleep("20 seconds")
          provider.spend(tokens, yield* Clock.currentTimeMillis)
          return { value: tokens, actual: { inputTokens: 1, outputTokens: tokens }, signal }
        }),
      how
    )
  )

const windowOf = Effect.flatMap(Governor.Governor, ({ windows }) =>
  Effect.map(windows, (all) => all.find(({ name }) => name === "5h")!)
)

const causeOf = (error: unknown): unknown =>
  error instanceof Budget.BudgetError && error.reason._tag === "Denied" ? error.reason.cause : error

describe("long windows", () => {
  it.effect("keep batch work to its share, and interactive calls use the rest", () =>
    Effect.gen(function* () {
      const provider = new Subscription()
      const call = (priority: number) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(Effect.exit(ask(provider, 100_000, { priority })))
          yield* TestClock.adjust("20 seconds")
          return yield* Fiber.join(fiber)
        })
      let refused: unknown
      for (let n = 0; n < 100 && refused === undefined; n++) {
        const exit = yield* call(-1)
        if (exit._tag === "Failure") refused = causeOf((exit.cause.reasons[0] as { readonly error: unknown }).error)
      }
      // One call is a hundredth of the window, and so is the step of the header.
      assert.isAtLeast(provider.used / size, 0.7 * 0.95)
      assert.isAtMost(provider.used / size, 0.7 + 0.02)
      if (!(refused instanceof Spending.WindowShareUsed)) return assert.fail(String(refused))
      assert.strictEqual(refused.until, Math.round(provider.resetsAt / 1_000) * 1_000)
      assert.match(
        refused.message,
        /^(?:69|70)(?:\.\d)? % of the account's window of 5h are used.*70 %: wait until 1970/
      )
      for (let n = 0; n < 25; n++) assert.strictEqual((yield* call(1))._tag, "Success")
      assert.isAtLeast(provider.used / size, 0.9)
      assert.strictEqual((yield* call(0))._tag, "Failure")
      // At the reset the share is free again.
      yield* TestClock.setTime(provider.resetsAt)
      assert.strictEqual((yield* call(-1))._tag, "Success")
    }).pipe(Effect.provide(live({ "5h": { share: 0.7 } })))
  )

  it.effect("are used up to their shares over three resets, a restart and a second user, and no work is lost", () =>
    Effect.gen(function* () {
      const provider = new Subscription()
      const waits: Array<number> = []
      const errors: Array<number> = []
      let done = 0
      let largest = 0
      /** Eight agents that make calls of various sizes one after another. */
      const work = (calls: number) =>
        Effect.forEach(
          Array.from({ length: 8 }, (_, n) => n),
          (n) =>
            Effect.forEach(
              Array.from({ length: calls }, (_, m) => 100_000 + 50_000 * ((n + m) % 5)),
              (tokens) =>
                Effect.tap(
                  ask(provider, tokens, { priority: -1 }, (used) => (largest = Math.max(largest, used))),
                  () => Effect.sync(() => done++)
                ),
              { discard: true }
            ),
          { concurrency: "unbounded", discard: true }
        ).pipe(Spending.waitForReset(({ until }) => waits.push(until)))
      /** Somebody else uses the account. */
      const other = Effect.forever(
        Effect.andThen(
          Effect.sleep("5 minutes"),
          Effect.map(Clock.currentTimeMillis, (now) => provider.spend(20_000, now))
        )
      )
      yield* Effect.forkChild(other)
      const Json = Schema.fromJsonString(Estimator.Learned)
      let learned: Estimator.Learned | undefined
      for (const calls of [3, 15]) {
        const context = yield* Layer.build(live({ "5h": { share: 0.7 } }, learned))
        const running = yield* Effect.forkChild(Effect.provideContext(work(calls), context))
        for (let n = 0; n < 2_000 && running.pollUnsafe() === undefined; n++) yield* TestClock.adjust("1 minute")
        yield* Fiber.join(running)
        const { used } = yield* Effect.provideContext(windowOf, context)
        errors.push(Math.abs(used - provider.used / size))
        const governor = yield* Effect.provideContext(Governor.Governor, context)
        // The state goes through a file.
        learned = Schema.decodeUnknownSync(Json)(Schema.encodeSync(Json)(yield* governor.learned))
      }
      assert.strictEqual(done, 8 * 18)
      assert.isAtLeast(provider.ended.length, 3)
      // The second user goes on after the share is used.
      for (const used of provider.ended.slice(0, 3)) assert.isAtLeast(used, 0.7 * 0.95)
      for (const error of errors) assert.isAtMost(error, 0.03)
      assert.isAtLeast(waits.length, 3)
      // A call starts within the share, but for the step of the header and what the other user has spent since.
      assert.isAtMost(largest, 0.7 + 0.01 + 0.004)
    }).pipe(Effect.scoped)
  )

  it.effect("predict the fraction within a point after 50 calls", () =>
    Effect.gen(function* () {
      const provider = new Subscription()
      for (let n = 0; n < 60; n++) {
        const fiber = yield* Effect.forkChild(ask(provider, 30_000 + 1_000 * (n % 7)))
        yield* TestClock.adjust("20 seconds")
        yield* Fiber.join(fiber)
        if (n < 50) continue
        const { dollars, used } = yield* windowOf
        assert.closeTo(used, provider.used / size, 0.01)
        assert.closeTo(dollars!, 10, 1)
      }
    }).pipe(Effect.provide(live({ "5h": { share: 1 } })))
  )

  it.effect("refuse everybody until the reset once the provider has rejected a call", () =>
    Effect.gen(function* () {
      const resetsAt = 3 * hour
      const headers = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
        "anthropic-ratelimit-unified-5h-utilization": "1.0",
        "anthropic-ratelimit-unified-5h-reset": String(resetsAt / 1_000)
      }
      const governor = yield* Governor.Governor
      const run = (fails: boolean) =>
        governor.run(
          { model: "claude-test", bytes: 10, maxTokens: 10 },
          () =>
            fails
              ? Effect.fail(
                  new LlmError({ reason: new RateLimited({ status: 429, signal: Signals.fromHeaders(headers) }) })
                )
              : Effect.succeed({ value: "" }),
          { priority: 1 }
        )
      yield* Effect.exit(run(true))
      const error = causeOf(yield* Effect.flip(run(false)))
      if (!(error instanceof Spending.WindowShareUsed)) return assert.fail(String(error))
      assert.strictEqual(error.message, "The account's window of 5h is used up: wait until 1970-01-01T03:00:00.000Z")
      // A call that may wait until then does so, and starts at the reset.
      const patient = governor.run(
        { model: "claude-test", bytes: 10, maxTokens: 10 },
        () => Effect.succeed({ value: "late" }),
        {
          maxWait: "3 hours"
        }
      )
      const waiting = yield* Effect.forkChild(patient)
      yield* TestClock.adjust(resetsAt - 1)
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(waiting), "late")
    }).pipe(Effect.provide(live({ "5h": { share: 0.7 } })))
  )

  it.effect("go on from a fraction that jumps down in the middle of a window, and from one that is old", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const hears = (used: number, resetsAt: number) =>
        governor.run({ model: "claude-test", bytes: 10, maxTokens: 10 }, () =>
          Effect.succeed({
            value: "",
            actual: { inputTokens: 1, outputTokens: 100_000 },
            signal: Signals.fromHeaders({
              "anthropic-ratelimit-unified-5h-utilization": String(used),
              "anthropic-ratelimit-unified-5h-reset": String(resetsAt / 1_000)
            })
          })
        )
      for (const used of [0.5, 0.52, 0.54]) yield* hears(used, 5 * hour)
      yield* hears(0.2, 5 * hour)
      assert.closeTo((yield* windowOf).used, 0.2, 0.04)
      yield* TestClock.setTime(6 * hour)
      yield* hears(0.01, 11 * hour)
      yield* hears(0.99, 5 * hour)
      const { resetsAt, used } = yield* windowOf
      assert.deepStrictEqual(resetsAt, 11 * hour)
      assert.isBelow(used, 0.1)
    }).pipe(Effect.provide(live({ "5h": { share: 0.9 } })))
  )

  for (const share of [0, 1.2, Number.NaN]) {
    it(`reject a share of ${share}`, () =>
      assert.throws(
        () => live({ "5h": { share } }),
        RangeError,
        /windows\.5h\.share: expected a number > 0, at most 1/
      ))
  }

  it("reject a window that no provider has", () =>
    assert.throws(() => live({ "1h": { share: 0.5 } } as never), RangeError, /"1h"/))

  for (const [what, headers] of [
    [
      "an overage account",
      { "anthropic-ratelimit-unified-reset": "1", "anthropic-ratelimit-unified-overage-reset": "2" }
    ],
    ["a fraction without a reset", { "anthropic-ratelimit-unified-5h-utilization": "0.4" }],
    [
      "words instead of numbers",
      { "anthropic-ratelimit-unified-5h-utilization": "most", "anthropic-ratelimit-unified-5h-reset": "soon" }
    ]
  ] as const) {
    it(`know nothing from ${what}`, () => assert.isUndefined(Signals.fromHeaders(headers)))
  }
})
