/**
 * What is remembered of pools that are not open: those that made room for others, and those that an earlier budget knew.
 *
 * A pool that comes back must not begin with a full bucket that it does not have. So a pool that owes something is not forgotten
 * before that is refilled, and a new name is refused where no room is left for it.
 */
import type { Rest } from "../pacing/memory.ts"
import * as Lru from "../domain/input/lru.ts"
import type * as Rules from "../domain/rules.ts"

export interface Rested {
  /** Its name without an account; undefined where an earlier budget has not said it. */
  readonly kind: string | undefined
  readonly rest: Rest
  /** How the provider counts, as a client has said. */
  readonly counting: Rules.Counting | undefined
}

/** What was learned is worth having, and a few numbers. Of more the least recently used is forgotten. */
const maxLearned = 10_000
/** Those that owe something: every account of a large program, for the minute that its limits take to be full again. */
const maxRested = 100_000

export class Resting {
  private readonly learning = new Map<string, Rested>()
  private readonly owing = new Map<string, Rested>()
  private now = -Infinity
  private readonly shedders = [this.learning, this.owing].map(
    (map) => new Lru.Shedder(map, ({ rest }) => rest.until <= this.now)
  )

  /** What was learned of them, by name. */
  get learned(): ReadonlyMap<string, Rested> {
    return this.learning
  }

  /** Its name without an account; undefined where nothing is remembered. */
  kindOf(name: string): string | undefined {
    return (this.learning.get(name) ?? this.owing.get(name))?.kind
  }

  /** What is remembered of a pool that opens. */
  take(name: string): Rested | undefined {
    const found = this.learning.get(name) ?? this.owing.get(name)
    this.learning.delete(name)
    this.owing.delete(name)
    return found
  }

  /** Whether one more may be put. */
  hasRoom(now: number): boolean {
    if (this.learning.size + this.owing.size < maxRested) return true
    this.shed(now, maxRested)
    return this.learning.size + this.owing.size < maxRested
  }

  put(name: string, rested: Rested, now: number): void {
    this.shed(now)
    if (rested.rest.memory !== undefined) this.learning.set(name, rested)
    else if (rested.rest.until > now) this.owing.set(name, rested)
  }

  private shed(now: number, upTo?: number): void {
    this.now = now
    const [learning, owing] = this.shedders
    learning!.shed(maxLearned, upTo)
    owing!.shed(0, upTo)
  }
}
