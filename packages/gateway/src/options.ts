/** The options of a gateway, their defaults, and the checks on them. */
import * as Duration from "effect/Duration"
import * as Redacted from "effect/Redacted"
import { constants } from "node:buffer"
import type * as Fetch from "floodgate/fetch"
import { bounds, checkCap, Engine, hint, Input, priority, shown, weight } from "floodgate/internal"
import { isLoopback } from "./auth.ts"
import type { Key } from "./keys.ts"
import { labelOf } from "./names.ts"
import * as Places from "./places.ts"
import type * as Spending from "floodgate/Spending"
import type { Recorded } from "./records.ts"
import type { Rule } from "./rule.ts"
import { ownSegment, type Upstream, upstreamOf } from "./routes.ts"
import { sha256Of } from "./secrets.ts"

/**
 * How a gateway is made.
 *
 * @category options
 * @since 0.2.0
 */
export interface Options extends Omit<Fetch.Options, "callOptions" | "fetch" | "places">, Places.PlaceOptions {
  /**
   * The providers by name. Requests for `anthropic`, `openai`, `gemini`, `bedrock`, `mistral`, `cohere` and `ollama` are recognised
   * by the paths of their protocols; requests for any other provider need its name in front of the path. Requests go to no other
   * host, and those for a provider that is missing here are answered with 404.
   *
   * @default the public addresses of Anthropic, OpenAI and Gemini
   */
  readonly upstreams?: Readonly<Record<string, string>> | undefined
  /** The address to listen on. Any address but loopback opens the gateway to the network and requires a `token`. @default "127.0.0.1" */
  readonly host?: string | undefined
  /** The port; 0 takes a free one, which `url` contains. @default 0 */
  readonly port?: number | undefined
  /** A secret that callers must send: at least 16 letters, digits, `-` and `_`. @default none */
  readonly token?: string | undefined
  /**
   * A second secret, for operators: who sends it may raise and reset caps. It must not be the `token`, which agents have.
   *
   * @default none, and caps cannot be changed while the gateway runs
   */
  readonly adminToken?: string | undefined
  /**
   * Further names that callers without a `token` may use for the gateway, such as that of a proxy in front of it; pages of these
   * hosts may also call it. Without a token, requests for any other name than those of this machine are answered with 403,
   * because a website could have its name resolve to this machine.
   *
   * @default none
   */
  readonly hosts?: ReadonlyArray<string> | undefined
  /**
   * Keys of the gateway's own. With keys, a call needs one of them in the place of the provider's key, and the upstreams get the
   * `credentials` instead. Such a key never opens the page or the metrics.
   *
   * @default none: callers send the provider's key, which is passed on
   */
  readonly keys?: ReadonlyArray<Key> | undefined
  /**
   * The credential of each upstream, for a gateway with `keys`; null for a service that needs none. The token of a subscription is
   * refused, because sharing it gets the account banned.
   *
   * @default none
   */
  readonly credentials?: Readonly<Record<string, Redacted.Redacted<string> | null>> | undefined
  /**
   * Weights and priorities of callers, and their caps in dollars. For each setting, the first rule that matches the caller and
   * has the setting applies. Costs are computed with the governor's prices.
   *
   * @default none
   */
  readonly rules?: ReadonlyArray<Rule> | undefined
  /** The amounts that an earlier gateway spent of its caps: the value of its `spent`. @default nothing */
  readonly spent?: Readonly<Record<string, Spending.Kept>> | undefined
  /**
   * The longest time until the last attempt of a call begins. A call whose predicted wait is longer is refused at once. The
   * most impatient of the common clients give up after 10 minutes, and the answer itself also takes time.
   *
   * @default "5 minutes"
   */
  readonly maxHold?: Duration.Input | undefined
  /**
   * How long a waiting caller receives nothing, so that the response can still have the provider's status. Some clients give
   * up after a minute of silence.
   *
   * @default "20 seconds"
   */
  readonly silence?: Duration.Input | undefined
  /** The interval between the bytes that keep an early response alive. @default "10 seconds" */
  readonly keepAlive?: Duration.Input | undefined
  /**
   * The longest time that one attempt may take until the provider begins to answer.
   *
   * @default "10 minutes"
   */
  readonly timeout?: Duration.Input | undefined
  /** How long running calls may continue when the gateway closes. @default "2 minutes" */
  readonly drain?: Duration.Input | undefined
  /** The largest body of a call in bytes. @default 33_554_432: Anthropic's limit */
  readonly maxBodyBytes?: number | undefined
  /**
   * The most bytes in the bodies of all waiting and running calls, and in their answers that are read whole. Beyond it, calls are
   * answered with 503, and an answer of more than 64 KB is passed on without reading its usage: its call keeps its estimate.
   *
   * @default 268_435_456
   */
  readonly maxHeldBytes?: number | undefined
  /** The most open connections; further ones are closed. @default 10_000 */
  readonly maxConnections?: number | undefined
  /** Called for each answered call when its usage is known, for example to write a trace. @default none */
  readonly record?: ((call: Recorded) => void) | undefined
}

/**
 * The addresses of the providers that a gateway reaches by default.
 *
 * @category options
 * @since 0.4.0
 */
export const providers: Readonly<Record<"anthropic" | "openai" | "gemini", string>> = {
  anthropic: "https://api.anthropic.com",
  openai: "https://api.openai.com",
  gemini: "https://generativelanguage.googleapis.com"
}

/** The first segments of the gateway's own paths. */
const reserved = ["floodgate", "healthz", "readyz", "metrics", "token"]

/** A body is decoded to a string, whose length Node limits. */
const maxBodyBytes = constants.MAX_STRING_LENGTH
/** More memory and more sockets than any machine has. */
const maxHeldBytes = 2 ** 44
const maxConnections = 1_000_000

const within = (min: number, value: number, max: number): boolean => min <= value && value <= max

const wholeUpTo = (max: number): Input.Check =>
  Input.number(`an integer from 1 to ${max}`, (value) => Number.isInteger(value) && value > 0 && value <= max)

const day = 86_400_000

/** Shorter times would keep the process busy, and no client waits longer. */
const time = Input.duration("a duration from 1 millisecond to 1 day", (millis) => millis >= 1 && millis <= day)

const ownPath = (name: string): boolean => reserved.includes(name) || ownSegment.test(name)

const address = Input.that(
  "an address such as https://api.anthropic.com, without a query or a password",
  (value) => typeof value === "string" && upstreamOf("upstream", value) !== undefined
)

const upstreams = Input.all(
  Input.record(address),
  Input.that("at least one upstream", (value) => Object.keys(value as object).length > 0),
  (value) => {
    const wrong = Object.keys(value as object).find((name) => !/^[a-z\d][a-z\d-]*$/.test(name) || ownPath(name))
    const expected =
      "expected names of lower-case letters, digits and hyphens, none of them the start of a path of the gateway or of a provider"
    return wrong === undefined ? undefined : Input.problem(`${expected}, got ${shown(wrong)}`)
  }
)

const rule = Input.options<Rule>({
  name: Input.shownName,
  agent: Input.text,
  key: Input.secret("a string", (value) => typeof value === "string"),
  model: Input.text,
  headers: Input.record(Input.secret("a string", (value) => typeof value === "string")),
  weight,
  priority,
  cap: checkCap,
  capPerAgent: checkCap,
  capPerKey: checkCap
})

/** People and metrics tell rules apart by their names. */
const distinctNames: Input.Check = (value) => {
  const { keys, rules = [] } = value as Options
  const labels = rules.map((rule) => labelOf(rule, keys !== undefined))
  const index = rules.findLastIndex(
    ({ name }, index) => name !== undefined && labels.some((label, other) => label === name && other !== index)
  )
  if (index < 0) return undefined
  return { place: `.rules[${index}].name`, text: `expected a name that no other rule has, got ${shown(labels[index])}` }
}

/** A date, or a time with its zone. */
const isTime = (value: unknown): boolean =>
  typeof value === "string" &&
  Input.isDay(value.slice(0, 10)) &&
  /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))?$/.test(value) &&
  !Number.isNaN(Date.parse(value))

/** More keys than a team has. Every request is compared with each of them. */
const maxKeys = 1_000

const key = Input.options<Key>(
  {
    name: Input.shownName,
    sha256: Input.secret(
      'the SHA-256 of a key in 64 hexadecimal digits, as "floodgate gateway key new NAME" prints it, and not the key itself',
      (value) => typeof value === "string" && /^[\da-f]{64}$/i.test(value)
    ),
    expires: Input.that("a date such as 2027-01-01, or a time such as 2027-01-01T12:00Z", isTime)
  },
  "name",
  "sha256"
)

const distinctKeys: Input.Check = (value) => {
  const hashes = (value as ReadonlyArray<Key>).map(({ sha256 }) => sha256.toLowerCase())
  const index = hashes.findIndex((hash, index) => hashes.indexOf(hash) !== index)
  if (index < 0) return undefined
  const first = `keys[${hashes.indexOf(hashes[index]!)}]`
  return { place: `[${index}].sha256`, text: `expected another key than that of ${first}: remove one of the two` }
}

/** A credential as it may be in a header. */
const credential: Input.Check = (value) => (value === null ? undefined : Input.apiKey(value))

const secret = Input.secret(
  "at least 16 letters, digits, hyphens and underscores",
  (value) => typeof value === "string" && /^[\w-]{16,}$/.test(value)
)

const { callOptions: _, ...ofEngine } = Engine.checks

const settings = Input.options<Options>({
  ...ofEngine,
  ...Places.checks,
  upstreams,
  host: Input.host,
  port: Input.port,
  token: secret,
  adminToken: secret,
  hosts: Input.list(
    Input.that(
      "a name without a scheme, a port or a path, such as gateway.internal",
      (value) => typeof value === "string" && /^[\w-]+(?:\.[\w-]+)*$/.test(value)
    )
  ),
  keys: Input.all(
    Input.list(key),
    Input.that(`1 to ${maxKeys} keys`, (value) => within(1, (value as ReadonlyArray<Key>).length, maxKeys)),
    distinctKeys
  ),
  credentials: Input.record(credential),
  rules: Input.list(rule),
  spent: Input.record(Input.anObject),
  maxHold: time,
  silence: time,
  keepAlive: time,
  timeout: time,
  drain: time,
  maxBodyBytes: wholeUpTo(maxBodyBytes),
  maxHeldBytes: wholeUpTo(maxHeldBytes),
  maxConnections: wholeUpTo(maxConnections),
  record: Input.callback
})

const defaultHost = "127.0.0.1"

/** A host that is not loopback is reachable from other machines, so it needs a token. */
const guarded: Input.Check = (value) => {
  const { host = defaultHost, token } = value as Options
  if (token !== undefined || isLoopback(host)) return undefined
  return { place: ".token", text: "expected a token, because other machines can reach the host, got none" }
}

/** Agents must not raise their own caps. */
const apart: Input.Check = (value) => {
  const { adminToken, keys = [], token } = value as Options
  if (adminToken === undefined) return undefined
  const hash = sha256Of(adminToken).toString("hex")
  const isKey = keys.some(({ sha256 }) => sha256.toLowerCase() === hash)
  if (adminToken !== token && !isKey) return undefined
  const other = isKey ? "the keys" : "the token"
  return { place: ".adminToken", text: `expected another secret than ${other}, which agents have, got the same` }
}

/** Tokens of subscriptions: Anthropic's, and those with which Codex signs in to ChatGPT. */
const isSubscription = (secret: string, address: string): boolean =>
  secret.startsWith("sk-ant-o") ||
  (secret.startsWith("eyJ") && /(?:^|\.)(?:openai|chatgpt)\.com$/.test(URL.parse(address)?.hostname ?? ""))

/** Why an upstream cannot have a credential, or needs one. */
const credentialProblem = (address: string, given: Redacted.Redacted<string> | null | undefined) => {
  if (given === undefined) return "expected a credential, because callers send keys of the gateway, got none"
  if (given === null) return undefined
  const secret = Redacted.value(given)
  // A header has no spaces, control characters or other scripts.
  if (!/^[!-~]+$/.test(secret))
    return "expected a credential without spaces and line breaks, got something else (not shown)"
  return isSubscription(secret, address)
    ? "expected an API key, got the token of a subscription: sharing it would get the account banned"
    : undefined
}

/** Keys and credentials belong together: without keys, anybody who reaches the gateway could use the credentials. */
const exchanged: Input.Check = (value) => {
  const { credentials = {}, keys, upstreams: given = providers } = value as Options
  const [first, ...rest] = Object.keys(credentials)
  if (keys === undefined) {
    if (first === undefined) return undefined
    return { place: ".keys", text: `expected keys, because the gateway has ${rest.length + 1} credentials, got none` }
  }
  const unknown = Object.keys(credentials).find((name) => !Object.hasOwn(given, name))
  if (unknown !== undefined) {
    const text = `no upstream has this name: ${hint(unknown, Object.keys(given))}`
    return { place: `.credentials.${unknown}`, text }
  }
  for (const [name, address] of Object.entries(given)) {
    const text = credentialProblem(address, Object.hasOwn(credentials, name) ? credentials[name] : undefined)
    if (text !== undefined) return { place: `.credentials.${name}`, text }
  }
  return undefined
}

const placed: Input.Check = (value) => {
  const { credentials, upstreams: given = providers, ...options } = value as Options
  return Places.problemOf(options, given, credentials)
}

const complete = Input.all(settings, distinctNames, guarded, apart, exchanged, placed)

/** Checks options and adds the defaults. Throws a `RangeError` for invalid ones. */
export const parse = (operation: string, given: Options) => {
  Input.check(operation, complete, given)
  const timeOf = (option: Duration.Input | undefined, standard: Duration.Input) =>
    Duration.fromInputUnsafe(option ?? standard)
  return {
    host: given.host ?? defaultHost,
    port: given.port ?? 0,
    token: given.token,
    adminToken: given.adminToken,
    credentials: new Map(
      Object.entries(given.credentials ?? {}).flatMap(([name, secret]) =>
        secret === null ? [] : [[name, Redacted.value(secret)] as const]
      )
    ) as ReadonlyMap<string, string>,
    hosts: new Set((given.hosts ?? []).map((name) => name.toLowerCase())) as ReadonlySet<string>,
    upstreams: new Map(
      Object.entries(given.upstreams ?? providers).map(([name, address]) => [name, upstreamOf(name, address)!])
    ) as ReadonlyMap<string, Upstream>,
    places: Places.placesOf(given, given.upstreams ?? providers, given.credentials),
    maxHold: timeOf(given.maxHold, "5 minutes"),
    silence: timeOf(given.silence, "20 seconds"),
    keepAlive: timeOf(given.keepAlive, "10 seconds"),
    timeout: timeOf(given.timeout, "10 minutes"),
    drain: timeOf(given.drain, "2 minutes"),
    maxBodyBytes: given.maxBodyBytes ?? bounds.body.max,
    maxHeldBytes: given.maxHeldBytes ?? bounds.bodies.max,
    maxConnections: given.maxConnections ?? bounds.connections.max
  }
}

/** Checked options. */
export type ParsedOptions = ReturnType<typeof parse>
