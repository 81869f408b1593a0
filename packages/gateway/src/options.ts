/** The options of a gateway in a program, and the checks of several options together. */
import * as Duration from "effect/Duration"
import * as Redacted from "effect/Redacted"
import type * as Fetch from "floodgate/fetch"
import { Input, shown } from "floodgate/internal"
import { hint } from "floodgate/internal/nearest"
import * as Words from "floodgate/internal/words"
import type * as Spending from "floodgate/Spending"
import { isLoopback } from "./auth.ts"
import { labelOf } from "./names.ts"
import type { AddedKeys } from "./settings/newKeys.ts"
import * as Places from "./places.ts"
import { type Upstream, upstreamOf } from "./routes.ts"
import { sha256Of } from "./secrets.ts"
import * as Settings from "./settings/index.ts"
import * as Problems from "./settings/problems.ts"

/**
 * The options of a gateway. Those that a configuration file has too are described in its table, see `docs/figures/settings.md`.
 *
 * @stability unstable
 * @category options
 * @since 0.2.0
 */
export interface Options extends Pick<Fetch.Options, "account" | "accounting" | "protocols">, Settings.ProgramSettings {
  /**
   * The credential of each upstream, for a gateway with `keys`; null for a service that needs none. The token of a subscription is
   * refused, because sharing it gets the account banned.
   *
   * @default none
   */
  readonly credentials?: Readonly<Record<string, Redacted.Redacted<string> | null>> | undefined
  /** The amounts that an earlier gateway spent of its caps: the value of its `spent`. @default nothing */
  readonly spent?: Readonly<Record<string, Spending.Kept>> | undefined
  /**
   * The keys that were added to an earlier gateway while it ran: the value of its `added`. They count only beside `keys`.
   *
   * @default none
   * @since 0.5.0
   */
  readonly added?: AddedKeys | undefined
  /** Called for each answered call when its usage is known, for example to write a trace. @default none */
  readonly record?:
    | ((call: {
        /** When the request arrived, in milliseconds since the epoch. */
        readonly at: number
        readonly model: string
        /** The name of the agent as the caller gave it. Do not write it where others can read it. */
        readonly agent: string
        /** Tokens of the whole prompt, cached or not. */
        readonly inputTokens: number
        /**
         * The part of the prompt that the provider read from its cache.
         *
         * @since 0.5.0
         */
        readonly cachedTokens: number
        /**
         * The part of the prompt that the provider wrote to its cache.
         *
         * @since 0.5.0
         */
        readonly cacheWrittenTokens: number
        readonly outputTokens: number
        /** The time from the arrival of the request to its last attempt. */
        readonly waitedMillis: number
        /**
         * The time from the start of the last attempt to the end of the answer.
         *
         * @since 0.5.0
         */
        readonly answeredMillis: number
        /**
         * The time from the end of the agent's previous answer to the arrival of this request; undefined for its first call.
         *
         * @since 0.5.0
         */
        readonly pauseMillis: number | undefined
        /** @since 0.5.0 */
        readonly sessionId: string
        /** @since 0.5.0 */
        readonly agentId: string
        /**
         * Undefined for the first agent of a session.
         *
         * @since 0.5.0
         */
        readonly parentId: string | undefined
      }) => void)
    | undefined
}

/** More keys than a team has. Every request is compared with each of them. */
const maxKeys = 1_000

const distinctKeys: Input.Check = (value) => {
  const { keys } = value as Options
  if (keys === undefined) return undefined
  if (keys.length === 0 || keys.length > maxKeys) {
    return { place: ".keys", text: `expected 1 to ${maxKeys} keys, got ${keys.length}` }
  }
  const hashes = keys.map(({ sha256 }) => sha256.toLowerCase())
  const index = hashes.findIndex((hash, index) => hashes.indexOf(hash) !== index)
  if (index < 0) return undefined
  const text = `expected another key than that of keys[${hashes.indexOf(hashes[index]!)}]: remove one of the two`
  return { place: `.keys[${index}].sha256`, text }
}

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

/** A host that is not loopback is reachable from other machines, so it needs a token. */
const guarded: Input.Check = (value) => {
  const { host = Settings.rules.host.default!, token } = value as Options
  if (token !== undefined || isLoopback(host)) return undefined
  return { place: ".token", text: "expected a token, because other machines can reach the host, got none" }
}

/** Agents must not raise their own caps, nor see who else calls. */
const apart =
  (name: "adminToken" | "requestsToken"): Input.Check =>
  (value) => {
    const { [name]: secret, keys = [], token } = value as Options
    if (secret === undefined) return undefined
    const hash = sha256Of(secret).toString("hex")
    const isKey = keys.some(({ sha256 }) => sha256.toLowerCase() === hash)
    if (secret !== token && !isKey) return undefined
    const other = isKey ? "the keys" : "the token"
    return { place: `.${name}`, text: `expected another secret than ${other}, which agents have, got the same` }
  }

/** Tokens of subscriptions: Anthropic's, and those with which Codex signs in to ChatGPT. */
const isSubscription = (secret: string, address: string): boolean =>
  secret.startsWith("sk-ant-o") ||
  (secret.startsWith("eyJ") && /(?:^|\.)(?:openai|chatgpt)\.com$/.test(URL.parse(address)?.hostname ?? ""))

/** Characters that a copied key often has, and no header can. */
const unsendable: Readonly<Record<string, string>> = { "\r": "a line break", "\n": "a line break", " ": "a space" }

/** The reason why an upstream cannot have a credential, or needs one. */
const credentialProblem = (upstream: string, address: string, given: Redacted.Redacted<string> | null | undefined) => {
  if (given === undefined) {
    return `the upstream ${upstream} has no credential, and callers send keys of the gateway: add its API key, or remove the upstream`
  }
  if (given === null) return undefined
  const secret = Redacted.value(given)
  const odd = /[^!-~]/.exec(secret)?.[0]
  if (odd !== undefined) {
    const what = unsendable[odd] ?? "a character that headers cannot have"
    return `the credential contains ${what}: copy the API key again, without it`
  }
  return isSubscription(secret, address)
    ? "expected an API key, got the token of a subscription: sharing it would get the account banned. Create a key in the provider's console"
    : undefined
}

/** Keys and credentials belong together: without keys, anybody who reaches the gateway could use the credentials. */
const exchanged: Input.Check = (value) => {
  const { credentials = {}, keys, upstreams: given = Settings.providers } = value as Options
  const count = Object.keys(credentials).length
  if (keys === undefined) {
    if (count === 0) return undefined
    const why = `expected keys, because the gateway has ${Words.counted(count, "credential")}, got none`
    const text = `${why}: add keys for the callers, or remove the credentials, and callers send their own`
    return { place: ".keys", text }
  }
  const unknown = Object.keys(credentials).find((name) => !Object.hasOwn(given, name))
  if (unknown !== undefined) {
    const text = `no upstream has this name: ${hint(unknown, Object.keys(given))}`
    return { place: `.credentials.${unknown}`, text }
  }
  for (const [name, address] of Object.entries(given)) {
    const text = credentialProblem(name, address, Object.hasOwn(credentials, name) ? credentials[name] : undefined)
    if (text !== undefined) return { place: `.credentials.${name}`, text }
  }
  return undefined
}

const placed: Input.Check = (value) => {
  const { credentials, upstreams: given = Settings.providers, ...options } = value as Options
  return Places.problemOf(options, given, credentials)
}

const valid = Problems.check(Settings.Options)
const complete = Input.all(
  valid,
  distinctKeys,
  distinctNames,
  guarded,
  apart("adminToken"),
  apart("requestsToken"),
  exchanged,
  placed
)

/** Checks options and adds the defaults. Throws a `RangeError` for invalid ones. */
export const parse = (operation: string, given: Options) => {
  Input.check(operation, complete, given)
  const of = <K extends keyof Settings.ProgramSettings>(name: K) =>
    (given[name] ?? Settings.rules[name].default) as NonNullable<Options[K]>
  return {
    host: of("host"),
    // A program asks for its URL.
    port: given.port ?? 0,
    token: given.token,
    adminToken: given.adminToken,
    requestsToken: given.requestsToken,
    rateLimitHeaders: of("rateLimitHeaders"),
    credentials: new Map(
      Object.entries(given.credentials ?? {}).flatMap(([name, secret]) =>
        secret === null ? [] : [[name, Redacted.value(secret)] as const]
      )
    ) as ReadonlyMap<string, string>,
    hosts: new Set((given.hosts ?? []).map((name) => name.toLowerCase())) as ReadonlySet<string>,
    upstreams: new Map(
      Object.entries(of("upstreams")).map(([name, address]) => [name, upstreamOf(name, address)!])
    ) as ReadonlyMap<string, Upstream>,
    places: Places.placesOf(given, of("upstreams"), given.credentials),
    maxHold: Duration.fromInputUnsafe(of("maxHold")),
    silence: Duration.fromInputUnsafe(of("silence")),
    keepAlive: Duration.fromInputUnsafe(of("keepAlive")),
    timeout: Duration.fromInputUnsafe(of("timeout")),
    drain: Duration.fromInputUnsafe(of("drain")),
    maxBodyBytes: of("maxBodyBytes"),
    maxHeldBytes: of("maxHeldBytes"),
    maxConnections: of("maxConnections")
  }
}

/** Checked options. */
export type ParsedOptions = ReturnType<typeof parse>
