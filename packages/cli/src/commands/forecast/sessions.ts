/** Sessions as a workload of a forecast. Pure. */
import type * as Accounting from "floodgate/Accounting"
import type * as Forecast from "floodgate/Forecast"
import type { Sessions } from "floodgate/testing"
import { Recorded } from "@floodgate/lab/internal"

/** A turn, and the part of its prompt that a provider's cache still has. */
const cachedOf = ({ cachedTokens, pauseMillis }: Sessions.SessionAgent["turns"][number]): number =>
  pauseMillis < Recorded.lifetimeMillis ? cachedTokens : 0

/** How long the provider takes. */
export interface TurnLatency {
  readonly baseMillis: number
  readonly perOutputTokenMillis: number
}

/** The sessions as agents, each with its sub-agents. */
export const workloadOf = (
  sessions: ReadonlyArray<Sessions.Session>,
  latency: TurnLatency,
  countsCached: boolean
): Forecast.Workload => {
  const agentOf = (name: string, { path, turns, turnsMeanwhile }: Sessions.SessionAgent): Forecast.Agent => ({
    name: `${name}${path.slice(1)}`,
    turnsMeanwhile,
    calls: turns.map((turn): Forecast.Call => ({
      inputTokens: turn.inputTokens - (countsCached ? 0 : cachedOf(turn)),
      outputTokens: turn.outputTokens,
      duration: latency.baseMillis + latency.perOutputTokenMillis * turn.outputTokens,
      pause: turn.pauseMillis,
      subAgents: turn.subAgents.map((agent) => agentOf(name, agent))
    }))
  })
  return sessions.map(({ lead, name }) => agentOf(name, lead))
}

/** The usage of each turn of sessions. An agent that reads from a cache has written there whatever is new. */
export const usesOf = (sessions: ReadonlyArray<Sessions.Session>): ReadonlyArray<Accounting.Actual> => {
  const uses: Array<Accounting.Actual> = []
  const add = ({ turns }: Sessions.SessionAgent): void => {
    const writes = turns.some((turn) => cachedOf(turn) > 0)
    for (const turn of turns) {
      const cacheReadTokens = cachedOf(turn)
      const fresh = turn.inputTokens - cacheReadTokens
      const { outputTokens } = turn
      uses.push({
        inputTokens: writes ? 0 : fresh,
        cacheCreationTokens: writes ? fresh : 0,
        cacheReadTokens,
        outputTokens
      })
      turn.subAgents.forEach(add)
    }
  }
  for (const { lead } of sessions) add(lead)
  return uses
}
