/**
 * Strategies with the usual queues around a client: p-limit and p-queue, which count calls, and Bottleneck, which can count tokens. They
 * run the packages themselves, in simulated time.
 *
 * Each is raced twice: around the SDK's own retries, as in code that simply wraps its calls, and as its best users configure
 * it, with the SDK's retries off and a retry loop around the queue.
 */
import type Bottleneck from "bottleneck"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { LlmProvider } from "floodgate/LlmProvider"
import pLimit from "p-limit"
import type PQueue from "p-queue"
import * as Scenario from "../scenario.ts"
import type { Strategy } from "../strategy.ts"
import { countsOutput, tokensOf } from "./limitOf.ts"
import { attemptOf, tenAttempts, withSdkRetries } from "./peers.ts"
import * as SimulatedPackage from "./simulatedPackage.ts"

/** Makes the queue of a race: a function that queues a job with its number of tokens. */
type Queue = Effect.Effect<(tokens: number) => SimulatedPackage.Add, never, Scope.Scope>

/** The number of calls of mean size that the limit allows per second. */
const callsPerSecond = (scenario: Scenario.Scenario): number => {
  const calls = Scenario.callsOf(scenario)
  const tokens = calls.reduce(
    (sum, call) => sum + call.inputTokens + (countsOutput(scenario) ? call.outputTokens : 0),
    0
  )
  return Math.max(1, Math.floor((tokensOf(scenario).perSecond * calls.length) / tokens))
}

/** The texts of a strategy. */
type StrategyTexts = Pick<Strategy, "name" | "summary" | "settings" | "why">

/** Queues a call of the SDK with its two retries as one job. */
const aroundTheSdk = (described: StrategyTexts, queueOf: (scenario: Scenario.Scenario) => Queue): Strategy => ({
  ...described,
  client: Effect.fnUntraced(function* (scenario) {
    const provider = yield* LlmProvider
    const queue = yield* queueOf(scenario)
    return (params, call) =>
      SimulatedPackage.queued(
        queue(call.inputTokens + (countsOutput(scenario) ? params.max_tokens : 0)),
        withSdkRetries(provider, params)
      )
  })
})

/** Queues each attempt as its own job, so that it waits and is charged again. */
const aroundEachAttempt = (described: StrategyTexts, queueOf: (scenario: Scenario.Scenario) => Queue): Strategy => ({
  ...described,
  client: Effect.fnUntraced(function* (scenario) {
    const provider = yield* LlmProvider
    const queue = yield* queueOf(scenario)
    return (params, call) =>
      tenAttempts(
        SimulatedPackage.queued(
          queue(call.inputTokens + (countsOutput(scenario) ? params.max_tokens : 0)),
          attemptOf(provider, params)
        )
      )
  })
})

// -----------------------------------------------------------------------------
// p-limit
// -----------------------------------------------------------------------------

const atOnce = 4

const limitOf = (): Queue =>
  Effect.sync(() => {
    const limit = pLimit(atOnce)
    return () => (job) => limit(job)
  })

/** Four calls at once, and the SDK's two retries inside. */
export const semaphore = aroundTheSdk(
  {
    name: "semaphore",
    summary: "p-limit(4): 4 calls at once, each with the SDK's 2 retries",
    settings: "const limit = pLimit(4); limit(() => client.messages.create(params))",
    why: "It is one line, and fewer calls at once mean fewer rejections."
  },
  limitOf
)

/** Four calls at once, and ten attempts around. */
export const pLimitTuned = aroundEachAttempt(
  {
    name: "p-limit-tuned",
    summary: "p-limit(4) with the SDK's retries off; 10 attempts with full jitter around it",
    settings:
      "const limit = pLimit(4); tenAttempts(() => limit(() => client.messages.create(params, { maxRetries: 0 })))",
    why: "A retry that waits outside does not hold one of the four places."
  },
  limitOf
)

// -----------------------------------------------------------------------------
// p-queue
// -----------------------------------------------------------------------------

const intervalsOf = (scenario: Scenario.Scenario): Queue =>
  Effect.map(SimulatedPackage.load<{ readonly default: typeof PQueue }>("p-queue"), ({ default: Queue }) => {
    const queue = new Queue({ intervalCap: callsPerSecond(scenario), interval: 1_000 })
    return () => (job) => queue.add(job)
  })

const intervalCap = "intervalCap: tokens a second / mean tokens of a call, interval: 1_000"

/** `PQueue` with `intervalCap`, around the SDK's two retries. */
export const pQueue = aroundTheSdk(
  {
    name: "p-queue",
    summary:
      "p-queue with intervalCap: as many calls a second as fit if all had the mean size; the SDK's 2 retries inside",
    settings: `const queue = new PQueue({ ${intervalCap} }); queue.add(() => client.messages.create(params))`,
    why: "It spreads the calls over time. A queue of calls only knows their mean size."
  },
  intervalsOf
)

/** `PQueue` with `intervalCap`, and ten attempts around. */
export const pQueueTuned = aroundEachAttempt(
  {
    name: "p-queue-tuned",
    summary: "p-queue with the same intervalCap and the SDK's retries off; 10 attempts with full jitter around it",
    settings: `const queue = new PQueue({ ${intervalCap} }); tenAttempts(() => queue.add(() => client.messages.create(params, { maxRetries: 0 })))`,
    why: "A retry counts as a call of its own, so the queue's rate holds for retries, too."
  },
  intervalsOf
)

// -----------------------------------------------------------------------------
// Bottleneck
// -----------------------------------------------------------------------------

/** Bottleneck as a token bucket with the provider's burst, refilled in steps. */
const reservoirOf =
  (stepMillis: number) =>
  (scenario: Scenario.Scenario): Queue =>
    Effect.map(SimulatedPackage.load<typeof Bottleneck>("bottleneck/light.js"), (Limiter) => {
      const { burst, perSecond } = tokensOf(scenario)
      const limiter = new Limiter({
        reservoir: burst,
        reservoirIncreaseAmount: (perSecond * stepMillis) / 1_000,
        reservoirIncreaseInterval: stepMillis,
        reservoirIncreaseMaximum: burst
      })
      return (weight) => (job) => limiter.schedule({ weight }, job)
    })

const reservoir = (step: string) =>
  `reservoir: burst, reservoirIncreaseMaximum: burst, reservoirIncreaseAmount: tokens per step, reservoirIncreaseInterval: ${step}`

/** Bottleneck around the SDK's two retries. */
export const bottleneck = aroundTheSdk(
  {
    name: "bottleneck",
    summary: "Bottleneck with a reservoir of tokens that is refilled each second; the SDK's 2 retries inside",
    settings: `const limiter = new Bottleneck({ ${reservoir("1_000")} }); limiter.schedule({ weight: tokens }, () => client.messages.create(params))`,
    why: "The reservoir is Bottleneck's token bucket, and its weight can be a call's tokens."
  },
  reservoirOf(1_000)
)

/** Bottleneck with ten attempts around. */
export const bottleneckTuned = aroundEachAttempt(
  {
    name: "bottleneck-tuned",
    summary:
      "Bottleneck with a reservoir of tokens, refilled every 250 ms and charged for each attempt; 10 attempts with full jitter around it",
    settings: `const limiter = new Bottleneck({ ${reservoir("250")} }); tenAttempts(() => limiter.schedule({ weight: tokens }, () => client.messages.create(params, { maxRetries: 0 })))`,
    why: "Bottleneck has no finer step than 250 ms; retries outside are charged again, as the provider charges them."
  },
  reservoirOf(250)
)
