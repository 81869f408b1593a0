/** Runs races and shows their progress, for several commands. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { Race, type Scenario, type Strategy } from "@floodgate/lab/internal"
import * as Words from "floodgate/internal/words"
import { statusLine } from "./painter.ts"

/**
 * Runs a scenario with each strategy, and shows the progress on a terminal. If it is interrupted, `stopped` gets the runs that had
 * ended.
 */
export const race = Effect.fnUntraced(function* (
  scenario: Scenario.Scenario,
  strategies: ReadonlyArray<Strategy.Strategy>,
  stopped: (runs: ReadonlyArray<Race.RaceRun>) => Effect.Effect<void> = () => Effect.void
) {
  const runs: Array<Race.RaceRun> = []
  yield* Effect.addFinalizer((exit) => (Exit.hasInterrupts(exit) && runs.length > 0 ? stopped(runs) : Effect.void))
  const status = yield* statusLine
  for (const strategy of strategies) {
    const at = `${scenario.name}, ${strategy.name} (${runs.length + 1} of ${strategies.length})`
    yield* status(at)
    const run = Race.run(scenario, strategy, {
      progress: ({ calls, completed, seconds }) =>
        status(
          `${at}: ${Words.thousands(seconds)} s simulated, ${Words.thousands(completed)} of ${Words.counted(calls, "call")} done`
        )
    })
    runs.push(yield* run)
  }
  return runs as ReadonlyArray<Race.RaceRun>
}, Effect.scoped)
