/**
 * What processes share of one pool, as plain data.
 */
import * as Law from "../pacing/law.ts"
import * as Amounts from "../domain/amounts.ts"
import type * as Rules from "../domain/rules.ts"

/** Incremented with every change of the state's form: processes of two versions must not read each other's states. */
const format = 11

/** The key of a pool in a store, and the pool of a key. */
export const keyOf = (pool: string): string => `${format}:${pool}`
export const poolOf = (key: string): string | undefined =>
  key.startsWith(`${format}:`) ? key.slice(`${format}:`.length) : undefined

/** The configuration of a budget, which applies to all processes. */
export interface Config {
  readonly rules: Rules.Rules
  readonly shares: Amounts.PerDimension<number>
  /** `Infinity` if the calls in flight are not limited. */
  readonly concurrency: number
}

/** The part of the limits that a process continues with if it cannot reach the store, and that the others then leave unused. */
export interface MemberPart {
  /** Its share of the rates, from 0 to 1. */
  readonly of: number
  /** Its share of the calls in flight; `Infinity` if they are not limited. */
  readonly calls: number
  /** Its share of what is left of quotas. */
  readonly quotas: Amounts.Charge
  /** The process may use the part from `fromMillis` after its last commit; the others keep it until `untilMillis` after. */
  readonly fromMillis: number
  readonly untilMillis: number
  /** The time up to which the part was charged to the pool. */
  readonly keptTo: number
}

/** The first caller in the queue of a process, and the weight of all its waiting agents. */
export interface Head {
  readonly priority: number
  readonly charge: Amounts.Whole
  readonly weight: number
}

/** One process. */
export interface Member {
  readonly name: string
  /** The number of its commits. */
  seq: number
  /** The time of its last commit, and the latest time of the next. */
  at: number
  dueAt: number
  readonly leaseMillis: number
  readonly lost: "keep" | "refund"
  /** Its position in the order in which processes joined. */
  readonly rank: number
  hasLeft: boolean
  /** Its calls in flight, what they have reserved, and everything it has spent so far. */
  inFlight: number
  held: Amounts.Whole
  spent: Amounts.Whole
  /** Its start tag in the fair queue between processes, and the first caller of its own queue. */
  tag: number
  head: Head | undefined
  /** The longest time that one of its recent commits took. */
  lag: number
  part: MemberPart | undefined
}

export interface PoolState {
  /** The process that made it from nothing: states of two origins have nothing in common, not even the time. */
  readonly origin: string
  /** The pool's time, which advances with the monotonic clocks of the processes and never goes back. */
  time: number
  /** The number of processes that have joined. */
  joined: number
  /** When a process that is forgotten committed last, at the latest. */
  forgotten: number
  /** The configuration that processes were started with, so that one which starts with the same changes nothing. */
  started: Config
  /** The configuration in force, and the number of its changes. */
  config: Config
  changes: number
  /** Virtual time of the fair queue between processes. */
  virtual: number
  readonly law: Law.Pacer
  readonly members: Record<string, Member>
  /** Only of a process that goes on with its part: see {@link DegradedCalls}. */
  degraded?: DegradedCalls | undefined
}

/** A process that goes on with its part of the limits. */
export interface DegradedCalls {
  /** Its share of the rates, from 0 to 1. */
  readonly of: number
  /** The calls that it has admitted and that still run. */
  readonly open: ReadonlySet<Law.Ticket>
}

export const make = (config: Config, time: number, origin: string): PoolState => ({
  origin,
  time,
  joined: 0,
  forgotten: -Infinity,
  started: config,
  config,
  changes: 0,
  virtual: 0,
  law: Law.make(config.rules, config.shares, time),
  members: {}
})

/** A process that joins. */
export const makeMember = (
  { leaseMillis, lost, name }: Pick<Member, "leaseMillis" | "lost" | "name">,
  rank: number,
  tag: number,
  now: number
): Member => ({
  name,
  seq: 0,
  at: now,
  dueAt: now,
  leaseMillis,
  lost,
  rank,
  hasLeft: false,
  inFlight: 0,
  held: Amounts.nothing,
  spent: Amounts.nothing,
  tag,
  head: undefined,
  lag: 0,
  part: undefined
})

/** A copy: what happens to one changes nothing in the other. */
export const copy = (state: PoolState): PoolState => {
  const { law, joined } = state
  // The first process joins on a copy of its own.
  if (joined === 0) return { ...state, law: Law.copy(law), members: {} }
  const members: PoolState["members"] = { ...state.members }
  for (const id in members) members[id] = { ...members[id]! }
  return { ...state, law: Law.copy(law), members }
}
