/**
 * A state as text, and back. Every process adopts the state that it reads, and anything may have written to the store. So a
 * text is rejected unless it has the form of a state, and each number is one that a process could have written: no time is
 * after the state's own, and no pause, lease or debt is longer than a process makes it.
 */
import type * as Cap from "../admission/cap.ts"
import * as Cells from "../admission/cells.ts"
import type * as Pacer from "../pacing/pacer.ts"
import type * as Meter from "../pacing/meter.ts"
import type * as Verdicts from "../pacing/verdicts.ts"
import type * as Window from "../pacing/window.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Rules from "../domain/rules.ts"
import { maxMillis } from "./models.ts"
import type { Reader, Readers } from "./readers.ts"
import * as Read from "./readers.ts"
import {
  amount,
  amountOrMore,
  atLeastOne,
  each,
  expect,
  hour,
  lasting,
  list,
  maxNumber,
  measured,
  number,
  object,
  oneOf,
  optional,
  past,
  pastOrNever,
  record,
  share,
  slackMillis,
  upTo,
  within,
  flag
} from "./readers.ts"
import type { Config, PoolMember, MemberPart, PoolState } from "./state.ts"

export { Damaged } from "./readers.ts"

/** A meter in the form of 0.3, which also learned an error of headers. */
type StoredMeter = Meter.Meter & { readonly error: number }

/** A state as it is stored, in the form of 0.3: members are called owners, and the cells of a window are a list. */
type StoredState = Omit<PoolState, "members" | "degraded"> & { readonly owners: PoolState["members"] }

export const encode = ({ degraded: _, law, members: owners, ...rest }: PoolState): string => {
  const caps = Amounts.mapDimensions<Cap.Cap, object>(law.caps, (cap) => ({ ...cap, cells: Cells.toList(cap.cells) }))
  const meters = law.meters.map((meter) => ({ ...meter, error: 0 }))
  return JSON.stringify({ ...rest, law: { ...law, caps, meters }, owners })
}

// -----------------------------------------------------------------------------
// Bounds
// -----------------------------------------------------------------------------

/** One call in a quarter of an hour: no header names a lower limit. */
const minRate = 1e-6
/** More cells and levels than a window has. */
const maxCells = 1_000
/** Other numbers of the law that have bounds of their own: see `pacing/window.ts`, `pacing/verdicts.ts`, `pacing/meter.ts`. */
const minFull = -1e6
const maxStep = 1e6
const minRandom = 1e-4
const maxRandom = 0.5
const maxPhase = 1e9

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
  lasting: optional(amount),
  ...each(amountOrMore, "limit", "mostBurst", "floor", "peak"),
  ...each(number, "sum", "rejected", "held", "tested"),
  ...each(past, "at", "since", "rampAt"),
  ...each(pastOrNever, "fence", "loweredAt"),
  burst: optional(amount),
  shown: optional(amount),
  level: within(-maxNumber, maxNumber, Infinity),
  phase: within(-1, maxPhase),
  period: within(1, hour),
  ramp: within(minRate, maxNumber, Infinity),
  mark: optional(object({ at: past, given: number })),
  emptied: within(-maxNumber, maxNumber, -Infinity),
  header: optional(object({ at: past, remaining: amount, sum: number })),
  lacked: optional(object({ charge: amount, times: atLeastOne, until: upTo(hour, -Infinity) })),
  tooLarge: optional(object({ charge: amount, until: upTo(2 * hour) }))
})

const test: Readers<Verdicts.Test> = each(amount, "score", "surplus", "seen")

const window = object<Window.Window>({
  ...test,
  ...each(optional(amount), "sure", "claimed", "missed", "pause"),
  refutedAt: optional(past),
  retryAt: optional(upTo(2 * hour)),
  burst: optional(object({ knownAt: past, ...each(amount, "refused", "times", "first", "found") })),
  ...each(amount, "high", "low", "crowded"),
  size: within(1, maxNumber, Infinity),
  full: within(minFull, maxNumber),
  dueAt: optional(upTo(3 * hour)),
  step: within(1, maxStep),
  need: within(0, maxStep)
})

const law = object<Pacer.Pacer>({
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
  opening: optional(
    object({ at: past, ...each(amount, "since", "last"), allowed: atLeastOne, isNamed: optional(flag) })
  ),
  ...each(object(test), "bucketTest", "outageTest"),
  ...each(within(minRandom, maxRandom), "random", "randomOverload"),
  ...each(amount, "learnedFrom", "sent", "safe", "inFlight", "failed", "failedUpTo"),
  refused: (value, ...read) => (value === undefined ? 0 : amount(value, ...read)),
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

const part = object<MemberPart>({
  of: share,
  calls: amountOrMore,
  quotas: perDimension(amount),
  ...each(lasting, "fromMillis", "untilMillis"),
  keptTo: pastOrNever
})

const member = object<PoolMember>({
  ...Read.member(whole(amount), whole(number)),
  spent: whole(number),
  part: optional(part)
})

const state = object<StoredState>({ ...Read.shared(config), law, owners: record(member) })

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

const check = (stored: StoredState): void => {
  const { config, law, owners, time } = stored
  const { rules } = config
  for (const each of Amounts.dimensions) {
    const cap = law.caps[each]
    const stated = rules[each]
    if (cap !== undefined) checkCap(cap, stated, time)
    else expect(stated === undefined, "caps", "a list of all limits")
  }
  for (const meter of law.meters) checkMeter(meter, rules[meter.dimension], time)
  for (const member of Object.values(owners)) Read.checkMember(member, stored)
}

/** Reads a state. Throws `Damaged` if no process can have written the text. */
export const decode = (encoded: string): PoolState => {
  const stored = Read.decoded(encoded, state)
  check(stored)
  const { owners: members, ...rest } = stored
  return { ...rest, members, degraded: undefined }
}
