/** Traces of recorded traffic, as `--trace` names them. */
import * as Effect from "effect/Effect"
import { Scenarios } from "../lab/index.ts"
import { text, unreadable } from "./files.ts"
import { finished } from "../stepwise.ts"

/** The longest public trace has a quarter of this. */
const mostBytes = 256e6

/** Reads a trace, or fails with the line that cannot be read. */
export const read = Effect.fnUntraced(function* (path: string) {
  const trace = yield* finished(Scenarios.parseTraceSteps(yield* text(path, mostBytes)))
  if (!("problem" in trace)) return trace
  return yield* unreadable(path, `line ${trace.line} is not of a trace: ${trace.problem}`)
})
