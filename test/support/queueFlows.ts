/** What a fair queue remembers of agents, jobs and callers. */
import type { CostlyCall, Flow, Level } from "../../src/admission/flows.ts"

/** The flows of a priority: of its callers, their jobs and agents. The caller of calls that name none is left out. */
export const flowsOf = <E extends CostlyCall>(level: Level<E>): ReadonlyArray<Flow<E>> => {
  const inGroup = (group: Level<E>["callers"]): ReadonlyArray<Flow<E>> =>
    [...group["named"].values(), ...group["agents"].values()].flatMap((flow) => [
      ...(flow.name === undefined ? [] : [flow]),
      ...(flow.inner === undefined ? [] : inGroup(flow.inner))
    ])
  return inGroup(level.callers)
}

/** How many they are. */
export const countFlows = <E extends CostlyCall>(level: Level<E>): number => {
  const inGroup = (group: Level<E>["callers"]): number => {
    let count = group["named"].size + group["agents"].size - (group["named"].has(undefined) ? 1 : 0)
    for (const { inner } of group["named"].values()) count += inGroup(inner!)
    return count
  }
  return inGroup(level.callers)
}

/** The agents of calls that name neither job nor caller. */
export const agentsOf = <E extends CostlyCall>(level: Level<E>): Map<string, Flow<E>> =>
  level.callers["named"].get(undefined)!.inner!["agents"]
