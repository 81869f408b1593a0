/** The command of the gateway, `floodgate-gateway` and `floodgate gateway`: a reverse proxy that paces the calls of clients in any language. */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Record from "effect/Record"
import * as Stream from "effect/Stream"
import * as Struct from "effect/Struct"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Gateway from "../index.ts"
import { hint } from "floodgate/internal/nearest"
import * as Governor from "floodgate/Governor"
import * as Prices from "floodgate/Prices"
import { rules as settingRules } from "../settings/index.ts"
import * as Exit from "../terminal/exit.ts"
import * as SettingFlags from "./flags.ts"
import { initCommand } from "./init.ts"
import { keyCommand } from "./key.ts"
import * as Processes from "./processes.ts"
import * as Recording from "./record.ts"
import { schemaCommand } from "./schema.ts"
import * as Reload from "./reload.ts"
import * as Settings from "./settings.ts"
import * as State from "./state.ts"
import { version } from "./version.ts"
import * as Flags from "../terminal/flags.ts"
import * as LimitFlags from "../terminal/limits.ts"
import * as Output from "../terminal/output.ts"
import * as Print from "../terminal/print.ts"
import * as Listening from "../terminal/listening.ts"
import * as Redis from "../terminal/redis.ts"
import * as Telemetry from "../terminal/telemetry.ts"
import { oneLine } from "../terminal/text.ts"

const flags = {
  config: Flag.String("config").pipe(
    Flag.withMetavar("<file>"),
    Flags.optional("A JSON file with upstreams, limits, rules for callers and bounds; flags take precedence")
  ),
  settings: SettingFlags.flags,
  state: Output.flag("state", "file").pipe(
    Flags.optional(
      "A file that keeps learned limits and estimates, the spending of caps, and added keys across restarts"
    )
  ),
  record: Output.flag("record", "file").pipe(
    Flags.optional(
      "A trace to which each answered call is added in numbers, without content and names: tokens, cached tokens, model, waits, pauses, and hashes of session and agent; lab and forecast play it with --sessions, forecast and storm with --trace"
    )
  ),
  ...LimitFlags.flags,
  ...Redis.flags,
  processes: Processes.flag
}

/** The names with which users start a gateway: its own program, or a command of `floodgate`. */
type GatewayName = "floodgate-gateway" | "floodgate gateway"

type GatewayFlags = Command.Command.Config.Infer<typeof flags>

/** Turns a `RangeError` of the library into an error that names what set the option. */
const orRefused = (nameOf: (place: string) => string) =>
  Effect.catchDefect((defect: unknown) => {
    if (!(defect instanceof RangeError)) return Effect.die(defect)
    const [, place = "", why = defect.message] = /^[A-Z]\w*\.\w+: (\w\S*): (.*)$/s.exec(defect.message) ?? []
    return Effect.fail(Exit.failure("usage", place === "" ? why : `${nameOf(`.${place}`)}: ${why}`))
  })

/** The options of the gateway. A place without a price has the one of the configuration, if there is one. */
const optionsOf = (all: Settings.GivenSettings): Gateway.Options => {
  const ofBudget = ["concurrency", "limits", "maxPools", "maxQueued", "order", "tryWindowsEvery", "windows"] as const
  const { places, prices = {}, ...settings } = Struct.omit(all, ofBudget)
  return {
    ...settings,
    port: settings.port ?? settingRules.port.default,
    places:
      places &&
      Record.map(places, (list, asked) =>
        list.map((place) => ({ ...place, price: place.price ?? Prices.find(place.model ?? asked, prices) }))
      )
  }
}

/** Says what has no effect. The gateway starts nevertheless, because the other keys and rules are right. */
const warn = (given: GatewayFlags, { keys, rules = [] }: Settings.GivenSettings) =>
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
const reloading = (command: GatewayName, given: GatewayFlags, first: Settings.GivenSettings, more: Gateway.Options) =>
  Effect.gen(function* () {
    const gateway = yield* Gateway.Gateway
    let settings = first
    yield* Stream.runForEach(Reload.hangups, () =>
      Effect.gen(function* () {
        const { nameOf, settings: next } = yield* Settings.read(command, given)
        yield* Reload.check(settings, next)
        yield* Processes.check(given, next, nameOf)
        yield* orRefused(nameOf)(gateway.reload({ ...optionsOf(next), ...more }))
        yield* Reload.resize(settings, next)
        settings = next
        yield* warn(given, next)
        yield* Print.err("Reloaded the configuration")
      }).pipe(
        Effect.catch((error) =>
          Print.err(`Kept the old configuration: ${"message" in error ? error.message : "a flag is invalid"}`)
        )
      )
    )
  })

const closing = Print.err("Closing: running calls may finish; press Ctrl-C again to end them")

/** Serves the gateway until it is stopped. */
const serve = (command: GatewayName) =>
  Effect.fnUntraced(function* (given: GatewayFlags) {
    const { nameOf, settings } = yield* Settings.read(command, given)
    yield* Processes.check(given, settings, nameOf)
    const supervised = Processes.supervise(given.processes, closing)
    if (supervised !== undefined) return yield* supervised
    const store = yield* Redis.storeOf(given)
    const stateFile = Option.getOrUndefined(given.state)
    const kept = stateFile === undefined ? undefined : yield* State.read(stateFile)
    const record = Option.isSome(given.record) ? yield* Recording.open(given.record.value) : undefined
    const more = { spent: kept?.spent, added: kept?.added, record }
    const running = Effect.gen(function* () {
      const { url } = yield* Gateway.Gateway
      // Started before the URL is printed, because a SIGHUP without a listener ends the process.
      yield* Effect.forkScoped(reloading(command, given, settings, more), { startImmediately: true })
      const part = Processes.partOf(given.processes)
      if (part?.isFirst !== false) yield* warn(given, settings)
      if (part !== undefined) return yield* Effect.andThen(Processes.listens(url), Effect.never)
      yield* Print.out(`floodgate gateway listening on ${url}`)
      return yield* Effect.onInterrupt(Effect.never, () => closing)
    })
    const live = Effect.suspend(() => {
      const { concurrency, limits, maxPools, maxQueued = settingRules.maxQueued.default, order, prices } = settings
      const { tryWindowsEvery, windows } = settings
      const budget = Budget.layer({ limits, concurrency, maxPools, maxQueued, order, learned: kept?.limits })
      const governed = Governor.layer({ prices, tryWindowsEvery, windows, learned: kept?.calls }).pipe(
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
    ).pipe(orRefused(nameOf), Telemetry.around({ name: "floodgate-gateway", version }))
  }, Effect.scoped)

/** The command, by the name with which its user starts it. */
export const gatewayCommand = (command: GatewayName) =>
  Command.make(command === "floodgate gateway" ? "gateway" : command, flags, serve(command)).pipe(
    Command.withSubcommands([initCommand(command), keyCommand(command), schemaCommand(command)]),
    Command.withDescription(
      "A reverse proxy that holds each call until the provider has room: clients in any language share a provider's limits by changing a base URL, and get slower answers instead of 429s. Prints one line with its URL when it is ready; /floodgate/ is a live page, /metrics is for Prometheus, and standard error has a line when calls begin to wait, and for what. Ctrl-C lets running calls finish; pressing it again ends them."
    ),
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
      },
      {
        command: `${command} --processes all --redis redis://127.0.0.1:6379`,
        description: "One gateway on all cores"
      }
    ])
  )
