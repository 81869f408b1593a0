/**
 * What is checked before anything runs: the options of a budget, and how a caller wants to stand in the queue.
 */
import * as Context from "effect/Context"
import * as Lru from "../domain/input/lru.ts"
import * as Input from "../domain/input/checks.ts"
import { shown } from "../domain/input/shown.ts"
import { didYouMean, nearest } from "../domain/input/nearest.ts"
import { minWeight } from "../domain/amounts.ts"
import { classMeantBy, isClass, isModel, poolOf as classOf } from "../domain/modelClass.ts"
import type * as Limits from "../Limits.ts"
import {
  Agent,
  type Cooldown,
  type FailOptions,
  first,
  type GovernedOptions,
  type Options,
  type PauseOptions,
  type RateLimitSignal,
  Priority,
  type ReserveOptions,
  type ResizeOptions
} from "./models.ts"
import type { Queueing } from "./entry.ts"
import * as Rules from "../domain/rules.ts"

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

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

/** Takes any value: the check of one set of limits refuses what is neither. */
const isPerPool = (limits: unknown): limits is Limits.Pools => "pools" in Object(limits)

const poolsOptions = Input.options<Limits.Pools>({ pools: Input.record(Rules.check), poolOf: Input.callback }, "pools")

/** A rule of one's own may be no rule for the names of pools: it is asked of models only. */
const isClaudes = ({ poolOf }: Limits.Pools): boolean => poolOf === undefined || poolOf === classOf

const noModels: Input.Check = (value) => {
  const limits = value as Limits.Pools
  if (!isClaudes(limits)) return undefined
  const names = Object.keys(limits.pools)
  const model = names.find(isModel)
  if (model !== undefined) {
    const text = `expected the pool "${classOf(model)}", got "${model}", which is a model of it`
    return { place: ".pools", text }
  }
  const misspelt = names.find((name) => classMeantBy(name) !== undefined)
  if (misspelt === undefined) return undefined
  const text = `no model has the pool ${shown(misspelt)}${didYouMean(classMeantBy(misspelt))}`
  return { place: ".pools", text }
}

const poolLimits = Input.all(poolsOptions, noModels)

/** One set of limits, or a set for each pool. */
export const limits: Input.Check = (value) => (isPerPool(value) ? poolLimits(value) : Rules.check(value))
export const concurrency: Input.Check = Input.wholeOrInfinite(1)
export const maxQueued: Input.Check = Input.wholeOrInfinite(0)
export const maxPools: Input.Check = Input.whole

/** How a budget is made. */
export const made: Input.Check = Input.options<Options>({
  limits,
  concurrency,
  maxQueued,
  maxPools,
  learned: Input.anObject
})

/** Their names, where the values are read from the configuration later. */
export const configured: Input.Check = Input.options<Options>({
  limits: Input.anything,
  concurrency: Input.anything,
  maxQueued: Input.anything,
  maxPools: Input.anything,
  learned: Input.anything
})

export const weight: Input.Check = Input.number(
  `a number from ${minWeight} to ${1 / minWeight}`,
  (value) => value >= minWeight && value <= 1 / minWeight
)
export const priority: Input.Check = Input.finite

/** How a caller wants to stand in the queue. */
export const reserved: Input.Check = Input.options<ReserveOptions>({
  agent: Input.text,
  weight,
  priority,
  maxWait: Input.wait,
  model: Input.text,
  pool: Input.text,
  account: Input.text
})

const reason = Input.oneOf("rateLimit", "ramp", "overload")
const failure: Input.Checks<FailOptions> = {
  reason,
  retryAfter: Input.wait,
  usage: Input.anObject,
  signal: Input.anObject
}

/** A call that was rejected, or failed. */
export const failed: Input.Check = Input.options<FailOptions>(failure, "reason")
export const cooled: Input.Check = Input.options<Cooldown>(
  { ...failure, reservation: Input.anObject, pool: Input.text },
  "reason"
)
export const paused: Input.Check = Input.options<PauseOptions>(
  { duration: Input.wait, reason, pool: Input.text },
  "duration"
)

/** What a response says. */
export const observed: Input.Check = Input.options<RateLimitSignal>(
  {
    dimensions: Input.options<RateLimitSignal["dimensions"]>({
      requests: Input.anObject,
      inputTokens: Input.anObject,
      outputTokens: Input.anObject,
      tokens: Input.anObject
    }),
    usage: Input.anObject,
    reservation: Input.anObject,
    pool: Input.text
  },
  "dimensions"
)

/** What of a pool changes. */
export const resized: Input.Check = Input.options<ResizeOptions>({ limits: Rules.check, concurrency, pool: Input.text })

// -----------------------------------------------------------------------------
// Pools
// -----------------------------------------------------------------------------

/** The settings of checked options. */
export const parse = (options: Options) => {
  const { concurrency = Infinity, limits, maxPools = defaultMaxPools, maxQueued = Infinity } = options
  return { concurrency, maxPools, maxQueued, ...sets(limits) }
}

/** The pools of the limits. */
interface Sets {
  readonly poolOf: (model: string) => string
  /** None are known where none were given. */
  readonly limitsOf: (pool: string) => Limits.Limits
  /** The pools that are known from the start. */
  readonly known: ReadonlyArray<string>
  /** Whether a pool that something is said of has limits or may learn them. */
  readonly isPool: (name: string) => boolean
  /**
   * The pool that a caller of `operation` names. Throws if the budget does not know the name: a misspelt one would be another budget, or
   * have no limits.
   */
  readonly poolNamed: (operation: string, name: string | undefined) => string
  /** What speaks against a pool that is opened although no limits name it. Those that nobody has used yet may be meant. */
  readonly doubtOf: (pool: string, unused: ReadonlyArray<string>) => string | undefined
  /** The name that is probably meant by one that is no pool's. */
  readonly meantBy: (name: string) => string | undefined
}

const sets = (limits: Options["limits"]): Sets => {
  if (limits === undefined) return learning
  return isPerPool(limits) ? perPool(limits) : oneSet(limits)
}

/** "default" has no near names but misspelt ones. */
const isMeant = (name: string): string | undefined => nearest(name, [defaultPool], 2)

/** Nothing is given: each class of models learns its own limits. */
const learning: Sets = {
  poolOf: classOf,
  limitsOf: () => ({}),
  known: [],
  isPool: () => true,
  poolNamed: (_, name = defaultPool) => name,
  doubtOf: (pool) => {
    const meant = pool === defaultPool ? undefined : (isMeant(pool) ?? classMeantBy(pool))
    return meant && `The pool "${pool}" learns limits of its own: did you mean "${meant}"?`
  },
  meantBy: isMeant
}

/** One set holds for all models. What is said of another pool may be said of an account's. */
const oneSet = (limits: Limits.Limits): Sets => {
  return {
    poolOf: () => defaultPool,
    limitsOf: () => limits,
    known: [defaultPool],
    isPool: (name) => name === defaultPool || isMeant(name) === undefined,
    poolNamed: (operation, name = defaultPool) => {
      if (name === defaultPool || isClass(name)) return name
      const expected = `"${defaultPool}", the pool of all models where one set of limits is given`
      return Input.wrong(
        `Budget.${operation}: pool`,
        `expected ${expected}, got ${shown(name)}${didYouMean(isMeant(name))}`
      )
    },
    doubtOf: (pool) =>
      isClass(pool)
        ? `The pool "${pool}" has the limits a second time, because one set of limits is that of the pool "${defaultPool}", for all models`
        : undefined,
    meantBy: isMeant
  }
}

/** A pool that is not given learns its limits, if it is a model's: Claude's are known by name, others once asked for. */
const perPool = (limits: Limits.Pools): Sets => {
  const { poolOf = classOf, pools } = limits
  const given = Object.keys(pools)
  const isGiven = (pool: string) => Object.hasOwn(pools, pool)
  const learned = new Map<string, true>()
  const isPool = (name: string) => isGiven(name) || learned.has(name) || (isClaudes(limits) && isClass(name))
  const meantBy = (name: string) => nearest(name, given) ?? (isClaudes(limits) ? classMeantBy(name) : undefined)
  return {
    isPool,
    known: given,
    poolOf: (model) => {
      const pool = poolOf(model)
      if (!isGiven(pool)) Lru.put(learned, pool, true, 10 * maxIdlePools)
      return pool
    },
    limitsOf: (pool) => (isGiven(pool) ? pools[pool]! : {}),
    poolNamed: (operation, name) => {
      const pool = name ?? defaultPool
      if (isPool(pool)) return pool
      const known = given.map((each) => `"${each}", `)
      const expected = `one of ${known.join("")}what poolOf gives for a model`
      const got = name === undefined ? "none" : `${shown(name)}${didYouMean(meantBy(name))}`
      return Input.wrong(`Budget.${operation}: pool`, `expected ${expected}, got ${got}`)
    },
    doubtOf: (pool, unused) => {
      const meant = isGiven(pool) ? undefined : nearest(pool, unused.filter(hasVersionOf(pool)))
      return (
        meant &&
        `No limits were given for the pool "${pool}", so it learns them: did you mean it by "${meant}", which nobody has used?`
      )
    },
    meantBy
  }
}

const versionOf = (name: string): string => name.replace(/\D+/g, " ").trim()

/** Names with other numbers are not misspelt: they are other models. */
const hasVersionOf =
  (pool: string) =>
  (name: string): boolean =>
    versionOf(name) === "" || versionOf(name) === versionOf(pool)

/** How a caller stands in the queue. */
export const queueingOf = (context: Context.Context<never>, how: GovernedOptions = {}): Queueing => {
  const { agent = Context.get(context, Agent), [first]: isFirst = false, maxWait, weight = 1 } = how
  const priority = how.priority ?? Context.get(context, Priority)
  if (!Number.isFinite(priority)) Input.invalid("Budget.Priority", "a finite number", priority)
  return {
    agent,
    priority,
    weight,
    first: isFirst,
    maxWait: maxWait === undefined ? Infinity : Input.millisOf(maxWait)
  }
}

// -----------------------------------------------------------------------------
// Calls that must be counted
// -----------------------------------------------------------------------------

/** Whether a cap or stated work of `Agents` depends on the caller's next call, and nothing has counted it yet. */
export const Uncounted = Context.Reference<boolean>("floodgate/Budget/Uncounted", { defaultValue: () => false })

/** Throws if a call must be counted and was not: then its agent's cap would not hold. */
export const checkCounted = (context: Context.Context<never>): void => {
  if (!Context.get(context, Uncounted)) return
  const expected = "Agents.layer between the budget and what uses it, for caps and work to hold"
  Input.wrong("Agents.run", `expected ${expected}, got a budget that does not count`)
}
