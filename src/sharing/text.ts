/**
 * A state as text, and back. Every process adopts the state that it reads, and anything may have written to the store. So a
 * text is rejected unless it has the form of a state, and each number is one that a process could have written: no time is
 * after the state's own, and no pause, lease or debt is longer than a process makes it.
 */
import type * as Cap from "../admission/cap.ts"
import * as Cells from "../admission/cells.ts"
import type * as Law from "../pacing/law.ts"
import type * as Meter from "../pacing/meter.ts"
import type * as Verdicts from "../pacing/verdicts.ts"
import type * as Window from "../pacing/window.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Rules from "../domain/rules.ts"
import { maxMillis } from "./models.ts"
import * as Members from "./members.ts"
import type { Config, Head, PoolMember, MemberPart, PoolState } from "./state.ts"

/** A meter in the form of 0.3, which also learned an error of headers. */
type StoredMeter = Meter.Meter & { readonly error: number }

/** A state as it is stored, in the form of 0.3: members are called owners, and the cells of a window are a list. */
type StoredState = Omit<PoolState, "members" | "degraded"> & { readonly owners: PoolState["members"] }

export const encode = ({ degraded: _, law, members: owners, ...rest }: PoolState): string => {
  const caps = Amounts.mapDimensions<Cap.Cap, object>(law.caps, (cap) => ({ ...cap, cells: Cells.toList(cap.cells) }))
  const meters = law.meters.map((meter) => ({ ...meter, error: 0 }))
  return JSON.stringify({ ...rest, law: { ...law, caps, meters }, owners })
}

/** The text is not a valid state. */
export class Damaged extends Error {
  override readonly name = "Damaged"
}

// -----------------------------------------------------------------------------
// Bounds
// -----------------------------------------------------------------------------

/** Integers up to this are exact. */
const maxNumber = Number.MAX_SAFE_INTEGER
/** A pool's time starts as the clock of a machine. This is 3,000 years, of which microseconds are still exact. */
const maxTime = 1e14
/** Clocks are rounded, and the times of two origins are matched only approximately. */
const slackMillis = 1_000
/** The longest pause that a budget makes, and the longest duration that the law measures. */
const hour = 3_600_000
/** One call in a quarter of an hour: no header names a lower limit. */
const minRate = 1e-6
/** How far a process can be ahead in the fair queue: a thousand minutes' limits, for an agent of the least weight. */
const maxLead = 1e6
/** More cells and levels than a window has. */
const maxCells = 1_000
/** Other numbers of the law that have bounds of their own: see `pacing/window.ts`, `pacing/verdicts.ts`, `pacing/meter.ts`. */
const minFull = -1e6
const maxStep = 1e6
const minRandom = 1e-4
const maxRandom = 0.5
const maxPhase = 1e9

// -----------------------------------------------------------------------------
// Readers
// -----------------------------------------------------------------------------

/** Reads a value. Throws if no process can have written it. `now` is the state's time. */
type Reader<A> = (value: unknown, name: string, now: number) => A

/** A reader for each property. */
type Readers<A> = { readonly [K in keyof A]-?: Reader<A[K]> }

const reject = (name: string, expected: string): never => {
  throw new Damaged(`${name} is not ${expected}`)
}

const expect = (holds: boolean, name: string, expected: string): void => {
  if (!holds) reject(name, expected)
}

/** A number within bounds. JSON writes infinity as `null`: that is read as `infinite`, if there is one. */
const within =
  (min: number, max: number, infinite?: number): Reader<number> =>
  (value, name) => {
    if (value === null && infinite !== undefined) return infinite
    if (typeof value !== "number") return reject(name, "a number")
    return value >= min && value <= max ? value : reject(name, `a number from ${min} to ${max}`)
  }

/** A time, at most `ahead` after the state's. */
const upTo =
  (ahead: number, infinite?: number): Reader<number> =>
  (value, name, now) => {
    const time = within(-maxTime, 2 * maxTime, infinite)(value, name, now)
    return time <= now + ahead + slackMillis ? time : reject(name, "a time that this state can hold")
  }

const number = within(-maxNumber, maxNumber)
const amount = within(0, maxNumber)
const amountOrMore = within(0, maxNumber, Infinity)
const atLeastOne = within(1, maxNumber)
const share = within(0, 1)
const past = upTo(0)
const pastOrNever = upTo(0, -Infinity)
const measured = within(0, hour)
const lasting = within(0, maxMillis)

const flag: Reader<boolean> = (value, name) => (typeof value === "boolean" ? value : reject(name, "a boolean"))
const text: Reader<string> = (value, name) => (typeof value === "string" ? value : reject(name, "a string"))

const oneOf =
  <A extends string>(...all: ReadonlyArray<A>): Reader<A> =>
  (value, name) =>
    all.includes(value as A) ? (value as A) : reject(name, `one of ${all.join(", ")}`)

/** The same reader for several properties. */
const each = <A, K extends string>(reader: Reader<A>, ...names: ReadonlyArray<K>): { readonly [_ in K]: Reader<A> } =>
  Object.fromEntries(names.map((name) => [name, reader])) as { readonly [_ in K]: Reader<A> }

const recordOf = (value: unknown, name: string): Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : reject(name, "an object")

/** An object, which is changed in place. */
const object =
  <A extends object>(readers: Readers<A>): Reader<A> =>
  (value, name, now) => {
    const record = recordOf(value, name)
    for (const key in readers) {
      const read = readers[key](record[key], key, now)
      if (read !== undefined) record[key] = read
    }
    return record as A
  }

/** An object whose keys are not known in advance. */
const record =
  <A>(reader: Reader<A>, keys: Reader<string> = text): Reader<Record<string, A>> =>
  (value, name, now) => {
    const found = recordOf(value, name)
    for (const key in found) found[key] = reader(found[key], keys(key, "key", now), now)
    return found as Record<string, A>
  }

const optional =
  <A>(reader: Reader<A>): Reader<A | undefined> =>
  (value, name, now) =>
    value === undefined ? undefined : reader(value, name, now)

const list =
  <A>(reader: Reader<A>, max: number): Reader<Array<A>> =>
  (value, name, now) =>
    Array.isArray(value) && value.length <= max
      ? value.map((item) => reader(item, name, now))
      : reject(name, `a list of at most ${max}`)

// -----------------------------------------------------------------------------
// The law
// -----------------------------------------------------------------------------

const dimension = oneOf(...Amounts.dimensions)
const perDimension = <A>(reader: Reader<A>): Reader<Amounts.PerDimension<A>> => record(reader, dimension)

const rule = object<Rules.Rule>({
  ...each(amount, "capacity", "rate", "most"),
  window: optional(object({ max: amount, millis: within(1, maxMillis) })),
  quota: flag,
  share,
  provider: object(each(amount, "rate", "burst"))
})

const config = object<Config>({
  rules: perDimension(rule),
  shares: perDimension(share),
  concurrency: within(1, maxNumber, Infinity)
})

const cells = list(object<Cells.Slice>({ index: number, amount }), maxCells)

const cap = object<Cap.Cap>({
  rule,
  level: number,
  at: past,
  fullAt: within(-maxNumber, maxNumber, -Infinity),
  cells: (...read) => Cells.fromList(cells(...read)),
  highs: list(object({ at: past, level: number }), maxCells)
})

const meter = object<StoredMeter>({
  dimension,
  ...each(amount, "best", "recent", "mean", "largest", "reserve", "error"),
  most: optional(amount),
  ...each(amountOrMore, "limit", "mostBurst", "floor", "peak"),
  ...each(number, "sum", "rejected", "held", "tested"),
  ...each(past, "at", "since", "rampAt"),
  ...each(pastOrNever, "fence", "loweredAt"),
  burst: optional(amount),
  level: within(-maxNumber, maxNumber, Infinity),
  phase: within(-1, maxPhase),
  period: within(1, hour),
  ramp: within(minRate, maxNumber, Infinity),
  mark: optional(object({ at: past, given: number })),
  emptied: within(-maxNumber, maxNumber, -Infinity),
  header: optional(object({ at: past, remaining: amount, sum: number }))
})

const test: Readers<Verdicts.Test> = each(amount, "score", "surplus", "seen")

const window = object<Window.Window>({
  ...test,
  ...each(amount, "high", "low", "crowded"),
  size: within(1, maxNumber, Infinity),
  full: within(minFull, maxNumber),
  dueAt: optional(upTo(3 * hour)),
  step: within(1, maxStep),
  need: within(0, maxStep)
})

const law = object<Law.Pacer>({
  meters: list(meter, Amounts.dimensions.length),
  caps: perDimension(cap),
  shares: perDimension(share),
  gate: object({
    reason: oneOf("rateLimit", "ramp", "overload"),
    ...each(amount, "misses", "probes"),
    ...each(pastOrNever, "probedAt", "fence"),
    until: upTo(hour, -Infinity),
    allowed: atLeastOne
  }),
  window,
  opening: optional(object({ at: past, ...each(amount, "since", "last"), allowed: atLeastOne })),
  ...each(object(test), "bucketTest", "outageTest"),
  ...each(within(minRandom, maxRandom), "random", "randomOverload"),
  ...each(amount, "learnedFrom", "sent", "safe", "inFlight", "failed", "failedUpTo"),
  ...each(measured, "rejectMillis", "overloadMillis", "answerMillis"),
  block: object({ at: past, ...each(amount, "sent", "before") }),
  distrustUntil: upTo(hour, -Infinity),
  rampAt: pastOrNever,
  lag: lasting
})

// -----------------------------------------------------------------------------
// The processes
// -----------------------------------------------------------------------------

const whole = (reader: Reader<number>): Reader<Amounts.Whole> => object(each(reader, ...Amounts.dimensions))

const head = object<Head>({ priority: within(-Infinity, Infinity), charge: whole(amount), weight: amount })

const part = object<MemberPart>({
  of: share,
  calls: amountOrMore,
  quotas: perDimension(amount),
  ...each(lasting, "fromMillis", "untilMillis"),
  keptTo: pastOrNever
})

const member = object<PoolMember>({
  name: text,
  ...each(amount, "seq", "rank", "inFlight"),
  at: past,
  dueAt: upTo(hour),
  ...each(lasting, "leaseMillis", "lag"),
  lost: oneOf("keep", "refund"),
  hasLeft: flag,
  ...each(whole(number), "held", "spent"),
  tag: number,
  head: optional(head),
  part: optional(part)
})

const state = object<StoredState>({
  origin: text,
  time: past,
  ...each(amount, "joined", "changes"),
  forgotten: pastOrNever,
  ...each(config, "started", "config"),
  virtual: number,
  law,
  owners: record(member)
})

// -----------------------------------------------------------------------------
// Numbers that must fit together
// -----------------------------------------------------------------------------

/** The most that calls can have used beyond their estimates: what a bucket refills in the longest lease. */
const maxDebt = (burst: number, rate: number): number => burst + rate * maxMillis

const checkRule = ({ capacity, most, quota, rate, window }: Rules.Rule): void => {
  expect(quota ? rate === 0 : rate > 0, "rate", "the rate of this kind of limit")
  expect(capacity > 0 && most > 0 && (window === undefined || window.max > 0), "rule", "a limit that admits a call")
}

const checkCap = ({ at, cells, fullAt, level, rule }: Cap.Cap, stated: Rules.Rule | undefined, now: number): void => {
  checkRule(rule)
  expect(stated === undefined || Rules.sameRules({ tokens: rule }, { tokens: stated }), "rule", "a limit of this state")
  const refilled = level + rule.rate * Math.max(0, now - at)
  expect(refilled >= -(rule.quota ? Amounts.maxAmount : maxDebt(rule.most, rule.rate)), "level", "a debt of calls")
  const fullIn = Math.max(0, rule.capacity - level) / rule.rate
  expect(rule.quota || fullAt <= at + fullIn + slackMillis, "fullAt", "the time at which this level is full")
  const { window } = rule
  const listed = Cells.toList(cells)
  if (window === undefined) return expect(listed.length === 0, "cells", "empty for a limit without a window")
  const latest = (60 * (now + slackMillis)) / window.millis
  const isPast = listed.every(({ index }) => index <= latest)
  expect(isPast, "cell", "of the past")
}

const checkMeter = (meter: Meter.Meter, stated: Rules.Rule | undefined, now: number): void => {
  const { at, best, burst = 0, largest, level, limit, peak } = meter
  if (peak === Infinity) return
  const rate = limit < Infinity ? limit : Math.max(best, peak)
  expect(rate >= Math.min(minRate, stated?.provider.rate ?? minRate), "limit", "a provider's rate")
  expect(level + rate * Math.max(0, now - at) >= -maxDebt(Math.max(burst, largest), rate), "level", "a debt of calls")
}

const check = ({ config, law, owners, time, virtual }: StoredState): void => {
  const { rules } = config
  for (const each of Amounts.dimensions) {
    const cap = law.caps[each]
    const stated = rules[each]
    if (cap !== undefined) checkCap(cap, stated, time)
    else expect(stated === undefined, "caps", "a list of all limits")
  }
  for (const meter of law.meters) checkMeter(meter, rules[meter.dimension], time)
  for (const member of Object.values(owners)) {
    expect(member.tag <= virtual + maxLead, "tag", "a place in the queue")
    expect(!Members.isOver(member, time - slackMillis), "at", "a commit of a process that is remembered")
  }
}

/** Reads a state. Throws `Damaged` if no process can have written the text. */
export const decode = (encoded: string): PoolState => {
  let value: unknown
  try {
    value = JSON.parse(encoded)
  } catch {
    throw new Damaged("it is not JSON")
  }
  const time = within(-maxTime, maxTime)(recordOf(value, "state")["time"], "time", 0)
  const stored = state(value, "state", time)
  check(stored)
  const { owners: members, ...rest } = stored
  return { ...rest, members, degraded: undefined }
}
