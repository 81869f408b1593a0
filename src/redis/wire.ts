/**
 * What goes to the script and what comes back, as JSON: amounts as arrays in the order of `Limits.dimensions`.
 */
import type { Blocked, Held, Pause, PoolOptions, Snapshot } from "../BudgetStore.ts"
import * as Limits from "../Limits.ts"

/** Four values; `false` where a dimension is not limited. */
export type Four<A> = ReadonlyArray<A | false>

export type Operation = readonly [name: string, ...arguments_: ReadonlyArray<unknown>]

export interface RuleWire {
  readonly capacity: number
  readonly rate: number
  readonly most: number
  readonly max?: number
  readonly millis?: number
  readonly quota: boolean
}

interface BucketWire {
  readonly rule: RuleWire
  readonly rate: number
  readonly level: number
  readonly at: number
  readonly reserve: number
  readonly cells: ReadonlyArray<number>
}

/** What a pool is configured with, as its processes tell each other. */
export interface Configuration {
  readonly limits: Limits.Limits | readonly []
  readonly headroom: number
  /** -1 where nothing bounds it. */
  readonly concurrency: number
  /** What the processes were started with: the limits as text, and the rest. */
  readonly given: readonly [limits: string, headroom: number, concurrency: number]
  /**
   * When each of the three was last changed, by the pool's time: 0 when never, -1 where nobody had a word on it; `false` of
   * a process that has not been told yet.
   */
  readonly changedAt: readonly [limits: number, headroom: number, concurrency: number] | false
}

/** `[now, epoch, processes, why, version, news, levels, replies, turn, tight]`; an epoch of 0 asks for `open` and `join`. */
export type Reply = readonly [
  now: number,
  epoch: number,
  processes: number,
  why: "new" | "wiped" | "damaged",
  version: number,
  /** What the process does not know yet, or 0. */
  news: readonly [rules: Four<RuleWire>, configuration: Configuration] | 0,
  levels: Four<number>,
  replies: ReadonlyArray<unknown>,
  /**
   * Which head of this process may come and in how many milliseconds, where that has changed; -1 when there is nothing
   * to say.
   */
  turn: readonly [millis: number, head: number] | -1,
  /** 1 when calls in flight are bounded for now. */
  tight: 0 | 1
]

export type TakeReply = readonly [
  /** The ids of what is granted follow each other: the last of them, and how many. */
  lastId: number,
  granted: number,
  /** What is left after the last. */
  left: Four<number>,
  blocked:
    | 0
    | readonly ["wait", millis: number, dimension: number, head: number]
    | readonly ["exhausted", dimension: number, asked: number, left: number]
]

export interface SnapshotReply {
  readonly configured: Limits.Limits | readonly []
  readonly headroom: number
  readonly buckets: Four<BucketWire>
  readonly cooldown: readonly [until: number, reason: Pause["reason"], judgedAt: number | false] | false
  readonly pace: Snapshot["ledger"]["pace"]
  readonly lowered: ReadonlyArray<number>
  readonly corrected: Four<number>
  readonly doubt: Snapshot["ledger"]["doubt"]
  readonly date: number | false
  readonly toldAt: number
}

export const four = (charge: Limits.Charge): Array<number> =>
  Limits.dimensions.map((dimension) => charge[dimension] ?? -1)

/** The dimensions that have a value. */
export const toRecord = <A, B>(values: Four<A>, f: (value: A) => B): { [D in Limits.Dimension]?: B } => {
  const record: { [D in Limits.Dimension]?: B } = {}
  Limits.dimensions.forEach((dimension, i) => {
    const value = values[i]
    if (value !== undefined && value !== false) record[dimension] = f(value)
  })
  return record
}

export const toCharge = (values: Four<number>): Limits.Charge => toRecord(values, (value) => value)

export const toRule = ({ capacity, max, millis, most, quota, rate }: RuleWire): Limits.Rule => ({
  capacity,
  rate,
  most,
  window: max === undefined || millis === undefined ? undefined : { max, millis },
  quota
})

/** Those in front who are granted: what each is called, and what was left after it. */
export const toGranted = (
  asks: ReadonlyArray<{ readonly charge: Limits.Charge }>,
  [lastId, granted, last]: TakeReply
): ReadonlyArray<Pick<Held, "id" | "charge"> & { readonly left: Limits.Charge }> => {
  let left = toCharge(last)
  const backwards = asks.slice(0, granted).toReversed()
  return backwards
    .map(({ charge }, i) => {
      const one = { id: lastId - i, charge, left }
      left = Limits.mapDimensions(left, (amount, dimension) => amount + (charge[dimension] ?? 0))
      return one
    })
    .reverse()
}

const dimensionAt = (d: number): Limits.Dimension | undefined => Limits.dimensions[d - 1]

export const toBlocked = (blocked: TakeReply[3]): Blocked | undefined => {
  if (blocked === 0) return undefined
  return blocked[0] === "wait"
    ? { _tag: "Wait", millis: blocked[1], dimension: dimensionAt(blocked[2]) }
    : { _tag: "Exhausted", dimension: dimensionAt(blocked[1])!, asked: blocked[2], left: blocked[3] }
}

/** Lua does not tell limits of nothing from an empty list. */
export const toLimits = (limits: Limits.Limits | readonly []): Limits.Limits =>
  Array.isArray(limits) ? {} : (limits as Limits.Limits)

const toCooldown = (cooldown: SnapshotReply["cooldown"]): Snapshot["ledger"]["cooldown"] => {
  if (cooldown === false) return undefined
  const [until, reason, judgedAt] = cooldown
  return { until, reason, judgedAt: judgedAt === false ? -Infinity : judgedAt }
}

export const toSnapshot = (reply: SnapshotReply, now: number): Snapshot => ({
  now,
  ledger: {
    configured: toLimits(reply.configured),
    headroom: reply.headroom,
    buckets: toRecord(reply.buckets, ({ at, cells, level, rate, reserve, rule }) => ({
      rule: toRule(rule),
      rate,
      level,
      at,
      reserve,
      cells: Array.from({ length: cells.length / 2 }, (_, i) => ({ index: cells[2 * i]!, amount: cells[2 * i + 1]! }))
    })),
    cooldown: toCooldown(reply.cooldown),
    pace: reply.pace,
    loweredBy: toCharge(reply.lowered.map((id) => (id < 0 ? false : id))),
    corrected: toCharge(reply.corrected),
    doubt: reply.doubt,
    signalDate: reply.date === false ? -Infinity : reply.date,
    toldAt: reply.toldAt
  }
})

const orFalse = (value: number | undefined): number | false =>
  value === undefined || !Number.isFinite(value) ? false : value

/** The limits with their fields in one order, so that two processes that mean the same say the same. */
const inOrder = (limits: Limits.Limits): Limits.Limits =>
  Limits.mapDimensions(limits, ({ burst, perMinute, perSecond, total, window }) => ({
    perSecond,
    perMinute,
    total,
    burst,
    window
  }))

const finite = (concurrency: number): number => (concurrency === Infinity ? -1 : concurrency)

const started = ({ concurrency, headroom, limits }: PoolOptions): Configuration => ({
  limits: inOrder(limits),
  headroom,
  concurrency: finite(concurrency),
  given: [JSON.stringify(inOrder(limits)), headroom, finite(concurrency)],
  changedAt: false
})

/** What a process starts with, or, once it has been told, what it remembers. */
export const open = (options: PoolOptions, remembered?: Configuration): Operation => [
  "open",
  remembered ?? started(options),
  options.ramp === undefined ? false : [options.ramp.from, options.ramp.millis]
]

/** What a process holds and remembers. */
export const join = (
  held: ReadonlyArray<readonly [id: number, age: number, charge: Limits.Charge]>,
  remembered: ReadonlyArray<readonly [level: number, age: number] | false>
): Operation => ["join", held.map(([id, age, charge]) => [id, age, four(charge)]), remembered]

export const take = (asks: ReadonlyArray<{ readonly charge: Limits.Charge; readonly priority: number }>): Operation => [
  "take",
  ...asks.map(({ charge, priority }) => [...four(charge), priority])
]

export const settle = (id: number, used: Limits.Charge, succeeded: boolean): Operation => [
  "settle",
  id,
  four(used),
  succeeded
]

export const observe = (signal: Limits.Signal, answered: Held | undefined): Operation => [
  "observe",
  Limits.dimensions.map((dimension) => {
    const said = signal.dimensions[dimension]
    return said === undefined
      ? false
      : [orFalse(said.limit), orFalse(said.remaining), orFalse(said.roundedTo), said.window ?? false]
  }),
  orFalse(signal.date),
  // What a process admitted itself goes by another name in Redis.
  answered === undefined || !Number.isInteger(answered.id)
    ? false
    : [
        answered.id,
        answered.left === undefined ? false : Limits.dimensions.map((dimension) => answered.left?.[dimension] ?? false)
      ]
]

export const pause = ({ charge, millis, reason, takenAt }: Pause, elapsed: number): Operation => [
  "pause",
  reason,
  Math.max(0, millis - elapsed),
  charge === undefined ? false : four(charge),
  orFalse(takenAt)
]

export const resize = (limits: Limits.Limits | undefined, concurrency: number | undefined): Operation => [
  "resize",
  {
    ...(limits !== undefined && { limits: inOrder(limits) }),
    ...(concurrency !== undefined && { concurrency: finite(concurrency) })
  }
]
