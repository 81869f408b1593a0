/**
 * Plays a pacer ahead of time, for predictions of a pool and for forecasts.
 */
import { type Blocked, dimensionOf } from "../admission/blocked.ts"
import type { Dimension, Whole } from "../domain/amounts.ts"
import { admit as admitNow } from "./admit.ts"
import * as Meter from "./meter.ts"
import { copy, type Pacer, type Admission } from "./state.ts"
import * as Window from "./window.ts"

/**
 * A copy to play ahead. A share that headers measure does not grow by itself, because the next headers will say the same. A
 * share that only rejections measure grows as it does in the pool.
 */
export const of = (pacer: Pacer): Pacer => {
  const ahead = copy(pacer)
  for (const meter of ahead.meters) if (meter.header !== undefined) meter.header = { ...meter.header, at: Infinity }
  return ahead
}

/**
 * A copy to play a long time ahead. The rate in use rises and falls around what the provider gives us, so a share that was measured
 * counts with its average over the last minute, and does not grow. A learned limit of calls in flight does not grow either, because
 * attempts that the provider rejects would succeed here.
 */
export const ofLong = (pacer: Pacer, now: number): Pacer => {
  const ahead = copy(pacer)
  ahead.window = Window.held(ahead.window)
  ahead.distrustUntil = -Infinity
  for (const meter of ahead.meters) {
    if (meter.header === undefined && Meter.rate(meter) >= meter.limit) continue
    const { lasting = Math.max(meter.peak, Meter.recentRate(meter, now)) } = meter
    meter.peak = Math.min(meter.limit, lasting)
    meter.phase = 0
    meter.header = { at: Infinity, remaining: 0, sum: 0 }
  }
  return ahead
}

/** Charges a call if it may be sent now; otherwise returns its wait, in the whole milliseconds of a timer. */
export const admit = (pacer: Pacer, maxInFlight: number, charge: Whole, now: number): Admission | Blocked => {
  if (pacer.inFlight >= maxInFlight) return { by: "concurrency", millis: Infinity }
  const answer = admitNow(pacer, charge, now)
  if ("at" in answer) return answer
  // Very late times cannot represent a difference of a millisecond.
  return { by: answer.by, millis: Math.max(Math.ceil(answer.millis), now * Number.EPSILON) }
}

/** The quota that is used up, if that is why a call waits. */
export const exhaustedBy = ({ by, millis }: Blocked): Dimension | undefined =>
  millis === Infinity ? dimensionOf(by) : undefined
