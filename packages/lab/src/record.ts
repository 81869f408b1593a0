/** Records a race: every call and every attempt. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { LlmProvider } from "floodgate/LlmProvider"
import type { ScenarioCall, Scenario } from "./scenario.ts"
import type { AgentRecord, CallRecord, SimulatedAttempt } from "./runs.ts"
import type { Believed } from "./strategy.ts"
import * as Scenarios from "./scenario.ts"

type Unfinished<A> = { -readonly [K in keyof A]: A[K] }

/** A request that may be running. */
export type RunningAttempt = Unfinished<SimulatedAttempt>

/** A call that may be running. */
export interface RunningCall extends Unfinished<Omit<CallRecord, "attempts">> {
  readonly attempts: Array<RunningAttempt>
}

/** The record of a race. It is mutable. */
export interface RaceRecorder {
  readonly calls: Map<string, RunningCall>
  readonly agents: Map<string, Unfinished<AgentRecord>>
  /** The levels of the strategy's own budget at each request. */
  readonly levels: Array<Believed & { readonly at: number }>
  completed: number
  failed: number
}

/** Makes an empty record. */
export const make = (scenario: Scenario): RaceRecorder => ({
  calls: new Map(),
  agents: new Map(
    scenario.agents.map(({ name, startsAtMillis }) => [
      name,
      { name, startsAtMillis, endedAt: undefined, failed: false } as AgentRecord
    ])
  ),
  levels: [],
  completed: 0,
  failed: 0
})

/** Records one call around the effect that makes it. */
export const call =
  (recorder: RaceRecorder, of: ScenarioCall) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(Clock.currentTimeMillis, (askedAt) => {
      const record: RunningCall = { call: of, askedAt, endedAt: undefined, outcome: "open", attempts: [] }
      recorder.calls.set(Scenarios.nameOf(of), record)
      return Effect.onExit(self, (exit) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          // A call that the end of the race interrupts has neither succeeded nor failed.
          if (Exit.isFailure(exit) && Exit.hasInterrupts(exit)) return
          record.endedAt = now
          record.outcome = Exit.isSuccess(exit) ? "ok" : "failed"
          if (record.outcome === "ok") recorder.completed++
          else recorder.failed++
        })
      )
    })

/** A provider that records every attempt. */
export const provider = (
  recorder: RaceRecorder,
  self: LlmProvider["Service"],
  believes: () => Effect.Effect<Believed> | undefined
): LlmProvider["Service"] => ({
  ...self,
  create: Effect.fnUntraced(function* (params) {
    const startedAt = yield* Clock.currentTimeMillis
    const believed = believes()
    if (believed !== undefined) recorder.levels.push({ at: startedAt, ...(yield* believed) })
    const attempt: RunningAttempt = { startedAt, endedAt: undefined, outcome: "open" }
    recorder.calls.get(Scenarios.keyOf(params))?.attempts.push(attempt)
    const end = (outcome: SimulatedAttempt["outcome"]) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        attempt.endedAt = now
        attempt.outcome = outcome
      })
    return yield* self.create(params).pipe(
      Effect.tap(() => end("ok")),
      Effect.tapError((error) => end(error.status === 429 ? "rejected" : "failed")),
      Effect.onInterrupt(() => end("interrupted"))
    )
  })
})
