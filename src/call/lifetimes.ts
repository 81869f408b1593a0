/** For how long providers keep a prefix after its last use: what they state, and what is learned of those that state nothing. */
import { usualLifetime } from "../protocol/prefixes.ts"

/** For how long a provider keeps a prefix. */
export interface Lifetime {
  readonly millis: number
}

const minute = 60_000

/** The lifetimes that providers state, by their milliseconds. Entries share them. */
export const stated: ReadonlyMap<number, Lifetime> = new Map(
  [5, 60, 1_440].map((minutes) => [minutes * minute, { millis: minutes * minute }])
)

/** That of a prefix that is not in the cache. */
export const none: Lifetime = { millis: 0 }

/** The longer one of two. */
export const longer = (one: Lifetime, other: Lifetime): Lifetime => (one.millis > other.millis ? one : other)

/** The classes of age, by the age at which each ends. Between two of them a lifetime is not told apart. */
const ends: ReadonlyArray<number> = [1, 2, 5, 10, 20, 30, 60, 120, 1_440].map((minutes) => minutes * minute)

/** So many prefixes of one age tell whether it is too old. Fewer may have been evicted early. */
const enough = 3

/** A class follows about its last eight prefixes, because providers keep them for less time while they are busy. */
const kept = 8

/**
 * The lifetime in a pool whose provider states none. It is learned by age: of the prefixes that were not used for so long, were most read?
 * At first it is the usual one.
 */
export class LearnedLifetime implements Lifetime {
  millis: number = usualLifetime
  private readonly counts = ends.map(() => 0)
  private readonly read = ends.map(() => 0)

  /** Learns from a call whose prefix nobody had used for some time before it was sent. */
  learn(unusedFor: number, isRead: boolean): void {
    const index = ends.findIndex((end) => unusedFor < end)
    if (index < 0 || !(unusedFor >= 0)) return
    const count = ++this.counts[index]!
    this.read[index]! += (Number(isRead) - this.read[index]!) / Math.min(count, kept)
    this.millis = this.learned
  }

  private get learned(): number {
    let millis = usualLifetime
    for (const [index, end] of ends.entries()) {
      if (this.counts[index]! < enough) continue
      if (this.read[index]! < 1 / 2) return Math.min(millis, ends[index - 1] ?? 0)
      millis = Math.max(millis, end)
    }
    return millis
  }
}
