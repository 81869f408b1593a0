/** The states of trees, as a port keeps them. What processes know of agents is merged by union, so nothing is lost or counts twice. */
import type * as Tree from "../domain/tree.ts"
import { equalPart } from "./processes.ts"
import { configure } from "./state.ts"
import type { StateSpec } from "./stateSpec.ts"
import * as State from "./tree.ts"
import type { SeenAgent, TreeMember, TreeState } from "./tree.ts"
import * as TreeText from "./treeText.ts"
import { setUtc } from "./utc.ts"

/** A tree is kept for a day after its last use: a job may be resumed on the next morning. */
const keepMillis = 86_400_000

type Agents = TreeMember["agents"]

/** Agents without calls that run: nothing will report their ends. */
const ended = (agents: Agents): Agents => {
  const all: Record<string, SeenAgent> = {}
  for (const name in agents) all[name] = { ...agents[name]!, calls: 0 }
  return all
}

/** Puts the agents of one process beside those of another, or of itself: it knows its own calls best. */
const beside = (agents: Agents, more: Agents): Agents => ({ ...agents, ...more })

/** The agents that a process may admit alone. */
const partOf: StateSpec<TreeState>["partOf"] = (state, member, times) => {
  const left = Math.max(0, limitOf(state.config.caps) - State.agentsOf(state).size)
  const { amount: agents, of } = equalPart(state, member, left, (part) => part.agents)
  return { ...times, of, agents }
}

const limitOf = ({ agents = 0, atOnce = Infinity, perHour = Infinity }: Tree.TreeCaps): number =>
  Math.min(agents, atOnce, perHour)

/** A process that goes on alone knows all agents, and may admit its part of new ones. */
const alone: StateSpec<TreeState>["alone"] = (whole, id, part) => {
  const { config, law, members } = whole
  const own = members[id]!
  const known: Record<string, SeenAgent> = {}
  for (const [name, seen] of State.agentsOf(whole)) known[name] = { ...seen, calls: 0 }
  return {
    ...whole,
    config: { ...config, caps: { depth: config.caps.depth, agents: Object.keys(known).length + part.agents } },
    law: { ...law, gone: known },
    members: { [id]: { ...own, inFlight: 0, agents: {}, head: undefined, part: undefined } }
  }
}

export const trees: StateSpec<TreeState> = {
  noun: "tree",
  keyOf: TreeText.keyOf,
  make: State.make,
  copy: State.copy,
  encode: TreeText.encode,
  decode: TreeText.decode,
  keepFor: () => keepMillis,

  // Nothing waits for the end of a call.
  answerMillis: () => 4_000,
  frees: () => false,
  isUrgent: () => false,
  mayStopCommitting: () => true,

  sums: { nothing: 0, plus: (one, other) => one + other },
  prepare: setUtc,
  configure,
  join: (joined, committed) => ({ ...State.join(joined), agents: committed?.agents ?? {} }),
  takeBack: () => {},
  giveUp: (_, member) => void (member.agents = ended(member.agents)),
  revive: (_, found, committed) => {
    if (found !== undefined) found.agents = beside(found.agents, committed.agents)
  },
  forget: ({ law }, { agents }) => void (law.gone = beside(ended(agents), law.gone)),
  retracted: () => {},
  complete: () => {},

  takeOver: (state, id, member) => void (state.members[id] = member),
  lost: () => {},
  adopt: ({ law }, other) => void (law.gone = beside(other.law.gone, law.gone)),

  partOf,
  smaller: (one, other) => (one.agents <= other.agents ? one : other),
  isEmpty: ({ agents }) => agents === 0,
  leftOf: (part, { members }) => {
    const admitted = Object.values(members).reduce((sum, { agents }) => sum + Object.keys(agents).length, 0)
    return { ...part, agents: Math.max(0, part.agents - admitted) }
  },
  alone,
  ended: () => {},
  comeBack: (_, ours, used) => {
    if (ours !== undefined) ours.agents = beside(ours.agents, used.agents)
  }
}
