/**
 * The tree of a job's agents, as plain data, and the law of its caps: how many agents there may be in all, at once, in an hour, and how
 * deep.
 *
 * An agent is only ever written by the process that admitted it, so two versions of a state are merged by union, and an agent that calls
 * through two processes counts once. Caps refuse only new agents: one that was admitted goes on.
 */
import type * as Tree from "../domain/tree.ts"
import * as State from "./state.ts"
import type { Member, PartTimes, Shared } from "./state.ts"
import { unknownUtc, type UtcLaw, utcAt } from "./utc.ts"

/** An agent, as one process has seen it. Times are UTC. */
export interface SeenAgent {
  /** 0 for the root of the job. */
  readonly depth: number
  readonly parent: string | undefined
  readonly since: number
  /** When it last called, or its last call ended. */
  readonly at: number
  /** Its calls that run in this process. */
  readonly calls: number
}

/** A part of what a cap leaves. */
export interface TreePart extends PartTimes {
  readonly agents: number
}

/** One of the processes that share a tree, with the agents that call through it. */
export interface TreeMember extends Member<number> {
  agents: Readonly<Record<string, SeenAgent>>
  part: TreePart | undefined
}

export interface TreeState extends Shared<Tree.CapsInForce, TreeMember> {
  readonly law: UtcLaw & {
    lag: number
    /** The agents of forgotten processes. */
    gone: Readonly<Record<string, SeenAgent>>
  }
}

export const make = (config: Tree.CapsInForce, time: number, origin: string): TreeState =>
  State.begin(config, { ...unknownUtc, lag: 0, gone: {} }, time, origin)

export const copy = (state: TreeState): TreeState => {
  const members: TreeState["members"] = { ...state.members }
  for (const id in members) members[id] = { ...members[id]! }
  return { ...state, law: { ...state.law }, members }
}

/** A process that joins. */
export const join = (joined: State.Joined<number>): TreeMember => ({ ...joined, agents: {} })

/** The state of a tree that belongs to one process. */
export const local = (config: Tree.CapsInForce, id: string): TreeState => {
  const state = make(config, 0, id)
  state.joined = 1
  state.members[id] = join(State.join({ leaseMillis: 0, lost: "keep", name: id }, 0, 0, 0, 0))
  return state
}

// -----------------------------------------------------------------------------
// Agents
// -----------------------------------------------------------------------------

/** How long after its last call an agent counts as running, in milliseconds: agents do not say that they end, and tools take minutes. */
const idleMillis = 300_000
const hour = 3_600_000

/** Joins what two processes have seen of one agent. */
const both = (one: SeenAgent, other: SeenAgent): SeenAgent => ({
  ...(one.since <= other.since ? one : other),
  at: Math.max(one.at, other.at),
  calls: one.calls + other.calls
})

/** Stands for the agent of a call that names none, which is not counted. */
const unnamed: SeenAgent = { depth: 0, parent: undefined, since: 0, at: 0, calls: 0 }

/** Everything that is known of an agent; undefined if it is new. */
export const agentOf = ({ law, members }: TreeState, name: string | undefined): SeenAgent | undefined => {
  if (name === undefined) return unnamed
  let found = own(law.gone, name)
  for (const id in members) {
    const seen = own(members[id]!.agents, name)
    if (seen !== undefined) found = found === undefined ? seen : both(found, seen)
  }
  return found
}

/** All agents. */
export const agentsOf = ({ law, members }: TreeState): ReadonlyMap<string, SeenAgent> => {
  const all = new Map(Object.entries(law.gone))
  for (const { agents } of Object.values(members)) {
    for (const [name, seen] of Object.entries(agents)) {
      const found = all.get(name)
      all.set(name, found === undefined ? seen : both(found, seen))
    }
  }
  return all
}

/** Names come with requests, and one may be that of a property of every object. */
const own = <A>(record: Readonly<Record<string, A>>, name: string): A | undefined =>
  Object.hasOwn(record, name) ? record[name] : undefined

export const isRunning = ({ at, calls }: SeenAgent, utc: number): boolean => calls > 0 || at + idleMillis > utc

/** The agents of a tree in numbers. */
export const countsOf = (state: TreeState, now: number): Tree.TreeCounts => {
  const utc = utcAt(state, now)
  const counts = { agents: 0, atOnce: 0, perHour: 0, depth: 0 }
  for (const seen of agentsOf(state).values()) {
    counts.agents++
    if (isRunning(seen, utc)) counts.atOnce++
    if (seen.since + hour > utc) counts.perHour++
    counts.depth = Math.max(counts.depth, seen.depth)
  }
  return counts
}

// -----------------------------------------------------------------------------
// The law
// -----------------------------------------------------------------------------

/** Who calls. */
export interface CallingAgent {
  /** Undefined if the call names no agent: then only an operator refuses it. */
  readonly name: string | undefined
  readonly parent: string | undefined
}

/** Admits a call of an agent, or returns which cap refuses it. */
export const admit = (state: TreeState, { name, parent }: CallingAgent, now: number): SeenAgent | Tree.TreeExcess => {
  const utc = utcAt(state, now)
  const { caps, stop } = state.config
  const known = agentOf(state, name)
  if (stop === "calls") return { by: "stop", limit: 0, until: undefined }
  if (known !== undefined) return known
  if (stop === "agents") return { by: "stop", limit: 0, until: undefined }
  const seen: SeenAgent = { depth: depthBelow(state, parent), parent, since: utc, at: utc, calls: 0 }
  return excess(state, caps, seen, now) ?? seen
}

/** The depth of an agent that its parent starts. A parent that never called is taken for the root of the job. */
const depthBelow = (state: TreeState, parent: string | undefined): number =>
  parent === undefined ? 0 : (agentOf(state, parent)?.depth ?? 0) + 1

const excess = (
  state: TreeState,
  caps: Tree.TreeCaps,
  { depth, since: utc }: SeenAgent,
  now: number
): Tree.TreeExcess | undefined => {
  if (depth > (caps.depth ?? Infinity)) return { by: "depth", limit: caps.depth!, until: undefined }
  const counts = countsOf(state, now)
  for (const by of ["agents", "perHour", "atOnce"] as const) {
    const limit = caps[by] ?? Infinity
    if (counts[by] >= limit) return { by, limit, until: by === "perHour" ? nextAfter(state, utc) : undefined }
  }
  return undefined
}

/** When the first of the agents that began in the last hour no longer counts. */
const nextAfter = (state: TreeState, utc: number): number => {
  let first = utc
  for (const { since } of agentsOf(state).values()) if (since + hour > utc) first = Math.min(first, since)
  return first + hour
}

/** A call of an admitted agent begins (`1`) or ends (`-1`) in a process. */
export const count = (
  state: TreeState,
  id: string,
  { name }: CallingAgent,
  seen: SeenAgent,
  by: 1 | -1,
  now: number
): void => {
  const member = state.members[id]
  if (member === undefined) return
  member.inFlight = Math.max(0, member.inFlight + by)
  if (name === undefined) return
  const calls = Math.max(0, (own(member.agents, name)?.calls ?? 0) + by)
  member.agents = { ...member.agents, [name]: { ...seen, at: utcAt(state, now), calls } }
}

/** An agent has said that it ends. Without a call that runs, it no longer counts as running. */
export const end = (state: TreeState, id: string, agent: CallingAgent, seen: SeenAgent, now: number): void => {
  count(state, id, agent, seen, -1, now)
  const member = state.members[id]
  const { name = "" } = agent
  const known = member && own(member.agents, name)
  if (known === undefined) return
  member!.agents = { ...member!.agents, [name]: { ...known, at: seen.since - idleMillis } }
}
