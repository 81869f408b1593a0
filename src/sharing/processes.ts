/**
 * How processes join and leave a shared state, and what becomes of the calls of a dead one. These are steps on a state: the
 * process that commits next applies them, whichever it is. What a pool or a ledger does differently is in its `StateSpec`.
 */
import { type StateSpec, type MemberOf, membersOf } from "./stateSpec.ts"
import { join, type Joining, type Member, type Shared } from "./state.ts"

/** How long a dead process is remembered: it may only have lost its connection. */
const rememberedMillis = 600_000

// -----------------------------------------------------------------------------
// Leases
// -----------------------------------------------------------------------------

/** Whether the lease of a process is over. */
export const isLate = (member: Member, now: number): boolean => now > member.at + member.leaseMillis

/** Whether the lease of a process is over, and no part is kept for it. */
export const isDead = (member: Member, now: number): boolean =>
  isLate(member, now) && now > member.at + (member.part?.untilMillis ?? 0)

/** Whether a process is forgotten with the next commit. */
export const isOver = (member: Member, now: number): boolean =>
  isDead(member, member.hasLeft ? now : now - rememberedMillis)

/** Whether a state once had a process and has forgotten it. */
export const hasForgotten = ({ forgotten, time }: Shared, member: Member): boolean =>
  isOver(member, time) || member.at <= forgotten

// -----------------------------------------------------------------------------
// Coming and going
// -----------------------------------------------------------------------------

/**
 * Brings a state up to now: ends the calls of processes whose lease is over, and forgets those that have left or have been dead
 * for long. A process whose lease is over may still live: then it finds its last commit in the state.
 */
export const absorb = <S extends Shared>(spec: StateSpec<S>, state: S, utc: number, now: number): void => {
  spec.prepare(state, utc, now)
  const members = membersOf(state)
  for (const [id, member] of Object.entries(members)) {
    if (!isLate(member, now)) continue
    giveUp(spec, state, member, now)
    member.head = undefined
    member.lag = 0
    if (!isOver(member, now)) continue
    state.forgotten = Math.max(state.forgotten, member.at)
    delete members[id]
    spec.forget(state, member)
  }
}

/**
 * Finds a process in the state, or adds it. If it was considered dead, its calls in flight as of its last commit are restored.
 */
export const enter = <S extends Shared>(
  spec: StateSpec<S>,
  state: S,
  id: string,
  self: Joining,
  committed: MemberOf<S> | undefined,
  now: number
): MemberOf<S> => {
  const members = membersOf(state)
  const found = members[id]
  const member = found ?? spec.join(join(self, state.joined++, state.virtual, now, spec.sums.nothing), committed)
  members[id] = member
  spec.takeBack(state, member)
  const isGivenUp = found === undefined || (found.inFlight === 0 && isLate(found, now))
  if (committed !== undefined && committed.inFlight > 0 && isGivenUp) {
    spec.revive(state, found, committed, now)
    member.inFlight = committed.inFlight
    member.held = committed.held
  }
  spec.complete(state)
  return member
}

/** Ends the calls of a process that leaves: nothing will report their ends. */
export const leave = <S extends Shared>(spec: StateSpec<S>, state: S, member: MemberOf<S>): void => {
  member.hasLeft = true
  member.part = undefined
  giveUp(spec, state, member, member.at)
}

const giveUp = <S extends Shared>(spec: StateSpec<S>, state: S, member: MemberOf<S>, now: number): void => {
  spec.giveUp(state, member, now)
  member.inFlight = 0
  member.held = spec.sums.nothing
}

/**
 * Undoes a commit that its process does not know of, such as a message that reached a wiped store a second time. Its calls
 * were not sent. `known` is the process as of its last commit that it knows of.
 */
export const retract = <S extends Shared>(
  spec: StateSpec<S>,
  state: S,
  id: string,
  known: MemberOf<S> | undefined
): void => {
  const members = membersOf(state)
  const found = members[id]
  if (found === undefined || found.seq <= (known?.seq ?? 0)) return
  if (known === undefined) delete members[id]
  else members[id] = { ...known, at: found.at, dueAt: found.dueAt, rank: found.rank }
  spec.retracted(state, found, known)
  spec.complete(state)
}

/** Adds what a process used in degraded mode, between two of its states. */
export const comeBack = <S extends Shared>(spec: StateSpec<S>, state: S, id: string, began: S, ended: S): void => {
  const ours = membersOf(state)[id]
  const used = membersOf(ended)[id]!
  if (ours !== undefined) {
    ours.inFlight += used.inFlight
    ours.held = spec.sums.plus(ours.held, used.held)
  }
  spec.comeBack(state, ours, used, began, ended)
}

// -----------------------------------------------------------------------------
// Parts
// -----------------------------------------------------------------------------

/**
 * The part of a process of what is left: an equal share, with one share for processes that start later, but at most what the parts of the
 * others leave.
 */
export const equalPart = <M extends Member>(
  { members }: { readonly members: Readonly<Record<string, M>> },
  member: M,
  left: number,
  amountOf: (part: NonNullable<M["part"]>) => number
): { readonly of: number; readonly amount: number } => {
  const others = Object.values(members).filter((each) => each !== member && each.part !== undefined && !each.hasLeft)
  const of = 1 / (others.length + 2)
  const taken = others.reduce((sum, { part }) => sum + amountOf(part!), 0)
  return { of, amount: Math.floor(Math.max(0, Math.min(left * of, left - taken))) }
}
