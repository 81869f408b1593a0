/**
 * The strategies by name.
 *
 * @stability experimental
 * @since 0.1.0
 */
import type { Strategy } from "../strategy.ts"
import { fixedRetry, fixedRetryForever } from "./fixedRetry.ts"
import { effectHttpLimiter, effectRateLimiter, effectRateLimiterTuned } from "./effect.ts"
import {
  asInstalled,
  doubleLimits,
  estimates,
  floodgate,
  halfLimits,
  inOrder,
  unknownLimits,
  weighted,
  withoutHeaders
} from "./floodgate.ts"
import { handWritten } from "./handWritten.ts"
import { incidentFix } from "./incidentFix.ts"
import { oracle } from "./oracle.ts"
import { isOfSessions, type Scenario } from "../scenario.ts"
import { aiSdk, fullJitter, jittered, retryAfter, sdk10, sdk2 } from "./peers.ts"
import { failover, onePlace, roundRobin, usageBased } from "./routers.ts"
import { uncachedQueue } from "./uncachedQueue.ts"
import { bottleneck, bottleneckTuned, pLimitTuned, pQueue, pQueueTuned, semaphore } from "./queues.ts"

export { oracle } from "./oracle.ts"

/**
 * The strategies that `floodgate storm` and `storm all --table` run by default: clients with their defaults, each rival as its best users configure
 * it, the library with default settings, the limits, the token counts or both, and the oracle.
 *
 * @stability experimental
 * @category strategies
 * @since 0.1.0
 */
export const usual: ReadonlyArray<Strategy> = [
  sdk2,
  aiSdk,
  fullJitter,
  pLimitTuned,
  pQueueTuned,
  bottleneckTuned,
  effectRateLimiterTuned,
  handWritten,
  asInstalled,
  estimates,
  unknownLimits,
  floodgate,
  oracle
]

/**
 * The strategies of the incident report: fixed waits, and the fix.
 *
 * @stability experimental
 * @category strategies
 * @since 0.2.0
 */
export const reported: ReadonlyArray<Strategy> = [fixedRetry, fixedRetryForever, incidentFix]

/**
 * The strategies without the library.
 *
 * @stability experimental
 * @category strategies
 * @since 0.1.0
 */
export const peers: ReadonlyArray<Strategy> = [
  sdk2,
  sdk10,
  aiSdk,
  fullJitter,
  jittered,
  retryAfter,
  semaphore,
  pLimitTuned,
  pQueue,
  pQueueTuned,
  bottleneck,
  bottleneckTuned,
  effectRateLimiter,
  effectRateLimiterTuned,
  effectHttpLimiter,
  handWritten
]

/**
 * The library under worse conditions: without headers, with wrong limits, without limits, or without token counts.
 *
 * @stability experimental
 * @category strategies
 * @since 0.1.0
 */
export const variants: ReadonlyArray<Strategy> = [
  weighted,
  inOrder,
  withoutHeaders,
  halfLimits,
  doubleLimits,
  unknownLimits,
  estimates,
  asInstalled
]

/**
 * The strategies without the library for a model with several places, and the library at one of them.
 *
 * @stability experimental
 * @category strategies
 * @since 0.4.0
 */
export const routers: ReadonlyArray<Strategy> = [onePlace, roundRobin, failover, usageBased]

/**
 * The strategies that are compared where a model has several places.
 *
 * @stability experimental
 * @category strategies
 * @since 0.4.0
 */
export const ofPlaces: ReadonlyArray<Strategy> = [...routers, unknownLimits, floodgate, oracle]

/**
 * The strategies that `storm` runs by default in scenarios of sessions: the usual ones, and a queue that knows what is cached.
 *
 * @stability experimental
 * @category strategies
 * @since 0.5.0
 */
export const usualOfSessions: ReadonlyArray<Strategy> = [
  ...usual.filter((strategy) => strategy !== oracle),
  uncachedQueue,
  oracle
]

/**
 * All strategies.
 *
 * @stability experimental
 * @category strategies
 * @since 0.1.0
 */
export const all: ReadonlyArray<Strategy> = [
  ...reported,
  ...peers,
  ...variants,
  ...routers,
  floodgate,
  uncachedQueue,
  oracle
]

/**
 * The strategies that are compared in a scenario, which depends on whether it has several places, or sessions.
 *
 * @stability experimental
 * @category strategies
 * @since 0.4.0
 */
export const of = (scenario: Scenario): ReadonlyArray<Strategy> =>
  scenario.places === undefined
    ? all.filter((strategy) => !routers.includes(strategy) && (strategy !== uncachedQueue || isOfSessions(scenario)))
    : ofPlaces

/**
 * The strategies that `storm` runs by default in a scenario.
 *
 * @stability experimental
 * @category strategies
 * @since 0.5.0
 */
export const usualOf = (scenario: Scenario): ReadonlyArray<Strategy> => {
  if (scenario.places !== undefined) return ofPlaces
  return isOfSessions(scenario) ? usualOfSessions : usual
}

/**
 * Notes on the strategies' settings, and on which code is the original.
 *
 * @stability experimental
 * @category strategies
 * @since 0.4.0
 */
export const about = [
  "tenAttempts makes up to ten attempts, after the failures that the SDK retries (408, 409, 429, 5xx, broken connections). Before",
  "attempt n + 1 it sleeps a random part of min(60 s, 2 s * 2 ** (n - 1)). Tokens are the input tokens of a call, and its max_tokens",
  "where output counts. p-limit, p-queue, Bottleneck and Effect's limiters are the packages themselves, in simulated time. The retries",
  "of the SDK and of the AI SDK are modelled, and tests hold the models equal to the packages. floodgate is this library."
].join(" ")
