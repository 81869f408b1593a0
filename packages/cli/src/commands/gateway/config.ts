/** The file that `floodgate gateway --config` reads. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as FloodgateLimits from "floodgate/Limits"
import * as Exit from "../exit.ts"
import * as Files from "../files.ts"
import { oneLine } from "../text.ts"

const optional = Schema.optionalKey

const Limit = Schema.Struct({
  perSecond: optional(Schema.Finite),
  perMinute: optional(Schema.Finite),
  total: optional(Schema.Finite),
  burst: optional(Schema.Finite),
  window: optional(Schema.Literals(["bucket", "sliding", "fixed"])),
  share: optional(Schema.Finite)
})

const Limits = Schema.Struct({
  requests: optional(Limit),
  inputTokens: optional(Limit),
  outputTokens: optional(Limit),
  tokens: optional(Limit)
})

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
  maxOutput: optional(Schema.Finite)
})

const Rule = Schema.Struct({
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

/** Durations are texts such as "5 minutes". */
const Config = Schema.Struct({
  upstreams: optional(texts),
  host: optional(Schema.String),
  port: optional(Schema.Finite),
  token: optional(Schema.String),
  limits: optional(Schema.Union([Schema.Struct({ pools: Schema.Record(Schema.String, Limits) }), Limits])),
  concurrency: optional(Schema.Finite),
  maxQueued: optional(Schema.Finite),
  rules: optional(Schema.Array(Rule)),
  prices: optional(Schema.Record(Schema.String, Price)),
  maxHold: optional(Schema.String),
  silence: optional(Schema.String),
  keepAlive: optional(Schema.String),
  timeout: optional(Schema.String),
  drain: optional(Schema.String),
  maxBodyBytes: optional(Schema.Finite),
  maxHeldBytes: optional(Schema.Finite),
  maxConnections: optional(Schema.Finite),
  streamUsage: optional(Schema.Boolean),
  idleTimeout: optional(Schema.String)
})

/** The settings of the configuration and the flags. */
export type Settings = {
  readonly [K in keyof Omit<typeof Config.Type, "limits">]: (typeof Config.Type)[K] | undefined
} & { readonly limits?: FloodgateLimits.Limits | FloodgateLimits.Pools | undefined }

const mostBytes = 1e6

/** A misspelt key is an error, because it would have no effect. */
const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Config), { onExcessProperty: "error" })

/** The settings in a file. */
export const read = (path: string) =>
  Effect.flatMap(Files.text(path, mostBytes), (text) =>
    Effect.mapError(decode(text), (error) => Exit.failure("usage", oneLine(`${path}: ${error.message}`)))
  )
