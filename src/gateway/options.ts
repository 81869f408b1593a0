/** The options of a gateway, their defaults, and the checks on them. */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import { constants } from "node:buffer"
import { queueingOf } from "../budget/options.ts"
import type * as Engine from "../fetch/engine.ts"
import { checkOptions, durationOf, invalid, type Known, within, wrong } from "../input/arguments.ts"
import type { Rule } from "./callers.ts"
import { keepingOf } from "../spending/cap.ts"
import { isLoopback } from "./door.ts"
import type * as Exchange from "./exchange.ts"
import type * as Spending from "../Spending.ts"
import { ownSegment, type Upstream, upstreamOf } from "./routes.ts"

/**
 * How a gateway is made.
 *
 * @category options
 * @since 0.2.0
 */
export interface Options extends Omit<Engine.EngineOptions, "callOptions"> {
  /**
   * The providers by name. Requests for `anthropic`, `openai` and `gemini` are recognised by the paths of their protocols;
   * requests for any other provider need its name in front of the path. Requests go to no other host, and those for a
   * provider that is missing here are answered with 404.
   *
   * @default the public addresses of Anthropic, OpenAI and Gemini
   */
  readonly upstreams?: Readonly<Record<string, string>> | undefined
  /** The address to listen on. Any address but loopback opens the gateway to the network, and requires a `token`. @default "127.0.0.1" */
  readonly host?: string | undefined
  /** The port; 0 takes a free one, which `url` contains. @default 0 */
  readonly port?: number | undefined
  /** A secret that callers must send: at least 16 letters, digits, `-` and `_`. @default none */
  readonly token?: string | undefined
  /**
   * Further names that callers without a `token` may use for the gateway, such as that of a proxy in front of it; pages of these
   * hosts may call it, too. Without a token, requests for any other name than those of this machine are answered with 403,
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
  /** What an earlier gateway had spent of its caps: the value of its `spent`. @default nothing */
  readonly spent?: Readonly<Record<string, Spending.Kept>> | undefined
  /**
   * The longest time until the last attempt of a call begins. A call whose predicted wait is longer is refused at once. The
   * most impatient of the common clients give up after 10 minutes, and the answer itself takes time, too.
   *
   * @default "5 minutes"
   */
  readonly maxHold?: Duration.Input | undefined
  /**
   * How long a waiting caller receives nothing. Until then the response can still have the provider's status. Some clients
   * give up after a minute of silence.
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
  /** The most bytes in the bodies of all waiting and running calls. Beyond it, calls are answered with 503. @default 268_435_456 */
  readonly maxHeldBytes?: number | undefined
  /** The most open connections; further ones are closed. @default 10_000 */
  readonly maxConnections?: number | undefined
  /** Called for each answered call when its usage is known, for example to write a trace. @default none */
  readonly record?: ((call: Exchange.Recorded) => void) | undefined
}

const providers = {
  anthropic: "https://api.anthropic.com",
  openai: "https://api.openai.com",
  gemini: "https://generativelanguage.googleapis.com"
}

/** The gateway's own paths begin with these names. */
const reserved = ["floodgate", "healthz", "readyz", "metrics", "token"]

/** A body is decoded to a text, which has at most so many characters in Node. */
const mostBodyBytes = constants.MAX_STRING_LENGTH
/** More than any machine has, of memory and of sockets. */
const mostHeldBytes = 2 ** 44
const mostConnections = 1_000_000

const whole = (option: string, value: number, most: number): number =>
  Number.isInteger(value) && value > 0 && value <= most
    ? value
    : invalid(`Gateway.${option}`, `an integer from 1 to ${most}`, value)

const day = 86_400_000

/** A time that timers can keep: a shorter one would keep the process busy, and no client waits longer. */
const timeOf = (option: string, input: Duration.Input): Duration.Duration =>
  durationOf(
    `Gateway.${option}`,
    input,
    "a duration from 1 millisecond to 1 day",
    (millis) => millis >= 1 && millis <= day
  )

const upstreamsOf = (given: Readonly<Record<string, string>>): ReadonlyMap<string, Upstream> => {
  const parsed = new Map<string, Upstream>()
  for (const [name, address] of Object.entries(given)) {
    if (!/^[a-z\d][a-z\d-]*$/.test(name) || reserved.includes(name) || ownSegment.test(name)) {
      const expected =
        "names of lower-case letters, digits and hyphens that begin no path of the gateway or of a provider"
      invalid("Gateway.upstreams", expected, name)
    }
    const expected = "an address such as https://api.anthropic.com, without a query or a password"
    parsed.set(name, upstreamOf(name, address) ?? invalid(`Gateway.upstreams.${name}`, expected, address))
  }
  return parsed.size > 0 ? parsed : invalid("Gateway.upstreams", "at least one upstream", given)
}

const hostsOf = (names: ReadonlyArray<string>): ReadonlySet<string> => {
  const expected = "names without a scheme, a port or a path, such as gateway.internal"
  for (const name of names) {
    if (!/^[\w-]+(?:\.[\w-]+)*$/.test(name)) invalid("Gateway.hosts", expected, `"${name}"`)
  }
  return new Set(names.map((name) => name.toLowerCase()))
}

const knownOfRule: Known<Rule> = {
  agent: true,
  key: true,
  model: true,
  headers: true,
  weight: true,
  priority: true,
  cap: true,
  capPerAgent: true,
  capPerKey: true
}

/** Throws for a rule under which every call would fail. */
const checkRule = (rule: Rule, at: string): void => {
  checkOptions(at, rule, knownOfRule)
  const { cap, capPerAgent, capPerKey, priority, weight } = rule
  within("Budget.reserve: ", `${at}.`, () => queueingOf(Context.empty(), { priority, weight }))
  for (const [name, each] of Object.entries({ cap, capPerAgent, capPerKey })) {
    within("Spending", `${at}.${name}`, () => keepingOf(each))
  }
}

const known: Known<Options> = {
  protocols: true,
  accounting: true,
  account: true,
  streamUsage: true,
  idleTimeout: true,
  upstreams: true,
  host: true,
  port: true,
  token: true,
  hosts: true,
  rules: true,
  spent: true,
  maxHold: true,
  silence: true,
  keepAlive: true,
  timeout: true,
  drain: true,
  maxBodyBytes: true,
  maxHeldBytes: true,
  maxConnections: true,
  record: true
}

/** Options that make sense, with their defaults. Throws a `RangeError` for others. */
export const parse = (options: Options) => {
  checkOptions("Gateway", options, known)
  const { host = "127.0.0.1", port = 0, token } = options
  if (!(Number.isInteger(port) && port >= 0 && port < 65_536)) {
    invalid("Gateway.port", "an integer from 0 to 65535", port)
  }
  if (token !== undefined && !/^[\w-]{16,}$/.test(token)) {
    wrong("Gateway.token", "expected at least 16 letters, digits, hyphens and underscores, got another text")
  }
  if (token === undefined && !isLoopback(host)) {
    wrong("Gateway.token", "expected a token, because others can reach the host, got none")
  }
  for (const [index, rule] of (options.rules ?? []).entries()) checkRule(rule, `Gateway.rules[${index}]`)
  return {
    host,
    port,
    token,
    hosts: hostsOf(options.hosts ?? []),
    upstreams: upstreamsOf(options.upstreams ?? providers),
    maxHold: timeOf("maxHold", options.maxHold ?? "5 minutes"),
    silence: timeOf("silence", options.silence ?? "20 seconds"),
    keepAlive: timeOf("keepAlive", options.keepAlive ?? "10 seconds"),
    timeout: timeOf("timeout", options.timeout ?? "10 minutes"),
    drain: timeOf("drain", options.drain ?? "2 minutes"),
    maxBodyBytes: whole("maxBodyBytes", options.maxBodyBytes ?? 32 * 1_024 * 1_024, mostBodyBytes),
    maxHeldBytes: whole("maxHeldBytes", options.maxHeldBytes ?? 256 * 1_024 * 1_024, mostHeldBytes),
    maxConnections: whole("maxConnections", options.maxConnections ?? 10_000, mostConnections)
  }
}

/** Checked options. */
export type Checked = ReturnType<typeof parse>
