/** How a pool recovers when its store has lost the state, or returned to an older one. */
import type * as Law from "../pacing/law.ts"
import * as Meter from "../pacing/meter.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Members from "./members.ts"
import type { PoolMember, PoolState } from "./state.ts"

/** Whether a state includes an older one: the same origin, all commits of each process, and no earlier time. */
export const includes = (state: PoolState | undefined, older: PoolState): state is PoolState =>
  state !== undefined &&
  state.origin === older.origin &&
  state.time >= older.time &&
  Object.entries(older.members).every(([id, member]) => {
    const found = state.members[id]
    return found === undefined ? Members.hasForgotten(state, member) : found.seq >= member.seq
  })

/** A state and its age, if that is known. */
export interface Aged {
  readonly state: PoolState
  readonly millis: number | undefined
}

/**
 * Merges two states, for when some processes have continued from an older state of the store, or started anew from an empty
 * one. The result is the later state, charged with what processes have spent according to the other one only.
 */
export const merge = (one: Aged, other: Aged): Aged => {
  const [later, earlier] = one.state.time >= other.state.time ? [one, other] : [other, one]
  const { state } = later
  const older = earlier.state
  const isSame = state.origin === older.origin
  // The times of two origins are unrelated. They are matched at the present moment.
  const nowOf = ({ millis = 0, state }: Aged): number => state.time + millis
  const ahead = isSame ? 0 : nowOf(later) - nowOf(earlier)
  for (const [id, member] of Object.entries(older.members)) {
    const found = state.members[id]
    // Only a state of the same origin can have forgotten the process.
    if (found === undefined ? isSame && Members.hasForgotten(state, member) : found.seq >= member.seq) continue
    spend(state.law, Members.plus(member.spent, found?.spent ?? Amounts.nothing, -1))
    state.members[id] = takeOver(state.law, found, isSame ? member : translate(member, older, state, ahead))
  }
  Members.count(state)
  state.joined = Math.max(state.joined, older.joined)
  state.forgotten = Math.max(state.forgotten, older.forgotten + ahead)
  const { gate } = state.law
  state.law.gate = { ...gate, until: Math.max(gate.until, older.law.gate.until + ahead) }
  return later
}

/** Converts a process to the time, the turns and the ranks of a state with another origin. */
const translate = (member: PoolMember, { virtual }: PoolState, to: PoolState, ahead: number): PoolMember => ({
  ...member,
  at: member.at + ahead,
  dueAt: member.dueAt + ahead,
  rank: to.joined++,
  tag: member.tag + to.virtual - virtual,
  part: member.part && { ...member.part, keptTo: member.part.keptTo + ahead }
})

/** Charges what processes have spent. The debt is at most one bucket. */
const spend = (law: Law.Pacer, spent: Amounts.Whole): void => {
  for (const dimension of Amounts.dimensions) {
    const cap = law.caps[dimension]
    const min = cap?.rule.quota === true ? -Infinity : -(cap?.rule.capacity ?? 0)
    if (cap !== undefined) cap.level = Math.max(cap.level - spent[dimension], Math.min(cap.level, min))
  }
  for (const meter of law.meters) {
    const min = -Meter.burst(meter)
    meter.level = Math.max(meter.level - spent[meter.dimension], Math.min(meter.level, min))
  }
}

/** Takes a process over from the other state. Quotas that both states keep for it are kept only once. */
const takeOver = (law: Law.Pacer, found: PoolMember | undefined, member: PoolMember): PoolMember => {
  const keptTo = Math.max(member.part?.keptTo ?? -Infinity, found?.part?.keptTo ?? -Infinity)
  const part = member.part && { ...member.part, keptTo }
  if (found !== undefined) Members.takeBack(law, found)
  if (part !== undefined && keptTo > -Infinity) Members.keepQuotas(law, part)
  return { ...member, part }
}
