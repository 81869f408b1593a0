/** Durations as people write them, in flags and in files. */
import type * as Duration from "effect/Duration"

const units: ReadonlyArray<readonly [written: RegExp, unit: Duration.Unit]> = [
  [/^(ms|msecs?|milliseconds?)$/, "millis"],
  [/^(s|secs?)$/, "seconds"],
  [/^(m|mins?)$/, "minutes"],
  [/^(h|hrs?)$/, "hours"],
  [/^d$/, "days"]
]

/** Changes the unit of a duration such as "5 mins", "90 sec", "2h" or "1 hour" to one that Effect reads. Returns any other text unchanged. */
export const durationInput = (text: string): Duration.Input => {
  const [, count, written = ""] = /^(-?\d+(?:\.\d+)?)\s*([a-z]+)$/.exec(text.trim().toLowerCase()) ?? []
  const unit = units.find(([form]) => form.test(written))?.[1] ?? written
  return (count === undefined ? text : `${count} ${unit}`) as Duration.Input
}
