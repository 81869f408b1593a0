/**
 * A process's own share of a pool while Redis is away: its part of the limits, starting from nothing, so without a burst.
 *
 * When Redis is back, the share says what it spent and holds, and the pool goes on from the sum of the shares. Its ledger
 * runs by the pool's time, so that what Redis admitted and what the share did are one history; it is told this process's.
 */
import type { Ask, Held, Pause, Snapshot, StoreUnavailable, Taken } from "../BudgetStore.ts"
import { cellsPerWindow } from "../internal/bucket.ts"
import * as Ledger from "../internal/ledger.ts"
import * as Limits from "../Limits.ts"
import type { Holdings, Moving } from "./holdings.ts"
import { type Configuration, four, type Operation } from "./wire.ts"

/** What was known of the pool when Redis was last heard. */
export interface Known {
  readonly rules: Limits.Rules
  readonly levels: Limits.Charge
  readonly processes: number
  /** By how much the pool's time is ahead of this process's. */
  readonly ahead: number
  readonly configuration: Pick<Configuration, "headroom" | "concurrency">
}

const retryMillis = 1_000

const part = (rule: Limits.Rule, n: number): Limits.Rule => ({
  capacity: rule.capacity / n,
  rate: rule.rate / n,
  // What is more than its window waits for Redis.
  most: rule.window === undefined ? rule.most : rule.window.max / n,
  window: rule.window === undefined ? undefined : { max: rule.window.max / n, millis: rule.window.millis },
  quota: rule.quota
})

export class LocalShare {
  private ledger: Ledger.Ledger
  private readonly spent: { [D in Limits.Dimension]?: number } = {}
  private readonly open = new Map<number, Held>()
  private readonly known: Known
  private readonly permits: number
  private readonly processes: number
  private readonly since: number
  private readonly holdings: Pick<Holdings, "size" | "nextLocal">

  constructor(known: Known, holdings: LocalShare["holdings"], now: number) {
    const { concurrency, headroom } = known.configuration
    const n = Math.max(1, known.processes)
    this.known = known
    this.processes = n
    this.since = now
    const time = now + known.ahead
    this.holdings = holdings
    this.permits = concurrency < 0 ? Infinity : Math.max(1, Math.floor(concurrency / n))
    const empty = Ledger.make({}, time, { headroom, ramp: undefined })
    const buckets: { -readonly [D in keyof Ledger.Ledger["buckets"]]: Ledger.Ledger["buckets"][D] } = {}
    for (const dimension of Limits.dimensions) {
      const rule = known.rules[dimension]
      if (rule === undefined) continue
      const share = part(rule, n)
      buckets[dimension] = {
        rule: share,
        rate: share.rate,
        // What was left may have been taken by others since: only debt and quotas are taken over.
        level: rule.quota ? (known.levels[dimension] ?? 0) / n : Math.min(0, (known.levels[dimension] ?? 0) / n),
        at: time,
        reserve: rule.quota ? 0 : share.capacity * headroom,
        cells: []
      }
    }
    this.ledger = { ...empty, buckets }
  }

  /** `away` is what is said of Redis where the share cannot say. */
  take(asks: ReadonlyArray<Ask>, now: number, away: StoreUnavailable): Taken {
    const time = this.advance(now)
    const granted: Array<Held> = []
    for (const { charge } of asks) {
      if (this.open.size + this.holdings.size >= this.permits) {
        return { granted, blocked: { _tag: "Wait", millis: retryMillis, dimension: undefined } }
      }
      const decision = Ledger.decide(this.ledger, charge, time)
      // The share of a quota is used up, not the quota: nobody knows what is left of that.
      if (decision._tag === "Exhausted") return { granted, blocked: away }
      if (decision._tag === "Wait") {
        return { granted, blocked: { ...decision, millis: Math.min(decision.millis, 86_400_000) } }
      }
      this.ledger = Ledger.take(this.ledger, charge, time)
      const held: Held = { id: this.holdings.nextLocal(), charge, takenAt: time }
      this.open.set(held.id, held)
      this.spend(charge, 1)
      granted.push(held)
    }
    return { granted, blocked: undefined }
  }

  settle(held: Held, used: Limits.Charge, now: number): boolean {
    if (!this.open.delete(held.id)) return false
    const time = this.advance(now)
    this.ledger = Ledger.settle(this.ledger, held, used, time)
    this.spend(held.charge, -1)
    this.spend({ ...held.charge, ...used }, 1)
    return true
  }

  pause(pause: Pause, now: number): void {
    const time = this.advance(now)
    this.ledger = Ledger.cool(this.ledger, pause, time)
  }

  /** Of a quota it has what is left of all, as far as is known: what is more than that never fits. */
  snapshot(now: number): Snapshot {
    const time = this.advance(now)
    const { levels, rules } = this.known
    const buckets = Limits.mapDimensions(this.ledger.buckets, (bucket, dimension) =>
      bucket.rule.quota
        ? { ...bucket, rule: rules[dimension]!, level: (levels[dimension] ?? 0) - (this.spent[dimension] ?? 0) }
        : bucket
    )
    return { ledger: { ...this.ledger, buckets }, now: time }
  }

  /** What it still holds, in the order in which `report` names it, and since when by this process's time. */
  holds(): ReadonlyArray<Moving> {
    return [...this.open.values()].map(({ charge, id, takenAt }) => ({ id, charge, at: takenAt - this.known.ahead }))
  }

  /** What the script must know of it. */
  report(now: number): Operation {
    const time = this.advance(now)
    return [
      "back",
      this.processes,
      now - this.since,
      Limits.dimensions.map((dimension) => {
        const bucket = this.ledger.buckets[dimension]
        if (bucket === undefined) return false
        const millis = (bucket.rule.window?.millis ?? 0) / cellsPerWindow
        return [
          bucket.level,
          Math.max(0, this.spent[dimension] ?? 0),
          bucket.cells.map(({ amount, index }) => [Math.max(0, time - (index + 1) * millis), amount])
        ]
      }),
      this.holds().map(({ at, charge }) => [now - at, four(charge)])
    ]
  }

  /** Gives the pool's time. */
  private advance(now: number): number {
    const time = now + this.known.ahead
    this.ledger = Ledger.advance(this.ledger, time)
    return time
  }

  private spend(charge: Limits.Charge, sign: 1 | -1): void {
    for (const dimension of Limits.dimensions) {
      const amount = charge[dimension]
      if (amount !== undefined) this.spent[dimension] = (this.spent[dimension] ?? 0) + sign * amount
    }
  }
}
