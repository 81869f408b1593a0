/** The two runs of the playground: a strategy, and Floodgate, with the same work against the same simulated provider. */
import * as Effect from "effect/Effect"
import * as Race from "../../../lab/src/race.ts"
import type { Scenario } from "../../../lab/src/scenario.ts"
import * as Scenarios from "../../../lab/src/scenarios.ts"
import { effectRateLimiterTuned } from "../../../lab/src/strategies/effect.ts"
import { fixedRetry } from "../../../lab/src/strategies/fixedRetry.ts"
import { asInstalled, estimates, floodgate, unknownLimits } from "../../../lab/src/strategies/floodgate.ts"
import { handWritten } from "../../../lab/src/strategies/handWritten.ts"
import { fullJitter, sdk10, sdk2 } from "../../../lab/src/strategies/peers.ts"
import type { Strategy } from "../../../lab/src/strategy.ts"
import { scenarioOptions, type Settings } from "./settings.ts"
import { type Timeline, timelineOf } from "./timeline.ts"

const strategies: Readonly<Record<Settings["rival"] | Settings["told"], Strategy>> = {
  "sdk-2": sdk2,
  "sdk-10": sdk10,
  "fixed-retry": fixedRetry,
  "full-jitter": fullJitter,
  "effect-limiter-tuned": effectRateLimiterTuned,
  "hand-written": handWritten,
  "floodgate-as-installed": asInstalled,
  "floodgate-unknown": unknownLimits,
  "floodgate-estimates": estimates,
  floodgate
}

/** The two runs, as the page shows them. */
export interface Runs {
  readonly rival: Timeline
  readonly floodgate: Timeline
}

/** The scenario of the lab that the settings describe. */
const scenarioOf = (settings: Settings): Scenario => Scenarios.byName(settings.weather, scenarioOptions(settings))!

/** Runs one strategy. */
export const run = (settings: Settings, strategy: Settings["rival"] | Settings["told"]): Effect.Effect<Timeline> =>
  Effect.map(Race.run(scenarioOf(settings), strategies[strategy]), timelineOf)

/** Runs the strategy and Floodgate. */
export const runs = (settings: Settings): Effect.Effect<Runs> =>
  Effect.all({ rival: run(settings, settings.rival), floodgate: run(settings, settings.told) })
