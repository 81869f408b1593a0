/** Checks the options of the simulated provider. */
import * as Predicate from "effect/Predicate"
import { eachDimension } from "../domain/amounts.ts"
import * as Input from "../domain/input/checks.ts"
import { shown } from "../domain/input/shown.ts"
import { parseName } from "../domain/spending/windows.ts"
import type { Limit } from "../Limits.ts"
import { type Fault, type FaultKind, faultKinds, headerModes, type Options } from "./models.ts"

const share = Input.number("a number from 0 to 1", (value) => value >= 0 && value <= 1)

const limitFields = Input.options<Omit<Limit, "share">>({
  perSecond: Input.positive,
  perMinute: Input.positive,
  total: Input.positive,
  burst: Input.positive,
  window: Input.oneOf("bucket", "sliding", "fixed")
})

const limit = Input.all(limitFields, (value) => {
  const { perMinute, perSecond, total } = value as Limit
  return [perSecond, perMinute, total].filter((rate) => rate !== undefined).length === 1
    ? undefined
    : Input.problem(`expected exactly one of perSecond, perMinute and total, got ${shown(value)}`)
})

const limits = eachDimension(limit)

const oneSet: Input.Check = (value) =>
  Predicate.hasProperty(value, "pools")
    ? Input.problem(
        "expected the limits that all models share, got pools: give those as they are, as in " +
          "ProviderSim.layer(Presets.anthropic.start)"
      )
    : limits(value)

const charges = Input.oneOf("free", "charged")
const charge = Input.options<Exclude<NonNullable<Options["rejections"]>, string>>({
  requests: Input.notNegative,
  tokenShare: share
})

type NeighbourOptions = NonNullable<Options["neighbour"]>
const neighbourFields = Input.options<NeighbourOptions>(
  { share: Input.notNegative, everyMillis: Input.atLeastOne, forMillis: Input.notNegative },
  "share"
)

const neighbour = Input.all(neighbourFields, (value) => {
  const { everyMillis, forMillis } = value as NeighbourOptions
  return forMillis !== undefined && everyMillis === undefined
    ? { place: ".everyMillis", text: "expected a finite number >= 1 beside forMillis, got undefined" }
    : undefined
})

const longWindow = Input.options<NonNullable<Options["windows"]>[string]>(
  { dollars: Input.positive, models: Input.list(Input.text), used: share },
  "dollars"
)
const longWindows = Input.all(
  Input.record(longWindow),
  Input.that('windows with names such as "5h", "7d" and "7d_sonnet"', (windows) =>
    Object.keys(Object(windows)).every((name) => parseName(name) !== undefined)
  )
)

type ServerOptions = Exclude<NonNullable<Options["server"]>, string>
const serverKind = Input.oneOf("vllm", "llama.cpp", "ollama")
const server = Input.options<ServerOptions>(
  {
    kind: serverKind,
    perSequenceMillis: Input.notNegative,
    memoryTokens: Input.wholeOrInfinite(1),
    prefillTokens: Input.wholeOrInfinite(1)
  },
  "kind"
)

const isSpan = (value: unknown): boolean => {
  const [from, to, ...more]: ReadonlyArray<unknown> = Array.isArray(value) ? value : []
  return typeof from === "number" && typeof to === "number" && from <= to && more.length === 0
}

const faultFields = Input.options<Fault>(
  {
    kind: Input.oneOf(...faultKinds),
    calls: Input.list(Input.wholeOrInfinite(1)),
    between: Input.that("two times in milliseconds, from <= to", isSpan),
    rate: share,
    model: Input.text,
    afterMillis: Input.notNegative,
    retryAfterMillis: Input.notNegative,
    errorCode: Input.text
  },
  "kind"
)

/** Options that only some kinds of faults have. */
const onlyOf: Readonly<Partial<Record<keyof Fault, ReadonlyArray<FaultKind>>>> = {
  afterMillis: ["timeout"],
  retryAfterMillis: ["429", "529", "500"],
  errorCode: ["429"]
}

const fault = Input.all(faultFields, (value) => {
  const given = value as Fault
  for (const [name, kinds] of Object.entries(onlyOf) as ReadonlyArray<[keyof Fault, ReadonlyArray<FaultKind>]>) {
    if (given[name] !== undefined && !kinds.includes(given.kind)) {
      return { place: `.${name}`, text: `expected nothing beside kind "${given.kind}", got ${shown(given[name])}` }
    }
  }
  return undefined
})

/** The check of each option of the simulated provider. */
export const simulated: Input.Checks<Options> = {
  limits: oneSet,
  pools: Input.record(limits),
  counting: Input.oneOf("usage", "openai", "azure"),
  output: Input.oneOf("live", "admission"),
  rejections: (value) => (typeof value === "object" ? charge : charges)(value),
  oversize: Input.oneOf("debt", "reject"),
  concurrency: Input.wholeOrInfinite(1),
  queue: Input.wholeOrInfinite(0),
  busyStatus: Input.that("429 or 503", (value) => value === 429 || value === 503),
  server: (value) => (typeof value === "object" ? server : serverKind)(value),
  ramp: Input.options<NonNullable<Options["ramp"]>>(
    { fromPerMinute: Input.notNegative, growth: Input.positive },
    "fromPerMinute"
  ),
  windows: longWindows,
  overage: Input.flag,
  neighbour,
  latency: Input.options<NonNullable<Options["latency"]>>({
    baseMillis: Input.notNegative,
    perInputTokenMillis: Input.notNegative,
    perOutputTokenMillis: Input.notNegative,
    noise: Input.notNegative,
    rejectionMillis: Input.notNegative,
    countTokensMillis: Input.notNegative
  }),
  faults: Input.list(fault),
  headers: Input.oneOf(...headerModes),
  seed: Input.finite,
  logSize: Input.wholeOrInfinite(0),
  charsPerToken: Input.positive,
  inputTokens: Input.callback,
  outputTokens: Input.orFunction(Input.notNegative),
  cachedShare: Input.orFunction(share),
  cache: Input.oneOf("breakpoints", "automatic"),
  cacheMillis: Input.positive,
  reply: Input.callback
}

const optionsCheck = Input.all(Input.options(simulated), (value) => {
  const { cache, cachedShare } = value as Options
  return cache === undefined || cachedShare === undefined
    ? undefined
    : { place: ".cachedShare", text: `expected nothing beside cache "${cache}", got ${shown(cachedShare)}` }
})

/** Throws for invalid options. */
export const checkOptions = (given: Options): void => Input.check("ProviderSim.layer", optionsCheck, given)
