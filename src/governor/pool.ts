/**
 * What a governor knows of a pool: how many of its calls usually run, whether its provider can be reached, and the metrics.
 *
 * The names of the metrics are part of the public interface, because dashboards depend on them:
 *
 * - `floodgate_calls`: calls that ended, by `pool` and `outcome`: success, failure, refused (by the budget), interrupted
 * - `floodgate_attempts`: attempts that were sent, by `pool`; more than calls by the number of retries
 * - `floodgate_attempt_failures`: attempts that failed, by `pool` and `reason`, such as RateLimited
 * - `floodgate_tokens`: tokens that calls used, by `pool` and `type`: input, output, cache_read, cache_write
 * - `floodgate_dollars`: what calls cost, by `pool`; those of models without a price are not in it
 * - `floodgate_queue_seconds`: time in the budget's queue, by `pool` (a histogram)
 * - `floodgate_call_seconds`: time of whole calls, queue, retries and stream included, by `pool` (a histogram)
 */
import * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type * as Accounting from "../Accounting.ts"
import { maxCounted, otherPools, waitBoundaries } from "../budget/metrics.ts"
import { maxIdlePools, nameIn } from "../budget/options.ts"
import * as Recency from "../input/recency.ts"
import type { Parts } from "./governedCall.ts"
import type { Call } from "./models.ts"

// -----------------------------------------------------------------------------
// Metrics
// -----------------------------------------------------------------------------

/** A counter of a pool, by the values of an attribute where it has one. Each of its metrics is resolved once. */
class Counter {
  private readonly metrics = new Map<string, Metric.Metric<number, unknown>>()
  private readonly counts: Counts
  private readonly id: string
  private readonly description: string
  private readonly attribute: string | undefined

  constructor(counts: Counts, id: string, description: string, attribute?: string) {
    this.counts = counts
    this.id = id
    this.description = description
    this.attribute = attribute
  }

  add(amount: number, value = ""): void {
    const { context, isForgotten, pool } = this.counts
    if (isForgotten) return
    let metric = this.metrics.get(value)
    if (metric === undefined) {
      const attributes = this.attribute === undefined ? { pool } : { pool, [this.attribute]: value }
      metric = Metric.counter(this.id, { description: this.description, attributes, incremental: true })
      this.metrics.set(value, metric)
    }
    metric.updateUnsafe(amount, context)
  }

  remove(): void {
    for (const metric of this.metrics.values()) Metric.removeUnsafe(metric, this.counts.context)
  }
}

/** The numbers of the pools of one name in a registry. Those of several governors count together. */
class Counts {
  /** How many governors know such a pool. */
  governors = 0
  readonly pool: string
  readonly context: Context.Context<never>
  private readonly calls = new Counter(this, "floodgate_calls", "Calls that ended, by pool and outcome", "outcome")
  readonly attempts = new Counter(this, "floodgate_attempts", "Attempts that were sent, by pool")
  readonly failures = new Counter(
    this,
    "floodgate_attempt_failures",
    "Attempts that failed, by pool and reason",
    "reason"
  )
  readonly tokens = new Counter(this, "floodgate_tokens", "Tokens that calls used, by pool and type", "type")
  readonly dollars = new Counter(this, "floodgate_dollars", "What calls cost in dollars, by pool")
  private readonly queueSeconds: Metric.Metric<number, unknown>
  private readonly callSeconds: Metric.Metric<number, unknown>
  private readonly forgotten: () => void

  constructor(pool: string, context: Context.Context<never>, forgotten: () => void) {
    const histogram = (id: string, description: string) =>
      Metric.histogram(id, { description, attributes: { pool }, boundaries: waitBoundaries })
    this.pool = pool
    this.context = context
    this.forgotten = forgotten
    this.queueSeconds = histogram("floodgate_queue_seconds", "Time in the budget's queue, by pool")
    this.callSeconds = histogram("floodgate_call_seconds", "Time of whole calls, queue and retries included, by pool")
  }

  /** Whether the numbers are gone: a call that ends later must not bring them back, for nobody would remove them again. */
  get isForgotten(): boolean {
    return this.governors === 0
  }

  /** An attempt was admitted. */
  queued(seconds: number): void {
    if (!this.isForgotten) this.queueSeconds.updateUnsafe(seconds, this.context)
  }

  /** A call is over. */
  ended(outcome: string, seconds: number): void {
    this.calls.add(1, outcome)
    if (!this.isForgotten) this.callSeconds.updateUnsafe(seconds, this.context)
  }

  /** What an answered call used. */
  used({ cacheCreationTokens = 0, cacheReadTokens = 0, inputTokens, outputTokens }: Accounting.Actual): void {
    if (inputTokens > 0) this.tokens.add(inputTokens, "input")
    if (outputTokens > 0) this.tokens.add(outputTokens, "output")
    if (cacheReadTokens > 0) this.tokens.add(cacheReadTokens, "cache_read")
    if (cacheCreationTokens > 0) this.tokens.add(cacheCreationTokens, "cache_write")
  }

  /** A governor forgets the pool. The last one takes the numbers out of their registry. */
  leave(): void {
    if (--this.governors > 0) return
    this.forgotten()
    const { attempts, calls, dollars, failures, tokens } = this
    for (const counter of [attempts, calls, dollars, failures, tokens]) counter.remove()
    for (const histogram of [this.queueSeconds, this.callSeconds]) Metric.removeUnsafe(histogram, this.context)
  }
}

const known = new WeakMap<Metric.MetricRegistry, Map<string, Counts>>()

/** Begins to count in the numbers of the pools of this name. Whoever does has to leave them. */
const join = (pool: string, context: Context.Context<never>): Counts => {
  // A governor must not keep the services of another.
  const own = Context.pick(Metric.MetricRegistry, Metric.CurrentMetricAttributes)(context)
  const registry = Context.get(own, Metric.MetricRegistry)
  const named = known.get(registry) ?? new Map<string, Counts>()
  const attributes = Object.entries(Context.get(own, Metric.CurrentMetricAttributes)).sort()
  const keyOf = (name: string) => JSON.stringify([name, attributes])
  const name = named.has(keyOf(pool)) || named.size < maxCounted ? pool : otherPools
  const key = keyOf(name)
  const counts = named.get(key) ?? new Counts(name, own, () => named.delete(key))
  known.set(registry, named.set(key, counts))
  counts.governors++
  return counts
}

// -----------------------------------------------------------------------------
// Pools
// -----------------------------------------------------------------------------

/** As slow as the estimator's own averages: the last ten admissions or so count. */
const weight = 1 / 8

/** Longer than a server that starts together with its clients needs. */
const refusedMillis = 60_000

/** How far a call got: to a provider that answered, to a name that does not exist, or to a refused connection. */
export type Reach = "answered" | "unknown" | "refused"

export class Pool {
  readonly name: string
  /** The name without an account. */
  readonly kind: string
  readonly counts: Counts
  private open = 0
  /** The calls that are under way, those that wait or rest between attempts included. */
  users = 0
  /** Whether all that was heard of it is that its credential is refused; undefined where nothing was heard. */
  isDenied: boolean | undefined = undefined
  private refusedSince: number | undefined = undefined
  /** How many calls usually run at the same time: a moving average over admissions, at least 1. */
  usual = 1
  /** Whether the provider has ever answered. */
  hasAnswered = false

  constructor(name: string, kind: string, context: Context.Context<never>) {
    this.name = name
    this.kind = kind
    this.counts = join(name, context)
  }

  began(): void {
    this.open++
    this.usual += (this.open - this.usual) * weight
  }

  ended(): void {
    this.open--
  }

  get isIdle(): boolean {
    return this.users === 0 && this.open === 0
  }

  /**
   * Whether the address is wrong, after a call that failed. A provider that has answered before is down, and is waited for.
   * Before any answer, a name that does not exist is a wrong address, and so is one that has refused connections for a
   * minute. (A resolver that fails for the moment, `EAI_AGAIN`, is no wrong address.)
   */
  isWrongAddress(reach: Reach | undefined, now: number): boolean {
    if (reach === "answered") this.hasAnswered = true
    if (this.hasAnswered) return false
    if (reach !== "refused") return reach === "unknown"
    this.refusedSince ??= now
    return now - this.refusedSince >= refusedMillis
  }
}

/** The pools that the calls of a governor were made in. Those that no call is in make room. */
export class Pools {
  private readonly byName = new Map<string, Pool>()
  private readonly shedder: Recency.Shedder<string, Pool>
  private readonly context: Context.Context<never>

  /** The registry of the context has the metrics. */
  constructor(context: Context.Context<never>) {
    this.context = context
    this.shedder = new Recency.Shedder(
      this.byName,
      ({ isIdle }) => isIdle,
      ({ counts }) => counts.leave()
    )
  }

  /** The pool of a call: what the budget says, else the class of models that share their limits. */
  of({ accounting, budget }: Pick<Parts, "accounting" | "budget">, call: Call): Pool {
    const { account, model } = call
    const named = budget.poolOf(model)
    const kind = named === model ? ((call.accounting ?? accounting).poolOf?.(model) ?? named) : named
    const name = nameIn(account, kind)
    const found = this.byName.get(name)
    if (found === undefined) this.shedder.shed(maxIdlePools - 1)
    const pool = found ?? new Pool(name, kind, this.context)
    // Used last.
    this.byName.delete(name)
    this.byName.set(name, pool)
    return pool
  }

  /** A call has left a pool. An account of which all calls were denied leaves nothing behind: its credential may have been invented. */
  left(pool: Pool): void {
    pool.users--
    if (pool.isDenied !== true || !pool.isIdle || pool.name === pool.kind || this.byName.get(pool.name) !== pool) return
    this.byName.delete(pool.name)
    pool.counts.leave()
  }
}
