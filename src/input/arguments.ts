import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import { hint } from "./nearest.ts"
import { shown } from "./shown.ts"

/** Throws a `RangeError` that names the option and what is wrong with it. */
export const wrong = (option: string, problem: string): never => {
  throw new RangeError(`${option}: ${problem}`)
}

/** Throws a `RangeError` that names the option, the expectation and the value. */
export const invalid = (option: string, expected: string, got: unknown): never =>
  wrong(option, `expected ${expected}, got ${shown(got)}`)

/** The options of a type by their names. One that is missing or misspelt is an error of the compiler. */
export type Known<A> = { readonly [K in keyof A]-?: true }

/** Refuses values that are not objects, and options that do not exist: a misspelt one would do nothing. */
export const checkOptions = (option: string, value: unknown, known: Readonly<Record<string, unknown>>): void => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return invalid(option, `an object with ${Object.keys(known).join(", ")}`, value)
  }
  const unknown = Object.keys(value).find((name) => !Object.hasOwn(known, name))
  if (unknown !== undefined) wrong(option, `unknown option ${shown(unknown)}: ${hint(unknown, Object.keys(known))}`)
}

/** Checks a part of an option. The error of a check that names the part as `from` names it as `to`. */
export const within = <A>(from: string, to: string, check: () => A): A => {
  try {
    return check()
  } catch (error) {
    if (!(error instanceof RangeError && error.message.startsWith(from))) throw error
    throw new RangeError(`${to}${error.message.slice(from.length)}`, { cause: error })
  }
}

/** The duration of an option. Throws if the value is invalid. */
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

/** A wait. A negative one, such as the rest of a period that is over, is zero. */
export const waitOf = (option: string, input: Duration.Input): Duration.Duration =>
  Duration.max(
    Duration.zero,
    durationOf(option, input, "a duration", () => true)
  )
