/**
 * The calls of processes that share a pool, in turns, and the parts of the limits that they keep free for each other. These are
 * steps on a state: the process that commits next applies them, whichever it is.
 */
import * as Cap from "../admission/cap.ts"
import * as Cells from "../admission/cells.ts"
import type { Blocked } from "../admission/blocked.ts"
import * as Pacer from "../pacing/pacer.ts"
import * as Meter from "../pacing/meter.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import type * as Rules from "../domain/rules.ts"
import type { StateSpec } from "./stateSpec.ts"
import * as State from "./state.ts"
import type { Config, PoolMember, MemberPart, PoolState } from "./state.ts"
import * as Turns from "./turns.ts"

export { correct, wait } from "./turns.ts"

// -----------------------------------------------------------------------------
// Coming and going
// -----------------------------------------------------------------------------

/** Charges the parts of silent processes. */
export const keepParts = ({ law, members }: PoolState, now: number): void => {
  for (const member of Object.values(members)) {
    if (member.part !== undefined) keepPart(law, member, member.part, now)
  }
}

/** Sets the calls in flight to the sum over the processes. */
export const count = ({ law, members }: PoolState): void => {
  law.inFlight = Object.values(members).reduce((sum, { inFlight }) => sum + inFlight, 0)
}

/** Writes off what the calls of a process hold, or reverses that with `sign` -1. */
const writeOff = (law: Pacer.Pacer, { held, lost }: PoolMember, sign: number, at: number): void => {
  for (const meter of law.meters) if (Meter.isLate(meter)) Meter.spend(meter, sign * held[meter.dimension])
  if (lost === "refund") charge(law, held, -sign, at)
}

export const giveUp: StateSpec<PoolState>["giveUp"] = ({ law }, member, now) => {
  const { at, part } = member
  writeOff(law, member, 1, at)
  if (part !== undefined && now > at + part.untilMillis) member.part = { ...part, of: 0, calls: 0 }
}

export const revive: StateSpec<PoolState>["revive"] = ({ law }, _, committed, now) => writeOff(law, committed, -1, now)

export const retracted: StateSpec<PoolState>["retracted"] = ({ law }, found, known) =>
  charge(law, Amounts.plus(found.spent, known?.spent ?? Amounts.nothing, -1), -1, found.at)

/** Takes an amount from a bucket, or gives it back if it is negative. What a full bucket cannot hold is lost. */
export const lower = (meter: Meter.Meter, amount: number): void => {
  meter.level = Math.min(Math.max(meter.level, Meter.burst(meter)), meter.level - amount)
}

/** Subtracts an amount from every level, or adds it. */
const charge = (law: Pacer.Pacer, amount: Amounts.Charge, sign: number, at: number): void => {
  for (const dimension of Amounts.dimensions) {
    const change = sign * (amount[dimension] ?? 0)
    const cap = law.caps[dimension]
    if (cap !== undefined && change !== 0) Cap.settle(cap, 0, change, at)
  }
  for (const meter of law.meters) lower(meter, sign * (amount[meter.dimension] ?? 0))
}

/** Changes the limits. */
export const configure = (state: PoolState, config: Config, now: number): void => {
  State.configure(state, config)
  Pacer.resize(state.law, config.rules, config.shares, now)
}

/** Changes the limit of calls in flight. */
export const allow = (state: PoolState, concurrency: number): void =>
  State.configure(state, { ...state.config, concurrency })

// -----------------------------------------------------------------------------
// Calls
// -----------------------------------------------------------------------------

/** A waiting call. */
interface CandidateCall extends Turns.CallInTurn {
  readonly charge: Amounts.Whole
}

/**
 * Admits a call in the turn of its process, or says why it must wait. `weight` is that of all agents that wait in the process. A
 * pool that is not shared has no processes, so its law alone decides.
 */
export const admit = (
  state: PoolState,
  id: string,
  call: CandidateCall,
  weight: number,
  now: number
): Pacer.Admission | Blocked => {
  const { law } = state
  const { charge, cost } = call
  if (state.joined === 0) return Pacer.admit(law, charge, now)
  const member = state.members[id]
  const turn = Turns.aheadOf(state, id, call, weight, now, charges)
  // All others wait for a large call that was rejected.
  const ahead = Pacer.isKeptFor(law, charge, now) ? { ...turn, calls: 0, charge: Amounts.nothing } : turn
  const blocked = decide(law, charge, ahead, maxInFlight(state, now), now)
  if (blocked !== undefined) return blocked
  const admission = Pacer.take(law, charge, now)
  if (member === undefined) return admission
  member.tag = ahead.tag + cost / weight
  member.inFlight++
  member.held = Amounts.plus(member.held, charge)
  member.spent = Amounts.plus(member.spent, charge)
  if (state.degraded !== undefined)
    state.degraded = { ...state.degraded, open: new Set(state.degraded.open).add(admission) }
  return admission
}

/** A call of a process has used more than its charge. That is no part of what the process holds, because nothing gives it back. */
export const owe = (state: PoolState, id: string, excess: Amounts.Whole): void => {
  const member = state.members[id]
  if (member !== undefined) member.spent = Amounts.plus(member.spent, excess)
}

/** A call of a process is over. */
export const end = (state: PoolState, id: string, admission: Pacer.Admission, used: Amounts.Charge): void => {
  const member = state.members[id]
  if (member === undefined) return
  member.inFlight--
  // Sums of fractions are not exact.
  member.held = member.inFlight > 0 ? Amounts.plus(member.held, admission.charge, -1) : Amounts.nothing
  member.spent = Amounts.plus(member.spent, Amounts.plus({ ...admission.charge, ...used }, admission.charge, -1))
  if (state.degraded === undefined) return
  const open = new Set(state.degraded.open)
  open.delete(admission)
  state.degraded = { ...state.degraded, open }
}

// -----------------------------------------------------------------------------
// Turns
// -----------------------------------------------------------------------------

/** The reason why a call must wait behind the calls ahead of it. */
const decide = (
  law: Pacer.Pacer,
  charge: Amounts.Whole,
  ahead: Turns.CallsAhead<Amounts.Whole>,
  max: number,
  now: number
): Blocked | undefined => {
  if (law.inFlight + ahead.calls >= max) return { by: "concurrency", millis: Infinity }
  law.inFlight += ahead.calls
  const blocked = Pacer.decide(law, Amounts.plus(charge, ahead.charge), now)
  law.inFlight -= ahead.calls
  return blocked ?? yields(law, charge, ahead.charge)
}

/**
 * Lets a call wait if even a full bucket does not hold both this call and those ahead. Otherwise a call ahead that needs a full
 * bucket would never find one.
 */
const yields = (law: Pacer.Pacer, charge: Amounts.Whole, ahead: Amounts.Whole): Blocked | undefined => {
  const full = (dimension: Limits.Dimension): number => {
    const cap = law.caps[dimension]
    const meter = law.meters.find((each) => each.dimension === dimension && each.peak < Infinity)
    return Math.min(
      cap === undefined || cap.rule.quota ? Infinity : cap.rule.capacity,
      meter === undefined ? Infinity : Meter.burst(meter)
    )
  }
  const dimension = Amounts.dimensions.find(
    (each) => charge[each] > 0 && ahead[each] > 0 && charge[each] + ahead[each] > full(each)
  )
  return dimension === undefined ? undefined : { by: dimension, millis: Turns.graceMillis }
}

/** The arithmetic of charges. */
export const charges = { nothing: Amounts.nothing, plus: Amounts.plus }

// -----------------------------------------------------------------------------
// Parts for degraded mode
// -----------------------------------------------------------------------------

/**
 * The part of a process: an equal share, but at most what the parts of the others leave. One share stays free: otherwise, if
 * all processes died at once, the processes started after them would have nothing for minutes.
 */
export const partOf: StateSpec<PoolState>["partOf"] = (state, member, { fromMillis, untilMillis }) => {
  const others = Object.values(state.members).filter((each) => each !== member && (each.part?.of ?? 0) > 0)
  const count = others.length + 2
  const calls = state.config.concurrency
  const place = others.filter(({ rank }) => rank < member.rank).length
  const equal = Math.floor(calls / count) + (place < calls % count ? 1 : 0)
  const taken = (of: (part: MemberPart, config: Config) => number): number =>
    others.reduce((sum, { part }) => sum + of(part!, state.config), 0)
  const of = Math.max(0, Math.min(1 / count, 1 - taken((part) => part.of)))
  return {
    of,
    calls: calls === Infinity ? Infinity : Math.max(0, Math.min(equal, calls - taken(callsOf))),
    quotas: Amounts.mapDimensions<Cap.Cap, number>(state.law.caps, ({ level, rule }) =>
      rule.quota ? Math.max(0, level) * of : undefined
    ),
    fromMillis,
    untilMillis,
    keptTo: -Infinity
  }
}

/** A part's calls in flight. If they were not limited when it was made, it has its share of the present limit. */
const callsOf = ({ calls, of }: MemberPart, { concurrency }: Config): number =>
  calls === Infinity ? Math.floor(of * concurrency) : calls

/** The smaller of two parts in every amount, for when it is unknown which of them is stored. */
export const smaller = (one: MemberPart, other: MemberPart): MemberPart => {
  const quotas = Amounts.mapDimensions<number, number>(one.quotas, (left, dimension) =>
    Math.min(left, other.quotas[dimension] ?? 0)
  )
  return { ...(one.of <= other.of ? one : other), calls: Math.min(one.calls, other.calls), quotas }
}

/** A part after its process has used some of its quotas. */
export const leftOf = (part: MemberPart, law: Pacer.Pacer): MemberPart => ({
  ...part,
  quotas: Amounts.mapDimensions<number, number>(part.quotas, (left, dimension) =>
    Math.min(left, law.caps[dimension]?.level ?? left)
  )
})

/** Charges the pool for the part of a silent process, which may be using it. */
const keepPart = (law: Pacer.Pacer, member: PoolMember, part: MemberPart, now: number): void => {
  const from = Math.max(member.at + part.fromMillis, part.keptTo)
  const to = Math.min(now, member.at + part.untilMillis)
  if (to <= from) return
  const millis = (to - from) * part.of
  for (const dimension of Amounts.dimensions) {
    const cap = law.caps[dimension]
    if (cap === undefined || cap.rule.quota) continue
    const { fullAt } = cap
    Cap.settle(cap, 0, cap.rule.rate * millis, to)
    // This charge is continuous and belongs to no call, so it does not change when the bucket was last full.
    cap.fullAt = fullAt
  }
  if (part.keptTo === -Infinity) keepQuotas(law, part)
  for (const meter of law.meters) if (meter.peak < Infinity) meter.level -= Meter.rate(meter) * millis
  member.part = { ...part, keptTo: to }
}

export const keepQuotas = (law: Pacer.Pacer, { quotas }: MemberPart, sign: 1 | -1 = 1): void => {
  for (const dimension of Amounts.dimensions) {
    const cap = law.caps[dimension]
    if (cap?.rule.quota === true) cap.level -= sign * (quotas[dimension] ?? 0)
  }
}

/** Returns the quotas that were kept for a process: it has committed, and with that reported what it used. */
export const takeBack = (law: Pacer.Pacer, member: PoolMember): void => {
  const { part } = member
  if (part === undefined || part.keptTo === -Infinity) return
  keepQuotas(law, part, -1)
  member.part = { ...part, keptTo: -Infinity }
}

/** The limit of calls in flight, less those that silent processes may have; at least one. */
const maxInFlight = ({ config, members }: PoolState, now: number): number => {
  let max = config.concurrency
  for (const { at, inFlight, part } of Object.values(members)) {
    if (part !== undefined && now > at + part.fromMillis) max -= Math.max(0, callsOf(part, config) - inFlight)
  }
  return Math.max(1, max)
}

/** The amounts of a meter that are scaled by a part. */
const scaled = ["limit", "floor", "peak", "best", "recent", "ramp", "reserve"] as const

/** The law of a process in degraded mode: that of the pool, scaled by its part. Buckets start empty, and keep their debts. */
export const partOfLaw = (law: Pacer.Pacer, part: MemberPart, inFlight: number, now: number): Pacer.Pacer => {
  const { of } = part
  const debt = (level: number): number => Math.min(0, level) * of
  const own = Pacer.copy(law)
  own.inFlight = inFlight
  own.lag = 0
  own.window = { ...own.window, size: Math.max(1, Math.floor(own.window.size * of)) }
  for (const meter of own.meters) {
    for (const amount of scaled) meter[amount] *= of
    if (meter.burst !== undefined) meter.burst *= of
    if (meter.shown !== undefined) meter.shown *= of
    if (meter.lasting !== undefined) meter.lasting *= of
    meter.lacked = meter.tooLarge = undefined
    meter.level = debt(meter.level)
    meter.at = now
  }
  for (const dimension of Amounts.dimensions) {
    const cap = own.caps[dimension]
    if (cap === undefined) continue
    cap.rule = partOfRule(cap.rule, of)
    cap.level = cap.rule.quota ? (part.quotas[dimension] ?? 0) : debt(cap.level)
    cap.at = now
    cap.cells = Cells.scale(cap.cells, of)
    cap.highs = []
  }
  return own
}

const partOfRule = (rule: Rules.Rule, of: number): Rules.Rule => ({
  ...rule,
  capacity: rule.capacity * of,
  rate: rule.rate * of,
  most: rule.most * of,
  window: rule.window === undefined ? undefined : { ...rule.window, max: rule.window.max * of }
})

/**
 * Adds what a process used in degraded mode. The pool was already charged for its part, so only what it used beyond that, and
 * of quotas, is charged now. If the process was forgotten meanwhile, the quotas that were kept for it stay charged.
 */
export const comeBack = (law: Pacer.Pacer, began: Pacer.Pacer, ended: Pacer.Pacer, isForgotten: boolean): void => {
  for (const dimension of Amounts.dimensions) {
    const cap = law.caps[dimension]
    const own = ended.caps[dimension]
    if (cap === undefined || own === undefined) continue
    const first = began.caps[dimension]!.level
    if (cap.rule.quota) cap.level += own.level - (isForgotten ? 0 : first)
    else cap.level += Math.min(0, own.level - first)
  }
  for (const [i, { dimension, level }] of ended.meters.entries()) {
    const meter = Pacer.meterOf(law, dimension)
    if (meter !== undefined) meter.level += Math.min(0, level - (began.meters[i]?.level ?? 0))
  }
}
