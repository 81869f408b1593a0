/** Checks the options of the simulated provider. */
import * as Predicate from "effect/Predicate"
import {
  all,
  atLeastOne,
  callback,
  type Check,
  check,
  type Checks,
  finite,
  list,
  notNegative,
  number,
  oneOf,
  options,
  orFunction,
  positive,
  problem,
  record,
  text,
  that,
  wholeOrInfinite
} from "../input/checks.ts"
import { shown } from "../input/shown.ts"
import type { Limit, Limits } from "../Limits.ts"
import { type Fault, type FaultKind, faultKinds, headerModes, type Options } from "./models.ts"

const share = number("a number from 0 to 1", (value) => value >= 0 && value <= 1)

const limitFields = options<Omit<Limit, "share">>({
  perSecond: positive,
  perMinute: positive,
  total: positive,
  burst: positive,
  window: oneOf("bucket", "sliding", "fixed")
})

const limit = all(limitFields, (value) => {
  const { perMinute, perSecond, total } = value as Limit
  return [perSecond, perMinute, total].filter((rate) => rate !== undefined).length === 1
    ? undefined
    : problem(`expected exactly one of perSecond, perMinute and total, got ${shown(value)}`)
})

const limits = options<Limits>({ requests: limit, inputTokens: limit, outputTokens: limit, tokens: limit })

const oneSet: Check = (value) =>
  Predicate.hasProperty(value, "pools")
    ? problem(
        "expected the limits that all models share, got pools: give those as they are, as in " +
          "ProviderSim.layer(Presets.anthropic.start)"
      )
    : limits(value)

const charges = oneOf("free", "charged")
const charge = options<Exclude<NonNullable<Options["rejections"]>, string>>({
  requests: notNegative,
  tokenShare: share
})

type Neighbour = NonNullable<Options["neighbour"]>
const neighbourFields = options<Neighbour>(
  { share: notNegative, everyMillis: atLeastOne, forMillis: notNegative },
  "share"
)

const neighbour = all(neighbourFields, (value) => {
  const { everyMillis, forMillis } = value as Neighbour
  return forMillis !== undefined && everyMillis === undefined
    ? { place: ".everyMillis", text: "expected a finite number >= 1 beside forMillis, got undefined" }
    : undefined
})

const isSpan = (value: unknown): boolean => {
  const [from, to, ...more]: ReadonlyArray<unknown> = Array.isArray(value) ? value : []
  return typeof from === "number" && typeof to === "number" && from <= to && more.length === 0
}

const faultFields = options<Fault>(
  {
    kind: oneOf(...faultKinds),
    calls: list(wholeOrInfinite(1)),
    between: that("two times in milliseconds, from <= to", isSpan),
    rate: share,
    model: text,
    afterMillis: notNegative,
    retryAfterMillis: notNegative,
    errorCode: text
  },
  "kind"
)

/** Options that only some kinds of faults have. */
const onlyOf: Readonly<Partial<Record<keyof Fault, ReadonlyArray<FaultKind>>>> = {
  afterMillis: ["timeout"],
  retryAfterMillis: ["429", "529", "500"],
  errorCode: ["429"]
}

const fault = all(faultFields, (value) => {
  const given = value as Fault
  for (const [name, kinds] of Object.entries(onlyOf) as ReadonlyArray<[keyof Fault, ReadonlyArray<FaultKind>]>) {
    if (given[name] !== undefined && !kinds.includes(given.kind)) {
      return { place: `.${name}`, text: `expected nothing beside kind "${given.kind}", got ${shown(given[name])}` }
    }
  }
  return undefined
})

/** The check of each option of the simulated provider. */
export const simulated: Checks<Options> = {
  limits: oneSet,
  pools: record(limits),
  counting: oneOf("usage", "openai", "azure"),
  output: oneOf("live", "admission"),
  rejections: (value) => (typeof value === "object" ? charge : charges)(value),
  oversize: oneOf("debt", "reject"),
  concurrency: wholeOrInfinite(1),
  ramp: options<NonNullable<Options["ramp"]>>({ fromPerMinute: notNegative, growth: positive }, "fromPerMinute"),
  neighbour,
  latency: options<NonNullable<Options["latency"]>>({
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
  reply: callback
}

const made = options(simulated)

/** Throws for invalid options. */
export const checkMade = (given: Options): void => check("ProviderSim.layer", made, given)
