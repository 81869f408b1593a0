/**
 * Remembers closed pools: those that were closed to make room, and those of an earlier budget.
 *
 * A pool that opens again must not start with a full bucket. So a pool with a debt is remembered until the debt is refilled. If
 * there is no room for that, no pool is closed, and new names are refused.
 */
import type { PoolSnapshot } from "../pacing/memory.ts"
import * as Lru from "../domain/input/lru.ts"
import type * as Rules from "../domain/rules.ts"

export interface ClosedPool {
  /** Its name without an account; undefined if an earlier budget did not say it. */
  readonly kind: string | undefined
  readonly snapshot: PoolSnapshot
  /** How the provider counts limits without a window, if a client has said so. */
  readonly counting: Rules.Counting | undefined
}

/**
 * How many pools' learned limits are remembered. They are a few numbers per pool and may be lost, so the least recently used
 * are forgotten.
 */
const maxLearned = 10_000
/**
 * How many pools with a debt are remembered: enough for every account of a large program during the minute in which its limits
 * refill.
 */
const maxOwing = 100_000

export class ClosedPools {
  private now = -Infinity
  private readonly isOver = ({ snapshot }: ClosedPool): boolean => snapshot.until <= this.now
  private readonly learning = new Lru.Registry<string, ClosedPool>(this.isOver)
  private readonly owing = new Lru.Registry<string, ClosedPool>(this.isOver)

  /** The pools of which something was learned, by name. */
  get learned(): ReadonlyMap<string, ClosedPool> {
    return this.learning
  }

  /** The name of a pool without its account; undefined if nothing is remembered. */
  kindOf(name: string): string | undefined {
    return (this.learning.get(name) ?? this.owing.get(name))?.kind
  }

  /** Returns and forgets what is remembered of a pool that opens. */
  take(name: string): ClosedPool | undefined {
    const found = this.learning.get(name) ?? this.owing.get(name)
    this.learning.delete(name)
    this.owing.delete(name)
    return found
  }

  /** Whether there is room for another pool. */
  hasRoom(now: number): boolean {
    if (this.learning.size + this.owing.size < maxOwing) return true
    this.shed(now, maxOwing)
    return this.learning.size + this.owing.size < maxOwing
  }

  put(name: string, closed: ClosedPool, now: number): void {
    this.shed(now)
    if (closed.snapshot.memory !== undefined) this.learning.set(name, closed)
    else if (closed.snapshot.until > now) this.owing.set(name, closed)
  }

  private shed(now: number, upTo?: number): void {
    this.now = now
    this.learning.shed(maxLearned, upTo)
    this.owing.shed(0, upTo)
  }
}
