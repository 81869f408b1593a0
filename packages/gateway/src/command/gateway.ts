/** The command of the gateway, `floodgate-gateway` and `floodgate gateway`: a reverse proxy that paces the calls of clients in any language. */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Record from "effect/Record"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Gateway from "../index.ts"
import { hint } from "floodgate/internal"
import * as Governor from "floodgate/Governor"
import * as Prices from "floodgate/Prices"
import * as Exit from "../terminal/exit.ts"
import * as GatewayConfig from "./config.ts"
import * as Credentials from "./credentials.ts"
import { keyCommand } from "./key.ts"
import * as Recording from "./record.ts"
import { schemaCommand } from "./schema.ts"
import * as Reload from "./reload.ts"
import * as State from "./state.ts"
import * as Flags from "../terminal/flags.ts"
import * as LimitFlags from "../terminal/limits.ts"
import * as Output from "../terminal/output.ts"
import * as Print from "../terminal/print.ts"
import * as Listening from "../terminal/listening.ts"
import * as Redis from "../terminal/redis.ts"
import { oneLine } from "../terminal/text.ts"

const defaultPort = 8_788
/** A queue of this length takes minutes. Callers in a longer one would wait and then be refused anyway. */
const defaultMaxQueued = 10_000

const flags = {
  config: Flag.String("config").pipe(
    Flag.withMetavar("<file>"),
    Flags.optional("A JSON file with upstreams, limits, rules for callers and bounds; flags take precedence")
  ),
  port: Flags.port.pipe(Flags.optional(`Port to listen on; 0 chooses a free one (default: ${defaultPort})`)),
  host: Flag.String("host").pipe(
    Flags.optional(
      "Address to listen on; anything but loopback needs a token in FLOODGATE_GATEWAY_TOKEN (default: 127.0.0.1)"
    )
  ),
  hostName: Flag.String("host-name").pipe(
    Flag.withMetavar("<name>"),
    Flag.atLeast(1),
    Flags.optional(
      "Another host name under which callers may reach it, such as gateway.internal behind a proxy; needed only without a token; may be repeated (default: the names of this machine)"
    )
  ),
  upstream: Flag.String("upstream").pipe(
    Flag.filterMap(
      (text) =>
        Option.map(Option.fromNullishOr(/^([^=]+)=(.+)$/.exec(text)), ([, name, url]) => [name!, url!] as const),
      () => "a name and an address, such as groq=https://api.groq.com/openai"
    ),
    Flag.withMetavar("<name=url>"),
    Flag.atLeast(1),
    Flag.map(Object.fromEntries<string>),
    Flags.optional(
      "A provider and its address: anthropic, openai, gemini, or another name, which callers put before the path; may be repeated, and replaces the default (default: the public addresses of these three)"
    )
  ),
  maxHold: Flags.seconds("max-hold", 3_600).pipe(
    Flags.optional(
      "The longest time that a call is held; calls that would wait longer are refused at once (default: 300)"
    )
  ),
  concurrency: LimitFlags.concurrency,
  state: Output.flag("state", "file").pipe(
    Flags.optional("A file that keeps the learned limits and estimates, and the spending of caps, across restarts")
  ),
  record: Output.flag("record", "file").pipe(
    Flags.optional(
      "A trace to which each answered call is added in numbers, without content and names: tokens, cached tokens, model, waits, pauses, and hashes of session and agent; lab and forecast play it with --sessions, forecast and storm with --trace"
    )
  ),
  ...LimitFlags.flags,
  ...Redis.flags
}

/** The names with which users start a gateway: its own program, or a command of `floodgate`. */
type GatewayName = "floodgate-gateway" | "floodgate gateway"

type GatewayFlags = Command.Command.Config.Infer<typeof flags>

/** The variables that set options. */
const variables = {
  token: "FLOODGATE_GATEWAY_TOKEN",
  adminToken: "FLOODGATE_GATEWAY_ADMIN_TOKEN"
} as const

/** Rewords an error of the library, so that it names the flag, the variable or the file that sets the option. */
const named = ({ concurrency, config, host, hostName, port, upstream }: GatewayFlags, message: string): string => {
  const setting = message.replace(/^[A-Z]\w*\.\w+: /, "")
  const [name = ""] = /^\w+/.exec(setting) ?? []
  const byFlag: Readonly<Record<string, Option.Option<unknown>>> = {
    concurrency,
    host,
    hosts: hostName,
    port,
    upstreams: upstream
  }
  if (Option.isSome(byFlag[name] ?? Option.none())) {
    return `--${setting.replace(/^upstreams\.?/, "upstream ").replace(/^hosts(?:\[\d+\])?/, "host-name")}`
  }
  const file = Option.map(config, oneLine)
  const variable = name === "token" || name === "adminToken" ? variables[name] : undefined
  if (variable === undefined) {
    return Option.match(file, { onNone: () => setting, onSome: (path) => `${path}: ${setting}` })
  }
  const orFile = Option.match(file, { onNone: () => "", onSome: (path) => `, or ${name} in ${path}` })
  return `${variable}${orFile}${setting.slice(name.length)}`
}

/** Turns a `RangeError` of the library into an error for people. */
const orRefused = (given: GatewayFlags) =>
  Effect.catchDefect((defect: unknown) =>
    defect instanceof RangeError ? Effect.fail(Exit.failure("usage", named(given, defect.message))) : Effect.die(defect)
  )

/** The durations, which the library checks. A number means seconds. */
const durations = (settings: GatewayConfig.GatewaySettings) => {
  const { drain, idleTimeout, keepAlive, maxHold, placeWithin, rules, silence, timeout } = settings
  const given = { drain, idleTimeout, keepAlive, maxHold, placeWithin, silence, timeout }
  const inputs = Record.map(given, (value) => (typeof value === "number" ? Duration.seconds(value) : value))
  return {
    ...(inputs as { readonly [K in keyof typeof given]: Duration.Input | undefined }),
    rules: rules as Gateway.Options["rules"]
  }
}

/** The settings; flags take precedence over the configuration file. */
const settingsOf = Effect.fnUntraced(function* (command: GatewayName, given: GatewayFlags) {
  const file = Option.isNone(given.config) ? {} : yield* GatewayConfig.read(given.config.value)
  const secret = (option: keyof typeof variables) =>
    Config.option(Config.Redacted(variables[option])).pipe(
      Effect.mapError(({ message }) => Exit.failure("usage", message))
    )
  const token = yield* secret("token")
  const adminToken = yield* secret("adminToken")
  const limits = yield* LimitFlags.checked(command, given)
  const { credentials, upstreams } = yield* Credentials.resolve(
    Option.getOrElse(given.config, () => "--config"),
    { ...file, upstreams: Option.getOrElse(given.upstream, () => file.upstreams) }
  )
  return {
    ...file,
    credentials,
    upstreams,
    limits: limits ?? file.limits,
    concurrency: Option.getOrElse(given.concurrency, () => file.concurrency),
    host: Option.getOrElse(given.host, () => file.host),
    hosts: Option.getOrElse(given.hostName, () => file.hosts),
    port: Option.getOrElse(given.port, () => file.port),
    maxHold: Option.getOrElse(given.maxHold, () => file.maxHold),
    token: Option.isSome(token) ? Redacted.value(token.value) : file.token,
    adminToken: Option.isSome(adminToken) ? Redacted.value(adminToken.value) : file.adminToken
  }
})

/** The places with their prices in the configuration. */
const placesOf = (
  places: GatewayConfig.GatewaySettings["places"],
  prices: GatewayConfig.GatewaySettings["prices"] = {}
): Gateway.Options["places"] =>
  places &&
  Record.map(places, (list, asked) =>
    list.map((place) => ({ ...place, price: place.price ?? Prices.find(place.model ?? asked, prices as Prices.Table) }))
  )

/** The options of the gateway. */
const optionsOf = (all: GatewayConfig.GatewaySettings): Gateway.Options => {
  // These are options of the budget and the governor.
  const { concurrency: _c, limits: _l, maxPools: _s, maxQueued: _m, prices, windows: _w, ...settings } = all
  return {
    ...settings,
    ...durations(settings),
    places: placesOf(settings.places, prices),
    port: settings.port ?? defaultPort
  }
}

/** Says what has no effect. The gateway starts nevertheless, because the other keys and rules are right. */
const warn = (given: GatewayFlags, { keys, rules = [] }: GatewayConfig.GatewaySettings) =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const file = Option.match(given.config, { onNone: () => "", onSome: (path) => `${oneLine(path)}: ` })
    for (const [index, { expires, name }] of (keys ?? []).entries()) {
      if (expires === undefined || now < Date.parse(expires)) continue
      yield* Print.err(
        `${file}keys[${index}] (${oneLine(name)}) expired on ${expires}, so it is refused: remove it, or set a later date`
      )
    }
    const names = keys?.map(({ name }) => name)
    for (const [index, { key = "*" }] of rules.entries()) {
      if (names === undefined || key.includes("*") || names.includes(key)) continue
      yield* Print.err(`${file}rules[${index}].key: no key has the name "${oneLine(key)}": ${hint(key, names)}`)
    }
  })

/** Reads the configuration again at each SIGHUP. An invalid one changes nothing. */
const reloading = (
  command: GatewayName,
  given: GatewayFlags,
  first: GatewayConfig.GatewaySettings,
  more: Gateway.Options
) =>
  Effect.gen(function* () {
    const gateway = yield* Gateway.Gateway
    let settings = first
    yield* Stream.runForEach(Reload.hangups, () =>
      Effect.gen(function* () {
        const next = yield* settingsOf(command, given)
        yield* Reload.check(settings, next)
        yield* gateway.reload({ ...optionsOf(next), ...more })
        yield* Reload.resize(settings, next)
        settings = next
        yield* warn(given, next)
        yield* Print.err("Reloaded the configuration")
      }).pipe(
        orRefused(given),
        Effect.catch((error) =>
          Print.err(`Kept the old configuration: ${"message" in error ? error.message : "a flag is invalid"}`)
        )
      )
    )
  })

/** Serves the gateway until it is stopped. */
const serve = (command: GatewayName) =>
  Effect.fnUntraced(function* (given: GatewayFlags) {
    const settings = yield* settingsOf(command, given)
    const store = yield* Redis.storeOf(given)
    const stateFile = Option.getOrUndefined(given.state)
    const kept = stateFile === undefined ? undefined : yield* State.read(stateFile)
    const record = Option.isSome(given.record) ? yield* Recording.open(given.record.value) : undefined
    const more = { spent: kept?.spent, record }
    const running = Effect.gen(function* () {
      const { url } = yield* Gateway.Gateway
      // Started before the URL is printed, because a SIGHUP without a listener ends the process.
      yield* Effect.forkScoped(reloading(command, given, settings, more), { startImmediately: true })
      yield* warn(given, settings)
      yield* Print.out(`floodgate gateway listening on ${url}`)
      return yield* Effect.onInterrupt(Effect.never, () =>
        Print.err("Closing: running calls may finish; press Ctrl-C again to end them")
      )
    })
    const live = Effect.suspend(() => {
      const { concurrency, limits, maxPools, maxQueued = defaultMaxQueued, prices } = settings
      const windows = settings.windows as Governor.Options["windows"]
      const budget = Budget.layer({ limits, concurrency, maxPools, maxQueued, learned: kept?.limits })
      const governed = Governor.layer({ prices, windows, learned: kept?.calls }).pipe(
        Layer.merge(Budget.layerLog),
        Layer.provideMerge(Layer.provide(Agents.layer, budget)),
        Layer.provideMerge(store ?? Layer.empty),
        Layer.provideMerge(Gateway.layerEvents)
      )
      const gateway = Layer.effect(
        Gateway.Gateway,
        State.around(stateFile, Gateway.make({ ...optionsOf(settings), ...more }))
      )
      return Effect.scoped(Effect.provide(running, Layer.provideMerge(gateway, governed)))
    })
    return yield* Effect.catchTag(live, "CannotListen", ({ code, host, port }) =>
      Effect.fail(Listening.cannotListen(`${host}:${port}`, Listening.refusals[code] ?? code))
    ).pipe(orRefused(given))
  }, Effect.scoped)

/** The command, by the name with which its user starts it. */
export const gatewayCommand = (command: GatewayName) =>
  Command.make(command === "floodgate gateway" ? "gateway" : command, flags, serve(command)).pipe(
    Command.withSubcommands([keyCommand(command), schemaCommand(command)]),
    Command.withDescription(
      "A reverse proxy that holds each call until the provider has room: clients in any language share a provider's limits by changing a base URL, and get slower answers instead of 429s. Prints one line with its URL when it is ready; /floodgate/ is a live page, /metrics is for Prometheus, and standard error has a line when calls begin to wait, and for what. Ctrl-C lets running calls finish; pressing it again ends them."
    ),
    Command.withShortDescription("A reverse proxy through which clients in any language share a provider's limits"),
    Command.withExamples([
      { command, description: "Anthropic, OpenAI and Gemini on http://127.0.0.1:8788" },
      {
        command: "ANTHROPIC_BASE_URL=http://127.0.0.1:8788 claude -p hello",
        description: "Claude Code through it; openai wants http://127.0.0.1:8788/v1"
      },
      {
        command: `${command} --upstream anthropic=https://api.anthropic.com --input-tokens-per-minute 400000`,
        description: "One provider, whose limits are known"
      },
      {
        command: `${command} --config gateway.json --redis redis://127.0.0.1:6379`,
        description: "Several gateways that share the limits"
      }
    ])
  )
