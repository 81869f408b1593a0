/** Reads the file of `--config`. */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaParser from "effect/SchemaParser"
import type * as Gateway from "../index.ts"
import type * as FloodgateLimits from "floodgate/Limits"
import * as Exit from "../terminal/exit.ts"
import * as Files from "../terminal/files.ts"
import { oneLine } from "../terminal/text.ts"
import { explain, parseJson } from "./explain.ts"

const optional = Schema.optionalKey

const Limit = Schema.Struct({
  perSecond: optional(Schema.Finite),
  perMinute: optional(Schema.Finite),
  total: optional(Schema.Finite),
  burst: optional(Schema.Finite),
  window: optional(Schema.Literals(["bucket", "sliding", "fixed"])),
  share: optional(Schema.Finite)
})

const dimensions = {
  requests: optional(Limit),
  inputTokens: optional(Limit),
  outputTokens: optional(Limit),
  tokens: optional(Limit)
}

/** One set of limits, or `pools`. Not a union, whose errors would name settings that are valid in one of its members. */
const Limits = Schema.Struct({
  ...dimensions,
  pools: optional(Schema.Record(Schema.String, Schema.Struct(dimensions)))
}).check(
  Schema.makeFilter((limits) => limits.pools === undefined || Object.keys(limits).length === 1, {
    expected: "either one set of limits, or pools"
  })
)

const Span = Schema.Union([Schema.Finite, Schema.String]).annotate({
  expected: 'a duration such as "4 minutes", or seconds'
})

/** The budget has no upper bound. A larger number is a mistake, because JSON has no infinity. */
const maxCount = 1_000_000
const countFrom = (min: number) => {
  const expected = `an integer from ${min} to ${maxCount}`
  return Schema.Finite.check(
    Schema.makeFilter((value) => Number.isInteger(value) && value >= min && value <= maxCount, { expected })
  )
}

const texts = Schema.Record(Schema.String, Schema.String)

/** A cap in dollars; `per` is "day", or a duration such as "5 hours". */
const Cap = Schema.Struct({
  dollars: Schema.Finite,
  per: optional(Schema.String),
  reserve: optional(Schema.Literals(["most", "expected"]))
})

const rates = {
  input: Schema.Finite,
  output: Schema.Finite,
  cacheRead: optional(Schema.Finite),
  cacheWrite: optional(Schema.Finite),
  cacheWriteLong: optional(Schema.Finite)
}

/** Dollars per million tokens. */
const Price = Schema.Struct({
  ...rates,
  long: optional(Schema.Struct({ ...rates, above: Schema.Finite })),
  maxOutput: optional(Schema.Finite),
  fast: optional(Schema.Finite),
  flex: optional(Schema.Finite)
})

/** A key of the gateway by its hash; the gateway checks the hash and the date. */
const Key = Schema.Struct({
  name: Schema.String,
  sha256: Schema.String,
  expires: optional(Schema.String)
})

const Rule = Schema.Struct({
  name: optional(Schema.String),
  agent: optional(Schema.String),
  key: optional(Schema.String),
  model: optional(Schema.String),
  headers: optional(texts),
  weight: optional(Schema.Finite),
  priority: optional(Schema.Finite),
  cap: optional(Cap),
  capPerAgent: optional(Cap),
  capPerKey: optional(Cap)
})

/** A place of a model. */
const Place = Schema.Struct({
  upstream: Schema.String,
  name: optional(Schema.String),
  model: optional(Schema.String),
  tier: optional(Schema.String),
  account: optional(Schema.String),
  price: optional(Price),
  limits: optional(Schema.Struct(dimensions)),
  body: optional(Schema.Record(Schema.String, Schema.Unknown)),
  drain: optional(Schema.Boolean)
})

/** A share of a long window. The library checks the number. */
const Share = Schema.Struct({ share: Schema.Finite })

/** The whole configuration. */
export const Config = Schema.Struct({
  /** Where an editor finds the JSON Schema of this file. */
  $schema: optional(Schema.String),
  upstreams: optional(texts),
  places: optional(Schema.Record(Schema.String, Schema.Array(Place))),
  placePolicy: optional(Schema.Literals(["soonest", "cheapest"])),
  placeWithin: optional(Span),
  host: optional(Schema.String),
  port: optional(Schema.Finite),
  token: optional(Schema.String),
  adminToken: optional(Schema.String),
  hosts: optional(Schema.Array(Schema.String)),
  limits: optional(Limits),
  concurrency: optional(countFrom(1)),
  maxQueued: optional(countFrom(0)),
  maxPools: optional(countFrom(1)),
  keys: optional(Schema.Array(Key)),
  credentials: optional(texts),
  rules: optional(Schema.Array(Rule)),
  prices: optional(Schema.Record(Schema.String, Price)),
  windows: optional(Schema.Struct({ "5h": optional(Share), "7d": optional(Share) })),
  maxHold: optional(Span),
  silence: optional(Span),
  keepAlive: optional(Span),
  timeout: optional(Span),
  drain: optional(Span),
  maxBodyBytes: optional(Schema.Finite),
  maxHeldBytes: optional(Schema.Finite),
  maxConnections: optional(Schema.Finite),
  streamUsage: optional(Schema.Boolean),
  idleTimeout: optional(Span)
})

/** The settings of a configuration file. */
export type GatewayFile = {
  readonly [K in keyof Omit<typeof Config.Type, "limits" | "$schema">]: (typeof Config.Type)[K] | undefined
} & { readonly limits?: FloodgateLimits.Limits | FloodgateLimits.Pools | undefined }

/** The settings of the file and the flags, with the credentials that the file names. */
export type GatewaySettings = Omit<GatewayFile, "credentials"> & Pick<Gateway.Options, "credentials">

const maxBytes = 1e6

/** A misspelt key is an error, because it would have no effect. */
export const decode = SchemaParser.decodeUnknownResult(Config, { onExcessProperty: "error", errors: "all" })

/** The settings, without what only an editor reads. */
const settingsIn = ({ $schema: _, ...settings }: typeof Config.Type): GatewayFile => settings as GatewayFile

/** Reads the settings of a file. */
export const read = (path: string): Effect.Effect<GatewayFile, Exit.CommandError, FileSystem.FileSystem> =>
  Effect.flatMap(Files.text(path, maxBytes), (text) => {
    const wrong = (why: string) => Effect.fail(Exit.failure("usage", `${oneLine(path)}: ${why}`))
    const json = parseJson(text)
    if ("error" in json) return wrong(json.error)
    const result = decode(json.value)
    return Result.isSuccess(result)
      ? Effect.succeed(settingsIn(result.success))
      : wrong(explain(result.failure, json.value))
  })
