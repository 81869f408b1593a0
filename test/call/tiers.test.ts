/** Tiers with limits of their own. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import type { Params } from "floodgate/LlmProvider"
import * as Presets from "floodgate/Presets"
import { ProviderSim, Simulation } from "floodgate/testing"

const params = (speed?: "fast"): Params => ({
  model: "claude-opus-5",
  max_tokens: 10,
  messages: [{ role: "user", content: "x".repeat(4_000) }],
  ...(speed !== undefined && { speed })
})

/** The level of each pool after a fast call of 1,000 tokens and a standard one, which waited for nothing. */
const levels = (limits: Budget.Options["limits"], dimension: "tokens" | "inputTokens") =>
  Effect.gen(function* () {
    const { create } = yield* LlmClient.LlmClient
    for (const speed of ["fast", undefined] as const) yield* create(params(speed), { inputTokens: 1_000 })
    const { status } = yield* Budget.TokenBudget
    const { pools } = yield* status
    return Object.entries(pools).flatMap(([name, { dimensions }]) => {
      const { capacity, level } = dimensions[dimension] ?? { capacity: 0, level: 0 }
      return level < capacity ? [name] : []
    })
  }).pipe(
    Effect.provide(
      LlmClient.layerProvider().pipe(
        Layer.provideMerge(Budget.layer({ limits })),
        Layer.provideMerge(ProviderSim.layer({ headers: "none", latency: { baseMillis: 0 } }))
      )
    ),
    Simulation.run,
    Effect.map(({ value }) => value)
  )

describe("A fast call", () => {
  it.effect("takes nothing from the pool of standard calls", () =>
    Effect.gen(function* () {
      const one = { tokens: { total: 1_000_000 } }
      assert.sameMembers(yield* levels(one, "tokens"), ["default", "fast"])
      const perClass = { pools: { "opus-5": { inputTokens: { total: 1_000_000 } } } }
      assert.sameMembers(yield* levels(perClass, "inputTokens"), ["opus-5", "fast/opus-5"])
    })
  )

  it.effect("is not held back by a rejection of a standard call", () =>
    Effect.gen(function* () {
      const client = yield* LlmClient.LlmClient
      const budget = yield* Budget.TokenBudget
      yield* client.create(params(), { inputTokens: 1_000 })
      yield* budget.pause({ duration: "1 hour", pool: "opus-5" })
      yield* client.create(params("fast"), { inputTokens: 1_000, maxWait: 0 })
    }).pipe(
      Effect.provide(
        LlmClient.layerProvider().pipe(
          Layer.provideMerge(Budget.layer({ limits: Presets.anthropic.start })),
          Layer.provideMerge(ProviderSim.layer({ latency: { baseMillis: 0 } }))
        )
      ),
      Simulation.run
    )
  )
})
