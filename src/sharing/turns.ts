/** Takes turns between processes. Pools and ledgers both use it, because nothing here depends on what a call asks for. */
import type { Head, Member, Shared, Sums } from "./state.ts"

/** A process that does not commit when it is due loses its turn after this time, plus the duration of its commits. */
export const graceMillis = 250

/** A call that waits for the turn of its process. */
export interface CallInTurn {
  readonly priority: number
  readonly cost: number
}

/** The start tag of a call, and the calls of other processes that go before it, with the sum of what they ask for. */
export interface CallsAhead<C> {
  readonly tag: number
  readonly calls: number
  readonly charge: C
}

/**
 * The first calls of other processes that go before a call of this one: those of a higher priority, and those whose process
 * was served less, by start tags (start-time fair queueing, as within a process). A place in flight that this process has just
 * freed may go to its own next call, unless it is ahead by more than one call: the others do not know of the place yet. `weight`
 * is that of all agents that wait in its process.
 */
export const aheadOf = <C>(
  state: Shared<unknown, Member<C>>,
  id: string,
  { cost, priority }: CallInTurn,
  weight: number,
  now: number,
  { nothing, plus }: Sums<C>
): CallsAhead<C> => {
  const member = state.members[id]
  const tag = startTag(state, member)
  const early = tag - cost / weight
  const own = member?.rank ?? Infinity
  const others = Object.entries(state.members).filter(([other, member]) => other !== id && !hasMissed(member, now))
  let calls = 0
  let sum = nothing
  for (const [, { head, rank, tag: theirs }] of others) {
    if (head === undefined || head.priority < priority) continue
    const isHigher = head.priority > priority
    if (isHigher || theirs < early) calls++
    if (isHigher || theirs < tag || (theirs === tag && rank < own)) sum = plus(sum, head.charge)
  }
  return { tag, calls, charge: sum }
}

/** Whether a process did not commit when it was due. */
const hasMissed = ({ dueAt, lag }: Member, now: number): boolean => now > dueAt + graceMillis + lag

/** Whether calls of another process wait. */
export const isContended = (state: Shared, id: string): boolean =>
  Object.entries(state.members).some(([other, { head }]) => other !== id && head !== undefined)

/** The start tag of a process. Without waiting calls it is at least the virtual time. */
const startTag = ({ virtual }: Shared, member: Member | undefined): number =>
  member?.head === undefined ? Math.max(member?.tag ?? -Infinity, virtual) : member.tag

/** Sets the first waiting call of a process. Virtual time is the least tag of the processes with a waiting call. */
export const wait = <C>(state: Shared<unknown, Member<C>>, id: string, head: Head<C> | undefined): void => {
  const member = state.members[id]
  if (member === undefined) return
  // A process that did not wait starts at the present virtual time.
  member.tag = startTag(state, member)
  member.head = head
  const tags = Object.values(state.members).flatMap((each) => (each.head === undefined ? [] : [each.tag]))
  state.virtual = Math.max(state.virtual, tags.length === 0 ? member.tag : Math.min(...tags))
}

/** Corrects what a process was charged for a call in the fair queue. */
export const correct = (state: Shared, id: string, step: number): void => {
  const member = state.members[id]
  if (member !== undefined) member.tag += step
}
