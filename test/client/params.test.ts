import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import * as LlmError from "floodgate/LlmError"
import { ProviderSim } from "floodgate/testing"

/** Params from a program without types, or from a file. */
const untyped = (params: unknown) => params as Parameters<typeof LlmClient.create>[0]

const valid = { model: "claude-sonnet-5", max_tokens: 10, messages: [{ role: "user", content: "Hello" }] }

const live = LlmClient.layerProvider().pipe(
  Layer.provide(Budget.layer()),
  Layer.provideMerge(ProviderSim.layer({ latency: { baseMillis: 1 } }))
)

const ways = {
  create: (params: unknown) => LlmClient.create(untyped(params)),
  stream: (params: unknown) => Stream.runDrain(LlmClient.stream(untyped(params))),
  countTokens: (params: unknown) => LlmClient.countTokens(untyped(params))
}

const problems: ReadonlyArray<readonly [params: unknown, problem: string]> = [
  [undefined, "expected an object, got undefined"],
  [[valid], "expected an object, got a list"],
  [{}, "model: expected the name of a model, got undefined"],
  [{ ...valid, model: 5 }, "model: expected the name of a model, got 5"],
  [{ ...valid, model: "" }, 'model: expected the name of a model, got ""'],
  [{ ...valid, messages: "my secret" }, "messages: expected a list, got a string"],
  [{ ...valid, system: { text: "my secret" } }, "system: expected a string or a list, got an object"],
  [{ ...valid, tools: {} }, "tools: expected a list, got an object"]
]

const counts: ReadonlyArray<readonly [params: unknown, problem: string]> = [
  [{ ...valid, max_tokens: "200" }, "max_tokens: expected a whole number >= 0, got a string"],
  [{ ...valid, max_tokens: NaN }, "max_tokens: expected a whole number >= 0, got NaN"],
  [{ ...valid, max_tokens: -1 }, "max_tokens: expected a whole number >= 0, got -1"]
]

describe("params that cannot be read", () => {
  for (const [name, call] of Object.entries(ways)) {
    for (const [params, problem] of name === "countTokens" ? problems : [...problems, ...counts]) {
      it.effect(`${name} fails at once and names the field: ${problem}`, () =>
        Effect.gen(function* () {
          const error = yield* Effect.flip(call(params))
          assert.instanceOf(error, LlmError.LlmError)
          assert.strictEqual(error.reason._tag, "InvalidRequest")
          assert.strictEqual(error.reason.detail, `LlmClient.${name}: ${problem}`)
          assert.isFalse(error.isRetryable)
          const { requests } = yield* (yield* ProviderSim.ProviderSim).stats
          assert.strictEqual(requests, 0)
        }).pipe(Effect.provide(live))
      )
    }
  }

  it.effect("passes on params that the provider may accept", () =>
    Effect.gen(function* () {
      const params = { ...valid, tools: undefined, unknown: 1 }
      const fiber = yield* Effect.forkChild(LlmClient.create(untyped(params)))
      yield* TestClock.adjust("1 minute")
      const { role } = yield* Fiber.join(fiber)
      assert.strictEqual(role, "assistant")
    }).pipe(Effect.provide(live))
  )
})
