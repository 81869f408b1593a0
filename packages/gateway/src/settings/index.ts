/**
 * Every setting of a gateway, once. From this table come the types, the checks, the defaults and the suggestions for misspelt names;
 * and, in the command, the configuration file and its JSON Schema, the flags, and what a reload may change. The comment of a setting is
 * its documentation, for editors, in the help, and on the site: `npm run docs:settings` takes it over.
 */
import * as Record from "effect/Record"
import * as Schema from "effect/Schema"
import * as Struct from "effect/Struct"
import { constants } from "node:buffer"
import { Bounds, Engine, Input, shown } from "floodgate/internal"
import { ownSegment, upstreamOf } from "../routes.ts"
import { checked, key, secret, setting, type SettingRules } from "./annotations.ts"
import * as Values from "./values.ts"

// The declarations of this file spell these types out. Unless it names their modules, they would name files of this repository.
export type { Concurrency } from "floodgate/Budget"
export type { Limits } from "floodgate/Limits"
export type { Price } from "floodgate/Prices"
export type { Cap } from "floodgate/Spending"
export type { JobCaps } from "floodgate/Trees"

/**
 * The addresses of the providers that a gateway reaches by default.
 *
 * @stability unstable
 * @category options
 * @since 0.4.0
 */
export const providers: Readonly<Record<"anthropic" | "openai" | "gemini", string>> = {
  anthropic: "https://api.anthropic.com",
  openai: "https://api.openai.com",
  gemini: "https://generativelanguage.googleapis.com"
}

const day = 86_400_000
/** Shorter times would keep the process busy, and no client waits longer. */
const time = Values.duration(
  Input.duration("a duration from 1 millisecond to 1 day", (millis) => millis >= 1 && millis <= day)
)

/** A body is decoded to a string, whose length Node limits. Of everything else, more than any machine has. */
const max = { body: constants.MAX_STRING_LENGTH, bytes: 2 ** 44, count: Values.maxCount }
const count = Values.whole(1, max.count)

/** The first segments of the gateway's own paths. */
const reserved = ["floodgate", "healthz", "readyz", "metrics", "token"]
const ownPath = (name: string): boolean => reserved.includes(name) || ownSegment.test(name)

const address = Input.that(
  "an address such as https://api.anthropic.com, without a query or a password",
  (value) => typeof value === "string" && upstreamOf("upstream", value) !== undefined
)

const named: Input.Check = (value) => {
  const names = Object.keys(value as object)
  if (names.length === 0) return Input.problem("expected at least one upstream, got none")
  const wrong = names.find((name) => !/^[a-z\d][a-z\d-]*$/.test(name) || ownPath(name))
  const expected =
    "expected names of lower-case letters, digits and hyphens, none of them the start of a path of the gateway or of a provider"
  return wrong === undefined ? undefined : Input.problem(`${expected}, got ${shown(wrong)}`)
}

const upstreams = checked(Schema.Record(Schema.String, Values.text(address)), Input.all(Input.record(address), named))

const token = Values.secretText("at least 16 letters, digits, hyphens and underscores", /^[\w-]{16,}$/)

const hostName = Values.text(
  Input.that(
    "a name without a scheme, a port or a path, such as gateway.internal",
    (value) => typeof value === "string" && /^[\w-]+(?:\.[\w-]+)*$/.test(value)
  )
)

const orders = ["fair", "finish", "finish-trusted"] as const
const order = checked(Schema.Literals(orders), Input.oneOf(...orders))
const policy = checked(Schema.Literals(["soonest", "cheapest"]), Input.oneOf("soonest", "cheapest"))

/** The settings of the gateway itself, which a program gives as options. */
const ofGateway = {
  /**
   * The providers and their addresses: anthropic, openai, gemini, or another name, which callers put before the path. It replaces
   * the default, and requests go to no other host. @default the public addresses of Anthropic, OpenAI and Gemini
   */
  upstreams: setting(upstreams, {
    default: providers,
    flag: { name: "upstream", takes: "addresses" },
    change: "reload"
  }),
  /** Address to listen on; anything but loopback needs a `token`. @default 127.0.0.1 */
  host: setting(Values.text(Input.host), { default: "127.0.0.1", flag: { takes: "text" }, change: "restart" }),
  /** Port to listen on; 0, the default in a program, takes a free one. @default 8788 */
  port: setting(Values.whole(0, 65_535), { default: 8_788, flag: { takes: "number" }, change: "restart" }),
  /** A secret that opens the page and the metrics, and calls if there are no `keys`. @default none */
  token: setting(token, { flag: "none", variable: "FLOODGATE_GATEWAY_TOKEN", change: "reload" }),
  /**
   * A secret for operators, who may raise and reset caps. It must not be the `token` or one of the `keys`. @default none: caps
   * cannot be changed while the gateway runs
   */
  adminToken: setting(token, { flag: "none", variable: "FLOODGATE_GATEWAY_ADMIN_TOKEN", change: "reload" }),
  /**
   * A secret that opens the list of the last 500 requests. It must not be the `token` or one of the `keys`. @default none:
   * requests are not remembered
   */
  requestsToken: setting(token, { flag: "none", variable: "FLOODGATE_GATEWAY_REQUESTS_TOKEN", change: "reload" }),
  /**
   * Another host name under which callers may reach it, such as gateway.internal; needed only without a token. Pages of these
   * hosts may call the gateway, too. @default the names of this machine
   */
  hosts: setting(Schema.Array(hostName), { flag: { name: "host-name", takes: "names" }, change: "reload" }),
  /**
   * Keys of the gateway, as `floodgate gateway key new NAME` prints them: names and hashes, never the keys themselves. A call then
   * needs one of them, and the upstreams get the `credentials` instead. @default none: callers send the provider's key, which is
   * passed on
   */
  keys: setting(secret(Schema.Array(Values.Key)), { flag: "none", change: "reload" }),
  /**
   * Names, weights, priorities and caps of callers, by `agent`, `key`, `model` or `headers`. Each setting is taken from the first
   * matching rule that has it. @default none
   */
  rules: setting(Schema.Array(Values.Rule), { flag: "none", change: "reload" }),
  /**
   * The places where each model can be called, by the name in the request. Each has an upstream, and its own name of the model,
   * price and limits. @default none: a request goes to the upstream of its path
   */
  places: setting(Schema.Record(Schema.String, Schema.Array(Values.Place)), { flag: "none", change: "reload" }),
  /**
   * Whether a call goes where it starts first (`soonest`), or to the cheapest place that is fast enough (`cheapest`). @default
   * soonest
   */
  placePolicy: setting(policy, { default: "soonest", flag: "none", change: "reload" }),
  /** How long a call may take at the cheapest place. @default `maxHold` */
  placeWithin: setting(Values.duration(Input.finiteSpan), { flag: "none", change: "reload" }),
  /** The longest time that a call is held; calls that would wait longer are refused at once. @default 5 minutes */
  maxHold: setting(time, { default: "5 minutes", flag: { takes: "seconds" }, change: "reload" }),
  /** How long a waiting caller receives nothing. Some clients give up after a minute of silence. @default 20 seconds */
  silence: setting(time, { default: "20 seconds", flag: "none", change: "reload" }),
  /** The interval between the bytes that then keep the caller connected. @default 10 seconds */
  keepAlive: setting(time, { default: "10 seconds", flag: "none", change: "reload" }),
  /** The longest time until the provider begins to answer an attempt. @default 10 minutes */
  timeout: setting(time, { default: "10 minutes", flag: "none", change: "reload" }),
  /**
   * The longest silence within a stream. After it a call without content is retried, and a stream with content breaks off.
   * @default 1 minute if the provider sends pings (Anthropic), else 5
   */
  idleTimeout: setting(Values.duration(Engine.checks.idleTimeout), { flag: "none", change: "reload" }),
  /** How long running calls may continue when the gateway closes. @default 2 minutes */
  drain: setting(time, { default: "2 minutes", flag: "none", change: "reload" }),
  /** The largest body of a call, in bytes; the default is Anthropic's limit. A larger body gets 413. @default 32 MiB */
  maxBodyBytes: setting(Values.whole(1, max.body), { default: Bounds.bounds.body.max, flag: "none", change: "reload" }),
  /**
   * The most memory for bodies of waiting and running calls, and for answers that are read whole, in bytes. Beyond it, calls get
   * 503, and an answer of more than 64 KB is passed on without reading its usage. @default 256 MiB
   */
  maxHeldBytes: setting(Values.whole(1, max.bytes), {
    default: Bounds.bounds.bodies.max,
    flag: "none",
    change: "reload"
  }),
  /** The most open connections; further ones are closed. Each takes up to two descriptors. @default 10,000 */
  maxConnections: setting(count, { default: Bounds.bounds.connections.max, flag: "none", change: "restart" }),
  /** Whether answers have the header fields `RateLimit-Policy` and `RateLimit`, which say what is left of caps. @default true */
  rateLimitHeaders: setting(Values.flag, { default: true, flag: "none", change: "reload" }),
  /** Whether Chat Completions streams are asked for their usage. Without it such calls keep their estimates. @default true */
  streamUsage: setting(Values.flag, { default: true, flag: "none", change: "reload" })
}

/** The settings of the budget and the governor beneath the gateway, and the sources of its credentials. */
const ofCommand = {
  /**
   * The provider's credential of each upstream, for a gateway with `keys`: `env:NAME`, `file:PATH`, or `none`. @default the usual
   * variables, such as `ANTHROPIC_API_KEY`
   */
  credentials: setting(secret(Schema.Record(Schema.String, Schema.String)), { flag: "none", change: "reload" }),
  /** The providers' limits, as in the library: one set, or `pools`, whose names change only at a restart. @default learned */
  limits: setting(Values.limits, { flag: "limits", change: "reload" }),
  /**
   * Calls in flight at once, for each pool: a number, or `measured` for servers of your own, such as vLLM. `{ "measuredUpTo": 64
   * }` bounds what is measured. @default as many as the limits allow
   */
  concurrency: setting(Values.concurrency, { flag: { takes: "number" }, change: "reload" }),
  /** The most waiting calls for each pool; further ones get 429. @default 10,000 */
  maxQueued: setting(Values.whole(0, max.count), { default: 10_000, flag: "none", change: "restart" }),
  /**
   * The order of a caller's jobs: `fair`, or by the sizes that calls state: `finish`, where a third of the service stays fair, or
   * `finish-trusted`. @default fair
   */
  order: setting(order, { default: "fair", flag: "none", change: "restart" }),
  /** The most accounts and classes of models in use at the same time; calls of further ones get 503. @default 10,000 */
  maxPools: setting(count, { default: 10_000, flag: "none", change: "restart" }),
  /**
   * Prices of models in dollars per million tokens: `input`, `output`, `cacheRead`, `cacheWrite` and others. @default the
   * published ones
   */
  prices: setting(Values.prices, { flag: "none", change: "restart" }),
  /**
   * The shares of a subscription's windows for calls that are not interactive, such as `{ "5h": { "share": 0.7 } }`. @default
   * none
   */
  windows: setting(Values.windows, { flag: "none", change: "restart" }),
  /** How often one call of an account tries a window that is spent. @default 10 minutes */
  tryWindowsEvery: setting(time, { default: "10 minutes", flag: "none", change: "restart" })
}

/** Every setting of the command, and of its configuration file. */
const settings = { ...ofGateway, ...ofCommand }

const rulesOf = (schema: Schema.Top, name: string): SettingRules =>
  (Schema.resolveAnnotations(schema)?.[key.setting] as SettingRules | undefined) ??
  Input.wrong(name, "define it with setting(...), which wants its rules")

/** The rules of each setting, apart from its type and its check. */
export const everyRule = Record.map(settings as Readonly<Record<string, Schema.Top>>, rulesOf)
export const rules = everyRule as { readonly [K in keyof typeof settings]: SettingRules<(typeof settings)[K]["Type"]> }

const { account, accounting, protocols } = Engine.checks
const credential: Input.Check = (value) => (value === null ? undefined : Input.apiKey(value))
const own = {
  spent: Input.record(Input.anObject),
  added: Input.anObject,
  record: Input.callback,
  account,
  accounting,
  protocols
}

/** The settings that only a program can give. */
const ofProgram = {
  ...Record.map(own, (check) => Values.optional(checked(Schema.Unknown, check))),
  credentials: Values.optional(secret(checked(Schema.Unknown, Input.record(credential))))
}

type InProgram = { readonly [K in keyof typeof ofGateway]: Schema.optional<Schema.toType<(typeof ofGateway)[K]>> }
/** Its type is written out, because only so do published declarations keep the comments. */
const inProgram: InProgram = Struct.map(Struct.map(ofGateway, Schema.toType), Values.optional)

/** The settings that a program gives. */
export interface ProgramSettings extends Schema.Struct.Type<InProgram> {}

/** The options of a gateway in a program. */
export const Options = Schema.Struct({ ...inProgram, ...ofProgram })

/** The configuration file. */
export const Config = Schema.Struct({
  /** Where an editor finds the JSON Schema of this file. */
  $schema: Values.optional(Schema.String),
  ...Struct.map(settings, Values.optional)
})

/** The settings of a configuration file, of flags and of variables. */
export interface Settings extends Omit<typeof Config.Type, "$schema"> {}
