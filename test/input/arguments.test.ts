import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Agents from "floodgate/Agents"
import * as Floodgate from "floodgate/anthropic"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import { create } from "floodgate/promise"
import * as Retry from "floodgate/Retry"
import { ProviderSim } from "floodgate/testing"
import { MapStore } from "../support/store.ts"

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

const share = (options: BudgetStore.Options) => BudgetStore.layer(new MapStore(), options)

const apiKey = Redacted.make("a key of some length")

const governed = Layer.provide(Governor.layer(), Budget.layer())

describe("durations that make no sense", () => {
  const call = (options: LlmClient.CallOptions) =>
    Layer.effectDiscard(
      LlmClient.create({ model: "m", max_tokens: 1, messages: [{ role: "user", content: "x" }] }, options)
    ).pipe(Layer.provide(LlmClient.layerProvider()), Layer.provide(ProviderSim.layer()))
  const rows: ReadonlyArray<readonly [option: string, make: () => unknown]> = [
    ["CallOptions.timeout", () => call({ timeout: -1 })],
    ["CallOptions.timeout", () => call({ timeout: "5 sec" as "5 seconds" })],
    ["CallOptions.maxWait", () => call({ maxWait: "5 sec" as "5 seconds" })],
    ["Anthropic.timeout", () => LlmClient.layer({ apiKey, timeout: 0 })],
    ["Anthropic.idleTimeout", () => LlmClient.layer({ apiKey, idleTimeout: NaN })],
    [
      "Floodgate.idleTimeout",
      () => Effect.runSync(Effect.provide(Effect.scoped(Floodgate.make({ idleTimeout: 0 })), governed))
    ],
    ["Floodgate.create: idleTimeoutSeconds", () => create({ idleTimeoutSeconds: 0 })],
    ["Agents.run: cap.time", () => run({ cap: { time: "5 sec" as "5 seconds" } })],
    ["BudgetStore: lease", () => share({ lease: 0 })],
    ["BudgetStore: timeout", () => share({ timeout: NaN })],
    ["BudgetStore: degradeFor", () => share({ degradeFor: -1 })],
    ["BudgetStore: whenAway.wait", () => share({ whenAway: { wait: Infinity } })],
    [
      "Budget.cooldown: retryAfter",
      () =>
        Layer.effectDiscard(
          Effect.flatMap(Budget.TokenBudget, (budget) =>
            budget.cooldown({ reason: "rateLimit", retryAfter: "5 sec" as "5 seconds" })
          )
        ).pipe(Layer.provide(Budget.layer()))
    ],
    ["Retry.withDeadline", () => Layer.effectDiscard(Retry.withDeadline(Effect.void, "5 sec" as "5 seconds"))]
  ]
  it.effect("are refused by name", () =>
    Effect.gen(function* () {
      for (const [option, make] of rows) assert.include(yield* complaint(make), `RangeError: ${option}: expected `)
    })
  )
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
