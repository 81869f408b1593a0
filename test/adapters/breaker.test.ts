import Anthropic, { InternalServerError } from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import * as AiError from "effect/ai/AiError"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as FloodgateAi from "floodgate/ai"
import * as Floodgate from "floodgate/anthropic"
import * as Breaker from "floodgate/breaker"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as LlmError from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import { rejection } from "../support/rejection.ts"
import { together } from "../support/together.ts"

const limited = Budget.layer({ limits: { inputTokens: { perSecond: 0.001, burst: 1_000_000 } } })
/**
 * A budget that does not react to outages. A real one would let calls wait; with this one, only the breaker holds calls back.
 */
const unlimited = Layer.effect(
  Budget.TokenBudget,
  Effect.map(Budget.TokenBudget, (budget) => ({ ...budget, poolOf: (model: string) => model }))
).pipe(Layer.provide(Budget.layerUnlimited))
const once = Retry.make({ attempts: 1 })

const layer = (options: Parameters<typeof Breaker.layer>[0] = { failures: 2 }, retry = once, budget = unlimited) =>
  Governor.layer({ retry }).pipe(
    Layer.provide(Breaker.layer(options)),
    Layer.provideMerge(budget),
    Layer.provideMerge(Retry.layerBudget({ minPerSecond: Infinity }))
  )

const run = <A>(attempt: Effect.Effect<A, LlmError.LlmError>, model = "a", how?: Governor.CallOptions) =>
  Effect.flatMap(Governor.Governor, (governor) =>
    governor.run({ model, bytes: 1, inputTokens: 1_000 }, () => Effect.map(attempt, (value) => ({ value })), how)
  )

const fail = (reason: LlmError.LlmErrorReason) => Effect.fail(new LlmError.LlmError({ reason }))
const broken = fail(new LlmError.ServerFailed({ status: 500 }))
const lost = fail(new LlmError.ConnectionFailed({ sent: true, code: "ECONNRESET" }))

const reasonOf = <A, R>(self: Effect.Effect<A, LlmError.LlmError | Budget.BudgetError, R>) =>
  Effect.map(Effect.flip(self), (error) => {
    assert.instanceOf(error, LlmError.LlmError)
    return error.reason
  })

const input = Effect.gen(function* () {
  const budget = yield* Budget.TokenBudget
  const { dimensions, inFlight } = (yield* budget.status).pools.default!
  assert.strictEqual(inFlight, 0)
  return 1_000_000 - dimensions.inputTokens!.level
})

describe("breaker", () => {
  it.effect("opens after failures in a row, sends nothing while it is open, and names the time until a probe", () =>
    Effect.gen(function* () {
      yield* Effect.exit(run(lost))
      yield* run(Effect.succeed(1))
      yield* Effect.exit(run(lost))
      yield* Effect.exit(run(lost))
      const reason = yield* reasonOf(run(Effect.die("was sent")))
      assert.strictEqual(reason._tag, "CircuitOpen")
      assert.deepStrictEqual(reason.retryAfter, Duration.seconds(5))
    }).pipe(Effect.provide(layer()))
  )

  it.effect("refunds a call that it refuses", () =>
    Effect.gen(function* () {
      yield* Effect.exit(run(broken))
      const before = yield* input
      assert.strictEqual((yield* reasonOf(run(Effect.die("was sent"))))._tag, "CircuitOpen")
      assert.strictEqual(yield* input, before)
    }).pipe(Effect.provide(layer({ failures: 1 }, once, limited)))
  )

  // It was built once for the whole program, with the options of the first.
  it.effect("two governors of a program have separate breakers", () =>
    Effect.gen(function* () {
      const governors = yield* together([1, 2].map((failures) => layer({ failures })))
      const tags = yield* Effect.forEach(governors, (governor) =>
        Effect.provideContext(Effect.andThen(Effect.exit(run(lost)), reasonOf(run(lost))), governor)
      )
      assert.deepStrictEqual(
        tags.map(({ _tag }) => _tag),
        ["CircuitOpen", "ConnectionFailed"]
      )
    }).pipe(Effect.scoped)
  )

  it.effect("each pool has its own circuit", () =>
    Effect.gen(function* () {
      for (let n = 0; n < 2; n++) yield* Effect.exit(run(broken))
      assert.strictEqual((yield* reasonOf(run(broken)))._tag, "CircuitOpen")
      assert.strictEqual(yield* run(Effect.succeed(1), "b"), 1)
    }).pipe(Effect.provide(layer()))
  )

  it.effect("never opens for failures that are not signs of an outage", () =>
    Effect.gen(function* () {
      const reasons = [
        new LlmError.RateLimited({ status: 429, retryAfter: Duration.millis(1) }),
        new LlmError.RampLimited({ status: 429, retryAfter: Duration.millis(1) }),
        new LlmError.SpendLimited({ status: 429 }),
        new LlmError.InvalidRequest({ status: 400 }),
        new LlmError.AccessDenied({ status: 401 }),
        new LlmError.InvalidRequest({ status: 409 })
      ]
      for (const reason of reasons) {
        for (let n = 0; n < 5; n++) {
          assert.strictEqual((yield* reasonOf(run(fail(reason))))._tag, reason._tag)
          yield* TestClock.adjust("1 minute")
        }
      }
      for (let n = 0; n < 5; n++) yield* Effect.exit(run(Effect.interrupt))
      assert.strictEqual(yield* run(Effect.succeed(1)), 1)
    }).pipe(Effect.provide(layer({ failures: 1 })))
  )

  it.effect("counts timeouts of the governor", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(reasonOf(run(Effect.never, "a", { timeout: "1 second" })))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "TimedOut")
      assert.strictEqual((yield* reasonOf(run(broken)))._tag, "CircuitOpen")
    }).pipe(Effect.provide(layer({ failures: 1 })))
  )

  // The adapters' attempts fail with what their own callers get, and no circuit opened for it.
  it.effect("counts failures of a model of effect/ai, and returns them unchanged", () => {
    let sent = 0
    const reason = new AiError.InternalProviderError({ description: "down" })
    const model = LanguageModel.make({
      generateText: () =>
        Effect.suspend(() => {
          sent++
          return Effect.fail(AiError.make({ module: "Test", method: "any", reason }))
        }),
      streamText: () => Stream.empty
    })
    return Effect.gen(function* () {
      const ask = Effect.flip(LanguageModel.generateText({ prompt: "Hello" }))
      const errors = yield* Effect.all([ask, ask, ask])
      assert.strictEqual(sent, 2)
      assert.deepStrictEqual(
        errors.map((error) => error.reason === reason),
        [true, true, false]
      )
    }).pipe(
      Effect.provide(
        FloodgateAi.layer({ model: "a" }).pipe(
          Layer.provide(Layer.effect(LanguageModel.LanguageModel, model)),
          Layer.provide(layer())
        )
      )
    )
  })

  it.effect("counts failures of the SDK's requests, and returns them unchanged", () => {
    let sent = 0
    const answer = async () => {
      sent++
      return new Response(JSON.stringify({ type: "error", error: { type: "api_error" } }), { status: 500 })
    }
    return Effect.gen(function* () {
      const middleware = yield* Floodgate.make()
      const client = new Anthropic({ apiKey: "any", middleware: [middleware], fetch: answer })
      const params = { model: "a", max_tokens: 9, messages: [{ role: "user" as const, content: "Hello" }] }
      const ask = rejection(() => client.messages.create(params))
      const [first, second, third] = yield* Effect.all([ask, ask, ask])
      assert.strictEqual(sent, 2)
      assert.instanceOf(first, InternalServerError)
      assert.instanceOf(second, InternalServerError)
      assert.instanceOf(third, LlmError.LlmError)
      assert.strictEqual(third.reason._tag, "CircuitOpen")
    }).pipe(Effect.provide(layer()))
  })

  it.effect("lets one call through when its time is over, and closes when that succeeds", () =>
    Effect.gen(function* () {
      yield* Effect.exit(run(broken))
      yield* TestClock.adjust("4999 millis")
      assert.strictEqual((yield* reasonOf(run(broken)))._tag, "CircuitOpen")
      yield* TestClock.adjust("1 millis")
      const gate = yield* Deferred.make<number>()
      const probe = yield* Effect.forkChild(run(Deferred.await(gate)))
      yield* Effect.yieldNow
      const other = yield* reasonOf(run(Effect.die("was sent")))
      assert.deepStrictEqual([other._tag, other.retryAfter], ["CircuitOpen", undefined])
      yield* Deferred.succeed(gate, 7)
      assert.strictEqual(yield* Fiber.join(probe), 7)
      assert.strictEqual(yield* run(Effect.succeed(1)), 1)
    }).pipe(Effect.provide(layer({ failures: 1 })))
  )

  it.effect("stays open longer with each opening in a row, and as long as the provider asks", () =>
    Effect.gen(function* () {
      const open = Effect.map(reasonOf(run(Effect.die("was sent"))), ({ retryAfter }) =>
        Duration.toSeconds(retryAfter!)
      )
      const seconds: Array<number> = []
      for (let n = 0; n < 5; n++) {
        yield* Effect.exit(run(broken))
        seconds.push(yield* open)
        yield* TestClock.adjust(Duration.seconds(seconds[n]!))
      }
      assert.deepStrictEqual(seconds, [5, 10, 20, 40, 40])
      yield* Effect.exit(run(fail(new LlmError.ServerFailed({ status: 500, retryAfter: Duration.minutes(3) }))))
      assert.strictEqual(yield* open, 180)
    }).pipe(Effect.provide(layer({ failures: 1 })))
  )

  it.effect("a retry waits as long as the circuit is open, and holds nothing meanwhile", () =>
    Effect.gen(function* () {
      yield* Effect.exit(run(broken, "a", { retry: once }))
      const fiber = yield* Effect.forkChild(run(Effect.succeed(1)))
      yield* TestClock.adjust("4999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* input
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* Fiber.join(fiber), 1)
    }).pipe(Effect.provide(layer({ failures: 1 }, Retry.make({ base: "1 second", attempts: 2 }), limited)))
  )

  it("refuses an invalid number of failures", () => {
    assert.throws(() => Breaker.layer({ failures: 0 }), RangeError)
  })
})
