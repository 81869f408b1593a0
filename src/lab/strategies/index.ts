/**
 * The strategies by name.
 *
 * @since 0.1.0
 */
import type { Strategy } from "../strategy.ts"
import { fixedRetry, fixedRetryForever } from "./fixedRetry.ts"
import { floodgate } from "./floodgate.ts"
import { incidentFix } from "./incidentFix.ts"
import { oracle } from "./oracle.ts"

/**
 * Those that `floodgate storm` runs unless it is told otherwise: the incident, its fix, the library and the yardstick.
 *
 * @category strategies
 * @since 0.1.0
 */
export const usual: ReadonlyArray<Strategy> = [fixedRetry, fixedRetryForever, incidentFix, floodgate, oracle]

/**
 * All strategies.
 *
 * @category strategies
 * @since 0.1.0
 */
export const all: ReadonlyArray<Strategy> = [...usual]
