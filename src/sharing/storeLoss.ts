/** Recovers a pool or a ledger when its store has lost the state, or returned to an older one. */
import * as Cap from "../admission/cap.ts"
import type * as Pacer from "../pacing/pacer.ts"
import * as Meter from "../pacing/meter.ts"
import * as Amounts from "../domain/amounts.ts"
import { type StateSpec, membersOf } from "./stateSpec.ts"
import * as Members from "./members.ts"
import { hasForgotten } from "./processes.ts"
import type { Member, PoolMember, PoolState, Shared } from "./state.ts"

/** Whether a state includes an older one: the same origin, all commits of each process, and no earlier time. */
export const includes = <S extends Shared>(state: S | undefined, older: S): state is S =>
  state !== undefined &&
  state.origin === older.origin &&
  state.time >= older.time &&
  Object.entries(older.members).every(([id, member]) => {
    const found = state.members[id]
    return found === undefined ? hasForgotten(state, member) : found.seq >= member.seq
  })

/** A state and its age, if that is known. */
export interface Aged<S> {
  readonly state: S
  readonly millis: number | undefined
}

/**
 * Merges two states, for when some processes have continued from an older state of the store, or started anew from an empty
 * one. The result is the later state, charged with what processes have spent according to the other one only.
 */
export const merge = <S extends Shared>(spec: StateSpec<S>, one: Aged<S>, other: Aged<S>): Aged<S> => {
  const [later, earlier] = one.state.time >= other.state.time ? [one, other] : [other, one]
  const { state } = later
  const older = earlier.state
  const isSame = state.origin === older.origin
  // The times of two origins are unrelated. They are matched at the present moment.
  const nowOf = ({ millis = 0, state }: Aged<S>): number => state.time + millis
  const ahead = isSame ? 0 : nowOf(later) - nowOf(earlier)
  for (const id in older.members) {
    const member = membersOf(older)[id]!
    const found = state.members[id]
    // Only a state of the same origin can have forgotten the process.
    if (found === undefined ? isSame && hasForgotten(state, member) : found.seq >= member.seq) continue
    spec.takeOver(state, id, isSame ? member : translate(member, older, state, ahead), ahead)
  }
  spec.complete(state)
  state.joined = Math.max(state.joined, older.joined)
  state.forgotten = Math.max(state.forgotten, older.forgotten + ahead)
  spec.adopt(state, older, ahead)
  spec.lost(state)
  return later
}

/** Converts a process to the time, the turns and the ranks of a state with another origin. */
const translate = <M extends Member>(member: M, { virtual }: Shared, to: Shared, ahead: number): M => ({
  ...member,
  at: member.at + ahead,
  dueAt: member.dueAt + ahead,
  rank: to.joined++,
  tag: member.tag + to.virtual - virtual
})

// -----------------------------------------------------------------------------
// Pools
// -----------------------------------------------------------------------------

/** Takes a process over from another state of a pool, and charges what it has spent according to that state only. */
export const takeOver: StateSpec<PoolState>["takeOver"] = (state, id, member, ahead) => {
  const found = state.members[id]
  spend(state.law, Amounts.plus(member.spent, found?.spent ?? Amounts.nothing, -1))
  state.members[id] = withPart(state.law, found, member, ahead)
}

/** Takes over the pause of another state. */
export const adopt: StateSpec<PoolState>["adopt"] = ({ law }, other, ahead) => {
  law.gate = { ...law.gate, until: Math.max(law.gate.until, other.law.gate.until + ahead) }
}

/** Charges what processes have spent, or gives back a negative amount. The debt is at most one bucket. */
const spend = (law: Pacer.Pacer, spent: Amounts.Whole): void => {
  for (const dimension of Amounts.dimensions) {
    const cap = law.caps[dimension]
    if (cap === undefined) continue
    const max = cap.rule.quota ? Infinity : Math.max(0, cap.level + cap.rule.capacity)
    Cap.settle(cap, 0, Math.min(spent[dimension], max), cap.at)
  }
  for (const meter of law.meters) {
    const max = Math.max(0, meter.level + Meter.burst(meter))
    Members.lower(meter, Math.min(spent[meter.dimension], max))
  }
}

/** Quotas that both states keep for a process are kept only once. */
const withPart = (law: Pacer.Pacer, found: PoolMember | undefined, member: PoolMember, ahead: number): PoolMember => {
  const keptTo = Math.max((member.part?.keptTo ?? -Infinity) + ahead, found?.part?.keptTo ?? -Infinity)
  const part = member.part && { ...member.part, keptTo }
  if (found !== undefined) Members.takeBack(law, found)
  if (part !== undefined && keptTo > -Infinity) Members.keepQuotas(law, part)
  return { ...member, part }
}
