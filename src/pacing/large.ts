/**
 * Large calls whose room nobody knows: the user states no limit, and no header shows what the full bucket holds.
 *
 * While small calls take what is refilled, the provider rejects a large call however often it is tried. So room is kept for it once it was
 * rejected: smaller calls wait until the bucket holds both or is full, and in the queue it goes before them. If it is rejected again, nothing
 * was left. If it is rejected once more, it waits until nothing has been sent for a minute, which fills every bucket that it fits in. If
 * that is rejected, too, no room is kept for such calls any more: otherwise one that no bucket holds would stop all others.
 */
import { type Readings, showsRoom } from "./headers.ts"
import * as Meter from "./meter.ts"
import { type Admission, isStated, type Pacer } from "./state.ts"

/** A call is large if it needs more than this many times what calls need on average: that those are accepted says little of it. */
const manyCalls = 4
/** Room is kept for at most this time: the longest wait of a retry, and a minute in which the bucket fills. */
const keptMillis = 120_000
/** After so many rejections in a row it waits until nothing has been sent for a minute. */
const timesEmpty = 3
/** No room is kept for calls of at least this part of the size that did not fit, because sizes are estimates, and for this time. */
const tooLargePart = 0.9
const tooLargeMillis = 3_600_000
/** Providers limit by the minute at the longest, so a minute without calls fills a bucket. */
const fillMillis = 60_000

/** Keeps room for a rejected call, if it is large and nothing shows that the bucket of a dimension had room for it. */
export const rejected = (
  pacer: Pacer,
  meter: Meter.Meter,
  admission: Admission,
  readings: Readings | undefined,
  now: number
): void => {
  const { dimension } = meter
  const charge = admission.charge[dimension]
  if (dimension === "requests" || Meter.isLate(meter) || charge <= manyCalls * meter.mean) return
  if (isStated(pacer, dimension) || showsRoom(meter, admission, readings)) return
  if (isTooLarge(meter, charge, now)) return
  const { times = 0 } = (Meter.isAsLarge(meter, charge) ? meter.lacked : undefined) ?? {}
  if (times < timesEmpty) meter.lacked = { charge, times: times + 1, until: now + keptMillis }
  else {
    meter.lacked = undefined
    meter.tooLarge = { charge, until: now + tooLargeMillis }
  }
}

const isTooLarge = ({ tooLarge }: Meter.Meter, charge: number, now: number): boolean =>
  tooLarge !== undefined && now < tooLarge.until && charge >= tooLargePart * tooLarge.charge

/** Whether a call is as large as one that did not fit into a bucket of unknown size. That it is rejected says nothing about other calls. */
export const isHopeless = ({ meters }: Pacer, { charge }: Admission, now: number): boolean =>
  meters.some((meter) => isTooLarge(meter, charge[meter.dimension], now))

/** A call was accepted. No room has to be kept for calls of its size, and none of them is too large. */
export const accepted = (meter: Meter.Meter, { charge }: Admission): void => {
  const size = charge[meter.dimension]
  if (Meter.isAsLarge(meter, size)) meter.lacked = undefined
  if (size >= tooLargePart * (meter.tooLarge?.charge ?? Infinity)) meter.tooLarge = undefined
}

/** The dimension that has lacked room for calls as large as this one twice in a row. No other call is evidence against that. */
export const lackedAgain = ({ meters }: Pacer, { charge }: Admission): Meter.Meter | undefined =>
  meters.find((meter) => (meter.lacked?.times ?? 0) > 1 && Meter.isAsLarge(meter, charge[meter.dimension]))

/**
 * Whether what a call of an unknown limit needs refills in no less than the longest period. Then too few calls are accepted between two
 * rejections to measure the rate by them, so it is at most what was delivered in the last minute.
 */
export const isSlow = (meter: Meter.Meter, charge: number): boolean =>
  meter.limit === Infinity && meter.best > 0 && charge > Meter.rate(meter) * Meter.maxPeriod

/**
 * Empties a bucket of an unknown limit that has rejected a large call again. What has refilled in the last minute is at most what was
 * delivered and what the call needs. Returns whether it did.
 */
export const empty = (meter: Meter.Meter, now: number): boolean => {
  const { lacked, limit } = meter
  if (lacked === undefined || lacked.times === 1 || limit < Infinity) return false
  const { charge, times } = lacked
  const refilled = Math.min(Meter.rate(meter), Meter.recentRate(meter, now, charge))
  Meter.restart(meter, refilled, 0)
  meter.level = Math.min(meter.level, 0, times >= timesEmpty ? charge - refilled * fillMillis : Infinity)
  return true
}
