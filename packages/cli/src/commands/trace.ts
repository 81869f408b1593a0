/** Reads traces of recorded traffic. */
import * as Effect from "effect/Effect"
import { Scenarios } from "@floodgate/lab/internal"
import { text, unreadable } from "@floodgate/gateway/internal/files"
import type * as Forecast from "floodgate/Forecast"
import { Stepwise } from "floodgate/internal"

/** Four times the size of the largest public trace. */
const maxBytes = 256e6

/** The scenario of a trace. */
export const scenarioOf: typeof Scenarios.fromTrace = Scenarios.fromTrace

/** Reads a trace. Fails with the first line that is invalid. */
export const read = Effect.fnUntraced(function* (path: string) {
  const trace = yield* Stepwise.yielding(Scenarios.parseTraceSteps(yield* text(path, maxBytes)))
  if (!("problem" in trace)) return trace
  return yield* unreadable(path, `line ${trace.line} is not a line of a trace: ${trace.problem}`)
})

/** The calls of a trace as they came, each by an agent of its own, or dealt to a number of agents that never pause. In steps. */
export function* workloadOf(
  trace: ReadonlyArray<Scenarios.TraceCall>,
  agents?: number
): Stepwise.Stepwise<Forecast.Workload> {
  const calls = yield* Stepwise.mapped(trace, ({ atMillis, inputTokens, outputTokens }, index) => ({
    name: `call-${index + 1}`,
    startsAfter: Math.round(atMillis),
    calls: [{ inputTokens, outputTokens }]
  }))
  if (agents === undefined) return calls
  const names = Array.from({ length: Math.min(agents, calls.length) }, (_, index) => `agent-${index + 1}`)
  return names.map((name, first) => {
    const own: Array<Forecast.Call> = []
    for (let index = first; index < calls.length; index += names.length) own.push(...calls[index]!.calls)
    return { name, calls: own }
  })
}
