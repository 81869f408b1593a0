/** Durations in words. Apart from `words.ts`, which browsers load without Effect. */
import * as Duration from "effect/Duration"

/** The digits that a time of up to so many milliseconds needs. */
const steps: ReadonlyArray<readonly [below: number, step: number]> = [
  [1_000, 1],
  [10_000, 100],
  [7_200_000, 1_000],
  [Infinity, 60_000]
]

/** A measured or expected time without more digits than it needs: 1m 10s, 2.4s, 250ms. */
export const lasting = (duration: Duration.Duration): string => {
  const millis = Duration.toMillis(duration)
  if (!(millis < Infinity)) return Duration.format(duration)
  const [, step] = steps.find(([below]) => millis < below)!
  const rounded = Math.round(millis / step) * step
  const isFraction = rounded >= 1_000 && rounded % 1_000 !== 0
  return isFraction ? `${rounded / 1_000}s` : Duration.format(Duration.millis(rounded))
}
