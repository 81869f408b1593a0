/** The decision on the next call of a pool that is played ahead, by predictions and by forecasts. */
import type { Dimension, Whole } from "../domain/amounts.ts"
import * as Law from "./law.ts"

/** What a call waits for: a limit, the end of another call, or the end of a pause. */
export type Obstacle = Dimension | "concurrency" | "pause"

/**
 * For how long it waits, in the whole milliseconds of a timer. It is for ever where the end of another call has to come first,
 * and where a quota no longer holds it.
 */
export interface Wait {
  readonly by: Obstacle
  readonly millis: number
}

/**
 * A copy to play ahead with. While headers measure a share, it does not grow by itself: they go on saying what they say. Where
 * only rejections tell, it is tried, as ever.
 */
export const copy = (pacer: Law.Pacer): Law.Pacer => {
  const law = Law.copy(pacer)
  for (const meter of law.meters) if (meter.header !== undefined) meter.header = { ...meter.header, at: Infinity }
  return law
}

/** Charges a call if it goes now; otherwise says what it waits for. */
export const admit = (law: Law.Pacer, maxInFlight: number, charge: Whole, now: number): Law.Ticket | Wait => {
  if (law.inFlight >= maxInFlight) return { by: "concurrency", millis: Infinity }
  const answer = Law.admit(law, charge, now)
  if ("at" in answer) return answer
  const { dimension, millis } = answer
  const by = dimension ?? (law.inFlight >= law.window.size ? "concurrency" : "pause")
  // Very late times cannot represent a difference of a millisecond.
  return { by, millis: Math.max(Math.ceil(millis), now * Number.EPSILON) }
}

/** The quota that no longer holds a charge, if that is why it waits. */
export const exhaustedBy = ({ by, millis }: Wait): Dimension | undefined =>
  millis < Infinity || by === "concurrency" || by === "pause" ? undefined : by
