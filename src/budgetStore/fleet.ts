/**
 * The steps by which processes come and go, take turns, and leave each other their parts. All are plain functions of a
 * state, a process and a time, played by whoever commits next.
 */
import * as Cap from "../admission/cap.ts"
import * as Law from "../admission/law.ts"
import * as Meter from "../admission/meter.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import * as Rules from "../limits/rules.ts"
import { type Config, type Head, makeOwner, type Owner, type Part, type State } from "./state.ts"

/** A process that does not come when it is due is passed over after this time. */
const graceMillis = 250
/** A process that is taken for dead is remembered for so much longer: it may only have been cut off. */
const rememberedMillis = 600_000

/** A process as it sees itself: its calls in flight are those of its last commit. */
export interface Self {
  readonly name: string
  readonly leaseMillis: number
  readonly lost: "keep" | "refund"
  readonly inFlight: number
  readonly held: Amounts.Whole
}

const isLate = (owner: Owner, now: number): boolean => now > owner.at + owner.leaseMillis

// -----------------------------------------------------------------------------
// Coming and going
// -----------------------------------------------------------------------------

/**
 * Keeps their parts for processes that are silent, and takes those for dead whose lease is over. One that was alive after
 * all finds in the state what became of its last commit.
 */
export const absorb = (state: State, now: number): void => {
  for (const [id, owner] of Object.entries(state.owners)) {
    if (owner.part !== undefined) keepPart(state.law, owner, owner.part, now)
    if (!isLate(owner, now)) continue
    giveUp(state.law, owner)
    owner.head = undefined
    owner.lag = 0
    if (owner.part !== undefined && now > owner.at + owner.part.untilMillis)
      owner.part = { ...owner.part, of: 0, calls: 0 }
    if (isForgotten(owner, now)) delete state.owners[id]
  }
}

/** Whether a process is taken for dead, and no part is kept for it. */
export const isDead = (owner: Owner, now: number): boolean =>
  isLate(owner, now) && now > owner.at + (owner.part?.untilMillis ?? 0)

const isForgotten = (owner: Owner, now: number): boolean => isDead(owner, owner.hasLeft ? now : now - rememberedMillis)

/** What is in flight is what the processes have in flight. */
export const count = ({ law, owners }: State): void => {
  law.inFlight = Object.values(owners).reduce((sum, { inFlight }) => sum + inFlight, 0)
}

/** A process goes: nobody will hear how its calls end. */
export const leave = (law: Law.Pool, owner: Owner): void => {
  owner.hasLeft = true
  owner.part = undefined
  giveUp(law, owner)
}

/** The calls of a process that is taken for dead are over. */
const giveUp = (law: Law.Pool, owner: Owner): void => {
  for (const meter of law.meters) if (Meter.isLate(meter)) Meter.spend(meter, owner.held[meter.dimension])
  if (owner.lost === "refund") charge(law, owner.held, -1, owner.at)
  owner.inFlight = 0
  owner.held = Amounts.nothing
}

/** Finds a process in the state, or lets it join: with the calls that it still has, if it was taken for dead. */
export const enter = (state: State, id: string, self: Self, now: number): Owner => {
  const { inFlight, lost } = self
  const found = state.owners[id]
  const isNew = found === undefined
  const owner = found ?? makeOwner(self, state.joined++, state.virtual, now)
  state.owners[id] = owner
  takeBack(state.law, owner)
  if (owner.inFlight === 0 && inFlight > 0 && (isNew || isLate(owner, now))) {
    for (const meter of state.law.meters) if (Meter.isLate(meter)) Meter.spend(meter, -self.held[meter.dimension])
    if (lost === "refund") charge(state.law, self.held, 1, now)
    owner.inFlight = inFlight
    owner.held = self.held
  }
  count(state)
  return owner
}

/** Takes an amount from every level, or gives it back. */
const charge = (law: Law.Pool, amount: Limits.Charge, sign: 1 | -1, at: number): void => {
  for (const dimension of Amounts.dimensions) {
    const change = sign * (amount[dimension] ?? 0)
    const cap = law.caps[dimension]
    if (cap !== undefined && change !== 0) Cap.settle(cap, 0, change, at)
  }
  for (const meter of law.meters) {
    const change = sign * (amount[meter.dimension] ?? 0)
    meter.level = Math.min(Math.max(meter.level, Meter.burst(meter)), meter.level - change)
  }
}

/** A process starts with values of its own: they are news where others were started with others. */
export const start = (state: State, config: Config, now: number): void => {
  const { concurrency, rules, shares } = state.started
  const isKnown =
    concurrency === config.concurrency && Rules.sameRules(rules, config.rules) && sameShares(shares, config.shares)
  if (isKnown) return
  state.started = config
  configure(state, config, now)
}

const sameShares = (a: Amounts.PerDimension<number>, b: Amounts.PerDimension<number>): boolean =>
  Amounts.dimensions.every((dimension) => a[dimension] === b[dimension])

/** Other limits hold from now on. */
export const configure = (state: State, config: Config, now: number): void => {
  state.config = config
  state.changes++
  Law.resize(state.law, config.rules, config.shares, now)
}

// -----------------------------------------------------------------------------
// Turns
// -----------------------------------------------------------------------------

/** A caller, and the weight of all that wait beside it. */
export interface Turn {
  readonly tag: number
  readonly weight: number
  readonly priority: number
  readonly cost: number
}

/** What those who come first are about to take: their calls go out before this one. */
export interface Ahead {
  readonly calls: number
  readonly charge: Amounts.Whole
}

/** What a call waits for, when those ahead of it go first and no more than so many calls may be in flight. */
export const decide = (
  law: Law.Pool,
  charge: Amounts.Whole,
  ahead: Ahead,
  most: number,
  now: number
): Law.Blocked | undefined => {
  if (law.inFlight + ahead.calls >= most) return { millis: Infinity, dimension: undefined }
  law.inFlight += ahead.calls
  const blocked = Law.decide(law, plus(charge, ahead.charge), now)
  law.inFlight -= ahead.calls
  return blocked ?? yields(law, charge, ahead.charge)
}

/**
 * A bucket that is full does not hold what comes first and this call as well: then what comes first goes, or it would never
 * find the bucket full. Who does not come in time is passed over.
 */
const yields = (law: Law.Pool, charge: Amounts.Whole, ahead: Amounts.Whole): Law.Blocked | undefined => {
  const most = (dimension: Limits.Dimension): number => {
    const cap = law.caps[dimension]
    const meter = law.meters.find((each) => each.dimension === dimension && each.peak < Infinity)
    return Math.min(
      cap === undefined || cap.rule.quota ? Infinity : cap.rule.capacity,
      meter === undefined ? Infinity : Meter.burst(meter)
    )
  }
  const dimension = Amounts.dimensions.find(
    (each) => charge[each] > 0 && ahead[each] > 0 && charge[each] + ahead[each] > most(each)
  )
  return dimension === undefined ? undefined : { millis: graceMillis, dimension }
}

/**
 * The first callers of other processes that come before one of ours: those of a higher priority, and those whose process
 * has had less, by start tags as in the queue of a process (start-time fair queueing). A place that a process has just
 * given back it may take again where it is ahead by no more than a call: nobody else knows of it yet.
 */
export const aheadOf = (state: State, id: string, { cost, priority, tag, weight }: Turn, now: number): Ahead => {
  const early = tag - cost / weight
  const own = state.owners[id]?.rank ?? Infinity
  let calls = 0
  let sum = Amounts.nothing
  for (const [other, { dueAt, head, rank, tag: theirs }] of Object.entries(state.owners)) {
    if (head === undefined || other === id || now > dueAt + graceMillis || head.priority < priority) continue
    const isHigher = head.priority > priority
    if (isHigher || theirs < early) calls++
    if (isHigher || theirs < tag || (theirs === tag && rank < own)) sum = plus(sum, head.charge)
  }
  return { calls, charge: sum }
}

export const plus = (a: Amounts.Whole, b: Amounts.Whole, sign: 1 | -1 = 1): Amounts.Whole => ({
  requests: a.requests + sign * b.requests,
  inputTokens: a.inputTokens + sign * b.inputTokens,
  outputTokens: a.outputTokens + sign * b.outputTokens,
  tokens: a.tokens + sign * b.tokens
})

/** Whether another process waits. */
export const isContended = (state: State, id: string): boolean =>
  Object.entries(state.owners).some(([other, { head }]) => other !== id && head !== undefined)

/** The tag of a process that waits: who has not waited starts with those who do. */
export const startTag = (state: State, owner: Owner): number =>
  owner.head === undefined ? Math.max(owner.tag, state.virtual) : owner.tag

/** Virtual time is the least tag of those who wait. */
export const wait = (state: State, owner: Owner, head: Head | undefined): void => {
  owner.head = head
  const tags = Object.values(state.owners).flatMap((each) => (each.head === undefined ? [] : [each.tag]))
  state.virtual = Math.max(state.virtual, tags.length === 0 ? owner.tag : Math.min(...tags))
}

// -----------------------------------------------------------------------------
// Parts, for a store that is away
// -----------------------------------------------------------------------------

/**
 * The part of a process: an equal one, but no more than others have left, so that together they are never more than the
 * whole. One is left spare: were all to die at once, those who start after them would else have nothing for minutes.
 */
export const partOf = (state: State, owner: Owner, millis: { readonly from: number; readonly until: number }): Part => {
  const others = Object.values(state.owners).filter((each) => each !== owner && (each.part?.of ?? 0) > 0)
  const count = others.length + 2
  const calls = state.config.concurrency
  const place = others.filter(({ rank }) => rank < owner.rank).length
  const equal = Math.floor(calls / count) + (place < calls % count ? 1 : 0)
  const taken = (of: (part: Part) => number): number => others.reduce((sum, { part }) => sum + of(part!), 0)
  const of = Math.max(0, Math.min(1 / count, 1 - taken((part) => part.of)))
  return {
    of,
    calls: calls === Infinity ? Infinity : Math.max(0, Math.min(equal, calls - taken((part) => part.calls))),
    quotas: Amounts.mapDimensions<Cap.Cap, number>(state.law.caps, ({ level, rule }) =>
      rule.quota ? Math.max(0, level) * of : undefined
    ),
    fromMillis: millis.from,
    untilMillis: millis.until,
    keptTo: -Infinity
  }
}

/** What is left of a part for a process that has used some of its quotas. */
export const leftOf = (part: Part, law: Law.Pool): Part => ({
  ...part,
  quotas: Amounts.mapDimensions<number, number>(part.quotas, (left, dimension) =>
    Math.min(left, law.caps[dimension]?.level ?? left)
  )
})

/** Leaves to a process that is silent what its part gives, because it may use it where nobody sees it. */
const keepPart = (law: Law.Pool, owner: Owner, part: Part, now: number): void => {
  const from = Math.max(owner.at + part.fromMillis, part.keptTo)
  const to = Math.min(now, owner.at + part.untilMillis)
  if (to <= from) return
  const millis = (to - from) * part.of
  for (const dimension of Amounts.dimensions) {
    const cap = law.caps[dimension]
    if (cap === undefined) continue
    if (!cap.rule.quota) {
      const { fullAt } = cap
      Cap.settle(cap, 0, cap.rule.rate * millis, to)
      // It is kept all the time, and no call is on its way for it.
      cap.fullAt = fullAt
    } else if (part.keptTo === -Infinity) cap.level -= part.quotas[dimension] ?? 0
  }
  for (const meter of law.meters) if (meter.peak < Infinity) meter.level -= Meter.rate(meter) * millis
  owner.part = { ...part, keptTo: to }
}

/** A process that speaks says what it has used: nothing of a quota is kept for it any more. */
const takeBack = (law: Law.Pool, owner: Owner): void => {
  const { part } = owner
  if (part === undefined || part.keptTo === -Infinity) return
  for (const dimension of Amounts.dimensions) {
    const cap = law.caps[dimension]
    if (cap?.rule.quota === true) cap.level += part.quotas[dimension] ?? 0
  }
  owner.part = { ...part, keptTo: -Infinity }
}

/** The calls that may be in flight besides those that silent processes may have: one, at the least. */
export const mostInFlight = ({ config, owners }: State, now: number): number => {
  let most = config.concurrency
  for (const { at, inFlight, part } of Object.values(owners)) {
    if (part !== undefined && now > at + part.fromMillis) most -= Math.max(0, part.calls - inFlight)
  }
  return Math.max(1, most)
}

/** The amounts of a meter that a process gets its part of. */
const shared = ["limit", "floor", "peak", "best", "recent", "ramp", "reserve"] as const

/** The law that a process continues with alone: that of the whole pool, made smaller. It starts with nothing but its debts. */
export const partOfLaw = (law: Law.Pool, part: Part, inFlight: number, now: number): Law.Pool => {
  const { of } = part
  const debt = (level: number): number => Math.min(0, level) * of
  const own = Law.copy(law)
  own.inFlight = inFlight
  own.lag = 0
  own.window.size = Math.max(1, Math.floor(own.window.size * of))
  for (const meter of own.meters) {
    for (const amount of shared) meter[amount] *= of
    if (meter.burst !== undefined) meter.burst *= of
    meter.level = debt(meter.level)
    meter.at = now
  }
  for (const dimension of Amounts.dimensions) {
    const cap = own.caps[dimension]
    if (cap === undefined) continue
    cap.rule = partOfRule(cap.rule, of)
    cap.level = cap.rule.quota ? (part.quotas[dimension] ?? 0) : debt(cap.level)
    cap.at = now
    for (const cell of cap.cells) cell.amount *= of
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
 * A process is back from going on alone. The others have left it what its part gave: what it has used beyond that is
 * everybody's debt, and so is what it has used of quotas. What was kept of them for a process that was forgotten meanwhile
 * is still taken.
 */
export const comeBack = (
  state: State,
  id: string,
  { began, law }: { readonly began: Law.Pool; readonly law: Law.Pool }
): void => {
  const isForgotten = state.owners[id]?.part === undefined
  for (const dimension of Amounts.dimensions) {
    const cap = state.law.caps[dimension]
    const own = law.caps[dimension]
    if (cap === undefined || own === undefined) continue
    const first = began.caps[dimension]!.level
    if (cap.rule.quota) cap.level += own.level - (isForgotten ? 0 : first)
    else cap.level += Math.min(0, own.level - first)
  }
  for (const [i, { dimension, level }] of law.meters.entries()) {
    const meter = state.law.meters.find((each) => each.dimension === dimension)
    if (meter !== undefined) meter.level += Math.min(0, level - (began.meters[i]?.level ?? 0))
  }
}

// -----------------------------------------------------------------------------
// States that went back
// -----------------------------------------------------------------------------

/** Whether a state has everything that another one has: each process's commits, and its time. */
export const includes = (state: State, older: State): boolean =>
  state.time >= older.time &&
  Object.entries(older.owners).every(([id, owner]) => {
    const found = state.owners[id]
    return found === undefined ? isForgotten(owner, state.time) : found.seq >= owner.seq
  })

/**
 * A store has gone back to an older state, and some may have gone on from there. The later of two states, with what
 * processes have spent by the other alone.
 */
export const merge = (one: State, other: State | undefined): State => {
  if (other === undefined) return one
  const [state, older] = one.time >= other.time ? [one, other] : [other, one]
  for (const [id, owner] of Object.entries(older.owners)) {
    const found = state.owners[id]
    if (found === undefined ? isForgotten(owner, state.time) : found.seq >= owner.seq) continue
    const spent = plus(owner.spent, found?.spent ?? Amounts.nothing, -1)
    for (const dimension of Amounts.dimensions) {
      const cap = state.law.caps[dimension]
      const least = cap?.rule.quota === true ? -Infinity : -(cap?.rule.capacity ?? 0)
      if (cap !== undefined) cap.level = Math.max(cap.level - spent[dimension], Math.min(cap.level, least))
    }
    for (const meter of state.law.meters) {
      const least = -Meter.burst(meter)
      meter.level = Math.max(meter.level - spent[meter.dimension], Math.min(meter.level, least))
    }
    state.owners[id] = owner
  }
  count(state)
  state.joined = Math.max(state.joined, older.joined)
  state.law.gate.until = Math.max(state.law.gate.until, older.law.gate.until)
  return state
}
