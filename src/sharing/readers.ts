/** Readers of what is stored. Each rejects a value that no process can have written. */
import { maxMillis } from "./models.ts"
import type { Head, Member, Shared } from "./state.ts"
import { isOver } from "./processes.ts"

/** The text is not a valid state. */
export class Damaged extends Error {
  override readonly name = "Damaged"
  /** The key in the store, for whoever has to delete it. */
  key: string | undefined = undefined
}

/** A later version has written the state, and this one must not change it. */
export class TooNew extends Error {
  override readonly name = "TooNew"
  override readonly message = "a later version of Floodgate has written it: update this process"
}

/** Integers up to this are exact. */
export const maxNumber = Number.MAX_SAFE_INTEGER
/** A state's time starts as the clock of a machine. This is 3,000 years, of which microseconds are still exact. */
const maxTime = 1e14
/** Clocks are rounded, and the times of two origins are matched only approximately. */
export const slackMillis = 1_000
/** The longest pause that a budget makes, and the longest duration that the law measures. */
export const hour = 3_600_000

/** Reads a value. Throws if no process can have written it. `now` is the state's time. */
export type Reader<A> = (value: unknown, name: string, now: number) => A

/** A reader for each property. */
export type Readers<A> = { readonly [K in keyof A]-?: Reader<A[K]> }

const reject = (name: string, expected: string): never => {
  throw new Damaged(`${name} is not ${expected}`)
}

export const expect = (holds: boolean, name: string, expected: string): void => {
  if (!holds) reject(name, expected)
}

/** A number within bounds. JSON writes infinity as `null`: that is read as `infinite`, if there is one. */
export const within =
  (min: number, max: number, infinite?: number): Reader<number> =>
  (value, name) => {
    if (value === null && infinite !== undefined) return infinite
    if (typeof value !== "number") return reject(name, "a number")
    return value >= min && value <= max ? value : reject(name, `a number from ${min} to ${max}`)
  }

/** A time, at most `ahead` after the state's. */
export const upTo =
  (ahead: number, infinite?: number): Reader<number> =>
  (value, name, now) => {
    const time = within(-maxTime, 2 * maxTime, infinite)(value, name, now)
    return time <= now + ahead + slackMillis ? time : reject(name, "a time that this state can hold")
  }

export const number = within(-maxNumber, maxNumber)
export const amount = within(0, maxNumber)
export const amountOrMore = within(0, maxNumber, Infinity)
export const atLeastOne = within(1, maxNumber)
export const share = within(0, 1)
export const past = upTo(0)
export const pastOrNever = upTo(0, -Infinity)
export const measured = within(0, hour)
export const lasting = within(0, maxMillis)

export const flag: Reader<boolean> = (value, name) => (typeof value === "boolean" ? value : reject(name, "a boolean"))
export const text: Reader<string> = (value, name) => (typeof value === "string" ? value : reject(name, "a string"))

export const oneOf =
  <A extends string>(...all: ReadonlyArray<A>): Reader<A> =>
  (value, name) =>
    all.includes(value as A) ? (value as A) : reject(name, `one of ${all.join(", ")}`)

/** The same reader for several properties. */
export const each = <A, K extends string>(
  reader: Reader<A>,
  ...names: ReadonlyArray<K>
): { readonly [_ in K]: Reader<A> } =>
  Object.fromEntries(names.map((name) => [name, reader])) as { readonly [_ in K]: Reader<A> }

export const recordOf = (value: unknown, name: string): Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : reject(name, "an object")

/** An object, which is changed in place. */
export const object =
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
export const record =
  <A>(reader: Reader<A>, keys: Reader<string> = text): Reader<Record<string, A>> =>
  (value, name, now) => {
    const found = recordOf(value, name)
    for (const key in found) found[key] = reader(found[key], keys(key, "key", now), now)
    return found as Record<string, A>
  }

export const optional =
  <A>(reader: Reader<A>): Reader<A | undefined> =>
  (value, name, now) =>
    value === undefined ? undefined : reader(value, name, now)

export const list =
  <A>(reader: Reader<A>, max: number): Reader<Array<A>> =>
  (value, name, now) =>
    Array.isArray(value) && value.length <= max
      ? value.map((item) => reader(item, name, now))
      : reject(name, `a list of at most ${max}`)

// -----------------------------------------------------------------------------
// What the states of pools and ledgers have in common
// -----------------------------------------------------------------------------

/** The format of a state. A later one than `latest` is not touched. */
export const formatUpTo =
  (latest: number): Reader<number> =>
  (value, name, now) => {
    const found = within(1, maxNumber)(value, name, now)
    if (found > latest) throw new TooNew()
    return found
  }

/** How far from the epoch a clock can be, in milliseconds: 3,000 years. */
const maxOffset = 2e14
export const utc = within(-maxOffset, maxOffset)
export const utcOrNever = within(-maxOffset, maxOffset, -Infinity)
/** A duration of any length. */
export const period = within(1, maxOffset)

/** The entry of a process, by what its calls ask for. */
export const member = <C>(charge: Reader<C>, held: Reader<C>): Readers<Omit<Member<C>, "part">> => ({
  name: text,
  ...each(amount, "seq", "rank", "inFlight"),
  at: past,
  dueAt: upTo(hour),
  ...each(lasting, "leaseMillis", "lag"),
  lost: oneOf("keep", "refund"),
  hasLeft: flag,
  held,
  tag: number,
  head: optional(object<Head<C>>({ priority: within(-Infinity, Infinity), charge, weight: amount }))
})

/** A state, by its configuration. */
export const shared = <G>(config: Reader<G>): Readers<Omit<Shared<G>, "law" | "members">> => ({
  origin: text,
  time: past,
  ...each(amount, "joined", "changes"),
  forgotten: pastOrNever,
  ...each(config, "started", "config"),
  virtual: number
})

/** Reads what is stored as JSON. */
export const parsed = (encoded: string): unknown => {
  try {
    return JSON.parse(encoded)
  } catch {
    throw new Damaged("it is not JSON")
  }
}

/** Reads a state from its text. */
export const decoded = <A extends { readonly time: number }>(encoded: string, reader: Reader<A>): A => {
  const value = parsed(encoded)
  return reader(value, "state", within(-maxTime, maxTime)(recordOf(value, "state")["time"], "time", 0))
}

/** How far a process can be ahead in the fair queue: a thousand minutes' limits, for an agent of the least weight. */
const maxLead = 1e6

/** Checks a process against its state. */
export const checkMember = (member: Member, { time, virtual }: Pick<Shared, "time" | "virtual">): void => {
  expect(member.tag <= virtual + maxLead, "tag", "a place in the queue")
  expect(!isOver(member, time - slackMillis), "at", "a commit of a process that is remembered")
}
