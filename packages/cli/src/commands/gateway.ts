/** `floodgate gateway`: a reverse proxy that paces, for clients in any language. */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Budget from "floodgate/Budget"
import * as Gateway from "floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as GatewayConfig from "./gateway/config.ts"
import * as LimitFlags from "./limits.ts"
import * as Print from "./print.ts"
import { CannotListen, refusals } from "./provider.ts"
import * as Redis from "./redis.ts"

const defaultPort = 8_788
/** A queue of this length lasts for minutes; a longer one would only end in refusals. */
const defaultMaxQueued = 10_000

const flags = {
  config: Flag.String("config").pipe(
    Flag.withMetavar("<file>"),
    Flag.withDescription("A file of JSON with upstreams, limits, rules for callers and bounds; flags go before it"),
    Flag.optional
  ),
  port: LimitFlags.number(
    "port",
    "a port from 0 to 65535",
    (port) => Number.isInteger(port) && port >= 0 && port <= 65_535
  ).pipe(Flag.withDescription(`Port to listen on; 0 takes a free one (default: ${defaultPort})`), Flag.optional),
  host: Flag.String("host").pipe(
    Flag.withDescription(
      "Address to listen on; anything but loopback needs a token in FLOODGATE_GATEWAY_TOKEN (default: 127.0.0.1)"
    ),
    Flag.optional
  ),
  upstream: Flag.KeyValuePair("upstream").pipe(
    Flag.withMetavar("<name=url>"),
    Flag.withDescription(
      "A provider: anthropic, openai, gemini, or another name, which its callers put in front of the path (default: the public addresses of the three)"
    ),
    Flag.optional
  ),
  maxHold: LimitFlags.positive("max-hold", 3_600).pipe(
    Flag.withMetavar("<seconds>"),
    Flag.withDescription("The longest that a call is held; what would wait longer is refused at once (default: 300)"),
    Flag.optional
  ),
  concurrency: LimitFlags.concurrency,
  ...LimitFlags.flags,
  ...Redis.flags
}

/** What the library refuses, and what the system does, for people. */
const explained = <A, R>(
  effect: Effect.Effect<A, Gateway.CannotListen, R>
): Effect.Effect<A, CannotListen | GatewayConfig.BadGateway, R> =>
  effect.pipe(
    Effect.mapError(
      ({ code, host, port }) => new CannotListen({ address: `${host}:${port}`, why: refusals[code] ?? code })
    ),
    Effect.catchDefect((defect) =>
      defect instanceof RangeError
        ? Effect.fail(new GatewayConfig.BadGateway({ why: defect.message }))
        : Effect.die(defect)
    )
  )

/** Texts are checked by the library, which refuses what is no duration. */
const durations = (settings: typeof GatewayConfig.Config.Type) => {
  const { drain, idleTimeout, keepAlive, maxHold, rules, silence, timeout } = settings
  const given = { drain, idleTimeout, keepAlive, maxHold, silence, timeout }
  return {
    ...(given as { readonly [K in keyof typeof given]: Duration.Input | undefined }),
    rules: rules as ReadonlyArray<Gateway.Rule> | undefined
  }
}

/** The command. */
export const gatewayCommand = Command.make(
  "gateway",
  flags,
  Effect.fnUntraced(function* (given) {
    const settings = Option.isNone(given.config) ? {} : yield* GatewayConfig.read(given.config.value)
    const token = yield* Config.option(Config.Redacted("FLOODGATE_GATEWAY_TOKEN")).pipe(
      Effect.mapError(({ message }) => new GatewayConfig.BadGateway({ why: message }))
    )
    const limits = (yield* LimitFlags.checked("gateway", given)) ?? settings.limits
    const store = yield* Redis.storeOf(given)
    const { maxHold } = given
    const { prices, ...rest } = settings
    const options: Gateway.Options = {
      ...rest,
      ...durations(settings),
      host: Option.getOrElse(given.host, () => settings.host),
      port: Option.getOrElse(given.port, () => settings.port ?? defaultPort),
      upstreams: Option.getOrElse(given.upstream, () => settings.upstreams),
      token: Option.isSome(token) ? Redacted.value(token.value) : settings.token,
      ...(Option.isSome(maxHold) ? { maxHold: maxHold.value * 1_000 } : {})
    }
    const running = Effect.gen(function* () {
      const { url } = yield* Gateway.Gateway
      yield* Print.out(`floodgate gateway listening on ${url}`)
      return yield* Effect.onInterrupt(Effect.never, () => Print.err("Closing: calls that run may end"))
    })
    const live = Effect.suspend(() => {
      const budget = Budget.layer({
        limits,
        concurrency: Option.getOrElse(given.concurrency, () => settings.concurrency),
        maxQueued: settings.maxQueued ?? defaultMaxQueued
      })
      const governed = Governor.layer({ prices }).pipe(
        Layer.provideMerge(budget),
        Layer.provide(store ?? Layer.empty),
        Layer.provideMerge(Gateway.layerEvents)
      )
      return Effect.provide(running, Layer.provide(Gateway.layer(options), governed))
    })
    return yield* explained(live)
  })
).pipe(
  Command.withDescription(
    "A reverse proxy that paces: clients in any language share a provider's limits by changing a base URL, and get slower answers instead of 429s. Prints one line with its URL when it is ready; /floodgate/ is a live page, /metrics is for Prometheus. Ctrl-C lets the calls that run end."
  ),
  Command.withShortDescription("One limit for clients in every language: a proxy that paces"),
  Command.withExamples([
    { command: "floodgate gateway", description: "Anthropic, OpenAI and Gemini on http://127.0.0.1:8788" },
    {
      command: "ANTHROPIC_BASE_URL=http://127.0.0.1:8788 claude -p hello",
      description: "Claude Code through it; openai wants http://127.0.0.1:8788/v1"
    },
    {
      command: "floodgate gateway --upstream anthropic=https://api.anthropic.com --input-tokens-per-minute 400000",
      description: "One provider, whose limits are known"
    },
    {
      command: "floodgate gateway --config gateway.json --redis redis://127.0.0.1:6379",
      description: "Several gateways that share the limits"
    }
  ])
)
