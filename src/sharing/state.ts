/**
 * The state of one pool or ledger that processes share, as plain data.
 */
import * as Pacer from "../pacing/pacer.ts"
import type * as Amounts from "../domain/amounts.ts"
import type * as Rules from "../domain/rules.ts"

/** Incremented when the stored form of a state changes, so that processes of two versions never read each other's states. */
const format = 11

/** The key of a pool in a store, and the reverse. */
export const keyOf = (pool: string): string => `${format}:${pool}`
export const poolOf = (key: string): string | undefined =>
  key.startsWith(`${format}:`) ? key.slice(`${format}:`.length) : undefined

/** The limits that apply to all processes. */
export interface Config {
  readonly rules: Rules.Rules
  readonly shares: Amounts.PerDimension<number>
  /** `Infinity` if the calls in flight are not limited. */
  readonly concurrency: number
}

/** The times when a process may use its part of the limits. */
export interface PartTimes {
  /** Its share, from 0 to 1. */
  readonly of: number
  /** The process may use it from `fromMillis` after its last commit, and the others leave it unused until `untilMillis`. */
  readonly fromMillis: number
  readonly untilMillis: number
}

/** A process's part of the limits: it uses it in degraded mode, and the other processes leave it unused. */
export interface MemberPart extends PartTimes {
  /** Its share of the calls in flight; `Infinity` if they are not limited. */
  readonly calls: number
  /** Its share of the remaining quotas. */
  readonly quotas: Amounts.Charge
  /** The time up to which it was charged to the pool. */
  readonly keptTo: number
}

/** The first call in the queue of a process, and the weight of all agents that wait there. */
export interface Head<C = Amounts.Whole> {
  readonly priority: number
  readonly charge: C
  readonly weight: number
}

/** Arithmetic on the charges of calls. */
export interface Sums<C> {
  readonly nothing: C
  readonly plus: (one: C, other: C) => C
}

/** One of the processes that share a state. `C` is what a call asks for. */
export interface Member<C = unknown> {
  readonly name: string
  /** The number of its commits. */
  seq: number
  /** The time of its last commit, and when the next one is due. */
  at: number
  dueAt: number
  readonly leaseMillis: number
  readonly lost: "keep" | "refund"
  /** Its position in the order in which processes joined. */
  readonly rank: number
  hasLeft: boolean
  /** Its calls in flight, and the sum of what they have reserved. */
  inFlight: number
  held: C
  /** Its start tag in the fair queue between processes, and the first call in its own queue. */
  tag: number
  head: Head<C> | undefined
  /** The longest duration of its recent commits. */
  lag: number
  part: PartTimes | undefined
}

/** One of the processes that share a pool. */
export interface PoolMember extends Member<Amounts.Whole> {
  /** The sum of all its charges so far. */
  spent: Amounts.Whole
  part: MemberPart | undefined
}

/** The common part of the states of pools and ledgers. `G` is how they are configured. */
export interface Shared<G = unknown, M extends Member = Member> {
  /** The process that created it. States of two origins are unrelated, and so are their times. */
  readonly origin: string
  /** The state's time, which advances with the monotonic clocks of the processes and never goes back. */
  time: number
  /** The number of processes that have joined. */
  joined: number
  /** The latest commit of a process that is forgotten. */
  forgotten: number
  /** The configuration that processes were started with: another process with the same one changes nothing. */
  started: G
  /** The configuration in force, and the number of its changes. */
  config: G
  changes: number
  /** Virtual time of the fair queue between processes. */
  virtual: number
  /** How late a process may learn of a commit. */
  readonly law: { lag: number }
  readonly members: Record<string, M>
}

export interface PoolState extends Shared<Config, PoolMember> {
  readonly law: Pacer.Pacer
  /** In degraded mode, and never stored: the share of the rates, from 0 to 1, and the admitted calls that still run. */
  degraded?: { readonly of: number; readonly open: ReadonlySet<Pacer.Admission> } | undefined
}

/** A new state, which no process has joined. */
export const begin = <G, L extends Shared["law"]>(
  config: G,
  law: L,
  time: number,
  origin: string
): Shared<G, never> & { readonly law: L } => ({
  origin,
  time,
  joined: 0,
  forgotten: -Infinity,
  started: config,
  config,
  changes: 0,
  virtual: 0,
  law,
  members: {}
})

export const make = (config: Config, time: number, origin: string): PoolState =>
  begin(config, Pacer.make(config.rules, config.shares, time), time, origin)

/** The facts about itself that a process states to join. */
export type Joining = Pick<Member, "leaseMillis" | "lost" | "name">

/** Changes the configuration. */
export const configure = <G>(state: Shared<G>, config: G): void => {
  state.config = config
  state.changes++
}

/** A process that has just joined. */
export type Joined<C> = Member<C> & { part: undefined }

/** Adds a process. */
export const join = <C>(
  { leaseMillis, lost, name }: Joining,
  rank: number,
  tag: number,
  now: number,
  held: C
): Joined<C> => ({
  name,
  seq: 0,
  at: now,
  dueAt: now,
  leaseMillis,
  lost,
  rank,
  hasLeft: false,
  inFlight: 0,
  tag,
  head: undefined,
  lag: 0,
  part: undefined,
  held
})

/** A copy, which can be changed without changing the original: its law is written onto that of a state that nobody needs any longer. */
export const copy = (state: PoolState, onto?: PoolState): PoolState => {
  const members: PoolState["members"] = {}
  // The first process joins on a copy of its own.
  if (state.joined > 0) for (const id in state.members) members[id] = { ...state.members[id]! }
  return { ...state, law: Pacer.copy(state.law, onto?.law), members }
}
