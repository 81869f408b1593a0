/**
 * Sizes of calls that the provider rejected although their bucket was full.
 *
 * A call that is estimated above its bucket is sent when the bucket is full, because the estimate may be too high. If a full bucket has
 * rejected two of them, calls of at least the larger size are refused at once, until the bucket grows. Estimates err, so one of them is
 * tried again after ten minutes, and what is accepted refutes the sizes up to its own.
 */
import * as Amounts from "../domain/amounts.ts"
import type * as Pacer from "../pacing/pacer.ts"
import * as Meter from "../pacing/meter.ts"
import type * as Limits from "../Limits.ts"
import type { Entry } from "./entry.ts"
import { RejectedAsTooLarge } from "./errors.ts"

/** How many rejections of a full bucket are enough. */
const enough = 2
/** After this time a call is tried again. */
const forgottenAfter = 600_000
/** A bucket with at least this part left is full, and has not grown. All that differs is what other calls took in that moment. */
const full = 0.99

/** The sizes that a full bucket rejected. */
interface RejectedSizes {
  /** The smallest sizes, at most {@link enough} of them, in order. */
  readonly sizes: ReadonlyArray<number>
  /** The size of the bucket. */
  readonly burst: number
  /** When that happened last. */
  readonly at: number
}

const minuteMillis = 60_000

/** A full bucket and its size. */
interface FullBucket {
  readonly dimension: Limits.Dimension
  readonly burst: number
}

/**
 * The maximum size of a full bucket, if that is known. If the user states a limit, that is the limit of its period, because a stated burst
 * may be smaller than the provider's. Otherwise headers must have shown a whole minute of the limit: if they have shown less, small calls
 * may keep the bucket from filling, and what rejections suggest is no measure, because they suggest that of a bucket of any size.
 */
const burstOf = (law: Pacer.Pacer, meter: Meter.Meter): number => {
  const rule = law.caps[meter.dimension]?.rule
  if (rule !== undefined) return rule.quota ? Infinity : Math.max(Meter.burst(meter), rule.most / rule.share)
  const shown = Meter.shownBurst(meter) ?? 0
  return shown >= full * minuteMillis * meter.limit ? shown : Infinity
}

/** The known buckets that an estimate is larger than. */
const exceeded = (law: Pacer.Pacer, asked: Amounts.Whole): ReadonlyArray<FullBucket> =>
  law.meters
    .map((meter) => ({ dimension: meter.dimension, burst: burstOf(law, meter) }))
    .filter(({ burst, dimension }) => asked[dimension] > burst)

/** The sizes that the buckets of a pool rejected while they were full: at most two for each dimension. */
export class Oversize {
  private readonly pool: string
  private readonly rejected = new Map<Limits.Dimension, RejectedSizes>()

  constructor(pool: string) {
    this.pool = pool
  }

  /** The refusal of a call; undefined if it may be tried. */
  refusal(law: Pacer.Pacer, estimate: Limits.Estimate, now: number): RejectedAsTooLarge | undefined {
    if (this.rejected.size === 0) return undefined
    const whole = Amounts.whole(estimate)
    for (const { dimension, ...known } of exceeded(law, whole)) {
      const asked = whole[dimension]
      const { burst, sizes } = this.knownOf(dimension, known.burst, now)
      if (asked < (sizes[enough - 1] ?? Infinity)) continue
      return new RejectedAsTooLarge({ pool: this.pool, dimension, asked, burst: Math.floor(burst) })
    }
    return undefined
  }

  /** The rejected sizes of a bucket that holds so much. */
  private knownOf(dimension: Limits.Dimension, burst: number, now: number): RejectedSizes {
    const found = this.rejected.get(dimension)
    if (found !== undefined && full * burst <= found.burst && now < found.at + forgottenAfter) return found
    this.rejected.delete(dimension)
    return { sizes: [], burst, at: -Infinity }
  }

  /**
   * Notes a rejection, before the law learns from it. Returns why no further attempt can succeed, if that is known.
   * Calls that were sent before the last one was rejected say nothing more.
   */
  reject(
    law: Pacer.Pacer,
    { asked, grant }: Entry,
    readings: Pacer.Readings | undefined,
    now: number
  ): RejectedAsTooLarge | undefined {
    const whole = Amounts.whole(asked)
    for (const { dimension, ...known } of exceeded(law, whole)) {
      const { remaining = known.burst, roundedTo = 1 } = readings?.[dimension] ?? {}
      const burst = Math.max(known.burst, remaining)
      const { at, sizes } = this.knownOf(dimension, burst, now)
      if (remaining + roundedTo < full * burst || grant!.at <= at) continue
      const smallest = [...sizes, whole[dimension]].sort((one, other) => one - other).slice(0, enough)
      this.rejected.set(dimension, { sizes: smallest, burst, at: now })
    }
    return this.refusal(law, asked, now)
  }

  /** Notes a call that was accepted. */
  accept(estimate: Limits.Estimate): void {
    const whole = Amounts.whole(estimate)
    for (const [dimension, { sizes, ...rest }] of this.rejected) {
      this.rejected.set(dimension, { ...rest, sizes: sizes.filter((size) => size > whole[dimension]) })
    }
  }
}
