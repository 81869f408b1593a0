/** The calls of agents that start agents. Pure. */
import { callsOf } from "../budget/forecast/work.ts"
import type * as Forecast from "../Forecast.ts"

/** Calls, and those of the sub-agents that start after them. */
const withSubAgents = (calls: ReadonlyArray<Forecast.Call>): ReadonlyArray<Forecast.Call> =>
  calls.flatMap((call) => [call, ...(call.subAgents ?? []).flatMap(({ calls }) => withSubAgents(calls))])

/** All calls of an agent and of its sub-agents. */
export const allCallsOf = (work: Forecast.Work): ReadonlyArray<Forecast.Call> => withSubAgents(callsOf(work))
