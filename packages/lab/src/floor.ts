/**
 * The lower bound on the time of a scenario under any strategy, computed from the scenario alone.
 *
 * @stability experimental
 * @since 0.1.0
 */
import { LimitWords } from "floodgate/internal"
import * as Limits from "floodgate/Limits"
import type { Sessions } from "floodgate/testing"
import { smallest } from "./extremes.ts"
import * as Scenario from "./scenario.ts"

/** A lower bound on the makespan in seconds, and what it comes from. */
type Floor = {
  readonly seconds: number
  /** The limited dimension that binds, `"agent"` for the longest agent, or `"concurrency"`. */
  readonly binding: Limits.Dimension | "agent" | "concurrency"
}

/**
 * The physical floor of a scenario: the largest of
 *
 * - per limited dimension, the time until its last unit is available. With `U` used in all, a bucket that holds `B` and refills
 *   at `r` per second has it at `(U - B) / r`. A provider that counts `L` in each minute has it at `60 x (ceil(U / L) - 1)`
 * - the longest agent alone: its start and the sum of its calls' latencies
 * - with at most `C` calls at once, the sum of all latencies divided by `C`
 *
 * A session alone takes its pauses, too, and its sub-agents run at once. What a cache reads that forgets nothing does not count against a
 * limit on input where the provider does not count it.
 *
 * **Details**
 *
 * In the incident `U` = 12 x (150,000 + 4 x 14,000) = 2,472,000 tokens, so (2,472,000 - 200,000) / 60,000 = 37.9 s.
 * Latency noise, neighbours, faults and growth limits are left out, because they only make it longer.
 *
 * **Gotchas**
 *
 * The floor of a limit is the earliest time at which the last call can be sent, without that call's latency. So a strategy that
 * wastes nothing may have a ratio slightly above 1.
 *
 * @stability experimental
 * @category getters
 * @since 0.1.0
 */
export const floor = (scenario: Scenario.Scenario): Floor => {
  const calls = Scenario.callsOf(scenario)
  let worst: Floor = { seconds: 0, binding: "agent" }
  const consider = (seconds: number, binding: Floor["binding"]) => {
    if (seconds > worst.seconds) worst = { seconds, binding }
  }
  for (const dimension of Limits.Dimension.literals) {
    const limit = scenario.limits[dimension]
    if (limit === undefined) continue
    const used = calls.reduce(
      (sum, call) =>
        sum +
        (dimension === "inputTokens" ? Scenario.countedInput(scenario, call) : Scenario.amountOf(dimension, call)),
      0
    )
    consider(secondsUntil(limit, used), dimension)
  }
  let sum = 0
  for (const agent of scenario.agents) {
    const busy = agent.calls.reduce((sum, call) => sum + Scenario.latencyMillis(scenario, call), 0)
    sum += busy
    const { script } = agent
    const alone = script === undefined ? busy : scriptMillis(script, (call) => Scenario.latencyMillis(scenario, call))
    consider((agent.startsAtMillis + alone) / 1_000, "agent")
  }
  if (scenario.provider.concurrency !== undefined) consider(sum / 1_000 / scenario.provider.concurrency, "concurrency")
  return worst
}

/** The duration of a script if no call waits. */
const scriptMillis = (
  { calls }: Sessions.AgentScript,
  latencyMillis: (call: Sessions.AgentScript["calls"][number]) => number
): number => {
  const subAgents: Array<{ readonly until: number; readonly end: number }> = []
  const waitedFor = (index: number, from: number): number =>
    subAgents.reduce((last, { end, until }) => (until <= index ? Math.max(last, end) : last), from)
  let now = calls[0]?.pauseMillis ?? 0
  for (const [index, call] of calls.entries()) {
    now += latencyMillis(call)
    for (const agent of call.subAgents) {
      subAgents.push({ until: index + 1 + agent.turnsMeanwhile, end: now + scriptMillis(agent, latencyMillis) })
    }
    now = waitedFor(index + 1, now + (calls[index + 1]?.pauseMillis ?? 0))
  }
  return waitedFor(Infinity, now)
}

const secondsUntil = (limit: Limits.Limit, used: number): number => {
  if (limit.total !== undefined) return used > limit.total ? Infinity : 0
  const { amount, seconds } = LimitWords.rateOf(limit)
  if (limit.window === undefined || limit.window === "bucket") {
    return Math.max(0, ((used - (limit.burst ?? amount)) * seconds) / amount)
  }
  return seconds * Math.max(0, Math.ceil(used / amount) - 1)
}

/**
 * The latency of the fastest call that can be an agent's last, in seconds. No strategy ends earlier than this after the floor.
 *
 * @stability experimental
 * @category getters
 * @since 0.1.0
 */
export const lastCallSeconds = (scenario: Scenario.Scenario): number =>
  smallest(
    scenario.agents.map((agent) => {
      const last = agent.calls.at(-1)
      return last === undefined ? 0 : Scenario.latencyMillis(scenario, last) / 1_000
    })
  )
