/** How far foreseen ends of a pool were off, from which the ranges of later ones are learned. */
import * as Estimating from "../domain/estimating.ts"
import * as Lru from "../domain/input/lru.ts"

const maxPools = 1_000
/** So many misses are kept for each tenth of a job. */
const kept = 64
const tenths = 10
/** A range covers this part of all ends. */
const covered = 0.9

/**
 * By how much to widen the largest of so few misses, so that the next one is below it nine times in ten if their logarithms are
 * normally distributed. One miss alone says too little.
 */
const widening: ReadonlyArray<number> = [Infinity, Infinity, 2.31, 1.67, 1.39, 1.26, 1.16, 1.09, 1.04]

/** Runs of the same job differ by this part. */
const least = 0.03

/** The absolute logarithm that the next miss exceeds one time in ten; undefined if too few were seen. */
const boundOf = ({ sorted }: Estimating.Recent): number | undefined => {
  const count = sorted.length
  const bound = sorted[Math.min(count, Math.ceil(covered * (count + 1))) - 1]! * (widening[count] ?? 1)
  return Number.isFinite(bound) ? Math.max(least, bound) : undefined
}

/** Remembers, for each pool and each tenth of a job done, the last actual ends beside the foreseen ones. */
export class EndMisses {
  private readonly pools = new Map<string, ReadonlyArray<Estimating.Recent>>()

  /** Adds an end, foreseen when this part of the job was done. Both times are from the start of the job. */
  add(pool: string, done: number, foreseenMillis: number, actualMillis: number): void {
    if (!(foreseenMillis > 0 && actualMillis > 0 && foreseenMillis + actualMillis < Infinity)) return
    const misses = this.pools.get(pool) ?? Array.from({ length: tenths }, () => Estimating.recent([]))
    Lru.put(this.pools, pool, misses, maxPools)
    Estimating.push(misses[tenthOf(done)]!, Math.abs(Math.log(actualMillis / foreseenMillis)), kept)
  }

  /** The factor by which nine of ten ends are at most earlier or later; undefined while too few ends were foreseen. */
  factor(pool: string, done: number): number | undefined {
    // With more of the job done, ends are hardly missed by more.
    const misses = this.pools.get(pool)?.slice(0, tenthOf(done) + 1) ?? []
    const bound = misses.map(boundOf).findLast((each) => each !== undefined)
    return bound === undefined ? undefined : Math.exp(bound)
  }
}

/** The tenth of a job in which it is. */
export const tenthOf = (done: number): number => Math.min(tenths - 1, Math.floor(tenths * done))
