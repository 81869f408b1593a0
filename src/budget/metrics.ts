/**
 * The metrics of budgets and governors, by pool. They are plain numbers that a registry reads on demand, so counting costs an
 * addition. Dashboards depend on their names.
 *
 * Pools of one name in one registry count together. The counts of a closed budget stay.
 */
import * as Context from "effect/Context"
import { constVoid } from "effect/Function"
import * as Metric from "effect/Metric"
import type { MeasuredStatus } from "../pacing/measured.ts"
import * as Amounts from "../domain/amounts.ts"

/** The boundaries of histograms, in seconds: from 10 ms to 10 minutes. */
const boundaries = [0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600]

// -----------------------------------------------------------------------------
// Series
// -----------------------------------------------------------------------------

/** A series in a registry. */
interface Series {
  readonly remove: () => void
  /** Counts a value, if the series was added without `get`. */
  readonly update: (value: number) => void
}

/**
 * Adds the series of a metric to the registry of the context. With `get`, its value is read when somebody asks.
 *
 * Effect's `registerUnsafe` and `removeUnsafe` do the same, and are unstable. The registry and what is in it are stable, so the metric
 * adds itself to an empty one, which shows its key.
 */
export const addSeries = <State>(
  metric: Metric.Metric<number, State>,
  context: Context.Context<never>,
  get?: () => State
): Series => {
  const alone: Metric.MetricRegistry = new Map()
  metric.valueUnsafe(Context.add(context, Metric.MetricRegistry, alone))
  const [[key, made]] = [...alone] as [[string, Metric.Metric.Metadata<number, State>]]
  const registry = Context.get(context, Metric.MetricRegistry)
  const series = get === undefined ? made : { ...made, hooks: { get, update: constVoid, modify: constVoid } }
  registry.set(key, series)
  return {
    remove: () => void (registry.get(key) === series && registry.delete(key)),
    update: (value) => series.hooks.update(value, context)
  }
}

/** The numbers of the pools of one name in one registry. */
abstract class Numbers<User> {
  readonly pool: string
  /** The open pools, or the governors, that count in them. */
  readonly users = new Set<User>()
  private readonly context: Context.Context<never>
  private readonly forgotten: () => void
  private readonly series: Array<Series> = []
  /** Whether its series were removed. A call that ends later must not add them again: nothing would remove them. */
  private isRemoved = false

  constructor(pool: string, context: Context.Context<never>, forgotten: () => void) {
    this.pool = pool
    this.context = context
    this.forgotten = forgotten
  }

  join(user: User): this {
    this.users.add(user)
    return this
  }

  leave(user: User): void {
    this.users.delete(user)
  }

  /** Removes the numbers from their registry, unless they are still used. Those of all further pools stay. */
  forget(): void {
    if (this.users.size > 0 || this.pool === otherPools) return
    this.isRemoved = true
    for (const series of this.series) series.remove()
    this.forgotten()
  }

  protected counter(id: string, description: string, read: () => number, by?: Record<string, string>): void {
    const metric = Metric.counter(id, { description, attributes: { pool: this.pool, ...by }, incremental: true })
    this.show(metric, () => ({ count: read(), incremental: true }))
  }

  protected gauge(id: string, description: string, read: () => number, also: Record<string, string> = {}): void {
    this.show(Metric.gauge(id, { description, attributes: { pool: this.pool, ...also } }), () => ({ value: read() }))
  }

  /** A counter for each value of an attribute. It is registered by its first count. */
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
    this.show(metric)
    return {
      add: (seconds: number): void => {
        if (!this.isRemoved) metric.updateUnsafe(seconds, context)
      },
      count: (): number => metric.valueUnsafe(context).count
    }
  }

  private show<State>(metric: Metric.Metric<number, State>, get?: () => State): void {
    this.series.push(addSeries(metric, this.context, get))
  }
}

/** At most this many pools have series of their own, some twenty each: twice the idle pools that a budget keeps. */
const maxCounted = 2_000
/** All further pools count together under this name. */
const otherPools = "other pools"

/** The numbers of one kind, by pool and registry. */
const kept = <N>(make: new (...args: ConstructorParameters<typeof Numbers>) => N) => {
  const known = new WeakMap<Metric.MetricRegistry, Map<string, N>>()
  return (pool: string, context: Context.Context<never>): N => {
    // Keep only what the metrics need of the context, and not its other services.
    const own = Context.pick(Metric.MetricRegistry, Metric.CurrentMetricAttributes)(context)
    const registry = Context.get(own, Metric.MetricRegistry)
    const named = known.get(registry) ?? new Map<string, N>()
    known.set(registry, named)
    const attributes = Object.entries(Context.get(own, Metric.CurrentMetricAttributes)).sort()
    const keyOf = (pool: string): string => JSON.stringify([pool, attributes])
    const name = named.has(keyOf(pool)) || named.size < maxCounted ? pool : otherPools
    const key = keyOf(name)
    const numbers = named.get(key) ?? new make(name, own, () => named.delete(key))
    named.set(key, numbers)
    return numbers
  }
}

// -----------------------------------------------------------------------------
// Budgets
// -----------------------------------------------------------------------------

/** The dimensions whose usage can differ from the estimate. */
const tokens = ["inputTokens", "outputTokens", "tokens"] as const
const reasons = ["rateLimit", "ramp", "overload"] as const
const causes: ReadonlyArray<MeasuredStatus["by"]> = ["start", "first tokens", "whole answers", "lost calls"]

/** The figures of an open pool that the gauges read. */
interface OpenPool {
  readonly queued: number
  readonly inFlight: number
  readonly measured: MeasuredStatus | undefined
}

/** The metrics of a budget, for the pools of one name. */
export class PoolCounts extends Numbers<OpenPool> {
  reservations = 0
  readonly refunded = { inputTokens: 0, outputTokens: 0, tokens: 0 }
  readonly debt = { inputTokens: 0, outputTokens: 0, tokens: 0 }
  readonly cooldowns = { rateLimit: 0, ramp: 0, overload: 0 }
  private isMeasured = false
  /** Counts the seconds that an admitted estimate had to wait. */
  readonly waited: (seconds: number) => void

  constructor(...args: ConstructorParameters<typeof Numbers>) {
    super(...args)
    const waits = this.histogram(
      "floodgate_budget_wait_seconds",
      "How long estimates waited that could not be admitted at once"
    )
    this.waited = waits.add
    this.counter("floodgate_budget_reservations", "Estimates that were admitted", () => this.reservations)
    this.counter("floodgate_budget_waits", "Estimates that had to wait before they were admitted", waits.count)
    for (const dimension of tokens) {
      const by = { dimension }
      const unused = "Estimated tokens that calls did not use, by dimension"
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

  /** Counts the difference between the charge and the usage of a call. */
  settled(charge: Amounts.Whole, used: Amounts.Charge): void {
    for (const dimension of tokens) {
      const charged = Amounts.get(charge, dimension)
      const more = (Amounts.get(used, dimension) ?? charged) - charged
      if (more > 0) this.debt[dimension] += more
      else this.refunded[dimension] -= more
    }
  }

  /** Shows the measured limits of the pools. Most pools have none. */
  measure(): void {
    if (this.isMeasured) return
    this.isMeasured = true
    const limits = "Calls that may be in flight, as measured"
    this.gauge("floodgate_budget_measured_limit", limits, () => this.sum(({ measured }) => measured?.limit ?? 0))
    const waiting = "Calls in flight that wait for their first token, where limits are measured"
    this.gauge("floodgate_budget_measured_waiting", waiting, () => this.sum(({ measured }) => measured?.waiting ?? 0))
    const floor = "The least time to a first token, in seconds, where limits are measured"
    const floorOf = ({ measured }: OpenPool): number => (measured?.leastFirstTokenMillis ?? 0) / 1_000
    this.gauge("floodgate_budget_measured_floor_seconds", floor, () => Math.max(0, ...Array.from(this.users, floorOf)))
    for (const by of causes) {
      const pools = "Pools whose measured limit has this reason now"
      const isBy = ({ measured }: OpenPool): number => (measured?.by === by ? 1 : 0)
      this.gauge("floodgate_budget_measured_by", pools, () => this.sum(isBy), { by })
    }
  }

  private sum(read: (pool: OpenPool) => number): number {
    let sum = 0
    for (const user of this.users) sum += read(user)
    return sum
  }
}

/** The budget metrics of a pool, in the registry of the context. */
export const countsOf = kept(PoolCounts)

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
 * The metrics of a governor, for the pools of one name:
 *
 * - `floodgate_calls`: calls that ended, by `pool` and `outcome`: success, failure, refused (by the budget), interrupted
 * - `floodgate_attempts`: attempts that were sent, by `pool`; more than calls by the number of retries
 * - `floodgate_retries_delayed`: retries that the retry budget delayed, by `pool`
 * - `floodgate_counted_prompts`: large prompts that were counted at the provider, by `pool` and `outcome`: counted or failed
 * - `floodgate_attempt_failures`: attempts that failed, by `pool` and `reason`, such as RateLimited
 * - `floodgate_placed_attempts`: attempts of calls with several places, by `pool` and by `why` they went there
 * - `floodgate_tokens`: tokens that calls used, by `pool` and `type`: input, output, cache_read, cache_write
 * - `floodgate_counted_input_tokens`: input that counts towards the limits, by `pool` and `of`: as it was predicted, as it was used
 * - `floodgate_dollars`: what calls cost, by `pool`, without calls of models that have no price
 * - `floodgate_queue_seconds`: time in the budget's queue, by `pool` (a histogram)
 * - `floodgate_call_seconds`: time of whole calls, queue, retries and stream included, by `pool` (a histogram)
 */
export class CallCounts extends Numbers<object> {
  attempts = 0
  retriesDelayed = 0
  dollars = 0
  private readonly calls = this.counterBy("floodgate_calls", "Calls that ended, by pool and outcome", "outcome")
  private readonly tokens = this.counterBy("floodgate_tokens", "Tokens that calls used, by pool and type", "type")
  private readonly countedInput = this.counterBy(
    "floodgate_counted_input_tokens",
    "Input that counts towards the limits, by pool, as predicted and as used",
    "of"
  )
  readonly failed = this.counterBy("floodgate_attempt_failures", "Attempts that failed, by pool and reason", "reason")
  readonly counted = this.counterBy(
    "floodgate_counted_prompts",
    "Prompts that were counted, by pool and outcome",
    "outcome"
  )
  readonly placed = this.counterBy(
    "floodgate_placed_attempts",
    "Attempts of calls with several places, by pool and why they went there",
    "why"
  )
  /** Counts the time of an attempt in the queue. */
  readonly queued = this.histogram("floodgate_queue_seconds", "Time in the budget's queue, by pool").add
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

  /** Counts a call that has ended. */
  ended(outcome: string, seconds: number): void {
    this.calls(1, outcome)
    this.callSeconds.add(seconds)
  }

  /** Counts the tokens of an answered call, and the input that counts towards the limits. */
  used(
    { cacheCreationTokens = 0, cacheReadTokens = 0, inputTokens, outputTokens }: CallTokens,
    input: { readonly predicted: number; readonly used: number | undefined }
  ): void {
    if (input.predicted >= 0 && input.used !== undefined) {
      this.countedInput(input.predicted, "predicted")
      this.countedInput(input.used, "used")
    }
    if (inputTokens > 0) this.tokens(inputTokens, "input")
    if (outputTokens > 0) this.tokens(outputTokens, "output")
    if (cacheReadTokens > 0) this.tokens(cacheReadTokens, "cache_read")
    if (cacheCreationTokens > 0) this.tokens(cacheCreationTokens, "cache_write")
  }
}

/** The governor metrics of a pool, in the registry of the context. */
export const callCountsOf = kept(CallCounts)
