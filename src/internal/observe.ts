/**
 * What a response says of the limits, applied to the ledger.
 */
import * as Limits from "../Limits.ts"
import * as Bucket from "./bucket.ts"
import { type Answered, type Ledger, ruled } from "./ledger.ts"
import * as Pace from "./pace.ts"
import * as Reading from "./reading.ts"

/** Each lowering doubles what is kept back, up to this part of the capacity. */
const mostReserve = 0.25
/** Headroom shrinks to a sixteenth of what was asked for while the provider confirms the local view. */
const leastHeadroom = 1 / 16
/** Responses overtake one another by seconds; a date that is off by more is a wrong clock. */
const mostDisorderMillis = 60_000

/**
 * Moves the local view toward the provider's: lowers a level at once, and raises it only where `idle`, when everything
 * that was sent is counted. A signal that is older than the last one heeded is ignored.
 */
export const observe = (ledger: Ledger, signal: Limits.Signal, answered: Answered, now: number): Ledger => {
  const date = signal.date ?? ledger.signalDate
  const toldAt = Limits.dimensions.some((dimension) => isLimit(signal.dimensions[dimension]?.limit))
    ? now
    : ledger.toldAt
  // A date that is far behind the last one says that the last one was wrong, not that this signal is old.
  if (date < ledger.signalDate && date > ledger.signalDate - mostDisorderMillis) return { ...ledger, toldAt }
  const buckets: { [D in Limits.Dimension]?: Bucket.Bucket } = {}
  const loweredBy = { ...ledger.loweredBy }
  const corrected = { ...ledger.corrected }
  let { doubt } = ledger
  let drift = 0
  for (const dimension of Limits.dimensions) {
    const said = signal.dimensions[dimension]
    const bucket = learnLimit(ledger, dimension, said, now)
    if (bucket === undefined) continue
    buckets[dimension] = bucket
    if (said === undefined || bucket.rule.quota) continue
    const { capacity } = bucket.rule
    // Output is counted as it comes; what was left of it when a call was sent says nothing.
    const isOutput = dimension === "outputTokens"
    const left = isOutput ? undefined : answered.left?.[dimension]
    const view = {
      level: bucket.level,
      capacity,
      // A limit that was learned since may be smaller than what was left then.
      left: left === undefined ? undefined : Math.min(capacity, left + (corrected[dimension] ?? 0)),
      uncounted: isOutput ? answered.uncounted : 0
    }
    const reading = Reading.read(said, view, doubt)
    if (reading === undefined) continue
    doubt = reading.doubt
    // Whether the answer's own output is counted by now is not known either: it is kept until it is settled.
    const own = isOutput ? answered.output : 0
    let level = bucket.level
    let reserve = Math.max(bucket.reserve / 2, capacity * ledger.headroom * leastHeadroom)
    if (reading.lowered !== undefined) {
      level = reading.lowered - own
      reserve = Math.min(capacity * mostReserve, Math.max(bucket.reserve, capacity * ledger.headroom) * 2)
      // The first signal tells where we start, the later ones what somebody else spends meanwhile. What open calls may
      // have put out already is our own.
      const theirs = bucket.level - reading.lowered - view.uncounted - own
      if (corrected[dimension] !== undefined && theirs > 0) {
        drift = Math.max(drift, theirs / (bucket.rule.rate * Pace.stepMillis))
      }
      if (!isOutput) loweredBy[dimension] = Math.max(answered.id, loweredBy[dimension] ?? -1)
    } else if (answered.idle && ledger.pace.scale >= 1) {
      level = Math.min(capacity, Math.max(level, reading.least - own))
      // The provider's figure has the answered call as it was used: to give back its estimate, too, would count that
      // twice.
      if (!isOutput && level > bucket.level) loweredBy[dimension] = Math.max(answered.id, loweredBy[dimension] ?? -1)
    } else if (left !== undefined && reading.more > 0 && ledger.pace.scale >= 1) {
      // An estimate that was too high looks like somebody else until it is settled. If the provider then has more than
      // we think by either reading, what was taken from the level was our own. After a recent rejection this is not
      // believed.
      const returned = Math.min(reading.more, -(corrected[dimension] ?? 0))
      if (returned > 0) {
        level = bucket.level + returned
        if (drift <= 0) drift = Math.min(drift, -returned / (bucket.rule.rate * Pace.stepMillis))
      }
    }
    corrected[dimension] = (corrected[dimension] ?? 0) + level - bucket.level
    buckets[dimension] = { ...Bucket.withLevel(bucket, level), reserve }
  }
  const pace = Pace.drifted(ledger.pace, drift, now)
  return { ...ledger, buckets, loweredBy, corrected, signalDate: date, toldAt, doubt, pace }
}

const isLimit = (limit: number | undefined): limit is number =>
  limit !== undefined && limit > 0 && limit <= Number.MAX_SAFE_INTEGER

/** A limit header teaches rate and capacity, never above what was configured. */
const learnLimit = (
  ledger: Ledger,
  dimension: Limits.Dimension,
  said: Limits.DimensionSignal | undefined,
  now: number
): Bucket.Bucket | undefined => {
  const bucket = ledger.buckets[dimension]
  const limit = said?.limit
  if (said === undefined || !isLimit(limit)) return bucket
  const configured = ledger.configured[dimension]
  if (configured?.total !== undefined) return bucket
  const learned = configured === undefined ? told(dimension, limit, said, bucket) : capped(configured, limit)
  const rule = Limits.resolve({ [dimension]: learned })[dimension]!
  const isSame = Limits.sameRules({ [dimension]: bucket?.rule }, { [dimension]: rule })
  return isSame ? bucket : ruled(ledger, dimension, rule, now)
}

/** Of a limit that was only heard of, this part is taken as the burst until the provider says that it has more. */
const leastBurst = 0.05

/**
 * A limit that nobody configured. How much a bucket holds is not said, but what is left of it can be had at once: the
 * most that was ever left is the burst. Requests are smoothed all the same.
 */
const told = (
  dimension: Limits.Dimension,
  perMinute: number,
  { remaining = 0, window }: Limits.DimensionSignal,
  bucket: Bucket.Bucket | undefined
): Limits.Limit => {
  if (window !== "bucket" || dimension === "requests") return { perMinute, window }
  const left = remaining > 0 && remaining < Infinity ? remaining : 0
  const most = Math.max(perMinute * leastBurst, bucket?.rule.capacity ?? 0, left)
  return { perMinute, window, burst: Math.min(perMinute, most) }
}

const capped = (configured: Limits.Limit, perMinute: number): Limits.Limit => {
  const limit = configured.perMinute ?? configured.perSecond! * 60
  if (perMinute >= limit) return configured
  const part = perMinute / limit
  return {
    ...configured,
    ...(configured.perMinute === undefined ? { perSecond: configured.perSecond! * part } : { perMinute }),
    ...(configured.burst === undefined ? {} : { burst: configured.burst * part })
  }
}
