/**
 * Checks the options of the simulated provider. A failed check throws a `RangeError` that names the option, the expectation and
 * the value.
 */
import * as Predicate from "effect/Predicate"
import { checkOptions, invalid, wrong } from "../input/arguments.ts"
import type { Limit, Limits } from "../Limits.ts"
import { type Fault, type FaultKind, faultKinds, headerModes, type Options } from "./models.ts"

/** Throws for an invalid value of an option. */
export type Check = (option: string, value: unknown) => void

/** A check for each option of a type. A missing check is a type error. */
export type Checks<A> = { readonly [K in keyof A]-?: Check }

// -----------------------------------------------------------------------------
// Kinds of checks
// -----------------------------------------------------------------------------

const that =
  (expected: string, holds: (value: unknown) => boolean): Check =>
  (option, value) => {
    if (!holds(value)) invalid(option, expected, value)
  }

/** A number of some kind. */
export const number = (expected: string, holds: (value: number) => boolean): Check =>
  that(expected, (value) => typeof value === "number" && holds(value))

const string = that("a string", Predicate.isString)

/** An address to listen on. An empty one would mean every address of the machine. */
export const host = that(
  "an address or the name of a host",
  (value) => Predicate.isString(value) && value.trim() !== ""
)

const oneOf = (...known: ReadonlyArray<string>): Check =>
  that(`one of ${known.map((name) => `"${name}"`).join(", ")}`, (value) => known.some((name) => name === value))

const orFunction =
  (check: Check): Check =>
  (option, value) => {
    if (typeof value !== "function") check(option, value)
  }

/** An object of options, of which only the `required` ones must be present. */
export const fields =
  <A extends object>(checks: Checks<A>, ...required: ReadonlyArray<keyof A & string>): Check =>
  (option, value) => {
    checkOptions(option, value, checks)
    for (const [name, check] of Object.entries<Check>(checks)) {
      const given = (value as Readonly<Record<string, unknown>>)[name]
      if (given !== undefined || required.some((one) => one === name)) check(`${option}.${name}`, given)
    }
  }

const record =
  (check: Check): Check =>
  (option, value) => {
    if (!Predicate.isObject(value)) return invalid(option, "an object", value)
    for (const [name, given] of Object.entries(value)) check(`${option}["${name}"]`, given)
  }

const list =
  (check: Check): Check =>
  (option, value) => {
    if (!Array.isArray(value)) return invalid(option, "a list", value)
    for (const [index, given] of value.entries()) check(`${option}[${index}]`, given)
  }

// -----------------------------------------------------------------------------
// The options
// -----------------------------------------------------------------------------

/** A number above 0. */
export const positive = number("a finite number > 0", (value) => value > 0 && value < Infinity)
const notNegative = number("a finite number >= 0", (value) => value >= 0 && value < Infinity)
const atLeastOne = number("a finite number >= 1", (value) => value >= 1 && value < Infinity)
const share = number("a number from 0 to 1", (value) => value >= 0 && value <= 1)
const finite = number("a finite number", Number.isFinite)
const wholeOrInfinite = (least: number): Check =>
  number(`an integer >= ${least}`, (value) => value >= least && (value === Infinity || Number.isInteger(value)))

const limitFields = fields<Omit<Limit, "share">>({
  perSecond: positive,
  perMinute: positive,
  total: positive,
  burst: positive,
  window: oneOf("bucket", "sliding", "fixed")
})

const limit: Check = (option, value) => {
  limitFields(option, value)
  const { perMinute, perSecond, total } = value as Limit
  const given = [perSecond, perMinute, total].filter((rate) => rate !== undefined).length
  if (given !== 1) invalid(option, "exactly one of perSecond, perMinute and total", given)
}

const limits = fields<Limits>({ requests: limit, inputTokens: limit, outputTokens: limit, tokens: limit })

const oneSet: Check = (option, value) => {
  if (Predicate.hasProperty(value, "pools")) {
    wrong(
      option,
      "expected the limits that all models share, got pools: give those as they are, as in " +
        "ProviderSim.layer(Presets.anthropic.start)"
    )
  }
  limits(option, value)
}

const charges = oneOf("free", "charged")
const charge = fields<Exclude<NonNullable<Options["rejections"]>, string>>({ requests: notNegative, tokenShare: share })

type Neighbour = NonNullable<Options["neighbour"]>
const neighbourFields = fields<Neighbour>(
  { share: notNegative, everyMillis: atLeastOne, forMillis: notNegative },
  "share"
)

const neighbour: Check = (option, value) => {
  neighbourFields(option, value)
  const { everyMillis, forMillis } = value as Neighbour
  if (forMillis !== undefined && everyMillis === undefined) {
    invalid(`${option}.everyMillis`, "a finite number >= 1 beside forMillis", everyMillis)
  }
}

const isSpan = (value: unknown): boolean => {
  const [from, to, ...more]: ReadonlyArray<unknown> = Array.isArray(value) ? value : []
  return typeof from === "number" && typeof to === "number" && from <= to && more.length === 0
}

const faultFields = fields<Fault>(
  {
    kind: oneOf(...faultKinds),
    calls: list(wholeOrInfinite(1)),
    between: that("two times in milliseconds, from <= to", isSpan),
    rate: share,
    model: string,
    afterMillis: notNegative,
    retryAfterMillis: notNegative,
    errorCode: string
  },
  "kind"
)

/** Options that only some kinds of faults have. */
const onlyOf: Readonly<Partial<Record<keyof Fault, ReadonlyArray<FaultKind>>>> = {
  afterMillis: ["timeout"],
  retryAfterMillis: ["429", "529", "500"],
  errorCode: ["429"]
}

const fault: Check = (option, value) => {
  faultFields(option, value)
  const given = value as Fault
  for (const [name, kinds] of Object.entries(onlyOf) as ReadonlyArray<[keyof Fault, ReadonlyArray<FaultKind>]>) {
    if (given[name] !== undefined && !kinds.includes(given.kind)) {
      invalid(`${option}.${name}`, `nothing beside kind "${given.kind}"`, given[name])
    }
  }
}

/** The check of each option of the simulated provider. */
export const simulated: Checks<Options> = {
  limits: oneSet,
  pools: record(limits),
  counting: oneOf("usage", "openai", "azure"),
  output: oneOf("live", "admission"),
  rejections: (option, value) => (typeof value === "object" ? charge : charges)(option, value),
  oversize: oneOf("debt", "reject"),
  concurrency: wholeOrInfinite(1),
  ramp: fields<NonNullable<Options["ramp"]>>({ fromPerMinute: notNegative, growth: positive }, "fromPerMinute"),
  neighbour,
  latency: fields<NonNullable<Options["latency"]>>({
    baseMillis: notNegative,
    perInputTokenMillis: notNegative,
    perOutputTokenMillis: notNegative,
    noise: notNegative,
    rejectionMillis: notNegative
  }),
  faults: list(fault),
  headers: oneOf(...headerModes),
  seed: finite,
  logSize: wholeOrInfinite(0),
  charsPerToken: positive,
  outputTokens: orFunction(notNegative),
  cachedShare: orFunction(share),
  reply: that("a function", Predicate.isFunction)
}

/** Throws for invalid options. */
export const check = (options: Options): void => fields(simulated)("ProviderSim", options)
