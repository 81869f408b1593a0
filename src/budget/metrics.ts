/**
 * What a budget counts. Nothing is updated while calls run: plain numbers are kept, and a registry reads them when it is
 * asked, so that counting costs an addition. The names are part of the public interface.
 */
import * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { PauseReason } from "../BudgetStore.ts"
import { waitBoundaries as boundaries } from "../internal/waitBoundaries.ts"
import type * as Limits from "../Limits.ts"

/** All series have the attribute `pool`. */
const reservations = Metric.counter("floodgate_budget_reservations", {
  description: "Estimates that were admitted",
  incremental: true
})
const waits = Metric.counter("floodgate_budget_waits", {
  description: "Estimates that had to wait before they were admitted",
  incremental: true
})
const waitSeconds = Metric.histogram("floodgate_budget_wait_seconds", {
  description: "The time that estimates waited, of those that had to",
  boundaries
})
const refundedTokens = Metric.counter("floodgate_budget_refunded_tokens", {
  description: "Tokens that calls did not use of their estimates, by dimension",
  incremental: true
})
const debtTokens = Metric.counter("floodgate_budget_debt_tokens", {
  description: "Tokens that calls used beyond their estimates, by dimension",
  incremental: true
})
const cooldowns = Metric.counter("floodgate_budget_cooldowns", {
  description: "Pauses after the provider said no, by reason",
  incremental: true
})
const queueLength = Metric.gauge("floodgate_budget_queue_length", { description: "Callers that wait" })
const inFlight = Metric.gauge("floodgate_budget_in_flight", { description: "Admitted calls that run" })

const tokenDimensions = ["inputTokens", "outputTokens", "tokens"] as const
const reasons: ReadonlyArray<PauseReason> = ["rateLimit", "ramp", "overload"]

/** The numbers of one pool, or of several pools of one name together. */
export class Counts {
  reservations = 0
  waits = 0
  waitSum = 0
  waitMin = Infinity
  waitMax = 0
  /** Waits up to each boundary, and above the last. */
  readonly waitBuckets: Array<number> = Array.from({ length: boundaries.length + 1 }, () => 0)
  readonly refunded = { inputTokens: 0, outputTokens: 0, tokens: 0 }
  readonly debt = { inputTokens: 0, outputTokens: 0, tokens: 0 }
  readonly cooldowns = { rateLimit: 0, ramp: 0, overload: 0 }

  waited(seconds: number): void {
    this.waits++
    this.waitSum += seconds
    this.waitMin = Math.min(this.waitMin, seconds)
    this.waitMax = Math.max(this.waitMax, seconds)
    let bucket = 0
    while (bucket < boundaries.length && seconds > boundaries[bucket]!) bucket++
    this.waitBuckets[bucket]!++
  }

  settled(charge: Limits.Charge, used: Limits.Charge): void {
    if (charge === used) return
    for (const dimension of tokenDimensions) {
      const estimate = charge[dimension]
      if (estimate === undefined) continue
      const more = (used[dimension] ?? estimate) - estimate
      if (more > 0) this.debt[dimension] += more
      else this.refunded[dimension] -= more
    }
  }

  add(other: Counts): void {
    this.reservations += other.reservations
    this.waits += other.waits
    this.waitSum += other.waitSum
    this.waitMin = Math.min(this.waitMin, other.waitMin)
    this.waitMax = Math.max(this.waitMax, other.waitMax)
    for (let i = 0; i < this.waitBuckets.length; i++) this.waitBuckets[i]! += other.waitBuckets[i]!
    for (const dimension of tokenDimensions) {
      this.refunded[dimension] += other.refunded[dimension]
      this.debt[dimension] += other.debt[dimension]
    }
    for (const reason of reasons) this.cooldowns[reason] += other.cooldowns[reason]
  }
}

interface Source {
  readonly counts: Counts
  readonly queued: () => number
  readonly inFlight: () => number
}

/** The pools of one name in one registry: budgets of one process are told of together. */
interface Family {
  readonly past: Counts
  readonly open: Set<Source>
}

const families = new WeakMap<Metric.MetricRegistry, Map<string, Family>>()

/** Lets the registry of the context read a pool. Gives the way out: what was counted stays, what is now goes. */
export const register = (pool: string, source: Source, context: Context.Context<never>): (() => void) => {
  const registry = Context.get(context, Metric.MetricRegistry)
  const named = families.get(registry) ?? new Map<string, Family>()
  families.set(registry, named)
  const family = named.get(pool) ?? publish(pool, context)
  named.set(pool, family)
  family.open.add(source)
  return () => {
    if (family.open.delete(source)) family.past.add(source.counts)
  }
}

const publish = (pool: string, context: Context.Context<never>): Family => {
  const family: Family = { past: new Counts(), open: new Set() }
  const sum = (): Counts => {
    const all = new Counts()
    all.add(family.past)
    for (const { counts } of family.open) all.add(counts)
    return all
  }
  const now = (f: (source: Source) => number): number => {
    let all = 0
    for (const source of family.open) all += f(source)
    return all
  }
  const show = <Input, State>(
    metric: Metric.Metric<Input, State>,
    attributes: Record<string, string>,
    get: () => State
  ): void => {
    const ignore = () => {}
    Metric.registerUnsafe(Metric.withAttributes(metric, { pool, ...attributes }), context, {
      get,
      update: ignore,
      modify: ignore
    })
  }
  const count = (metric: Metric.Counter<number>, f: (counts: Counts) => number, attributes = {}): void =>
    show(metric, attributes, () => ({ count: f(sum()), incremental: true }))

  count(reservations, (counts) => counts.reservations)
  count(waits, (counts) => counts.waits)
  for (const dimension of tokenDimensions) {
    count(refundedTokens, (counts) => counts.refunded[dimension], { dimension })
    count(debtTokens, (counts) => counts.debt[dimension], { dimension })
  }
  for (const reason of reasons) count(cooldowns, (counts) => counts.cooldowns[reason], { reason })
  show(queueLength, {}, () => ({ value: now((source) => source.queued()) }))
  show(inFlight, {}, () => ({ value: now((source) => source.inFlight()) }))
  show(waitSeconds, {}, () => histogram(sum()))
  return family
}

const histogram = (counts: Counts): Metric.HistogramState => {
  let below = 0
  return {
    buckets: [...boundaries, Infinity].map((boundary, i) => [boundary, (below += counts.waitBuckets[i]!)]),
    count: counts.waits,
    min: counts.waits === 0 ? 0 : counts.waitMin,
    max: counts.waitMax,
    sum: counts.waitSum
  }
}
