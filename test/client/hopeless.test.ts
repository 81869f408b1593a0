import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { ConnectionFailed, LlmError } from "floodgate/LlmError"
import type { LlmProvider } from "floodgate/LlmProvider"
import { ProviderSim, Simulation } from "floodgate/testing"
import { fail, message, params, scripted } from "../support/scriptedProvider.ts"

/** Runs agents with all defaults that make one call each, and returns when and how each ended. */
const race = (agents: number, provider: Layer.Layer<LlmProvider>) =>
  Effect.gen(function* () {
    const start = yield* Clock.currentTimeMillis
    const ask = (n: number) =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(LlmClient.create(params, { agent: `agent ${n}` }))
        return { exit, millis: (yield* Clock.currentTimeMillis) - start }
      })
    const names = Array.from({ length: agents }, (_, n) => n)
    const { value } = yield* Simulation.run(Effect.forEach(names, ask, { concurrency: "unbounded" }))
    return value.sort((a, b) => a.millis - b.millis)
  }).pipe(Effect.provide(LlmClient.layerProvider()), Effect.provide(Budget.layer()), Effect.provide(provider))

const errorOf = (exit: Exit.Exit<unknown, LlmError | Budget.BudgetError>): LlmError => {
  const error = Exit.findErrorOption(exit)
  if (error._tag === "Some" && error.value instanceof LlmError) return error.value
  return assert.fail(`expected an LlmError: ${String(exit)}`)
}

/** A provider whose attempts take 50 ms, and whose outcome depends on the time. */
const unreachable = (code: string, isDown: (now: number, attempt: number) => boolean) =>
  scripted({
    create: (attempt) =>
      Effect.flatMap(Effect.andThen(Effect.sleep("50 millis"), Clock.currentTimeMillis), (now) =>
        isDown(now, attempt) ? fail(new ConnectionFailed({ sent: false, code })) : Effect.succeed(message("Hello"))
      )
  })

describe("a call that can never succeed", () => {
  it.effect("with a wrong key fails at once for all agents, with the reason", () =>
    Effect.gen(function* () {
      const provider = ProviderSim.layer({ faults: [{ kind: "401" }], latency: { rejectionMillis: 100 } })
      const ends = yield* race(40, provider)
      assert.isAtMost(ends.at(-1)!.millis, 5_000)
      for (const { exit } of ends) {
        const error = errorOf(exit)
        assert.deepStrictEqual([error.reason._tag, error.attempts], ["AccessDenied", 1])
        assert.include(error.message, "check the API key")
      }
    })
  )

  for (const [agents, code] of [
    [1, "ENOTFOUND"],
    [12, "ERR_SSL_WRONG_VERSION_NUMBER"],
    [80, "ENOTFOUND"]
  ] as const) {
    it.effect(`at an address with ${code} fails for all ${agents} agents within seconds, with the reason`, () =>
      Effect.gen(function* () {
        const { layer, seen } = unreachable(code, () => true)
        const ends = yield* race(agents, layer)
        assert.isAtMost(ends.at(-1)!.millis, 5_000)
        assert.strictEqual(seen.attempts, agents)
        for (const { exit } of ends) assert.include(errorOf(exit).message, `${code}; check the base URL`)
      })
    )

    it.effect(`at an address that refuses connections for a minute fails then for all ${agents} agents`, () =>
      Effect.gen(function* () {
        const { layer } = unreachable("ECONNREFUSED", () => true)
        const ends = yield* race(agents, layer)
        const [first, last] = [ends[0]!, ends.at(-1)!]
        assert.isAtLeast(first.millis, 60_000)
        // The probes of an outage are up to 20 s apart.
        assert.isAtMost(last.millis, 85_000)
        assert.isAtMost(last.millis - first.millis, 5_000)
        for (const { exit } of ends) assert.include(errorOf(exit).message, "ECONNREFUSED; check the base URL")
      })
    )

    for (const [what, code, isDown] of [
      ["an address that refuses for most of a minute", "ECONNREFUSED", (now: number) => now < 55_000],
      ["a name whose resolver fails for a while", "EAI_AGAIN", (now: number) => now < 90_000],
      [
        "an address that refuses for minutes after it has answered",
        "ECONNREFUSED",
        (now: number, n: number) => n > 1 && now < 180_000
      ],
      ["a name that is gone after it has answered", "ENOTFOUND", (now: number, n: number) => n > 1 && now < 180_000]
    ] as const) {
      it.effect(`${what} is no reason to give up for any of ${agents} agents`, () =>
        Effect.gen(function* () {
          const { layer } = unreachable(code, isDown)
          const ends = yield* race(agents, layer)
          assert.isTrue(ends.every(({ exit }) => Exit.isSuccess(exit)))
        })
      )
    }
  }

  it.effect("that is larger than the provider's limit is sent once, and refused with that limit", () =>
    Effect.gen(function* () {
      const large = { ...params, messages: [{ role: "user" as const, content: "x".repeat(400_000) }] }
      const { value: error } = yield* Simulation.run(
        Effect.flip(LlmClient.create(large, { inputTokens: 100_000, agent: "large" }))
      )
      assert.instanceOf(error, Budget.BudgetError)
      const { failure, reason } = error
      if (reason._tag !== "EstimateTooLarge") return assert.fail(reason._tag)
      assert.deepStrictEqual([reason.dimension, reason.asked, reason.limit], ["inputTokens", 100_000, 20_000])
      assert.isTrue(failure instanceof LlmError && failure.reason._tag === "RateLimited")
      assert.isFalse(error.isRetryable)
      yield* Simulation.run(LlmClient.create(params, { agent: "small" }))
      const { stats } = yield* ProviderSim.ProviderSim
      const { accepted, rejected } = yield* stats
      assert.deepStrictEqual([accepted, rejected], [1, 1])
    }).pipe(
      Effect.provide(LlmClient.layerProvider()),
      Effect.provide(Budget.layer()),
      Effect.provide(
        ProviderSim.layer({
          limits: { requests: { perMinute: 1_000 }, inputTokens: { perMinute: 20_000 } },
          oversize: "reject",
          headers: "exact"
        })
      )
    )
  )

  it.effect("with a retry-after beyond its deadline fails at once, with the time", () =>
    Effect.gen(function* () {
      const { duration, value: error } = yield* Simulation.run(LlmClient.create(params).pipe(Effect.flip))
      assert.instanceOf(error, LlmError)
      assert.deepStrictEqual([error.reason._tag, error.stoppedBy, error.attempts], ["RateLimited", "deadline", 1])
      assert.deepStrictEqual(error.retryAfter, Duration.minutes(30))
      assert.isAtMost(Duration.toMillis(duration), 1_000)
    }).pipe(
      Effect.provide(LlmClient.layerProvider()),
      Effect.provide(Budget.layer()),
      Effect.provide(ProviderSim.layer({ faults: [{ kind: "429", retryAfterMillis: 1_800_000 }], headers: "exact" }))
    )
  )
})
