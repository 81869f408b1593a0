/**
 * What processes share of one pool, as plain data and as text.
 */
import type { Cap } from "../../admission/cap.ts"
import * as Law from "../../admission/law.ts"
import * as Meter from "../../admission/meter.ts"
import * as Limits from "../../Limits.ts"

/** Counts up with each change of what is below: processes of two versions must not read each other's states. */
const format = 9

/** The key of a pool in a store, and the pool of a key. */
export const keyOf = (pool: string): string => `${format}:${pool}`
export const poolOf = (key: string): string | undefined =>
  key.startsWith(`${format}:`) ? key.slice(`${format}:`.length) : undefined

/** What a budget is told: it holds for all processes. */
export interface Config {
  readonly rules: Limits.Rules
  readonly shares: Limits.PerDimension<number>
  /** `Infinity` where nothing bounds the calls in flight. */
  readonly concurrency: number
}

/** The part of the limits that a process goes on with when it cannot reach the store, and that others then leave to it. */
export interface Part {
  readonly of: number
  /** Of the calls in flight; `Infinity` where nothing bounds them. */
  readonly calls: number
  /** Of what quotas have left. */
  readonly quotas: Limits.Charge
  /** From when on it may use it, and until when others keep it, after its last commit. */
  readonly fromMillis: number
  readonly untilMillis: number
  /** Up to when it has been kept. */
  readonly keptTo: number
}

/** The first caller in the queue of a process, and the weight of all of its agents that wait. */
export interface Head {
  readonly priority: number
  readonly charge: Limits.Whole
  readonly weight: number
}

/** One process. */
export interface Owner {
  readonly name: string
  /** Its commits so far. */
  seq: number
  /** When the last one was, and when the next is to come at the latest. */
  at: number
  dueAt: number
  readonly leaseMillis: number
  readonly lost: "keep" | "refund"
  /** The how manieth it was to join. */
  readonly rank: number
  hasLeft: boolean
  /** Its calls in flight, what they have reserved, and all that it has spent so far. */
  inFlight: number
  held: Limits.Whole
  spent: Limits.Whole
  /** Its start tag among the processes that wait, and the first of its queue. */
  tag: number
  head: Head | undefined
  /** How long its commits took lately, at the most. */
  lag: number
  part: Part | undefined
}

export interface State {
  /** Time goes on with the monotonic clocks of the processes: each is at least here. */
  time: number
  joined: number
  /** What processes were started with, which is no news; what holds; and how often that has changed. */
  started: Config
  config: Config
  changes: number
  /** Virtual time of the fair queue between processes. */
  virtual: number
  readonly law: Law.Pool
  readonly owners: Record<string, Owner>
}

export const make = (config: Config, time: number): State => ({
  time,
  joined: 0,
  started: config,
  config,
  changes: 0,
  virtual: 0,
  law: Law.make(config.rules, config.shares, time),
  owners: {}
})

// -----------------------------------------------------------------------------
// Text
// -----------------------------------------------------------------------------

export const encode = (state: State): string => JSON.stringify(state)

/** A text that is no state. */
export class Damaged extends Error {
  override readonly name = "Damaged"
}

/** JSON has no infinity: it writes `null`, which is read as the infinity that the same place of a new state has. */
const numberLike = (template: number, value: unknown, path: string): number => {
  if (typeof value === "number") return value
  if (value === null && Math.abs(template) === Infinity) return template
  throw new Damaged(`${path} is no number`)
}

const recordOf = (value: unknown, path: string): Record<string, unknown> => {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw new Damaged(`${path} is no object`)
}

const listOf = (value: unknown, path: string): ReadonlyArray<unknown> => {
  if (Array.isArray(value)) return value
  throw new Damaged(`${path} is no list`)
}

/** Reads what has the form of a template into it. What the template does not know is left out. */
const like = <A>(template: A, value: unknown, path: string): A => {
  if (typeof template === "number") return numberLike(template, value, path) as A
  if (typeof template !== "object" || template === null) {
    if (template !== undefined && typeof value !== typeof template) throw new Damaged(`${path} is no ${typeof template}`)
    return (value ?? template) as A
  }
  const record = recordOf(value, path)
  const result: Record<string, unknown> = {}
  for (const [key, part] of Object.entries(template)) result[key] = like(part, record[key], `${path}.${key}`)
  return result as A
}

const aConfig: Config = { rules: {}, shares: {}, concurrency: Infinity }
const aRule: Limits.Rule = {
  capacity: 0,
  rate: 0,
  most: 0,
  window: undefined,
  quota: false,
  provider: { rate: 0, burst: 0 }
}
const aPart: Part = { of: 0, calls: Infinity, quotas: {}, fromMillis: 0, untilMillis: 0, keptTo: 0 }
const anOwner: Owner = {
  name: "",
  seq: 0,
  at: 0,
  dueAt: Infinity,
  leaseMillis: 0,
  lost: "keep",
  rank: 0,
  hasLeft: false,
  inFlight: 0,
  held: Limits.nothing,
  spent: Limits.nothing,
  tag: 0,
  head: undefined,
  lag: 0,
  part: undefined
}
const aHead: Head = { priority: 0, charge: Limits.nothing, weight: 0 }
const aCap: Omit<Cap, "rule" | "cells"> = { level: 0, at: 0 }

const optional = <A>(value: unknown, read: (value: unknown) => A): A | undefined =>
  value === undefined || value === null ? undefined : read(value)

const perDimension = <A>(value: unknown, path: string, read: (value: unknown, path: string) => A) => {
  const record = recordOf(value, path)
  const result: { [D in Limits.Dimension]?: A } = {}
  for (const dimension of Limits.dimensions) {
    if (record[dimension] !== undefined) result[dimension] = read(record[dimension], `${path}.${dimension}`)
  }
  return result
}

const amounts = (value: unknown, path: string): Limits.Charge =>
  perDimension(value, path, (amount, at) => like(0, amount, at))

const ruleOf = (value: unknown, path: string): Limits.Rule => {
  const { window } = recordOf(value, path)
  return { ...like(aRule, value, path), window: optional(window, (each) => like({ max: 0, millis: 0 }, each, path)) }
}

const configOf = (value: unknown, path: string): Config => {
  const { rules, shares } = recordOf(value, path)
  return {
    ...like(aConfig, value, path),
    rules: perDimension(rules, `${path}.rules`, ruleOf),
    shares: amounts(shares, `${path}.shares`)
  }
}

const capOf = (value: unknown, path: string): Cap => {
  const { cells, rule } = recordOf(value, path)
  return {
    ...like(aCap, value, path),
    rule: ruleOf(rule, `${path}.rule`),
    cells: listOf(cells, `${path}.cells`).map((cell) => like({ index: 0, amount: 0 }, cell, path))
  }
}

const meterOf = (value: unknown, path: string): Meter.Meter => {
  const { burst, dimension, header, mark } = recordOf(value, path)
  if (!Limits.dimensions.includes(dimension as Limits.Dimension)) throw new Damaged(`${path} is of no dimension`)
  return {
    ...like(Meter.make(dimension as Limits.Dimension, 0), value, path),
    burst: optional(burst, (each) => like(0, each, path)),
    mark: optional(mark, (each) => like({ at: 0, given: 0 }, each, path)),
    header: optional(header, (each) => like({ at: 0, remaining: 0, sum: 0 }, each, path))
  }
}

const lawOf = (value: unknown, path: string): Law.Pool => {
  const { caps, meters, opening, shares, window } = recordOf(value, path)
  const { caps: _, meters: __, opening: aRound, window: aWindow, ...template } = Law.make({}, {}, 0)
  const { dueAt } = recordOf(window, path)
  return {
    ...like(template, value, path),
    meters: listOf(meters, path).map((meter, i) => meterOf(meter, `${path}.meters[${i}]`)),
    caps: perDimension(caps, path, capOf),
    shares: amounts(shares, path),
    window: { ...like(aWindow, window, path), dueAt: optional(dueAt, (each) => like(0, each, path)) },
    opening: optional(opening, (each) => like(aRound, each, path))
  }
}

const ownerOf = (value: unknown, path: string): Owner => {
  const { head, part } = recordOf(value, path)
  return {
    ...like(anOwner, value, path),
    head: optional(head, (each) => like(aHead, each, path)),
    part: optional(part, (each) => {
      const { quotas } = recordOf(each, path)
      return { ...like(aPart, each, path), quotas: amounts(quotas, path) }
    })
  }
}

/** Reads a state. Throws `Damaged` where the text is none. */
export const decode = (text: string): State => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new Damaged("the text is no JSON")
  }
  const { config, law, owners, started, ...rest } = recordOf(value, "state")
  const { config: _, law: __, owners: ___, started: ____, ...template } = make(aConfig, 0)
  return {
    ...like(template, rest, "state"),
    started: configOf(started, "started"),
    config: configOf(config, "config"),
    law: lawOf(law, "law"),
    owners: Object.fromEntries(
      Object.entries(recordOf(owners, "owners")).map(([id, owner]) => [id, ownerOf(owner, `owners.${id}`)])
    )
  }
}
