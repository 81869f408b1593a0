/**
 * A state as text, and back. Whoever can write into the store can write anything, and a state is taken over by every process
 * that reads it. So a text is refused unless it has the form of a state and every number is one that a process could have
 * written: no moment lies after the state's own time, no pause, lease or debt is longer than a process makes it.
 */
import type * as Cap from "../admission/cap.ts"
import * as Cells from "../admission/cells.ts"
import type * as Law from "../pacing/law.ts"
import type * as Meter from "../pacing/meter.ts"
import type * as Verdicts from "../pacing/verdicts.ts"
import type * as Window from "../pacing/window.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Rules from "../domain/rules.ts"
import { longestMillis } from "./models.ts"
import * as Members from "./members.ts"
import type { Config, Head, Owner, Part, PoolState } from "./state.ts"

/** The cells of a window are written as a list, whatever a cap makes of them. */
export const encode = (state: PoolState): string => {
  const caps = Amounts.mapDimensions<Cap.Cap, object>(state.law.caps, (cap) => ({
    ...cap,
    cells: Cells.toList(cap.cells)
  }))
  return JSON.stringify({ ...state, law: { ...state.law, caps } })
}

/** The text is not a valid state. */
export class Damaged extends Error {
  override readonly name = "Damaged"
}

// -----------------------------------------------------------------------------
// Bounds
// -----------------------------------------------------------------------------

/** Numbers up to this are exact. */
const largest = Number.MAX_SAFE_INTEGER
/** The time of a pool, which starts as that of a machine: 3,000 years, of which microseconds are still exact. */
const longestTime = 1e14
/** States are written at once, but clocks are rounded, and two origins are brought into one time only nearly. */
const slackMillis = 1_000
/** The longest pause that a budget makes, and the longest time that the law measures. */
const longestPause = 3_600_000
const longestMeasure = 3_600_000
/** A lower limit is in no header: one call in a quarter of an hour. */
const leastRate = 1e-6
/** By so much a process may be ahead in the fair queue: a thousand times a minute's limit for an agent of the least weight. */
const longestLead = 1e6
/** A window in flight is searched within these bounds: see `window.ts`. */
const leastFull = -1e6
const mostStep = 1e6
/** The random rates lie between a thousandth and a tenth. */
const leastRandom = 1e-4
const mostRandom = 0.5
/** A phase is four seconds at the most. */
const mostPhase = 1e9

// -----------------------------------------------------------------------------
// Readers
// -----------------------------------------------------------------------------

/** Reads a value, of which `null` may become an infinity. Throws if no process has written it. `now` is the state's time. */
type Reader<A> = (value: unknown, name: string, now: number) => A

/** A reader for each property. */
type Readers<A> = { readonly [K in keyof A]-?: Reader<A[K]> }

const refuse = (name: string, expected: string): never => {
  throw new Damaged(`${name} is no ${expected}`)
}

/** A number within bounds. JSON has no infinity: it writes `null`, which is `infinite` where that may be. */
const within =
  (least: number, most: number, infinite?: number): Reader<number> =>
  (value, name) => {
    if (value === null && infinite !== undefined) return infinite
    if (typeof value !== "number") return refuse(name, "number")
    return value >= least && value <= most ? value : refuse(name, `number from ${least} to ${most}`)
  }

/** A moment up to `ahead` after the state's time. */
const upTo =
  (ahead: number, infinite?: number): Reader<number> =>
  (value, name, now) => {
    const moment = within(-longestTime, 2 * longestTime, infinite)(value, name, now)
    return moment <= now + ahead + slackMillis ? moment : refuse(name, "time that a process of this pool has known")
  }

const number = within(-largest, largest)
const count = within(0, largest)
const amount = count
const amountOrMore = within(0, largest, Infinity)
const levelOrMore = within(-largest, largest, Infinity)
const portion = within(0, 1)
const past = upTo(0)
const pastOrNever = upTo(0, -Infinity)
const measured = within(0, longestMeasure)
const lasting = within(0, longestMillis)

const flag: Reader<boolean> = (value, name) => (typeof value === "boolean" ? value : refuse(name, "boolean"))
const text: Reader<string> = (value, name) => (typeof value === "string" ? value : refuse(name, "string"))

const oneOf =
  <A extends string>(...all: ReadonlyArray<A>): Reader<A> =>
  (value, name) =>
    all.includes(value as A) ? (value as A) : refuse(name, `one of ${all.join(", ")}`)

const recordOf = (value: unknown, name: string): Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : refuse(name, "object")

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

const optional =
  <A>(reader: Reader<A>): Reader<A | undefined> =>
  (value, name, now) =>
    value === undefined ? undefined : reader(value, name, now)

const list =
  <A>(reader: Reader<A>, most: number): Reader<Array<A>> =>
  (value, name, now) =>
    Array.isArray(value) && value.length <= most
      ? value.map((each) => reader(each, name, now))
      : refuse(name, `list of at most ${most}`)

const perDimension =
  <A>(reader: Reader<A>): Reader<Amounts.PerDimension<A>> =>
  (value, name, now) => {
    const record = recordOf(value, name)
    for (const key in record) record[key] = reader(record[key], dimension(key, "key", now), now)
    return record
  }

// -----------------------------------------------------------------------------
// The law
// -----------------------------------------------------------------------------

const dimension = oneOf(...Amounts.dimensions)

/** More than a window has. */
const mostCells = 1_000
const mostHighs = 100

const rule = object<Rules.Rule>({
  capacity: amount,
  rate: amount,
  most: amount,
  window: optional(object({ max: amount, millis: within(1, longestMillis) })),
  quota: flag,
  share: portion,
  provider: object({ rate: amount, burst: amount })
})

const config = object<Config>({
  rules: perDimension(rule),
  shares: perDimension(portion),
  concurrency: within(1, largest, Infinity)
})

const cells = list(object<Cells.Slice>({ index: number, amount }), mostCells)

const cap = object<Cap.Cap>({
  rule,
  level: number,
  at: past,
  fullAt: within(-largest, largest, -Infinity),
  cells: (...read) => Cells.fromList(cells(...read)),
  highs: list(object({ at: past, level: number }), mostHighs)
})

const meter = object<Meter.Meter>({
  dimension,
  limit: within(0, largest, Infinity),
  burst: optional(amount),
  mostBurst: amountOrMore,
  level: levelOrMore,
  at: past,
  floor: amountOrMore,
  peak: amountOrMore,
  phase: within(-1, mostPhase),
  period: within(1, longestMeasure),
  best: amount,
  recent: amount,
  since: past,
  ramp: within(leastRate, largest, Infinity),
  rampAt: past,
  sum: number,
  rejected: number,
  held: number,
  mean: amount,
  largest: amount,
  reserve: amount,
  mark: optional(object({ at: past, given: number })),
  emptied: within(-largest, largest, -Infinity),
  fence: pastOrNever,
  tested: number,
  header: optional(object({ at: past, remaining: amount, sum: number })),
  error: amount,
  loweredAt: pastOrNever
})

const test: Readers<Verdicts.Test> = { score: amount, surplus: amount, seen: count }

const window = object<Window.Window>({
  ...test,
  size: within(1, largest, Infinity),
  high: count,
  low: count,
  crowded: count,
  full: within(leastFull, largest),
  dueAt: optional(upTo(3 * longestMeasure)),
  step: within(1, mostStep),
  need: within(0, mostStep)
})

const law = object<Law.Pacer>({
  meters: list(meter, Amounts.dimensions.length),
  caps: perDimension(cap),
  shares: perDimension(portion),
  gate: object({
    reason: oneOf("rateLimit", "ramp", "overload"),
    misses: count,
    until: upTo(longestPause, -Infinity),
    allowed: within(1, largest),
    probes: count,
    probedAt: pastOrNever,
    fence: pastOrNever
  }),
  window,
  opening: optional(object({ at: past, since: count, last: count, allowed: within(1, largest) })),
  bucketTest: object(test),
  random: within(leastRandom, mostRandom),
  learnedFrom: count,
  outageTest: object(test),
  randomOverload: within(leastRandom, mostRandom),
  sent: count,
  safe: count,
  inFlight: count,
  failed: count,
  failedUpTo: count,
  block: object({ at: past, sent: count, before: count }),
  rejectMillis: measured,
  overloadMillis: measured,
  answerMillis: measured,
  distrustUntil: upTo(longestPause, -Infinity),
  rampAt: pastOrNever,
  lag: lasting
})

// -----------------------------------------------------------------------------
// The processes
// -----------------------------------------------------------------------------

const whole = (each: Reader<number>): Reader<Amounts.Whole> =>
  object({ requests: each, inputTokens: each, outputTokens: each, tokens: each })

const head = object<Head>({ priority: within(-Infinity, Infinity), charge: whole(amount), weight: within(0, largest) })

const part = object<Part>({
  of: portion,
  calls: within(0, largest, Infinity),
  quotas: perDimension(amount),
  fromMillis: lasting,
  untilMillis: lasting,
  keptTo: pastOrNever
})

const owner = object<Owner>({
  name: text,
  seq: count,
  at: past,
  dueAt: upTo(longestPause),
  leaseMillis: lasting,
  lost: oneOf("keep", "refund"),
  rank: count,
  hasLeft: flag,
  inFlight: count,
  held: whole(number),
  spent: whole(number),
  tag: number,
  head: optional(head),
  lag: lasting,
  part: optional(part)
})

const owners: Reader<PoolState["owners"]> = (value, name, now) => {
  const record = recordOf(value, name)
  for (const id in record) owner(record[id], "owner", now)
  return record as PoolState["owners"]
}

const state = object<Omit<PoolState, "alone">>({
  origin: text,
  time: past,
  joined: count,
  forgotten: pastOrNever,
  started: config,
  config,
  changes: count,
  virtual: number,
  law,
  owners
})

// -----------------------------------------------------------------------------
// What belongs together
// -----------------------------------------------------------------------------

const expect = (isThat: boolean, name: string, expected: string): void => {
  if (!isThat) refuse(name, expected)
}

/** The debt of a bucket: what many calls used beyond their estimates, and no more than is refilled in the longest time. */
const mostDebt = (burst: number, rate: number): number => burst + rate * longestMillis

const checkRule = ({ capacity, most, quota, rate, window }: Rules.Rule): void => {
  expect(quota ? rate === 0 : rate > 0, "rate", "rate of this kind of limit")
  expect(capacity > 0 && most > 0 && (window === undefined || window.max > 0), "rule", "limit that admits a call")
}

const checkCap = ({ at, cells, fullAt, level, rule }: Cap.Cap, stated: Rules.Rule | undefined, now: number): void => {
  checkRule(rule)
  expect(stated === undefined || Rules.sameRules({ tokens: rule }, { tokens: stated }), "rule", "limit of this state")
  const refilled = level + rule.rate * Math.max(0, now - at)
  expect(refilled >= -(rule.quota ? Amounts.mostAmount : mostDebt(rule.most, rule.rate)), "level", "debt of calls")
  const fullIn = Math.max(0, rule.capacity - level) / rule.rate
  expect(rule.quota || fullAt <= at + fullIn + slackMillis, "fullAt", "time at which this level is full")
  const { window } = rule
  const listed = Cells.toList(cells)
  if (window === undefined) return expect(listed.length === 0, "cells", "list of a limit without a window")
  const latest = (60 * (now + slackMillis)) / window.millis
  expect(
    listed.every(({ index }) => index <= latest),
    "cell",
    "slice of the past"
  )
}

const checkMeter = (meter: Meter.Meter, stated: Rules.Rule | undefined, now: number): void => {
  const { at, best, burst = 0, largest, level, limit, peak } = meter
  if (peak === Infinity) return
  const rate = limit < Infinity ? limit : Math.max(best, peak)
  expect(rate >= Math.min(leastRate, stated?.provider.rate ?? leastRate), "limit", "rate of a provider")
  expect(level + rate * Math.max(0, now - at) >= -mostDebt(Math.max(burst, largest), rate), "level", "debt of calls")
}

/** Checks what numbers that are each possible say together. */
const check = ({ config, law, owners, time, virtual }: PoolState): void => {
  const { rules } = config
  for (const each of Amounts.dimensions) {
    const cap = law.caps[each]
    const stated = rules[each]
    if (cap !== undefined) checkCap(cap, stated, time)
    else expect(stated === undefined, "caps", "list of all limits")
  }
  for (const meter of law.meters) checkMeter(meter, rules[meter.dimension], time)
  for (const owner of Object.values(owners)) {
    expect(owner.tag <= virtual + longestLead, "tag", "place in the queue")
    expect(!Members.isOver(owner, time - slackMillis), "at", "commit of a process that is remembered")
  }
}

/** Reads a state. Throws `Damaged` if the text is not a state that a process could have written. */
export const decode = (encoded: string): PoolState => {
  let value: unknown
  try {
    value = JSON.parse(encoded)
  } catch {
    throw new Damaged("the text is no JSON")
  }
  const time = within(-longestTime, longestTime)(recordOf(value, "state")["time"], "time", 0)
  const read = state(value, "state", time)
  check(read)
  return read
}
