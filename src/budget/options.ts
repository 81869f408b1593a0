/**
 * What is checked before anything runs: the options of a budget, and how a caller wants to stand in the queue.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import { leastWeight } from "../admission/fairQueue.ts"
import * as Recency from "../input/recency.ts"
import { checkOptions, invalid, type Known, waitOf, within, wrong } from "../input/arguments.ts"
import { shown } from "../input/shown.ts"
import { isClass, isModel, poolOf as classOf } from "../limits/modelClass.ts"
import type * as Limits from "../Limits.ts"
import { Agent, type Options, Priority, type ReserveOptions } from "./models.ts"
import type { Queueing } from "./waiter.ts"
import * as Rules from "../limits/rules.ts"

export const defaultPool = "default"

/**
 * Pools that are kept although nobody uses them: enough for the keys and models of one program. Names come with requests, so that
 * without a bound they would fill the memory of a gateway.
 */
export const maxIdlePools = 1_000

/** As many as a gateway has connections, each of which has one call under way. */
const defaultMaxPools = 10_000

/** The name of an account's pool, which no pool without an account has. */
export const nameIn = (account: string | undefined, pool: string): string => {
  if (account === undefined) return pool
  return pool === defaultPool ? account : `${account}/${pool}`
}

const wholeOrInfinite = (value: number): boolean => value === Infinity || Number.isInteger(value)

export const checkConcurrency = (concurrency: number, option = "Budget.make: concurrency"): void => {
  if (!(concurrency >= 1 && wholeOrInfinite(concurrency))) invalid(option, "an integer >= 1", concurrency)
}

const known: Known<Options> = { limits: true, concurrency: true, maxQueued: true, maxPools: true, learned: true }

export const parse = (options: Options) => {
  checkOptions("Budget.make", options, known)
  const { concurrency = Infinity, limits, maxPools = defaultMaxPools, maxQueued = Infinity } = options
  checkConcurrency(concurrency)
  if (!(Number.isInteger(maxPools) && maxPools >= 1)) invalid("Budget.make: maxPools", "an integer >= 1", maxPools)
  if (!(maxQueued >= 0 && wholeOrInfinite(maxQueued))) invalid("Budget.make: maxQueued", "an integer >= 0", maxQueued)
  return { concurrency, maxPools, maxQueued, ...sets(limits) }
}

/** The pools of the limits. */
interface Sets {
  readonly poolOf: (model: string) => string
  /** None are known where none were given. */
  readonly limitsOf: (pool: string) => Limits.Limits
  /** The pools that are known from the start. */
  readonly known: ReadonlyArray<string>
  /** Whether a pool has limits or may learn them. If each has its own, a misspelt name has no pool. */
  readonly isPool: (name: string) => boolean
  /** The pool that a caller of `operation` names. Throws if there is none of that name. */
  readonly poolNamed: (operation: string, name: string | undefined) => string
}

/** Takes any value: `Rules.resolve` refuses what is neither. */
const isPerPool = (limits: Options["limits"]): limits is Limits.Pools => "pools" in Object(limits)

const sets = (limits: Options["limits"]): Sets => {
  if (isPerPool(limits)) return perPool(limits)
  if (limits !== undefined) Rules.resolve(limits)
  return {
    poolOf: limits === undefined ? classOf : () => defaultPool,
    limitsOf: () => limits ?? {},
    known: limits === undefined ? [] : [defaultPool],
    isPool: () => true,
    poolNamed: (_, name = defaultPool) => name
  }
}

/** A pool that is not given learns its limits, if it is a model's: Claude's are known by name, others once asked for. */
const perPool = (limits: Limits.Pools): Sets => {
  checkOptions("Limits", limits, { pools: true, poolOf: true })
  const { poolOf = classOf, pools } = limits
  if (typeof pools !== "object" || pools === null) invalid("Limits.pools", "an object with limits by pool", pools)
  if (typeof poolOf !== "function") invalid("Limits.poolOf", "a function", poolOf)
  // A rule of one's own may be no rule for the names of pools: it is asked of models only.
  const isClaudes = poolOf === classOf
  for (const [name, set] of Object.entries(pools)) {
    if (isClaudes && isModel(name)) {
      wrong("Limits.pools", `expected the pool "${classOf(name)}", got "${name}", which is a model of it`)
    }
    within("Limits", `Limits.pools.${name}`, () => Rules.resolve(set))
  }
  const isGiven = (pool: string) => Object.hasOwn(pools, pool)
  const learned = new Map<string, true>()
  const isPool = (name: string) => isGiven(name) || learned.has(name) || (isClaudes && isClass(name))
  return {
    isPool,
    known: Object.keys(pools),
    poolOf: (model) => {
      const pool = poolOf(model)
      if (!isGiven(pool)) Recency.put(learned, pool, true, 10 * maxIdlePools)
      return pool
    },
    limitsOf: (pool) => (isGiven(pool) ? pools[pool]! : {}),
    poolNamed: (operation, name) => {
      const pool = name ?? defaultPool
      if (isPool(pool)) return pool
      const given = Object.keys(pools).map((each) => `"${each}", `)
      const expected = `one of ${given.join("")}what poolOf gives for a model`
      return wrong(
        `Budget.${operation}: pool`,
        `expected ${expected}, got ${name === undefined ? "none" : shown(name)}`
      )
    }
  }
}

/** How a caller stands in the queue, checked. */
export const queueingOf = (context: Context.Context<never>, how: ReserveOptions = {}): Queueing => {
  const { agent = Context.get(context, Agent), first = false, maxWait, weight = 1 } = how
  const priority = how.priority ?? Context.get(context, Priority)
  if (!(weight >= leastWeight && weight <= 1 / leastWeight)) {
    invalid("Budget.reserve: weight", `a number from ${leastWeight} to ${1 / leastWeight}`, weight)
  }
  if (!Number.isFinite(priority)) invalid("Budget.reserve: priority", "a finite number", priority)
  const longest = maxWait === undefined ? Infinity : Duration.toMillis(waitOf("Budget.reserve: maxWait", maxWait))
  return { agent, priority, weight, first, maxWait: longest }
}
