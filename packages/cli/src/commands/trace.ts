/** Reads traces of recorded traffic. */
import * as Effect from "effect/Effect"
import { Scenarios } from "@floodgate/lab/internal"
import { text, unreadable } from "@floodgate/gateway/internal/files"
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
