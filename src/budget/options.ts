/**
 * What is checked before anything runs: the options of a budget, and how a caller wants to stand in the queue.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Tracer from "effect/Tracer"
import { leastWeight } from "../internal/fairQueue.ts"
import { finiteOf, invalid, onlyKnown, waitOf } from "../internal/invalid.ts"
import { isClass, isModel, poolOf as classOf } from "../internal/modelClass.ts"
import * as Limits from "../Limits.ts"
import { Agent, type Options, Priority, type ReserveOptions } from "./models.ts"
import type * as Pool from "./poolModel.ts"

export const defaultPool = "default"

const check = (valid: boolean, option: string, expected: string, value: unknown): void => {
  if (!valid) invalid(`Budget.make: ${option}`, expected, value)
}

const wholeOrInfinite = (value: number): boolean => value === Infinity || Number.isInteger(value)

export const checkConcurrency = (concurrency: number, option = "Budget.make: concurrency"): void => {
  if (!(concurrency >= 1 && wholeOrInfinite(concurrency))) invalid(option, "an integer >= 1", concurrency)
}

export const parse = (options: Options) => {
  onlyKnown("Budget.make", options, { limits: true, concurrency: true, headroom: true, maxQueued: true, ramp: true })
  const { concurrency = Infinity, headroom = 0.05, limits, maxQueued = Infinity, ramp } = options
  checkConcurrency(concurrency)
  check(maxQueued >= 0 && wholeOrInfinite(maxQueued), "maxQueued", "an integer >= 0", maxQueued)
  check(headroom >= 0 && headroom <= 0.5, "headroom", "a number from 0 to 0.5", headroom)
  const from = ramp?.from ?? 1
  check(from > 0 && from <= 1, "ramp.from", "a number above 0, at most 1", from)
  const millis = ramp === undefined ? 1 : Duration.toMillis(finiteOf("Budget.make: ramp.over", ramp.over))
  return { concurrency, headroom, maxQueued, ramp: ramp === undefined ? undefined : { from, millis }, ...sets(limits) }
}

/** What the limits say of pools. */
interface Sets {
  readonly poolOf: (model: string) => string
  /** None are known where none were given. */
  readonly limitsOf: (pool: string) => Limits.Limits
  /** Whether a pool has limits or may learn them. Where each has its own, a name that was misspelt is nobody's. */
  readonly isPool: (name: string) => boolean
  /** The pool that a caller of `operation` names. Refuses what is none. */
  readonly poolNamed: (operation: string, name: string | undefined) => string
}

/** Also of what is no limits at all, which is refused with a word. */
const isPerPool = (limits: Options["limits"]): limits is Limits.Pools => "pools" in Object(limits)

const sets = (limits: Options["limits"]): Sets => {
  if (isPerPool(limits)) return perPool(limits)
  if (limits !== undefined) Limits.resolve(limits)
  return {
    poolOf: limits === undefined ? classOf : () => defaultPool,
    limitsOf: () => limits ?? {},
    isPool: () => true,
    poolNamed: (_, name = defaultPool) => name
  }
}

/** A pool that is not given learns its limits, if it is a model's: Claude's are known by name, others once asked for. */
const perPool = (limits: Limits.Pools): Sets => {
  onlyKnown("Limits", limits, { pools: true, poolOf: true })
  const { poolOf = classOf, pools } = limits
  // A rule of one's own may be no rule for the names of pools: it is asked of models only.
  const isClaudes = poolOf === classOf
  for (const [name, set] of Object.entries(pools)) {
    if (isClaudes && isModel(name)) {
      invalid("Limits.pools", `the pool "${classOf(name)}"`, `"${name}", which is a model of it`)
    }
    Limits.resolve(set)
  }
  const isGiven = (pool: string) => Object.hasOwn(pools, pool)
  const learned = new Set<string>()
  const isPool = (name: string) => isGiven(name) || learned.has(name) || (isClaudes && isClass(name))
  return {
    isPool,
    poolOf: (model) => {
      const pool = poolOf(model)
      if (!isGiven(pool)) learned.add(pool)
      return pool
    },
    limitsOf: (pool) => (isGiven(pool) ? pools[pool]! : {}),
    poolNamed: (operation, name) => {
      const pool = name ?? defaultPool
      if (isPool(pool)) return pool
      const given = Object.keys(pools).map((each) => `"${each}", `)
      return invalid(
        `Budget.${operation}: pool`,
        `one of ${given.join("")}what poolOf gives for a model`,
        name === undefined ? "none" : `"${name}"`
      )
    }
  }
}

/** Whether `Agents` has yet to count a call, for a cap or a share by work: a budget that does not must not serve it. */
export const Uncounted = Context.Reference<boolean>("floodgate/Budget/Uncounted", { defaultValue: () => false })

/** What the context says of a caller. */
export interface Ambient {
  readonly isTraced: boolean
  /** How it stands in the queue when it says nothing itself. */
  readonly plain: Queueing
}

/** Reads contexts, and remembers the last one: an agent's calls, one after the other, have the same. */
export const ambience = (): ((context: Context.Context<never>) => Ambient) => {
  let last: Context.Context<never> | undefined
  let ambient: Ambient
  return (context) => {
    if (context !== last) {
      if (Context.get(context, Uncounted)) {
        const expected = "Agents.layer between the budget and what uses it, for caps and work to count"
        invalid("Agents.run", expected, "a bare budget")
      }
      const plain = {
        agent: Context.get(context, Agent),
        priority: Context.get(context, Priority),
        weight: 1,
        first: false,
        patience: undefined
      }
      ambient = { plain, isTraced: Context.getOrUndefined(context, Tracer.ParentSpan) !== undefined }
      last = context
    }
    return ambient
  }
}

/** How long a caller waits at most, in whatever steps. */
export interface Patience {
  readonly maxWait: Duration.Duration
  /** Milliseconds since it came. */
  readonly waited: () => number
}

/** How a caller stands in the queue, checked. */
export interface Queueing extends Pool.WaiterOptions {
  /** None where it waits as long as it takes. */
  readonly patience: Patience | undefined
}

export const queueingOf = (how: ReserveOptions | undefined, { plain }: Ambient, millis: () => number): Queueing => {
  if (how === undefined && Number.isFinite(plain.priority)) return plain
  const { agent = plain.agent, first = false, maxWait, priority = plain.priority, weight = 1 } = how ?? {}
  if (!(weight >= leastWeight && weight <= 1 / leastWeight)) {
    invalid("Budget.reserve: weight", `a number from ${leastWeight} to ${1 / leastWeight}`, weight)
  }
  if (!Number.isFinite(priority)) invalid("Budget.reserve: priority", "a finite number", priority)
  return {
    agent,
    priority,
    weight,
    first,
    patience: maxWait === undefined ? undefined : patienceOf(maxWait, millis)
  }
}

const patienceOf = (maxWait: Duration.Input, millis: () => number): Patience => {
  const since = millis()
  return { maxWait: waitOf("Budget.reserve: maxWait", maxWait), waited: () => millis() - since }
}
