/** Agents that share a limit with a neighbour who takes half of it unseen. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import { LlmProvider } from "floodgate/LlmProvider"
import { ProviderSim } from "floodgate/testing"
import { retryOf } from "./budget.ts"
import { mulberry, normal } from "./random.ts"

export interface Run {
  readonly sim: ProviderSim.Options
  readonly limits: Limits.Limits
  readonly agents: number
  readonly calls: number
  /** The mean size of a call in tokens, and how it varies. */
  readonly tokens: number
  readonly sigma: number
  readonly seed: number
  readonly options?: Budget.Options
}

/** Tokens per character of the request, so that large calls are short strings. */
const tokensPerCharacter = 100
/** The longest wait, in milliseconds, of a call whose rejection was isolated. */
const longestWait = 2_000

export const run = ({ agents, calls, limits, options, seed, sigma, sim, tokens }: Run) => {
  const random = mulberry(seed)
  const sizes = Array.from({ length: agents * calls }, () =>
    Math.max(1, Math.round((tokens * Math.exp(sigma * normal(random) - (sigma * sigma) / 2)) / tokensPerCharacter))
  )
  const call = Effect.fnUntraced(function* (size: number, agent: string) {
    const provider = yield* LlmProvider
    const inputTokens = size * tokensPerCharacter
    for (let first = false; ; first = true) {
      const done = yield* Budget.withReservation(
        { inputTokens, outputTokens: 50 },
        (reservation) =>
          provider
            .create({
              model: "claude-sonnet-5",
              max_tokens: 50,
              metadata: { user_id: agent },
              messages: [{ role: "user", content: "x".repeat(size) }]
            })
            .pipe(
              Effect.matchEffect({
                onSuccess: ({ signal, value }) =>
                  Effect.gen(function* () {
                    if (signal !== undefined) yield* reservation.observe({ ...signal })
                    yield* reservation.settle({ inputTokens, outputTokens: value.usage.output_tokens })
                    return true
                  }),
                onFailure: (error) =>
                  Effect.gen(function* () {
                    const signal = "signal" in error.reason ? error.reason.signal : undefined
                    const { retryAfter } = error
                    const verdict = yield* reservation.fail({ reason: "rateLimit", retryAfter, signal })
                    if (verdict === "isolated") yield* Effect.sleep(Math.ceil(longestWait * random()))
                    return false
                  })
              })
            ),
        retryOf({ agent }, first)
      )
      if (done) return
    }
  })
  return Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(
      Effect.andThen(
        Effect.forEach(
          Array.from({ length: agents }, (_, i) => i),
          (i) =>
            Effect.forEach(sizes.slice(i * calls, (i + 1) * calls), (size) => call(size, `agent-${i}`), {
              discard: true
            }),
          { concurrency: "unbounded", discard: true }
        ),
        Clock.currentTimeMillis
      )
    )
    while (fiber.pollUnsafe() === undefined) yield* TestClock.adjust("10 seconds")
    const millis = yield* Fiber.join(fiber)
    const { stats } = yield* ProviderSim.ProviderSim
    const { accepted, rejected } = yield* stats
    const total = sizes.reduce((a, b) => a + b, 0) * tokensPerCharacter
    return { millis, accepted, rejected, total }
  }).pipe(
    Effect.provide(
      Layer.mergeAll(
        Budget.layer({ limits, ...options }),
        ProviderSim.layer({ charsPerToken: 1 / tokensPerCharacter, outputTokens: 50, ...sim })
      )
    ),
    Effect.provide(TestClock.layer())
  )
}
