/**
 * The state of a ledger, and the steps of its calls: what each process has spent under a cap in dollars, and what its running calls
 * hold.
 *
 * An amount is only ever written by the process that spent it, or for that process after its lease, so two versions of a state
 * are merged without counting anything twice. What a dead process held counts as spent.
 */
import type { Blocked } from "../admission/blocked.ts"
import type { Status } from "../domain/spending/models.ts"
import * as Ledger from "../domain/spending/ledger.ts"
import { isLate } from "./processes.ts"
import * as State from "./state.ts"
import type { Member, PartTimes, Shared } from "./state.ts"
import * as Turns from "./turns.ts"
import { unknownUtc, type UtcLaw, utcAt } from "./utc.ts"

/** A part of a cap. */
export interface LedgerPart extends PartTimes {
  readonly amount: number
}

/** One of the processes that share a ledger. Amounts are in billionths of a dollar. */
export interface LedgerMember extends Member<number> {
  account: Ledger.Account
  part: LedgerPart | undefined
}

export interface LedgerState extends Shared<Ledger.CapInUnits, LedgerMember> {
  readonly law: UtcLaw & {
    lag: number
    /** The spending of forgotten processes, by the origin of the state that had them. */
    gone: Record<string, Ledger.Account>
    /** When the store was last found to have lost something. What other processes have spent is known once they commit again. */
    lostAt: number | undefined
  }
  /** Whether one process decides alone, within its part of the cap. Never stored. */
  isAlone?: boolean | undefined
}

export const make = (config: Ledger.CapInUnits, time: number, origin: string): LedgerState =>
  State.begin(config, { ...unknownUtc, lag: 0, gone: {}, lostAt: undefined }, time, origin)

export const copy = (state: LedgerState): LedgerState => {
  const members: LedgerState["members"] = { ...state.members }
  for (const id in members) members[id] = { ...members[id]! }
  return { ...state, law: { ...state.law }, members }
}

/** A process that joins. */
export const join = (joined: State.Joined<number>): LedgerMember => ({ ...joined, account: Ledger.nothing })

/** The state of a ledger that belongs to one process, by that process's clock. */
export const local = (config: Ledger.CapInUnits, id: string, kept?: Ledger.Kept): LedgerState => {
  const state = make(config, 0, id)
  if (kept !== undefined) state.law.gone = { earlier: kept }
  state.joined = 1
  state.members[id] = join(State.join({ leaseMillis: 0, lost: "keep", name: id }, 0, 0, 0, 0))
  return state
}

// -----------------------------------------------------------------------------
// Sums
// -----------------------------------------------------------------------------

/** All accounts in one. */
export const accountOf = (state: LedgerState): Ledger.Account =>
  [...Object.values(state.law.gone), ...Object.values(state.members).map(({ account }) => account)].reduce(
    Ledger.plus,
    Ledger.nothing
  )

/** The amount that was spent in the period. */
export const spent = (state: LedgerState, now: number): number => {
  const utc = utcAt(state, now)
  let sum = 0
  // Every payment asks, and collecting the accounts first would cost a tenth of it.
  for (const origin in state.law.gone) sum += Ledger.spent(state.law.gone[origin]!, utc)
  for (const id in state.members) sum += Ledger.spent(state.members[id]!.account, utc)
  return sum
}

/** The amount that running calls have reserved. */
export const held = (state: LedgerState): number =>
  Object.values(state.members).reduce((sum, member) => sum + member.held, 0)

/** The state in a unit, which has so many amounts of the ledger. */
export const statusOf = (
  state: LedgerState,
  now: number,
  per = Ledger.perDollar
): Pick<Status, "spent" | "total" | "held" | "limit" | "left" | "until"> => {
  const account = accountOf(state)
  const utc = utcAt(state, now)
  const gone = Ledger.spent(account, utc)
  const { limit, period } = state.config
  return {
    spent: gone / per,
    total: account.total / per,
    held: held(state) / per,
    limit: limit === Infinity ? undefined : limit / per,
    left: limit === Infinity ? undefined : Math.max(0, limit - gone) / per,
    until: Ledger.nextEnd(account, period, utc)
  }
}

/** The amount left unused for a process that may have gone on alone. */
const keptFor = ({ at, part }: LedgerMember, now: number): number =>
  part !== undefined && now > at + part.fromMillis && now <= at + part.untilMillis ? part.amount : 0

// -----------------------------------------------------------------------------
// Calls
// -----------------------------------------------------------------------------

/** The possible cost of a call. */
export interface CostAsked {
  /** Infinite if nothing limits the output of the call. */
  readonly max: number
  readonly expected: number
}

/** A waiting call. */
interface PayingCall extends Turns.CallInTurn {
  readonly asked: CostAsked
}

/** A cap is reached. */
export interface CapRefusal {
  readonly _tag: "CapRefusal"
  readonly asked: number
  /** The expected cost of the call. */
  readonly expected: number
  readonly left: number
  /** The amount that running calls have reserved. */
  readonly held: number
  readonly cap: Ledger.CapInUnits
  /** When the call would fit; undefined if never. */
  readonly until: number | undefined
  /** Whether only the part of a process is used up that decides alone. */
  readonly isAlone: boolean
}

/** The refusal of a call, as the ledger is now. `until` is when it would fit. */
export const refusalAt = (
  state: LedgerState,
  asked: CostAsked,
  until: number | undefined,
  now: number
): CapRefusal => ({
  _tag: "CapRefusal",
  asked: amountOf(state.config, asked),
  expected: asked.expected,
  left: Math.max(0, state.config.limit - spent(state, now)),
  held: held(state),
  cap: state.config,
  until,
  isAlone: state.isAlone === true
})

/** The refusal of a call for which the cap has too little left, whatever running calls have reserved. */
export const refusalOf = (state: LedgerState, asked: CostAsked, now: number): CapRefusal | undefined => {
  const { config } = state
  const amount = amountOf(config, asked)
  if (spent(state, now) + amount <= config.limit && amount < Infinity) return undefined
  return refusalAt(state, asked, Ledger.fitsAt(accountOf(state), amount, config, utcAt(state, now)), now)
}

/** The amount that is reserved for a call. */
export const amountOf = ({ reserve }: Ledger.CapInUnits, { expected, max }: CostAsked): number =>
  reserve === "most" ? max : expected

/** Whether a living process has not committed since the store has lost something. */
const isIncomplete = ({ law: { lostAt }, members }: LedgerState, id: string, now: number): boolean =>
  lostAt !== undefined &&
  Object.entries(members).some(
    ([other, member]) => other !== id && !member.hasLeft && member.at <= lostAt && !isLate(member, now)
  )

export const sums = { nothing: 0, plus: (one: number, other: number): number => one + other }

/** Reserves what a call may cost, says why it must wait, or refuses it. `weight` is that of all agents that wait here. */
export const admit = (
  state: LedgerState,
  id: string,
  call: PayingCall,
  weight: number,
  now: number
): number | Blocked | CapRefusal => {
  const { config } = state
  const member = state.members[id]
  const amount = amountOf(config, call.asked)
  const utc = utcAt(state, now)
  changeAccounts(state, (account) => Ledger.tidy(account, config.period, utc))
  const refusal = refusalOf(state, call.asked, now)
  if (refusal !== undefined) return refusal
  if (isIncomplete(state, id, now)) return { by: "concurrency", millis: Infinity }
  const ahead = Turns.aheadOf(state, id, call, weight, now, sums)
  const kept = Object.values(state.members).reduce((sum, each) => sum + keptFor(each, now), 0)
  if (spent(state, now) + held(state) + kept + ahead.charge + amount > config.limit) {
    return { by: "concurrency", millis: Infinity }
  }
  if (member === undefined) return amount
  member.tag = ahead.tag + call.cost / weight
  hold(state, id, amount)
  return amount
}

/** Reserves an amount, whatever the cap is. */
export const hold = (state: LedgerState, id: string, amount: number): void => {
  const member = state.members[id]
  if (member === undefined) return
  member.inFlight++
  member.held += amount
}

/** Replaces what a call has reserved by what it has spent. */
export const settle = (state: LedgerState, id: string, amount: number, cost: number, now: number): void => {
  const member = state.members[id]
  if (member === undefined) return
  // What a process held that counted as dead is spent already.
  const back = Math.min(amount, member.held)
  member.inFlight = Math.max(0, member.inFlight - 1)
  member.held -= back
  spendOf(state, member, cost - (amount - back), now)
}

export const spendOf = (state: LedgerState, member: LedgerMember, amount: number, now: number): void => {
  member.account = Ledger.spend(member.account, amount, state.config.period, utcAt(state, now))
}

/** Adds what an earlier process has kept. */
export const adoptKept = (state: LedgerState, id: string, kept: Ledger.Kept): void => {
  const member = state.members[id]
  if (member !== undefined) member.account = Ledger.plus(member.account, kept)
}

/** Forgets what was spent in the period. What running calls hold still counts. */
export const reset = (state: LedgerState): void => changeAccounts(state, (account) => ({ ...account, cells: [] }))

const changeAccounts = (state: LedgerState, change: (account: Ledger.Account) => Ledger.Account): void => {
  for (const member of Object.values(state.members)) member.account = change(member.account)
  const gone = Object.entries(state.law.gone).map(([origin, account]) => [origin, change(account)])
  state.law.gone = Object.fromEntries(gone)
}
