/** The options of a gateway, their defaults, and the checks on them. */
import * as Duration from "effect/Duration"
import { constants } from "node:buffer"
import type * as Fetch from "floodgate/fetch"
import { checkCap, Engine, Input, priority, shown, weight } from "floodgate/internal"
import { isLoopback } from "./auth.ts"
import { labelOf } from "./names.ts"
import type * as Spending from "floodgate/Spending"
import type { Recorded } from "./records.ts"
import type { Rule } from "./rule.ts"
import { ownSegment, type Upstream, upstreamOf } from "./routes.ts"

/**
 * How a gateway is made.
 *
 * @category options
 * @since 0.2.0
 */
export interface Options extends Omit<Fetch.Options, "callOptions" | "fetch"> {
  /**
   * The providers by name. Requests for `anthropic`, `openai` and `gemini` are recognised by the paths of their protocols;
   * requests for any other provider need its name in front of the path. Requests go to no other host, and those for a
   * provider that is missing here are answered with 404.
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
   * Further names that callers without a `token` may use for the gateway, such as that of a proxy in front of it; pages of these
   * hosts may also call it. Without a token, requests for any other name than those of this machine are answered with 403,
   * because a website could have its name resolve to this machine.
   *
   * @default none
   */
  readonly hosts?: ReadonlyArray<string> | undefined
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

const providers = {
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

/** A name is shown on the page and in metrics, so it is short and has no control characters. */
const givenName = Input.that(
  "a name of 1 to 64 characters",
  (value) => typeof value === "string" && /^\P{C}{1,64}$/u.test(value) && value.trim() === value
)

const rule = Input.options<Rule>({
  name: givenName,
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
  const labels = (value as ReadonlyArray<Rule>).map(labelOf)
  const index = (value as ReadonlyArray<Rule>).findLastIndex(
    ({ name }, index) => name !== undefined && labels.some((label, other) => label === name && other !== index)
  )
  if (index < 0) return undefined
  return { place: `[${index}].name`, text: `expected a name that no other rule has, got ${shown(labels[index])}` }
}

const { callOptions: _, ...ofEngine } = Engine.checks

const settings = Input.options<Options>({
  ...ofEngine,
  upstreams,
  host: Input.host,
  port: Input.port,
  token: Input.secret(
    "at least 16 letters, digits, hyphens and underscores",
    (value) => typeof value === "string" && /^[\w-]{16,}$/.test(value)
  ),
  hosts: Input.list(
    Input.that(
      "a name without a scheme, a port or a path, such as gateway.internal",
      (value) => typeof value === "string" && /^[\w-]+(?:\.[\w-]+)*$/.test(value)
    )
  ),
  rules: Input.all(Input.list(rule), distinctNames),
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

const complete = Input.all(settings, guarded)

/** Checks options and adds the defaults. Throws a `RangeError` for invalid ones. */
export const parse = (operation: string, given: Options) => {
  Input.check(operation, complete, given)
  const timeOf = (option: Duration.Input | undefined, standard: Duration.Input) =>
    Duration.fromInputUnsafe(option ?? standard)
  return {
    host: given.host ?? defaultHost,
    port: given.port ?? 0,
    token: given.token,
    hosts: new Set((given.hosts ?? []).map((name) => name.toLowerCase())) as ReadonlySet<string>,
    upstreams: new Map(
      Object.entries(given.upstreams ?? providers).map(([name, address]) => [name, upstreamOf(name, address)!])
    ) as ReadonlyMap<string, Upstream>,
    maxHold: timeOf(given.maxHold, "5 minutes"),
    silence: timeOf(given.silence, "20 seconds"),
    keepAlive: timeOf(given.keepAlive, "10 seconds"),
    timeout: timeOf(given.timeout, "10 minutes"),
    drain: timeOf(given.drain, "2 minutes"),
    maxBodyBytes: given.maxBodyBytes ?? 32 * 1_024 * 1_024,
    maxHeldBytes: given.maxHeldBytes ?? 256 * 1_024 * 1_024,
    maxConnections: given.maxConnections ?? 10_000
  }
}

/** Checked options. */
export type ParsedOptions = ReturnType<typeof parse>
