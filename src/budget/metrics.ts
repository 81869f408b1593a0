/**
 * What budgets and governors count of a pool. The numbers are plain, and a registry reads them when it is asked, so that counting
 * costs an addition. The names are part of the public interface, because dashboards depend on them.
 *
 * Pools of one name in one registry count together. What a closed budget has counted stays.
 */
import * as Context from "effect/Context"
import { constVoid } from "effect/Function"
import * as Metric from "effect/Metric"
import type * as Amounts from "../domain/amounts.ts"

/** The boundaries of histograms of times, in seconds: from a hundredth of a second to ten minutes. */
const boundaries = [0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600]

// -----------------------------------------------------------------------------
// Series
// -----------------------------------------------------------------------------

/** The numbers of the pools of one name in one registry. */
abstract class Numbers {
  private readonly pool: string
  private readonly context: Context.Context<never>
  private readonly forgotten: () => void
  private readonly series: Array<{ readonly remove: () => void }> = []
  /** Whether its series are gone. What ends later must not bring them back, for nobody would remove them again. */
  private isRemoved = false

  constructor(pool: string, context: Context.Context<never>, forgotten: () => void) {
    this.pool = pool
    this.context = context
    this.forgotten = forgotten
  }

  /** Whether somebody still counts in them. */
  protected abstract get isUsed(): boolean

  protected counter(id: string, description: string, read: () => number, by?: Record<string, string>): void {
    const metric = Metric.counter(id, { description, attributes: { pool: this.pool, ...by }, incremental: true })
    this.show(metric, () => ({ count: read(), incremental: true }))
  }

  protected gauge(id: string, description: string, read: () => number): void {
    this.show(Metric.gauge(id, { description, attributes: { pool: this.pool } }), () => ({ value: read() }))
  }

  /** A counter for each value of an attribute, which begins with its first count. */
  protected counterBy(id: string, description: string, attribute: string): (amount: number, value: string) => void {
    const counts = new Map<string, { count: number }>()
    return (amount, value) => {
      const known = counts.get(value)
      if (known !== undefined) known.count += amount
      else if (!this.isRemoved) {
        const first = { count: amount }
        counts.set(value, first)
        this.counter(id, description, () => first.count, { [attribute]: value })
      }
    }
  }

  protected histogram(id: string, description: string) {
    const { context, pool } = this
    const metric = Metric.histogram(id, { description, attributes: { pool }, boundaries })
    this.series.push({ remove: () => Metric.removeUnsafe(metric, context) })
    return {
      add: (seconds: number): void => {
        if (!this.isRemoved) metric.updateUnsafe(seconds, context)
      },
      count: (): number => metric.valueUnsafe(context).count
    }
  }

  private show<State>(metric: Metric.Metric<number, State>, get: () => State): void {
    this.series.push(Metric.registerUnsafe(metric, this.context, { get, update: constVoid, modify: constVoid }))
  }

  /** Takes the numbers out of their registry, unless somebody still counts in them. */
  forget(): void {
    if (this.isUsed) return
    this.isRemoved = true
    for (const series of this.series) series.remove()
    this.forgotten()
  }
}

/** The pools with series of their own, some twenty each: those that a budget keeps though nobody uses them, twice. */
const maxCounted = 2_000
/** The name under which all further pools count together. */
const otherPools = "other pools"

/** Gives the numbers of one kind by the name of their pool, in the registry of a context. */
const kept = <N extends Numbers>(make: new (...args: ConstructorParameters<typeof Numbers>) => N) => {
  const known = new WeakMap<Metric.MetricRegistry, Map<string, N>>()
  const placeOf = (context: Context.Context<never>) => {
    // The numbers must not keep the other services of the first that counts in them.
    const own = Context.pick(Metric.MetricRegistry, Metric.CurrentMetricAttributes)(context)
    const registry = Context.get(own, Metric.MetricRegistry)
    const named = known.get(registry) ?? new Map<string, N>()
    known.set(registry, named)
    const attributes = Object.entries(Context.get(own, Metric.CurrentMetricAttributes)).sort()
    return { own, named, keyOf: (pool: string): string => JSON.stringify([pool, attributes]) }
  }
  return {
    of: (pool: string, context: Context.Context<never>): N => {
      const { keyOf, named, own } = placeOf(context)
      const name = named.has(keyOf(pool)) || named.size < maxCounted ? pool : otherPools
      const key = keyOf(name)
      const numbers = named.get(key) ?? new make(name, own, () => named.delete(key))
      named.set(key, numbers)
      return numbers
    },
    find: (pool: string, context: Context.Context<never>): N | undefined => {
      const { keyOf, named } = placeOf(context)
      return named.get(keyOf(pool))
    }
  }
}

// -----------------------------------------------------------------------------
// Budgets
// -----------------------------------------------------------------------------

/** The dimensions in which an estimate may be wrong. */
const tokens = ["inputTokens", "outputTokens", "tokens"] as const
const reasons = ["rateLimit", "ramp", "overload"] as const

/** What is now, of a pool that is open. */
interface OpenPool {
  readonly queued: number
  readonly inFlight: number
}

/** What budgets count of the pools of one name. */
export class PoolCounts extends Numbers {
  reservations = 0
  readonly refunded = { inputTokens: 0, outputTokens: 0, tokens: 0 }
  readonly debt = { inputTokens: 0, outputTokens: 0, tokens: 0 }
  readonly cooldowns = { rateLimit: 0, ramp: 0, overload: 0 }
  /** The pools that are open. */
  readonly open = new Set<OpenPool>()
  /** An estimate was admitted that had to wait: in seconds. */
  readonly waited: (seconds: number) => void

  constructor(...args: ConstructorParameters<typeof Numbers>) {
    super(...args)
    const waits = this.histogram(
      "floodgate_budget_wait_seconds",
      "The time that estimates waited, of those that had to"
    )
    this.waited = waits.add
    this.counter("floodgate_budget_reservations", "Estimates that were admitted", () => this.reservations)
    this.counter("floodgate_budget_waits", "Estimates that had to wait before they were admitted", waits.count)
    for (const dimension of tokens) {
      const by = { dimension }
      const unused = "Tokens that calls did not use of their estimates, by dimension"
      this.counter("floodgate_budget_refunded_tokens", unused, () => this.refunded[dimension], by)
      const beyond = "Tokens that calls used beyond their estimates, by dimension"
      this.counter("floodgate_budget_debt_tokens", beyond, () => this.debt[dimension], by)
    }
    for (const reason of reasons) {
      const failures = "Rejections and failures of the provider, by reason"
      this.counter("floodgate_budget_cooldowns", failures, () => this.cooldowns[reason], { reason })
    }
    this.gauge("floodgate_budget_queue_length", "Callers that wait", () => this.sum(({ queued }) => queued))
    this.gauge("floodgate_budget_in_flight", "Admitted calls that run", () => this.sum(({ inFlight }) => inFlight))
  }

  protected get isUsed(): boolean {
    return this.open.size > 0
  }

  /** A call is settled that had reserved a charge. */
  settled(charge: Amounts.Whole, used: Amounts.Charge): void {
    for (const dimension of tokens) {
      const more = (used[dimension] ?? charge[dimension]) - charge[dimension]
      if (more > 0) this.debt[dimension] += more
      else this.refunded[dimension] -= more
    }
  }

  private sum(read: (source: OpenPool) => number): number {
    let sum = 0
    for (const source of this.open) sum += read(source)
    return sum
  }
}

const budgets = kept(PoolCounts)

/** The numbers of the pools of this name in the registry of the context. */
export const countsOf = budgets.of

/** Forgets the numbers of a pool that no budget has any more. */
export const forgetCounts = (pool: string, context: Context.Context<never>): void =>
  budgets.find(pool, context)?.forget()

// -----------------------------------------------------------------------------
// Governors
// -----------------------------------------------------------------------------

/** The tokens of a call, as providers count them. */
interface CallTokens {
  readonly inputTokens: number
  readonly outputTokens: number
  readonly cacheReadTokens?: number | undefined
  readonly cacheCreationTokens?: number | undefined
}

/**
 * What governors count of the pools of one name:
 *
 * - `floodgate_calls`: calls that ended, by `pool` and `outcome`: success, failure, refused (by the budget), interrupted
 * - `floodgate_attempts`: attempts that were sent, by `pool`; more than calls by the number of retries
 * - `floodgate_retries_delayed`: retries that the retry budget delayed, by `pool`
 * - `floodgate_attempt_failures`: attempts that failed, by `pool` and `reason`, such as RateLimited
 * - `floodgate_tokens`: tokens that calls used, by `pool` and `type`: input, output, cache_read, cache_write
 * - `floodgate_dollars`: what calls cost, by `pool`; those of models without a price are not in it
 * - `floodgate_queue_seconds`: time in the budget's queue, by `pool` (a histogram)
 * - `floodgate_call_seconds`: time of whole calls, queue, retries and stream included, by `pool` (a histogram)
 */
export class CallCounts extends Numbers {
  /** How many governors know such a pool. */
  private governors = 0
  attempts = 0
  retriesDelayed = 0
  dollars = 0
  private readonly calls = this.counterBy("floodgate_calls", "Calls that ended, by pool and outcome", "outcome")
  private readonly tokens = this.counterBy("floodgate_tokens", "Tokens that calls used, by pool and type", "type")
  /** An attempt failed, for a reason. */
  readonly failed = this.counterBy("floodgate_attempt_failures", "Attempts that failed, by pool and reason", "reason")
  private readonly queueSeconds = this.histogram("floodgate_queue_seconds", "Time in the budget's queue, by pool")
  private readonly callSeconds = this.histogram(
    "floodgate_call_seconds",
    "Time of whole calls, queue and retries included, by pool"
  )

  constructor(...args: ConstructorParameters<typeof Numbers>) {
    super(...args)
    this.counter("floodgate_attempts", "Attempts that were sent, by pool", () => this.attempts)
    this.counter(
      "floodgate_retries_delayed",
      "Retries that the retry budget delayed, by pool",
      () => this.retriesDelayed
    )
    this.counter("floodgate_dollars", "What calls cost in dollars, by pool", () => this.dollars)
  }

  protected get isUsed(): boolean {
    return this.governors > 0
  }

  /** An attempt was admitted. */
  queued(seconds: number): void {
    this.queueSeconds.add(seconds)
  }

  /** A call is over. */
  ended(outcome: string, seconds: number): void {
    this.calls(1, outcome)
    this.callSeconds.add(seconds)
  }

  /** What an answered call used. */
  used({ cacheCreationTokens = 0, cacheReadTokens = 0, inputTokens, outputTokens }: CallTokens): void {
    if (inputTokens > 0) this.tokens(inputTokens, "input")
    if (outputTokens > 0) this.tokens(outputTokens, "output")
    if (cacheReadTokens > 0) this.tokens(cacheReadTokens, "cache_read")
    if (cacheCreationTokens > 0) this.tokens(cacheCreationTokens, "cache_write")
  }

  /** A governor begins to count. */
  join(): this {
    this.governors++
    return this
  }

  /** A governor forgets the pool. */
  leave(): void {
    this.governors--
    this.forget()
  }
}

/** The numbers of the calls to pools of this name in the registry of the context. */
export const callCountsOf = kept(CallCounts).of
