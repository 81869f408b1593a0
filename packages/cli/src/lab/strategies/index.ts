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

/**
 * Those that `floodgate storm` runs by default: the incident, its fix, the library and the yardstick.
 *
 * @category strategies
 * @since 0.1.0
 */
export const usual: ReadonlyArray<Strategy> = [fixedRetry, fixedRetryForever, incidentFix, floodgate, oracle]

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
export const all: ReadonlyArray<Strategy> = [...usual.slice(0, 3), ...peers, ...variants, ...usual.slice(3)]
