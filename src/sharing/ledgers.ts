/** The states of ledgers, as a port keeps them: their processes, what a store may lose, and degraded mode. */
import * as Ledger from "../domain/spending/ledger.ts"
import type { Kind } from "./kind.ts"
import * as State from "./ledger.ts"
import type { LedgerMember, LedgerState } from "./ledger.ts"
import * as LedgerText from "./ledgerText.ts"
import * as Time from "./time.ts"
import * as Turns from "./turns.ts"

/**
 * A ledger is kept for a month after its last use, and for a year if what was spent always counts. One from which nothing was spent
 * is kept for an hour, because callers can invent the names of agents.
 */
const keepMillis = 31 * 86_400_000
const keepEverMillis = 366 * 86_400_000
const keepUnusedMillis = 3_600_000

// -----------------------------------------------------------------------------
// Processes
// -----------------------------------------------------------------------------

/** What the calls of a dead process hold counts as spent. */
const giveUp = (state: LedgerState, member: LedgerMember, now: number): void => {
  State.spendOf(state, member, member.held, now)
  member.held = 0
  member.inFlight = 0
}

const absorb: Kind<LedgerState>["absorb"] = (state, { utc }, now) => {
  const { joined, law } = state
  // Before anything is decided by it: an event must not count in a day that has not begun.
  law.utc = joined === 0 ? utc : Math.max(utc, State.utcAt(state, state.time))
  law.offset = law.utc - now
  const before = { ...state.members }
  Turns.sweep(state, now, (member) => giveUp(state, member, now))
  for (const id in before) {
    if (state.members[id] === undefined) putAside(state, Ledger.plus(goneOf(state), before[id]!.account))
  }
}

/** What the processes have spent that this state has forgotten. */
const goneOf = ({ law, origin }: LedgerState): Ledger.Account => law.gone[origin] ?? Ledger.nothing

const putAside = ({ law, origin }: LedgerState, account: Ledger.Account): void => {
  law.gone = { ...law.gone, [origin]: account }
}

const enter: Kind<LedgerState>["enter"] = (state, id, self, now) => {
  const { committed } = self
  const found = state.members[id]
  const member = found ?? State.join(self, state.joined++, state.virtual, now)
  state.members[id] = member
  if (committed !== undefined && Turns.isRevived(found, committed, now)) {
    // What its calls hold was counted as spent when its lease ended.
    if (found !== undefined) State.spendOf(state, member, -committed.held, now)
    else putAside(state, Ledger.spend(goneOf(state), -committed.held, state.config.period, State.utcAt(state, now)))
    member.inFlight = committed.inFlight
    member.held = committed.held
  }
  return member
}

/** A commit that its process does not know of admitted calls that were not sent. What others did in it stays. */
const retract: Kind<LedgerState>["retract"] = (state, id, known) => void Turns.undo(state, id, known)

// -----------------------------------------------------------------------------
// Degraded mode
// -----------------------------------------------------------------------------

/** An equal share of what is left, with one share for processes that start later. */
const partOf: Kind<LedgerState>["partOf"] = (state, member, times) => {
  const others = State.membersOf(state).filter((each) => each !== member && each.part !== undefined && !each.hasLeft)
  const of = 1 / (others.length + 2)
  const taken = others.reduce((sum, { part }) => sum + part!.amount, 0)
  const { limit } = state.config
  const left = limit - State.spent(state, member.at) - State.held(state)
  const amount =
    limit === Infinity ? Number.MAX_SAFE_INTEGER : Math.floor(Math.max(0, Math.min(left * of, left - taken)))
  return { ...times, of, amount }
}

const alone: Kind<LedgerState>["alone"] = (whole, id, part) => {
  const { config, law, members } = whole
  const own = members[id] ?? State.join({ leaseMillis: 0, lost: "keep", name: id }, 0, 0, 0)
  return {
    ...whole,
    config: { ...config, limit: config.limit === Infinity ? Infinity : part.amount },
    law: { ...law, gone: {} },
    members: { [id]: { ...own, inFlight: 0, held: 0, account: Ledger.nothing, head: undefined, part: undefined } },
    isAlone: true
  }
}

const comeBack: Kind<LedgerState>["comeBack"] = (state, id, _, ended) => {
  const member = state.members[id]
  const used = ended.members[id]
  if (member === undefined || used === undefined) return
  member.inFlight += used.inFlight
  member.held += used.held
  member.account = Ledger.plus(member.account, used.account)
}

// -----------------------------------------------------------------------------
// The kind
// -----------------------------------------------------------------------------

/** How long after an event a process looks whether the money of others is free, in milliseconds of an average call. */
const answerMillis = 4_000

export const ledgers: Kind<LedgerState> = {
  noun: "ledger",
  keyOf: LedgerText.keyOf,
  make: State.make,
  copy: State.copy,
  encode: LedgerText.encode,
  decode: LedgerText.decode,
  keepFor: (state) => {
    if (State.held(state) === 0 && State.accountOf(state).total === 0) return keepUnusedMillis
    return state.config.period._tag === "Ever" ? keepEverMillis : keepMillis
  },

  readIn: (state, blocked) =>
    Time.readIn(
      blocked,
      answerMillis,
      State.membersOf(state).reduce((n, m) => n + m.inFlight, 0)
    ),
  flushIn: (state, id) => Time.flushIn(Turns.isContended(state, id), true),
  isUrgent: () => false,
  mayRest: () => true,

  absorb,
  configure: State.configure,
  enter,
  retract,
  leave: (state, member) => {
    member.hasLeft = true
    member.part = undefined
    giveUp(state, member, state.time)
  },
  complete: () => {},

  takeOver: (state, id, member) => void (state.members[id] = member),
  lost: ({ law, time }) => void (law.lostAt = time),
  adopt: ({ law }, other) => {
    for (const origin in other.law.gone) {
      law.gone = { ...law.gone, [origin]: Ledger.atLeast(law.gone[origin] ?? Ledger.nothing, other.law.gone[origin]!) }
    }
  },
  shifted: (part) => part,

  partOf,
  smaller: (one, other) => (one.amount <= other.amount ? one : other),
  isEmpty: ({ amount }) => amount === 0,
  leftOf: (part, ended) => {
    const [used] = State.membersOf(ended)
    const gone = used === undefined ? 0 : used.held + Ledger.spent(used.account, -Infinity)
    return { ...part, amount: Math.max(0, part.amount - gone) }
  },
  alone,
  ended: () => {},
  comeBack
}
