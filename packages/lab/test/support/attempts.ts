/**
 * When a strategy of the lab sends its requests, and when a client does, after the same failures: the one in simulated time, the
 * other in time that is faked.
 */
import { vi } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import { Scenario } from "@floodgate/lab/internal"
import { ConnectionFailed, LlmError, RateLimited, ServerFailed } from "floodgate/LlmError"
import { LlmProvider } from "floodgate/LlmProvider"
import { ProviderSim, Simulation } from "floodgate/testing"
import { strategy } from "./race.ts"

/** The answers of a provider, in order. */
export type Answer = { readonly status: number; readonly retryAfter?: number } | "refused"

const errorOf = (answer: Answer): LlmError =>
  answer === "refused"
    ? new LlmError({ reason: new ConnectionFailed({ sent: false }) })
    : new LlmError({
        reason:
          answer.status === 429
            ? new RateLimited({
                status: 429,
                retryAfter: answer.retryAfter === undefined ? undefined : Duration.seconds(answer.retryAfter)
              })
            : new ServerFailed({ status: answer.status })
      })

export const params = {
  model: "claude-sonnet-5",
  max_tokens: 10,
  messages: [{ role: "user" as const, content: "hello" }]
}

/** With it every wait is a whole number of milliseconds: timers know no others. */
const random = 0.4

/** When the strategy sends its requests, with constant random numbers. */
export const attemptsOfModel = (name: string, answers: ReadonlyArray<Answer>) =>
  Effect.gen(function* () {
    const starts: Array<number> = []
    const scenario = Scenario.make({ agents: 1, calls: 1 })
    const create = Effect.flatMap(Clock.currentTimeMillis, (now) => {
      starts.push(now)
      return Effect.fail(errorOf(answers[Math.min(starts.length, answers.length) - 1]!))
    })
    const provider = { ...(yield* LlmProvider), create: () => create }
    const client = yield* strategy(name).client(scenario, []).pipe(Effect.provideService(LlmProvider, provider))
    yield* Effect.ignore(client(params, Scenario.callsOf(scenario)[0]!))
    return starts
  }).pipe(
    Effect.provideService(Random.Random, { nextDoubleUnsafe: () => random, nextIntUnsafe: () => 0 }),
    Effect.scoped,
    Effect.provide(ProviderSim.layer({})),
    Simulation.run,
    Effect.map(({ value }) => value)
  )

/** When a client with this `fetch` sends its requests. */
export const attemptsOfClient = async (
  answers: ReadonlyArray<Answer>,
  ask: (fetch: () => Promise<Response>) => Promise<unknown>
) => {
  vi.useFakeTimers()
  const chance = vi.spyOn(Math, "random").mockReturnValue(random)
  try {
    const from = Date.now()
    const starts: Array<number> = []
    const ended = ask(async () => {
      starts.push(Date.now() - from)
      const answer = answers[Math.min(starts.length, answers.length) - 1]!
      if (answer === "refused") throw new TypeError("fetch failed")
      const headers = answer.retryAfter === undefined ? {} : { "retry-after": `${answer.retryAfter}` }
      return new Response("{}", { status: answer.status, headers })
    }).catch(() => undefined)
    await vi.advanceTimersByTimeAsync(1_200_000)
    await ended
    return starts
  } finally {
    chance.mockRestore()
    vi.useRealTimers()
  }
}

/** Sequences of failures, with their names. */
export const failures: ReadonlyArray<readonly [what: string, answers: ReadonlyArray<Answer>]> = [
  [
    "429s that say when to come back",
    [
      { status: 429, retryAfter: 3 },
      { status: 429, retryAfter: 40 }
    ]
  ],
  ["a 429 that says so of more than a minute", [{ status: 429, retryAfter: 90 }]],
  ["429s that do not", [{ status: 429 }]],
  ["overload, and servers that fail", [{ status: 529 }, { status: 500 }]],
  ["what cannot be repeated", [{ status: 400 }]]
]
