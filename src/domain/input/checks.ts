/**
 * Checks of options. Each type of options has a table with a check for each option. A check returns the problem of a value and its
 * place. It makes a text only for a problem, so checking valid options costs little.
 * What makes a check is marked as free of side effects, so that bundlers leave out the checks that nothing uses.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import { hint } from "./nearest.ts"
import { shown } from "./shown.ts"

/** The problem of a value, and its place, such as `.rules[0].cap`. */
interface Problem {
  readonly place: string
  readonly text: string
}

/** Returns the problem of a value, or undefined. */
export type Check = (value: unknown) => Problem | undefined

/** A check for each option of a type. A missing or misspelt option is a compile-time error. */
export type Checks<A> = { readonly [K in keyof A]-?: Check }

/** Throws a `RangeError` that names the option and its problem. */
export const wrong = (option: string, problem: string): never => {
  throw new RangeError(`${option}: ${problem}`)
}

/** Throws a `RangeError` that names the option, the expectation and the given value. */
export const invalid = (option: string, what: string, got: unknown): never => wrong(option, expected(what, got).text)

/**
 * Throws a `RangeError` that names the operation, the option, the expectation and the given value. The operation may include an
 * argument, as in `Forecast.make: workload`.
 */
export const check = (operation: string, wanted: Check, value: unknown): void => {
  const problem = wanted(value)
  if (problem === undefined) return
  const { place, text } = problem
  wrong(place === "" || operation.includes(": ") ? `${operation}${place}` : `${operation}: ${place.slice(1)}`, text)
}

/** A problem of a value itself. */
export const problem = (text: string): Problem => ({ place: "", text })

/** A problem within a part of a value. */
const within = (part: string, found: Problem | undefined): Problem | undefined =>
  found && { ...found, place: part + found.place }

const expected = (what: string, got: unknown): Problem => problem(`expected ${what}, got ${shown(got)}`)

// -----------------------------------------------------------------------------
// Kinds of checks
// -----------------------------------------------------------------------------

/** Values for which a predicate holds. `what` completes the sentence "expected ...". */
/* @__NO_SIDE_EFFECTS__ */
export const that =
  (what: string, holds: (value: unknown) => boolean): Check =>
  (value) =>
    holds(value) ? undefined : expected(what, value)

/** {@link that} for values that may contain a secret, which errors do not quote. */
/* @__NO_SIDE_EFFECTS__ */
export const secret =
  (what: string, holds: (value: unknown) => boolean): Check =>
  (value) =>
    holds(value)
      ? undefined
      : problem(`expected ${what}, got ${value === undefined ? value : "something else (not shown)"}`)

/** Numbers for which a predicate holds. */
/* @__NO_SIDE_EFFECTS__ */
export const number = (what: string, holds: (value: number) => boolean): Check =>
  that(what, (value) => typeof value === "number" && holds(value))

const isWholeOrInfinite = (value: number): boolean => value === Infinity || Number.isInteger(value)

/** Integers from `min`, or `Infinity`. */
/* @__NO_SIDE_EFFECTS__ */
export const wholeOrInfinite = (min: number): Check =>
  number(`an integer >= ${min}`, (value) => value >= min && isWholeOrInfinite(value))

export const whole: Check = number("an integer >= 1", (value) => value >= 1 && Number.isSafeInteger(value))
export const finite: Check = number("a finite number", Number.isFinite)
export const positive: Check = number("a finite number > 0", (value) => value > 0 && value < Infinity)
export const notNegative: Check = number("a finite number >= 0", (value) => value >= 0 && value < Infinity)
export const atLeastOne: Check = number("a finite number >= 1", (value) => value >= 1 && value < Infinity)

export const text: Check = that("a string", (value) => typeof value === "string")
/** A name that people see, on a page and in metrics, so it is short and has no control characters. */
export const shownName: Check = that(
  "a name of 1 to 64 characters",
  (value) => typeof value === "string" && /^\P{C}{1,64}$/u.test(value) && value.trim() === value
)
export const flag: Check = that("true or false", (value) => typeof value === "boolean")
export const callback: Check = that("a function", (value) => typeof value === "function")

/** One of some texts. */
/* @__NO_SIDE_EFFECTS__ */
export const oneOf = (...known: ReadonlyArray<string>): Check =>
  that(known.map((name) => `"${name}"`).join(known.length === 2 ? " or " : ", "), (value) =>
    known.some((name) => name === value)
  )

/** A function, or a value that passes a check. */
/* @__NO_SIDE_EFFECTS__ */
export const orFunction =
  (wanted: Check): Check =>
  (value) =>
    typeof value === "function" ? undefined : wanted(value)

/** An address to listen on. It must not be empty, because that would mean every address of the machine. */
export const host: Check = that(
  "an address or the name of a host",
  (value) => typeof value === "string" && value.trim() !== ""
)

/** A port to listen on; 0 chooses a free one. */
export const port: Check = number(
  "an integer from 0 to 65535",
  (value) => Number.isInteger(value) && value >= 0 && value < 65_536
)

/** Durations whose milliseconds satisfy a predicate. */
/* @__NO_SIDE_EFFECTS__ */
export const duration = (what: string, holds: (millis: number) => boolean): Check =>
  that(what, (value) => {
    const duration = Option.getOrUndefined(Duration.fromInput(value as Duration.Input))
    return duration !== undefined && holds(Duration.toMillis(duration))
  })

/** A duration above zero. */
export const span: Check = duration("a duration > 0", (millis) => millis > 0)
/** A finite duration above zero. */
export const finiteSpan: Check = duration("a finite duration > 0", (millis) => millis > 0 && millis < Infinity)
/** A wait. A negative one counts as zero, because it may be the rest of a period that is over. */
export const wait: Check = duration("a duration", () => true)

/** A finite wait. */
export const finiteWait: Check = duration("a finite duration", (millis) => millis < Infinity)

/** The milliseconds of a checked duration; a negative one counts as zero. A number is milliseconds already. */
export const millisOf = (input: Duration.Input): number => {
  const millis = typeof input === "number" ? input : Duration.toMillis(Duration.fromInputUnsafe(input))
  return millis > 0 ? millis : 0
}

/** Whether there is such a day: JavaScript takes 31 February for a day in March. */
export const isDay = (date: string): boolean => {
  const start = new Date(`${date}T00:00Z`)
  return /^\d{4}-\d\d-\d\d$/.test(date) && !Number.isNaN(start.getTime()) && start.toISOString().startsWith(date)
}

// -----------------------------------------------------------------------------
// Structures
// -----------------------------------------------------------------------------

type Fields = Readonly<Record<string, unknown>>

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

export const anything: Check = () => undefined

/** An object of any kind. */
export const anObject: Check = that("an object", isFields)

/** Objects with some members, made by other modules. `what` completes the sentence "expected ...". */
/* @__NO_SIDE_EFFECTS__ */
const having = (what: string, types: { readonly [name: string]: "function" | "object" }): Check => {
  const members = Object.entries(types)
  return that(what, (value) => isFields(value) && members.every(([name, type]) => typeof value[name] === type))
}

export const apiKey: Check = secret("a key in Redacted.make", (value) => {
  const key: unknown = Redacted.isRedacted(value) ? Redacted.value(value) : undefined
  return typeof key === "string" && key.trim() !== ""
})
export const policy: Check = that("a policy, as Retry.make gives it", Schedule.isSchedule)
export const accounting: Check = having("an accounting, such as Accounting.openai", {
  estimate: "function",
  usage: "function"
})
export const store: Check = having("a store", { read: "function", swap: "function" })

/** An object of options. Only the `required` ones must be present. Unknown options are refused, because they would have no effect. */
/* @__NO_SIDE_EFFECTS__ */
export const options = <A>(checks: Checks<A>, ...required: ReadonlyArray<keyof A & string>): Check => {
  const known = new Map<string, Check>(Object.entries(checks))
  return (value) => {
    if (!isFields(value)) return expected(`an object with ${[...known.keys()].join(", ")}`, value)
    for (const name in value) {
      const given = value[name]
      // Skipped before the lookup, because most options of most calls are undefined.
      if (given === undefined) continue
      const wanted = known.get(name)
      if (wanted === undefined) return problem(`unknown option ${shown(name)}: ${hint(name, known.keys())}`)
      const found = wanted(given)
      if (found !== undefined) return within(`.${name}`, found)
    }
    const missing = required.find((name) => value[name] === undefined)
    return missing === undefined ? undefined : within(`.${missing}`, known.get(missing)!(undefined))
  }
}

/** An object whose values all pass a check. */
/* @__NO_SIDE_EFFECTS__ */
export const record =
  (wanted: Check): Check =>
  (value) => {
    if (!isFields(value)) return expected("an object", value)
    for (const [name, given] of Object.entries(value)) {
      const found = wanted(given)
      if (found !== undefined) return within(/^[A-Za-z_$][\w$]*$/.test(name) ? `.${name}` : `[${shown(name)}]`, found)
    }
    return undefined
  }

/** A list whose items all pass a check. */
/* @__NO_SIDE_EFFECTS__ */
export const list =
  (wanted: Check): Check =>
  (value) => {
    if (!Array.isArray(value)) return expected("a list", value)
    for (const [index, given] of value.entries()) {
      const found = wanted(given)
      if (found !== undefined) return within(`[${index}]`, found)
    }
    return undefined
  }

/** Applies checks in order, up to the first problem. */
/* @__NO_SIDE_EFFECTS__ */
export const all =
  (...wanted: ReadonlyArray<Check>): Check =>
  (value) => {
    for (const each of wanted) {
      const found = each(value)
      if (found !== undefined) return found
    }
    return undefined
  }
