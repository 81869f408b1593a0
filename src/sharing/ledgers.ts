/** The states of ledgers, as a port keeps them: their processes, what a store may lose, and degraded mode. */
import * as Ledger from "../domain/spending/ledger.ts"
import type { StateSpec } from "./stateSpec.ts"
import * as State from "./ledger.ts"
import type { LedgerState } from "./ledger.ts"
import { configure } from "./state.ts"
import { equalPart } from "./processes.ts"
import * as LedgerText from "./ledgerText.ts"
import { setUtc, utcAt } from "./utc.ts"

/**
 * A ledger is kept for a month after its last use, and for a year if what was spent always counts. One from which nothing was spent
 * is kept for an hour, because callers can invent the names of agents.
 */
const keepMillis = 32 * 86_400_000
const keepEverMillis = 366 * 86_400_000
const keepUnusedMillis = 3_600_000

// -----------------------------------------------------------------------------
// Processes
// -----------------------------------------------------------------------------

/** Adds an account to what the processes have spent that this state has forgotten. */
const putAside = (state: LedgerState, change: (gone: Ledger.Account) => Ledger.Account): void => {
  const { law, origin } = state
  law.gone = { ...law.gone, [origin]: change(law.gone[origin] ?? Ledger.nothing) }
}

const revive: StateSpec<LedgerState>["revive"] = (state, found, { held }, now) => {
  // What its calls hold was counted as spent when its lease ended.
  if (found !== undefined) return State.spendOf(state, found, -held, now)
  const { config } = state
  putAside(state, (gone) => Ledger.spend(gone, -held, config.period, utcAt(state, now)))
}

// -----------------------------------------------------------------------------
// Degraded mode
// -----------------------------------------------------------------------------

/** The amount that a process may spend alone. */
const partOf: StateSpec<LedgerState>["partOf"] = (state, member, times) => {
  const { limit } = state.config
  const left = limit - State.spent(state, member.at) - State.held(state)
  const { amount, of } = equalPart(state, member, left, (part) => part.amount)
  return { ...times, of, amount: limit === Infinity ? Number.MAX_SAFE_INTEGER : amount }
}

const alone: StateSpec<LedgerState>["alone"] = (whole, id, part) => {
  const { config, law, members } = whole
  const own = members[id]!
  return {
    ...whole,
    config: { ...config, limit: config.limit === Infinity ? Infinity : part.amount },
    law: { ...law, gone: {} },
    members: { [id]: { ...own, inFlight: 0, held: 0, account: Ledger.nothing, head: undefined, part: undefined } },
    isAlone: true
  }
}

// -----------------------------------------------------------------------------
// The kind
// -----------------------------------------------------------------------------

export const ledgers: StateSpec<LedgerState> = {
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

  // Not measured: the time after which a process looks whether the money of others is free.
  answerMillis: () => 4_000,
  frees: () => true,
  isUrgent: () => false,
  mayStopCommitting: () => true,

  sums: State.sums,
  prepare: setUtc,
  configure,
  join: State.join,
  takeBack: () => {},
  // What the calls of a dead process hold counts as spent.
  giveUp: (state, member, now) => State.spendOf(state, member, member.held, now),
  revive,
  forget: (state, { account }) => putAside(state, (gone) => Ledger.plus(gone, account)),
  retracted: () => {},
  complete: () => {},

  takeOver: (state, id, member) => void (state.members[id] = member),
  lost: ({ law, time }) => void (law.lostAt = time),
  adopt: ({ law }, other) => {
    for (const origin in other.law.gone) {
      law.gone = { ...law.gone, [origin]: Ledger.max(law.gone[origin] ?? Ledger.nothing, other.law.gone[origin]!) }
    }
  },

  partOf,
  smaller: (one, other) => (one.amount <= other.amount ? one : other),
  isEmpty: ({ amount }) => amount === 0,
  leftOf: (part, ended) => {
    const [used] = Object.values(ended.members)
    const gone = used === undefined ? 0 : used.held + Ledger.spent(used.account, -Infinity)
    return { ...part, amount: Math.max(0, part.amount - gone) }
  },
  alone,
  ended: () => {},
  comeBack: (_, ours, used) => {
    if (ours !== undefined) ours.account = Ledger.plus(ours.account, used.account)
  }
}
