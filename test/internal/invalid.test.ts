import { assert, describe, it } from "@effect/vitest"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Agents from "floodgate/Agents"
import * as FloodgateAi from "floodgate/ai"
import * as Floodgate from "floodgate/anthropic"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import * as Redis from "floodgate/redis"
import * as Retry from "floodgate/Retry"
import { ProviderSim } from "floodgate/testing"

/** The options of somebody whose compiler did not look. */
const any = (options: object): never => options as never

/** What it throws, or dies of. */
const complaint = (make: () => unknown): Effect.Effect<string> =>
  Effect.sync(make).pipe(
    Effect.flatMap((made) => (Layer.isLayer(made) ? built(made) : Effect.void)),
    Effect.exit,
    Effect.map((exit) => (Exit.isFailure(exit) ? String(Cause.squash(exit.cause)) : "no complaint"))
  )

const built = (layer: Layer.Any) =>
  Effect.scoped(Layer.build((layer as Layer.Layer<unknown>).pipe(Layer.provide(Budget.layer()))))

const run = (options: Agents.Options) => Layer.effectDiscard(Agents.run([], options)).pipe(Layer.provide(Agents.layer))

const apiKey = Redacted.make("a key of some length")
const budget = "limits, concurrency, maxQueued"

describe("durations that make no sense", () => {
  const call = (options: LlmClient.CallOptions) =>
    Layer.effectDiscard(
      LlmClient.create({ model: "m", max_tokens: 1, messages: [{ role: "user", content: "x" }] }, options)
    ).pipe(Layer.provide(LlmClient.layerProvider()), Layer.provide(ProviderSim.layer()))
  const rows: ReadonlyArray<readonly [option: string, make: () => unknown, expected: string]> = [
    ["CallOptions.timeout", () => call({ timeout: -1 }), "a duration > 0, got -1"],
    ["CallOptions.timeout", () => call({ timeout: "5 sec" as "5 seconds" }), "a duration > 0, got 5 sec"],
    ["CallOptions.maxWait", () => call({ maxWait: "5 sec" as "5 seconds" }), "a duration, got 5 sec"],
    ["Anthropic.timeout", () => LlmClient.layer({ apiKey, timeout: 0 }), "a duration > 0, got 0"],
    ["Anthropic.idleTimeout", () => LlmClient.layer({ apiKey, idleTimeout: NaN }), "a duration > 0, got NaN"],
    ["Floodgate.idleTimeout", () => Floodgate.create({ idleTimeout: 0 }), "a duration > 0, got 0"],
    ["Agents.run: cap.time", () => run({ cap: { time: "5 sec" as "5 seconds" } }), "a duration > 0, got 5 sec"],
    [
      "Budget.cooldown: retryAfter",
      () =>
        Layer.effectDiscard(
          Effect.flatMap(Budget.TokenBudget, (budget) =>
            budget.cooldown({ reason: "rateLimit", retryAfter: "5 sec" as "5 seconds" })
          )
        ).pipe(Layer.provide(Budget.layer())),
      "a duration, got 5 sec"
    ],
    [
      "Retry.withDeadline",
      () => Layer.effectDiscard(Retry.withDeadline(Effect.void, "5 sec" as "5 seconds")),
      "a duration, got 5 sec"
    ]
  ]
  for (const [option, make, expected] of rows) {
    it.effect(`${option}: expected ${expected}`, () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* complaint(make), `RangeError: ${option}: expected ${expected}`)
      })
    )
  }
})

it.effect("under a deadline that has passed nothing is sent, although there is room", () =>
  Effect.gen(function* () {
    const sim = yield* ProviderSim.ProviderSim
    const client = yield* LlmClient.LlmClient
    const params = { model: "m", max_tokens: 1, messages: [{ role: "user" as const, content: "x" }] }
    for (const after of [-1, "-5 seconds"] as const) {
      const { reason } = yield* Effect.flip(Retry.withDeadline(client.create(params), after))
      assert.include(reason, { _tag: "DeadlineMissed", isRetryable: false })
    }
    assert.strictEqual((yield* sim.stats).requests, 0)
  }).pipe(
    Effect.provide(
      LlmClient.layerProvider().pipe(Layer.provide(Budget.layer()), Layer.provideMerge(ProviderSim.layer()))
    )
  )
)

it.effect("a wait that is less than nothing is over: the rest of a time that has passed", () =>
  Effect.gen(function* () {
    const client = yield* LlmClient.LlmClient
    const params = { model: "m", max_tokens: 1, messages: [{ role: "user" as const, content: "x" }] }
    yield* Budget.consume(100)
    const late = yield* Effect.flip(client.create(params, { maxWait: -1 }))
    assert.deepInclude(late.reason, { _tag: "WaitTooLong", maxWait: Duration.zero })
  }).pipe(
    Effect.provide(
      LlmClient.layerProvider().pipe(
        Layer.provideMerge(Budget.layer({ limits: { tokens: { perSecond: 1, burst: 100 } } })),
        Layer.provide(ProviderSim.layer())
      )
    )
  )
)

describe("options that nobody reads", () => {
  const limits: ReadonlyArray<readonly [limits: object, message: string]> = [
    [
      { inputToken: { perMinute: 1 } },
      "Limits: expected nothing but requests, inputTokens, outputTokens, tokens, got inputToken"
    ],
    [
      { tokens: { perMinutes: 1 } },
      "Limits.tokens: expected nothing but perSecond, perMinute, total, burst, window, got perMinutes"
    ],
    [
      { tokens: { perMinute: 1, window: "buckets" } },
      "Limits.tokens.window: expected one of bucket, sliding, fixed, got buckets"
    ],
    [{ pools: {}, tokens: { perMinute: 1 } }, "Limits: expected nothing but pools, poolOf, got tokens"],
    [
      { pools: { one: { token: {} } } },
      "Limits: expected nothing but requests, inputTokens, outputTokens, tokens, got token"
    ]
  ]
  for (const [given, message] of limits) {
    it.effect(`in limits: ${JSON.stringify(given)}`, () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* complaint(() => Budget.layer({ limits: any(given) })), `RangeError: ${message}`)
      })
    )
  }

  const options: ReadonlyArray<readonly [name: string, make: () => unknown, message: string]> = [
    [
      "a budget",
      () => Budget.layer(any({ inputTokens: { perMinute: 1 } })),
      `Budget.make: expected nothing but ${budget}, got inputTokens`
    ],
    [
      "a middleware",
      () => Floodgate.create(any({ limit: {} })),
      `Budget.make: expected nothing but ${budget}, got limit`
    ],
    [
      "a governor",
      () => Governor.layer(any({ retries: 1 })),
      "Governor.make: expected nothing but retry, accounting, learned, got retries"
    ],
    [
      "an estimator",
      () => Estimator.layer(any({ learnt: { profiles: [] } })),
      "Estimator.make: expected nothing but accounting, learned, got learnt"
    ],
    [
      "a model of effect/ai",
      () =>
        FloodgateAi.layer(any({ model: "m", maxOutput: 1 })).pipe(
          Layer.provide([Governor.layer(), Layer.succeed(LanguageModel.LanguageModel, any({}))])
        ),
      "FloodgateAi.make: expected nothing but model, kind, maxTokens, thinking, agent, priority, weight, maxWait, retry, timeout, cacheKey, got maxOutput"
    ],
    [
      "a client",
      () => LlmClient.layer(any({ apiKey, baseURL: "http://localhost" })),
      "Anthropic.make: expected nothing but apiKey, baseUrl, timeout, idleTimeout, got baseURL"
    ],
    [
      "a middleware in Effect",
      () => Layer.effectDiscard(Floodgate.make(any({ idle: 1 }))).pipe(Layer.provide(Governor.layer())),
      "Floodgate.make: expected nothing but callOptions, idleTimeout, name, got idle"
    ],
    [
      "the store in Redis",
      () => Redis.layerStoreUrl(any({ url: "redis://127.0.0.1:1", patience: 1 })),
      "Redis.layerStore: expected nothing but prefix, whenAway, lease, lost, timeout, name, got patience"
    ],
    ["a job", () => run(any({ caps: {} })), "Agents.run: expected nothing but concurrency, cap, capPerAgent, got caps"],
    [
      "a cap",
      () => run({ cap: any({ token: 5 }) }),
      "Agents.run: cap: expected nothing but tokens, calls, time, got token"
    ],
    [
      "a retry budget",
      () => Retry.layerBudget(any({ share: 0.1 })),
      "Retry.makeBudget: expected nothing but ratio, minPerSecond, got share"
    ]
  ]
  for (const [name, make, message] of options) {
    it.effect(`of ${name}`, () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* complaint(make), `RangeError: ${message}`)
      })
    )
  }

  it("may be there without a value", () => {
    assert.doesNotThrow(() => Budget.layer(any({ limit: undefined })))
  })
})
