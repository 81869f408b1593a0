/**
 * The strategies by name.
 *
 * @since 0.1.0
 */
import type { Strategy } from "../strategy.ts"
import { fixedRetry, fixedRetryForever } from "./fixedRetry.ts"
import { effectHttpLimiter, effectRateLimiter } from "./effect.ts"
import {
  doubleLimits,
  estimates,
  floodgate,
  halfLimits,
  inOrder,
  unknownLimits,
  weighted,
  withoutHeaders
} from "./floodgate.ts"
import { incidentFix } from "./incidentFix.ts"
import { oracle } from "./oracle.ts"
import { aiSdk, fullJitter, jittered, retryAfter, sdk10, sdk2, semaphore } from "./peers.ts"
import { bottleneck, pQueue } from "./queues.ts"

/**
 * The yardstick that the others are compared with.
 *
 * @category strategies
 * @since 0.2.0
 */
export { oracle }

/**
 * Those that `floodgate storm` runs by default: what people really run, the library and the yardstick.
 *
 * @category strategies
 * @since 0.1.0
 */
export const usual: ReadonlyArray<Strategy> = [
  sdk2,
  sdk10,
  aiSdk,
  semaphore,
  pQueue,
  bottleneck,
  effectRateLimiter,
  floodgate,
  oracle
]

/**
 * The incident as it was reported: fixed waits, and the fix.
 *
 * @category strategies
 * @since 0.2.0
 */
export const reported: ReadonlyArray<Strategy> = [fixedRetry, fixedRetryForever, incidentFix]

/**
 * What others do, the library aside.
 *
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
  pQueue,
  bottleneck,
  effectRateLimiter,
  effectHttpLimiter
]

/**
 * The library under worse conditions: deaf, misinformed, uninformed, or estimating.
 *
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
  estimates
]

/**
 * All strategies.
 *
 * @category strategies
 * @since 0.1.0
 */
export const all: ReadonlyArray<Strategy> = [...reported, ...peers, ...variants, floodgate, oracle]
