/** Checks of the options of a budget and of its calls, and the pools that the limits name. */
import * as Context from "effect/Context"
import * as Record from "effect/Record"
import * as Lru from "../domain/input/lru.ts"
import * as Input from "../domain/input/checks.ts"
import { shown } from "../domain/input/shown.ts"
import { didYouMean, nearest } from "../domain/input/nearest.ts"
import { eachDimension, isAmount, minWeight } from "../domain/amounts.ts"
import { classMeantBy, isClass, isModel, poolOf as classOf } from "../domain/modelClass.ts"
import type * as Limits from "../Limits.ts"
import {
  Agent,
  type FailOptions,
  first,
  type GovernedOptions,
  Job,
  type NamedCaller,
  type NamedJob,
  type Options,
  type PauseOptions,
  type PoolSignal,
  Priority,
  type ReserveOptions,
  certainly,
  claimed,
  revised,
  type ResizeOptions
} from "./models.ts"
import type { CallOwner } from "../admission/fairQueue.ts"
import type { Queueing } from "./entry.ts"
import { defaultPool, maxIdlePools } from "./registry.ts"
import * as Rules from "../domain/rules.ts"
import * as Concurrency from "../domain/concurrency.ts"

/** As many as a gateway has connections: each has at most one call in flight. */
const defaultMaxPools = 10_000

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

/** Whether a value is meant as limits for each pool. Any value may be given. */
const isPerPool = (limits: unknown): limits is Limits.Pools => "pools" in Object(limits)

const poolsOptions = Input.options<Limits.Pools>({ pools: Input.record(Rules.check), poolOf: Input.callback }, "pools")

/** Whether pools are classes of Claude's models. Then the names of pools are known, too. */
const isClaudes = ({ poolOf }: Limits.Pools): boolean => poolOf === undefined || poolOf === classOf

const noModels: Input.Check = (value) => {
  const limits = value as Limits.Pools
  if (!isClaudes(limits)) return undefined
  const names = Object.keys(limits.pools)
  const model = names.find(isModel)
  if (model !== undefined) {
    const text = `expected the pool "${classOf(model)}", got "${model}", which is one of its models`
    return { place: ".pools", text }
  }
  const misspelt = names.find((name) => classMeantBy(name) !== undefined)
  if (misspelt === undefined) return undefined
  const text = `no model belongs to the pool ${shown(misspelt)}${didYouMean(classMeantBy(misspelt))}`
  return { place: ".pools", text }
}

const poolLimits = Input.all(poolsOptions, noModels)

/** One set of limits, or limits for each pool. */
export const limits: Input.Check = (value) => (isPerPool(value) ? poolLimits(value) : Rules.check(value))
export const maxQueued: Input.Check = Input.wholeOrInfinite(0)
export const maxPools: Input.Check = Input.whole

export const order: Input.Check = Input.oneOf("fair", "finish", "finish-trusted")

const checks: Input.Checks<Options> = {
  limits,
  concurrency: Concurrency.check,
  maxQueued,
  order,
  maxPools,
  learned: Input.anObject
}

/** The options of a budget. */
export const optionsCheck: Input.Check = Input.options<Options>(checks)

/** Checks only the names of the options, because the values come from the configuration. */
export const optionNamesCheck: Input.Check = /* @__PURE__ */ Input.options<Options>(
  /* @__PURE__ */ Record.map(checks, () => Input.anything)
)

export const weight: Input.Check = Input.number(
  `a number from ${minWeight} to ${1 / minWeight}`,
  (value) => value >= minWeight && value <= 1 / minWeight
)
export const priority: Input.Check = Input.finite

const size: Input.Check = Input.number("a number of tokens", isAmount)
const namedJob = Input.options<NamedJob>({ name: Input.text, size, weight, priority }, "name")
export const jobCheck: Input.Check = (value) => (typeof value === "string" ? undefined : namedJob(value))

const namedCaller = Input.options<NamedCaller>({ name: Input.text, weight }, "name")
export const callerCheck: Input.Check = (value) => (typeof value === "string" ? undefined : namedCaller(value))

export const reserveCheck: Input.Check = Input.options<ReserveOptions>({
  agent: Input.text,
  job: jobCheck,
  caller: callerCheck,
  weight,
  priority,
  maxWait: Input.wait,
  model: Input.text,
  pool: Input.text,
  account: Input.text
})

const reason = Input.oneOf("rateLimit", "ramp", "overload")

export const failCheck: Input.Check = Input.options<FailOptions>(
  { reason, retryAfter: Input.wait, usage: Input.anObject, signal: Input.anObject },
  "reason"
)
export const pauseCheck: Input.Check = Input.options<PauseOptions>(
  { duration: Input.wait, reason, pool: Input.text },
  "duration"
)

export const observeCheck: Input.Check = Input.options<PoolSignal>(
  {
    dimensions: eachDimension(Input.anObject),
    windows: Input.anObject,
    pool: Input.text
  },
  "dimensions"
)

export const resized: Input.Check = Input.options<ResizeOptions>({
  limits: Rules.check,
  concurrency: Concurrency.check,
  pool: Input.text
})

// -----------------------------------------------------------------------------
// Pools
// -----------------------------------------------------------------------------

/** The options with their defaults. */
export const parse = (options: Options) => {
  const { concurrency = Infinity, limits, maxPools = defaultMaxPools, maxQueued = Infinity, order = "fair" } = options
  return { concurrency: Concurrency.parse(concurrency), maxPools, maxQueued, order, ...sets(limits) }
}

/** The pools, as the limits describe them. */
interface LimitSets {
  readonly poolOf: (model: string) => string
  /** The limits of a pool; empty if none were given. */
  readonly limitsOf: (pool: string) => Limits.Limits
  /** The pools that exist from the start. */
  readonly known: ReadonlyArray<string>
  /** Whether a pool of this name has limits, or may learn them. */
  readonly isPool: (name: string) => boolean
  /** The pool that a call names. Throws if the budget does not know the name: a misspelt pool would have no limits. */
  readonly poolNamed: (operation: string, name: string | undefined) => string
  /** A warning for a pool that opens although no limits name it, because it may be a misspelt one. */
  readonly doubtOf: (pool: string, unused: ReadonlyArray<string>) => string | undefined
  /** The pool that is probably meant by an unknown name. */
  readonly meantBy: (name: string) => string | undefined
}

const sets = (limits: Options["limits"]): LimitSets => {
  if (limits === undefined) return learning
  return isPerPool(limits) ? perPool(limits) : oneSet(limits)
}

/** A name close to "default" is misspelt. */
const isMeant = (name: string): string | undefined => nearest(name, [defaultPool], 2)

/** Without limits, each class of models learns its own. */
const learning: LimitSets = {
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

/** One set of limits for all models. An unknown name may be the pool of an account. */
const oneSet = (limits: Limits.Limits): LimitSets => {
  return {
    poolOf: () => defaultPool,
    limitsOf: () => limits,
    known: [defaultPool],
    isPool: (name) => name === defaultPool || isMeant(name) === undefined,
    poolNamed: (operation, name = defaultPool) => {
      if (name === defaultPool || isClass(name)) return name
      const expected = `"${defaultPool}", the pool of all models if there is one set of limits`
      return Input.wrong(
        `Budget.${operation}: pool`,
        `expected ${expected}, got ${shown(name)}${didYouMean(isMeant(name))}`
      )
    },
    doubtOf: (pool) =>
      isClass(pool)
        ? `The limits apply to the pool "${pool}" and to the pool "${defaultPool}", each by itself: leave the pool out, or give limits for each pool`
        : undefined,
    meantBy: isMeant
  }
}

/** Limits for each pool. Other pools of models learn their limits: Claude's by name, others once `poolOf` has returned them. */
const perPool = (limits: Limits.Pools): LimitSets => {
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
      const expected = `one of ${known.join("")}or a pool that poolOf returned for a model`
      const got = name === undefined ? "none" : `${shown(name)}${didYouMean(meantBy(name))}`
      return Input.wrong(`Budget.${operation}: pool`, `expected ${expected}, got ${got}`)
    },
    doubtOf: (pool, unused) => {
      const meant = isGiven(pool) ? undefined : nearest(pool, unused.filter(hasVersionOf(pool)))
      return (
        meant &&
        `The pool "${pool}" has no limits and learns them, and no call has used the limits of "${meant}": is its name misspelt?`
      )
    },
    meantBy
  }
}

const versionOf = (name: string): string => name.replace(/\D+/g, " ").trim()

/** A name with another number is another model, and not misspelt. */
const hasVersionOf =
  (pool: string) =>
  (name: string): boolean =>
    versionOf(name) === "" || versionOf(name) === versionOf(pool)

const unnamed: Partial<NamedJob> = {}

/** A job or a caller that may be given as its name. */
const named = <A extends NamedJob | NamedCaller>(given: string | A | undefined): Partial<NamedJob> =>
  typeof given === "string" ? { name: given } : (given ?? unnamed)

/** Whose a call is, and what its share is. What its options leave out, its context says. */
export const ownerOf = (context: Context.Context<never>, options: ReserveOptions = {}): CallOwner => {
  const { agent = Context.get(context, Agent), caller, job = Context.get(context, Job), weight = 1 } = options
  if (job !== undefined && options.job === undefined) Input.check("Budget.Job", jobCheck, job)
  const { name: ofJob, priority: jobPriority, size: jobSize, weight: jobWeight } = named(job)
  const { name: ofCaller, weight: callerWeight } = named(caller)
  const priority = options.priority ?? jobPriority ?? Context.get(context, Priority)
  if (!Number.isFinite(priority)) Input.invalid("Budget.Priority", "a finite number", priority)
  return { agent, job: ofJob, jobWeight, jobSize, caller: ofCaller, callerWeight, priority, weight }
}

/** Returns how a call is queued. */
export const queueingOf = (context: Context.Context<never>, options: GovernedOptions = {}): Queueing => {
  const { [first]: isFirst = false, maxWait, [revised]: revise, [certainly]: certain, [claimed]: claim } = options
  return {
    ...ownerOf(context, options),
    first: isFirst,
    revise,
    certain,
    claim,
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
