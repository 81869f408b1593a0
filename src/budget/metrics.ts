/**
 * What a budget counts: plain numbers that a registry reads when it is asked, so that counting costs an addition. The
 * names are part of the public interface.
 *
 * Pools of one name in one registry count together, and what a closed one has counted stays.
 */
import * as Context from "effect/Context"
import { constVoid } from "effect/Function"
import * as Metric from "effect/Metric"

/** The boundaries of histograms of waits, in seconds: from a hundredth of a second to ten minutes. */
export const waitBoundaries = [0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600]

const tokens = ["inputTokens", "outputTokens", "tokens"] as const
const reasons = ["rateLimit", "ramp", "overload"] as const

/** What is now, of a pool that is open. */
interface Source {
  readonly queued: number
  readonly inFlight: number
}

/** The numbers of the pools of one name. */
export class Counts {
  reservations = 0
  readonly refunded = { inputTokens: 0, outputTokens: 0, tokens: 0 }
  readonly debt = { inputTokens: 0, outputTokens: 0, tokens: 0 }
  readonly cooldowns = { rateLimit: 0, ramp: 0, overload: 0 }
  /** The pools that are open. */
  readonly open = new Set<Source>()
  private readonly waits: Metric.Metric<number, Metric.HistogramState>
  private readonly context: Context.Context<never>
  private readonly registered: Array<Metric.Registration> = []

  constructor(pool: string, context: Context.Context<never>) {
    const counter = (id: string, description: string, read: () => number, by?: Record<string, string>): void =>
      this.show(context, Metric.counter(id, { description, attributes: { pool, ...by }, incremental: true }), () => ({
        count: read(),
        incremental: true
      }))
    const gauge = (id: string, description: string, read: (source: Source) => number): void =>
      this.show(context, Metric.gauge(id, { description, attributes: { pool } }), () => this.sum(read))
    const waits = Metric.histogram("floodgate_budget_wait_seconds", {
      description: "The time that estimates waited, of those that had to",
      attributes: { pool },
      boundaries: waitBoundaries
    })
    this.registered.push({ remove: () => Metric.removeUnsafe(waits, context) })
    const waited = () => waits.valueUnsafe(context).count
    waited()
    this.waits = waits
    this.context = context

    counter("floodgate_budget_reservations", "Estimates that were admitted", () => this.reservations)
    counter("floodgate_budget_waits", "Estimates that had to wait before they were admitted", waited)
    for (const dimension of tokens) {
      counter(
        "floodgate_budget_refunded_tokens",
        "Tokens that calls did not use of their estimates, by dimension",
        () => this.refunded[dimension],
        { dimension }
      )
      counter(
        "floodgate_budget_debt_tokens",
        "Tokens that calls used beyond their estimates, by dimension",
        () => this.debt[dimension],
        { dimension }
      )
    }
    for (const reason of reasons) {
      counter(
        "floodgate_budget_cooldowns",
        "Rejections and failures of the provider, by reason",
        () => this.cooldowns[reason],
        { reason }
      )
    }
    gauge("floodgate_budget_queue_length", "Callers that wait", (source) => source.queued)
    gauge("floodgate_budget_in_flight", "Admitted calls that run", (source) => source.inFlight)
  }

  /** An estimate was admitted that had to wait. */
  waited(seconds: number): void {
    this.waits.updateUnsafe(seconds, this.context)
  }

  private show<State>(context: Context.Context<never>, metric: Metric.Metric<number, State>, get: () => State): void {
    this.registered.push(Metric.registerUnsafe(metric, context, { get, update: constVoid, modify: constVoid }))
  }

  private sum(read: (source: Source) => number): { readonly value: number } {
    let value = 0
    for (const source of this.open) value += read(source)
    return { value }
  }

  /** Takes the numbers out of their registry. */
  remove(): void {
    for (const series of this.registered) series.remove()
  }
}

const known = new WeakMap<Metric.MetricRegistry, Map<string, Counts>>()

/** The pools with series of their own, about twenty each: those that a budget keeps though nobody uses them, twice. */
export const maxCounted = 2_000
/** The name under which all further pools count together. */
export const otherPools = "other pools"

/** The numbers of the pools of this name in the registry of the context. */
export const countsOf = (pool: string, context: Context.Context<never>): Counts => {
  const registry = Context.get(context, Metric.MetricRegistry)
  const named = known.get(registry) ?? new Map<string, Counts>()
  const name = named.has(pool) || named.size < maxCounted ? pool : otherPools
  const counts = named.get(name) ?? new Counts(name, context)
  known.set(registry, named.set(name, counts))
  return counts
}

/** Forgets the numbers of a pool that no budget has any more. */
export const forgetCounts = (pool: string, context: Context.Context<never>): void => {
  const named = known.get(Context.get(context, Metric.MetricRegistry))
  const counts = named?.get(pool)
  if (counts === undefined || counts.open.size > 0) return
  counts.remove()
  named!.delete(pool)
}
