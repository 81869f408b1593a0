/**
 * LlmClient composes TokenBudget and the retry policy. Each of these tests fails if the client ignores the policy that it is given.
 * `test/card/sabotage.full.test.ts` shows it.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { InvalidRequest, type LlmError } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import { fail, params, scripted } from "../support/scriptedProvider.ts"

// Loads the SDK here, because a test has little time.
await import("floodgate/providers/Anthropic")

/** The seconds at which a client sends a request that always fails. */
const sends = Effect.fnUntraced(function* (
  retry: Retry.Policy<LlmError>,
  call: Effect.Effect<unknown, unknown, LlmClient.LlmClient> = LlmClient.create(params)
) {
  const times: Array<number> = []
  const failing = () =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      times.push(now / 1_000)
      return fail(new InvalidRequest({ status: 409 }))
    })
  const { layer } = scripted({ create: failing, stream: failing, countTokens: failing })
  const live = LlmClient.layerProvider({ retry }).pipe(Layer.provide(Budget.layer()), Layer.provide(layer))
  const fiber = yield* Effect.forkChild(Effect.exit(Effect.provide(call, live)))
  yield* TestClock.adjust("11 minutes")
  yield* Fiber.join(fiber)
  return times
})

describe("the card: LlmClient", () => {
  it.effect("LlmClient sends two requests by a policy of two attempts", () =>
    Effect.gen(function* () {
      const twice = Retry.make<LlmError>({ attempts: 2 })
      assert.lengthOf(yield* sends(twice), 2)
      assert.lengthOf(yield* sends(twice, Stream.runDrain(LlmClient.stream(params))), 2)
      assert.lengthOf(yield* sends(twice, LlmClient.countTokens(params)), 2)
    })
  )

  it.effect("LlmClient sends when the backoff of its policy says", () =>
    Effect.gen(function* () {
      const backoff = Schedule.spaced("7 seconds")
      assert.deepStrictEqual(yield* sends(Retry.make<LlmError>({ attempts: 3, backoff })), [0, 7, 14])
    })
  )

  it.effect("LlmClient sends two requests through the SDK, too, by a policy of two attempts", () =>
    Effect.gen(function* () {
      let requests = 0
      const { fetch } = globalThis
      globalThis.fetch = () => {
        requests++
        return Promise.resolve(new Response("{}", { status: 409 }))
      }
      yield* Effect.addFinalizer(() => Effect.sync(() => (globalThis.fetch = fetch)))
      const retry = Retry.make<LlmError>({ attempts: 2, backoff: Schedule.forever })
      const live = LlmClient.layer({ apiKey: Redacted.make("any"), retry }).pipe(Layer.provide(Budget.layer()))
      const fiber = yield* Effect.forkChild(Effect.exit(Effect.provide(LlmClient.create(params), live)))
      while (fiber.pollUnsafe() === undefined) {
        yield* TestClock.adjust("1 minute")
        yield* Effect.promise(() => new Promise(setImmediate))
      }
      assert.strictEqual(requests, 2)
    })
  )
})
