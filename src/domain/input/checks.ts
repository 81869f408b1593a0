/**
 * Checks of options. A set of options is declared once, beside its type, as a table with a check for each option. A check finds
 * what is wrong with a value and where in it; only then is a text made, so that a check of good options costs little.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import { hint } from "./nearest.ts"
import { shown } from "./shown.ts"

/** What is wrong with a value, and the place within it, such as `.rules[0].cap`. */
interface Problem {
  readonly place: string
  readonly text: string
}

/** Finds what is wrong with a value, if anything. */
export type Check = (value: unknown) => Problem | undefined

/** A check for each option of a type. A missing or misspelt one is an error of the compiler. */
export type Checks<A> = { readonly [K in keyof A]-?: Check }

/** Throws a `RangeError` that names the option and what is wrong with it. */
export const wrong = (option: string, problem: string): never => {
  throw new RangeError(`${option}: ${problem}`)
}

/** Throws a `RangeError` that names the option, the expectation and the value. */
export const invalid = (option: string, what: string, got: unknown): never => wrong(option, expected(what, got).text)

/**
 * Throws a `RangeError` that names the operation, the option, what is expected and what was given. An operation may name a part
 * of its arguments, as `Forecast.make: workload`.
 */
export const check = (operation: string, wanted: Check, value: unknown): void => {
  const problem = wanted(value)
  if (problem === undefined) return
  const { place, text } = problem
  wrong(place === "" || operation.includes(": ") ? `${operation}${place}` : `${operation}: ${place.slice(1)}`, text)
}

/** A problem of a value itself. */
export const problem = (text: string): Problem => ({ place: "", text })

/** A problem of a part of a value. */
const within = (part: string, found: Problem | undefined): Problem | undefined =>
  found && { ...found, place: part + found.place }

const expected = (what: string, got: unknown): Problem => problem(`expected ${what}, got ${shown(got)}`)

// -----------------------------------------------------------------------------
// Kinds of checks
// -----------------------------------------------------------------------------

/** Values for which a predicate holds. `what` completes the sentence "expected ...". */
export const that =
  (what: string, holds: (value: unknown) => boolean): Check =>
  (value) =>
    holds(value) ? undefined : expected(what, value)

/** The same for values that may contain a secret. */
export const secret =
  (what: string, holds: (value: unknown) => boolean): Check =>
  (value) =>
    holds(value)
      ? undefined
      : problem(`expected ${what}, got ${value === undefined ? value : "something else (not shown)"}`)

/** Numbers for which a predicate holds. */
export const number = (what: string, holds: (value: number) => boolean): Check =>
  that(what, (value) => typeof value === "number" && holds(value))

const isWholeOrInfinite = (value: number): boolean => value === Infinity || Number.isInteger(value)

/** Integers from `least`, or `Infinity`. */
export const wholeOrInfinite = (least: number): Check =>
  number(`an integer >= ${least}`, (value) => value >= least && isWholeOrInfinite(value))

export const whole: Check = number("an integer >= 1", (value) => value >= 1 && Number.isSafeInteger(value))
export const finite: Check = number("a finite number", Number.isFinite)
export const positive: Check = number("a finite number > 0", (value) => value > 0 && value < Infinity)
export const notNegative: Check = number("a finite number >= 0", (value) => value >= 0 && value < Infinity)
export const atLeastOne: Check = number("a finite number >= 1", (value) => value >= 1 && value < Infinity)

export const text: Check = that("a string", (value) => typeof value === "string")
export const flag: Check = that("true or false", (value) => typeof value === "boolean")
export const callback: Check = that("a function", (value) => typeof value === "function")

/** One of some texts. */
export const oneOf = (...known: ReadonlyArray<string>): Check =>
  that(known.map((name) => `"${name}"`).join(known.length === 2 ? " or " : ", "), (value) =>
    known.some((name) => name === value)
  )

/** A function, or what a check wants. */
export const orFunction =
  (wanted: Check): Check =>
  (value) =>
    typeof value === "function" ? undefined : wanted(value)

/** An address to listen on. An empty one would mean every address of the machine. */
export const host: Check = that(
  "an address or the name of a host",
  (value) => typeof value === "string" && value.trim() !== ""
)

/** A port to listen on; 0 takes a free one. */
export const port: Check = number(
  "an integer from 0 to 65535",
  (value) => Number.isInteger(value) && value >= 0 && value < 65_536
)

/** Durations for whose milliseconds a predicate holds. */
export const duration = (what: string, holds: (millis: number) => boolean): Check =>
  that(what, (value) => {
    const duration = Option.getOrUndefined(Duration.fromInput(value as Duration.Input))
    return duration !== undefined && holds(Duration.toMillis(duration))
  })

/** A duration above zero. */
export const span: Check = duration("a duration > 0", (millis) => millis > 0)
/** A duration above zero that ends. */
export const finiteSpan: Check = duration("a finite duration > 0", (millis) => millis > 0 && millis < Infinity)
/** A wait. A negative one, such as the rest of a period that is over, is zero. */
export const wait: Check = duration("a duration", () => true)

/** A wait that ends. */
export const finiteWait: Check = duration("a finite duration", (millis) => millis < Infinity)

/** A checked duration in milliseconds. One that is negative is zero. */
export const millisOf = (input: Duration.Input): number =>
  Math.max(0, Duration.toMillis(Duration.fromInputUnsafe(input)))

// -----------------------------------------------------------------------------
// Structures
// -----------------------------------------------------------------------------

type Fields = Readonly<Record<string, unknown>>

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

export const anything: Check = () => undefined

/** An object of any kind. */
export const anObject: Check = that("an object", isFields)

/** Objects with some members, which other modules make: `what` says which. */
const having = (what: string, types: { readonly [name: string]: "function" | "object" }): Check =>
  that(what, (value) => isFields(value) && Object.entries(types).every(([name, type]) => typeof value[name] === type))

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

/** An object of options, of which only the `required` ones must be present. A misspelt option would do nothing. */
export const options = <A>(checks: Checks<A>, ...required: ReadonlyArray<keyof A & string>): Check => {
  const known = new Map<string, Check>(Object.entries(checks))
  return (value) => {
    if (!isFields(value)) return expected(`an object with ${[...known.keys()].join(", ")}`, value)
    for (const name in value) {
      const given = value[name]
      // Most options of most calls are left out, also where an object has a place for them.
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

/** An object whose values are all of one kind. */
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

/** A list whose items are all of one kind. */
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

/** What the first check wants and, if that is there, the further ones. */
export const all =
  (...wanted: ReadonlyArray<Check>): Check =>
  (value) => {
    for (const each of wanted) {
      const found = each(value)
      if (found !== undefined) return found
    }
    return undefined
  }
