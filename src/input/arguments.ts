import * as Duration from "effect/Duration"
import * as Option from "effect/Option"

/** Refuses an argument: names the option, what is expected of it, and what was given. */
export const invalid = (option: string, expected: string, got: unknown): never => {
  throw new RangeError(`${option}: expected ${expected}, got ${String(got)}`)
}

/** The duration of an option. Throws if it is invalid. */
export const durationOf = (
  option: string,
  input: Duration.Input,
  expected = "a duration > 0",
  isValid = (millis: number): boolean => millis > 0
): Duration.Duration => {
  const value = Option.getOrUndefined(Duration.fromInput(input))
  return value !== undefined && isValid(Duration.toMillis(value)) ? value : invalid(option, expected, input)
}

/** A duration that ends. */
export const finiteOf = (option: string, input: Duration.Input): Duration.Duration =>
  durationOf(option, input, "a finite duration > 0", (millis) => millis > 0 && millis < Infinity)

/** A wait: zero if it is negative, as the rest of a time that is over. */
export const waitOf = (option: string, input: Duration.Input): Duration.Duration =>
  Duration.max(
    Duration.zero,
    durationOf(option, input, "a duration", () => true)
  )
