/**
 * What processes share of one pool, as plain data and as text.
 */
import * as Law from "../admission/law.ts"
import * as Meter from "../admission/meter.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import type * as Rules from "../limits/rules.ts"

/** Incremented with every change of the state's form: processes of two versions must not read each other's states. */
const format = 11

/** The key of a pool in a store, and the pool of a key. */
export const keyOf = (pool: string): string => `${format}:${pool}`
export const poolOf = (key: string): string | undefined =>
  key.startsWith(`${format}:`) ? key.slice(`${format}:`.length) : undefined

/** The configuration of a budget, which applies to all processes. */
export interface Config {
  readonly rules: Rules.Rules
  readonly shares: Amounts.PerDimension<number>
  /** `Infinity` if the calls in flight are not limited. */
  readonly concurrency: number
}

/** The part of the limits that a process continues with if it cannot reach the store, and that the others then leave unused. */
export interface Part {
  /** Its share of the rates, from 0 to 1. */
  readonly of: number
  /** Its share of the calls in flight; `Infinity` if they are not limited. */
  readonly calls: number
  /** Its share of what is left of quotas. */
  readonly quotas: Amounts.Charge
  /** The process may use the part from `fromMillis` after its last commit; the others keep it until `untilMillis` after. */
  readonly fromMillis: number
  readonly untilMillis: number
  /** The time up to which the part was charged to the pool. */
  readonly keptTo: number
}

/** The first caller in the queue of a process, and the weight of all its waiting agents. */
export interface Head {
  readonly priority: number
  readonly charge: Amounts.Whole
  readonly weight: number
}

/** One process. */
export interface Owner {
  readonly name: string
  /** The number of its commits. */
  seq: number
  /** The time of its last commit, and the latest time of the next. */
  at: number
  dueAt: number
  readonly leaseMillis: number
  readonly lost: "keep" | "refund"
  /** Its position in the order in which processes joined. */
  readonly rank: number
  hasLeft: boolean
  /** Its calls in flight, what they have reserved, and everything it has spent so far. */
  inFlight: number
  held: Amounts.Whole
  spent: Amounts.Whole
  /** Its start tag in the fair queue between processes, and the first caller of its own queue. */
  tag: number
  head: Head | undefined
  /** The longest time that one of its recent commits took. */
  lag: number
  part: Part | undefined
}

export interface State {
  /** The process that made it from nothing: states of two origins have nothing in common, not even the time. */
  readonly origin: string
  /** The pool's time, which advances with the monotonic clocks of the processes and never goes back. */
  time: number
  /** The number of processes that have joined. */
  joined: number
  /** When a process that is forgotten committed last, at the latest. */
  forgotten: number
  /** The configuration that processes were started with, so that one which starts with the same changes nothing. */
  started: Config
  /** The configuration in force, and the number of its changes. */
  config: Config
  changes: number
  /** Virtual time of the fair queue between processes. */
  virtual: number
  readonly law: Law.Pool
  readonly owners: Record<string, Owner>
}

export const make = (config: Config, time: number, origin: string): State => ({
  origin,
  time,
  joined: 0,
  forgotten: -Infinity,
  started: config,
  config,
  changes: 0,
  virtual: 0,
  law: Law.make(config.rules, config.shares, time),
  owners: {}
})

/** A process that joins. */
export const makeOwner = (
  { leaseMillis, lost, name }: Pick<Owner, "leaseMillis" | "lost" | "name">,
  rank: number,
  tag: number,
  now: number
): Owner => ({
  name,
  seq: 0,
  at: now,
  dueAt: now,
  leaseMillis,
  lost,
  rank,
  hasLeft: false,
  inFlight: 0,
  held: Amounts.nothing,
  spent: Amounts.nothing,
  tag,
  head: undefined,
  lag: 0,
  part: undefined
})

/** A copy: what happens to one changes nothing in the other. */
export const copy = (state: State): State => {
  const owners: State["owners"] = { ...state.owners }
  for (const id in owners) owners[id] = { ...owners[id]! }
  return { ...state, law: Law.copy(state.law), owners }
}

// -----------------------------------------------------------------------------
// Text
// -----------------------------------------------------------------------------

export const encode = (state: State): string => JSON.stringify(state)

/** The text is not a valid state. */
export class Damaged extends Error {
  override readonly name = "Damaged"
}

/** Throws unless a value has the expected type. */
const expect = (isThat: boolean, name: string, type: string): void => {
  if (!isThat) throw new Damaged(`${name} is no ${type}`)
}

/** JSON has no infinity: it writes `null`, which is read as the infinity that the same place of a new state has. */
const numberLike = (template: number, value: unknown, name: string): number => {
  if (value === null && Math.abs(template) === Infinity) return template
  expect(typeof value === "number", name, "number")
  return value as number
}

const recordOf = (value: unknown, name: string): Record<string, unknown> => {
  expect(typeof value === "object" && value !== null && !Array.isArray(value), name, "object")
  return value as Record<string, unknown>
}

const listOf = (value: unknown, name: string): ReadonlyArray<unknown> => {
  expect(Array.isArray(value), name, "list")
  return value as ReadonlyArray<unknown>
}

/**
 * Checks a value, in place, against a template of numbers, texts, booleans and objects of them. What is `undefined` or a list
 * in the template is checked by the caller.
 */
const like = <A extends object>(template: A, value: unknown, name: string): A => {
  const record = recordOf(value, name)
  for (const key in template) {
    const part: unknown = template[key]
    if (typeof part === "number") record[key] = numberLike(part, record[key], key)
    else if (typeof part === "object" && !Array.isArray(part)) like(part!, record[key], key)
    else if (part !== undefined && !Array.isArray(part)) expect(typeof record[key] === typeof part, key, typeof part)
  }
  return record as A
}

/** Reads a property that may be missing. */
const optional = (record: object, key: string, read: (value: unknown, name: string) => void): void => {
  const value = (record as Record<string, unknown>)[key]
  if (value !== undefined) read(value, key)
}

const perDimension = (value: unknown, name: string, read: (value: unknown, name: string) => void): void => {
  const record = recordOf(value, name)
  for (const key in record) {
    expect(Amounts.dimensions.includes(key as Limits.Dimension), key, "dimension")
    read(record[key], key)
  }
}

const amounts = (value: unknown, name: string): void =>
  perDimension(value, name, (amount, key) => numberLike(0, amount, key))

const aRule = { capacity: 0, rate: 0, most: 0, quota: false, share: 1, provider: { rate: 0, burst: 0 } }
const aWindow = { max: 0, millis: 0 }
const aCell = { index: 0, amount: 0 }
const aHigh = { at: 0, level: 0 }
const aMark = { at: 0, given: 0 }
const aReference = { at: 0, remaining: 0, sum: 0 }
const aHead: Head = { priority: 0, charge: Amounts.nothing, weight: 0 }
const aPart: Part = { of: 0, calls: Infinity, quotas: {}, fromMillis: 0, untilMillis: 0, keptTo: -Infinity }
const aMeter = Meter.make("tokens", 0)
const anOwner: Owner = { ...makeOwner({ name: "", leaseMillis: 0, lost: "keep" }, 0, 0, 0), dueAt: Infinity }
const aState = make({ rules: {}, shares: {}, concurrency: Infinity }, 0, "")
const anOpening = aState.law.opening!
const { law: aLaw, ...theState } = aState
const theLaw: Law.Pool = { ...aLaw, opening: undefined }

const readRule = (value: unknown, name: string): void =>
  optional(like(aRule, value, name), "window", (window, key) => like(aWindow, window, key))

const readConfig = (value: unknown, name: string): void => {
  const { rules, shares } = recordOf(value, name)
  perDimension(rules, "rules", readRule)
  amounts(shares, "shares")
}

const readCap = (value: unknown, name: string): void => {
  const { cells, highs, rule } = like({ level: 0, at: 0, fullAt: -Infinity }, value, name) as Record<string, unknown>
  readRule(rule, "rule")
  for (const cell of listOf(cells, "cells")) like(aCell, cell, "cell")
  for (const high of listOf(highs, "highs")) like(aHigh, high, "high")
}

const readMeter = (value: unknown): void => {
  const meter = like(aMeter, value, "meter")
  expect(Amounts.dimensions.includes(meter.dimension), "meter", "dimension")
  optional(meter, "burst", (burst, key) => numberLike(0, burst, key))
  optional(meter, "mark", (mark, key) => like(aMark, mark, key))
  optional(meter, "header", (header, key) => like(aReference, header, key))
}

const readLaw = (value: unknown): void => {
  const law = like(theLaw, value, "law")
  for (const meter of listOf(law.meters, "meters")) readMeter(meter)
  perDimension(law.caps, "caps", readCap)
  amounts(law.shares, "shares")
  optional(law.window, "dueAt", (at, key) => numberLike(0, at, key))
  optional(law, "opening", (opening, key) => like(anOpening, opening, key))
}

const readOwner = (value: unknown): void => {
  const owner = like(anOwner, value, "owner")
  optional(owner, "head", (head, key) => like(aHead, head, key))
  optional(owner, "part", (part, key) => amounts(like(aPart, part, key).quotas, key))
}

/** Reads a state. Throws `Damaged` if the text is not a state. */
export const decode = (text: string): State => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new Damaged("the text is no JSON")
  }
  const state = like<Omit<State, "law">>(theState, value, "state") as State
  readLaw(state.law)
  readConfig(state.config, "config")
  readConfig(state.started, "started")
  for (const id in state.owners) readOwner(state.owners[id])
  return state
}
