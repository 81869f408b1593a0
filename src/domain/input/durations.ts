/** Durations as people write them, in flags and in files. */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"

const units: ReadonlyArray<readonly [written: RegExp, unit: Duration.Unit]> = [
  [/^(ms|msecs?|milliseconds?)$/, "millis"],
  [/^(s|secs?)$/, "seconds"],
  [/^(m|mins?)$/, "minutes"],
  [/^(h|hrs?)$/, "hours"],
  [/^d$/, "days"]
]

/** Reads a duration such as "5 mins", "90 sec", "2h" or "1 hour". Undefined if the text is none. */
export const durationOf = (text: string): Duration.Duration | undefined => {
  const [, count, written = ""] = /^(-?\d+(?:\.\d+)?)\s*([a-z]+)$/.exec(text.trim().toLowerCase()) ?? []
  const unit = units.find(([form]) => form.test(written))?.[1] ?? written
  const input = (count === undefined ? text : `${count} ${unit}`) as Duration.Input
  return Option.getOrUndefined(Duration.fromInput(input))
}
