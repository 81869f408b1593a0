/** The plan of a run: its calls, their tokens, and how long they take. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Forecast from "floodgate/Forecast"
import type * as Limits from "floodgate/Limits"
import * as Pipeline from "./pipeline.ts"
import type { Chunk } from "./split.ts"
import * as Steps from "./steps.ts"
import * as Workload from "./workload.ts"

/**
 * The remaining calls. Each counts with all the output that it may have, so every figure is an upper bound.
 */
export interface Plan {
  readonly agents: ReadonlyArray<{ readonly name: string; readonly calls: ReadonlyArray<Forecast.Call> }>
  /** The call of the orchestrator, unless it was answered before. */
  readonly merge: Forecast.Call | undefined
  readonly calls: number
  /** All remaining calls, the orchestrator's last. */
  readonly left: ReadonlyArray<Forecast.Call>
  /** The number of answers of earlier runs. */
  readonly known: number
  readonly inputTokens: number
  readonly outputTokens: number
}

/** Plans the calls of a run. */
export const make = (task: Steps.Task, chunks: ReadonlyArray<Chunk>, known: Pipeline.KnownAnswers): Plan => {
  const taskTokens = Workload.tokensOf(Buffer.byteLength(task.prompt))
  const withTask = (call: Forecast.Call): Forecast.Call => ({ ...call, inputTokens: call.inputTokens + taskTokens })
  const agents = chunks.map(({ bytes }, index) => ({
    name: Pipeline.nameOf(index, chunks.length),
    calls: Workload.ofDocuments(bytes, task.maxTokens).slice(known.ofAgents[index]).map(withTask)
  }))
  const merge = known.isMerged ? undefined : withTask(Workload.ofMerge(chunks.length, task.maxTokens))
  const left = [...agents.flatMap(({ calls }) => calls), ...(merge === undefined ? [] : [merge])]
  const sum = (of: (call: Forecast.Call) => number) => left.reduce((total, call) => total + of(call), 0)
  return {
    agents,
    merge,
    calls: left.length,
    left,
    known: Pipeline.countOf(known),
    inputTokens: sum(({ inputTokens }) => inputTokens),
    outputTokens: sum(({ outputTokens }) => outputTokens)
  }
}

/** The most seconds that the calls take under some limits; undefined if one of them never fits. */
export const secondsUnder = Effect.fnUntraced(function* (
  { agents, merge }: Plan,
  options: Omit<Forecast.Options, "limits"> & { readonly limits: Limits.Limits }
) {
  let seconds = 0
  // The orchestrator waits for all agents.
  for (const workload of [agents, merge === undefined ? [] : [{ name: Steps.orchestrator, calls: [merge] }]]) {
    const { duration, refused } = yield* Forecast.makeEffect(workload, options)
    if (refused.length > 0) return undefined
    seconds += Duration.toSeconds(duration)
  }
  return seconds
})
