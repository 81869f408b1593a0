/** Chooses the provider of a run: the configured one, or the embedded simulated one. */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import { baseUrl as baseUrlOf, RefusedMillis } from "floodgate/internal"
import type { ProviderServer } from "floodgate/testing/server"
import type * as Governor from "floodgate/Governor"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import { LlmProvider } from "floodgate/LlmProvider"
import * as Anthropic from "floodgate/providers/Anthropic"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as Provider from "../provider.ts"
import * as Redis from "@floodgate/gateway/internal/redis"
import * as Pipeline from "./pipeline.ts"
import { reply } from "./reply.ts"

/** The services that a run needs. */
export type RunServices = LlmClient.LlmClient | Agents.Meter | Budget.TokenBudget

/** A client of the provider, and texts that name the provider. */
export interface Answering {
  readonly layer: Layer.Layer<RunServices>
  /** The provider in a few words. */
  readonly provider: string
  /** Whether its answers cost money. */
  readonly costs: boolean
  readonly notice: string
  /** The counters of the provider at the end; undefined if there are none. */
  readonly summary: Effect.Effect<string | undefined>
}

/** The default limits of the embedded provider, similar to those of a paying organisation. */
export const embeddedLimits: Limits.Limits = {
  requests: { perMinute: 1_000 },
  inputTokens: { perMinute: 2_000_000 },
  outputTokens: { perMinute: 400_000 }
}

/** Starts the embedded provider on loopback, over real HTTP. It stops with the scope. */
const serve = (options: ProviderServer.Options) => Provider.listen({ limits: embeddedLimits, reply, ...options })

/** Options of the client in addition to those of the budget. */
interface GuardOptions {
  readonly retry?: Governor.Options["retry"]
  readonly windows?: Governor.Options["windows"]
  /** Whether to log a line for each change while calls wait. */
  readonly log: boolean
  /** Wraps the provider. */
  readonly wrap?: ((provider: LlmProvider["Service"]) => LlmProvider["Service"]) | undefined
}

/** Whoever starts a command waits in front of it, so a wrong address ends the run at once. */
const refusedMillis = 0

/** Floodgate in front of a provider. */
const guarded = (
  options: Budget.Options & GuardOptions,
  at: { readonly apiKey: Redacted.Redacted<string>; readonly baseUrl: string }
): Layer.Layer<RunServices> => {
  const { log, retry, windows, wrap = (provider) => provider, ...budget } = options
  const provider = Layer.effect(LlmProvider, Effect.map(LlmProvider, wrap)).pipe(Layer.provide(Anthropic.layer(at)))
  return LlmClient.layerProvider({ retry, windows }).pipe(
    Layer.provide(provider),
    Layer.provideMerge(metered(budget, log)),
    Layer.provide(Layer.succeed(RefusedMillis, refusedMillis))
  )
}

const metered = (options: Budget.Options, log: boolean): Layer.Layer<Agents.Meter | Budget.TokenBudget> =>
  Agents.layer.pipe(
    Layer.provide(Layer.effect(Budget.TokenBudget, Effect.map(Budget.TokenBudget, Pipeline.reporting))),
    Layer.merge(log ? Budget.layerLog : Layer.empty),
    Layer.provide(Budget.layer(options))
  )

/** The value of a variable; undefined if it is not set or empty. */
const variable = (name: string): Effect.Effect<string | undefined, Exit.CommandError> =>
  Config.option(Config.NonEmptyString(name)).pipe(
    Effect.map(Option.getOrUndefined),
    Effect.mapError((error) => Exit.failure("usage", `${name} cannot be read: ${error.message}`))
  )

/** The address of Anthropic. */
export const usualAddress = "https://api.anthropic.com"

/** The key and the address of the provider; undefined if no key is set. */
export const credentials = Effect.gen(function* () {
  const key = yield* variable("ANTHROPIC_API_KEY")
  const baseUrl = (yield* variable("ANTHROPIC_BASE_URL")) ?? usualAddress
  if (key === undefined) return undefined
  if (key.trim() === "") {
    return yield* Exit.failure(
      "usage",
      "ANTHROPIC_API_KEY is blank: set it to your key, or unset it to use the embedded simulated provider"
    )
  }
  // A header cannot hold such characters, and the error of the client would quote the key.
  if (!/^[!-~]+$/.test(key.trim())) {
    return yield* Exit.failure(
      "usage",
      "ANTHROPIC_API_KEY contains white space or other characters that keys never contain: copy only the key"
    )
  }
  if (!/^https?:$/.test(URL.parse(baseUrl)?.protocol ?? "")) {
    return yield* Exit.failure(
      "usage",
      "ANTHROPIC_BASE_URL is not an address: set it to one such as https://api.anthropic.com, or unset it"
    )
  }
  if (baseUrlOf(baseUrl) === undefined) {
    return yield* Exit.failure(
      "usage",
      `ANTHROPIC_BASE_URL has more than ${Redis.shown(baseUrl)}: no request can be sent to an address with a user, a password or a query; the key goes into ANTHROPIC_API_KEY`
    )
  }
  return { apiKey: Redacted.make(key.trim()), baseUrl }
})

/** The provider of the configuration if `ANTHROPIC_API_KEY` is set, otherwise the embedded one. */
export const fromConfig = Effect.fnUntraced(function* (
  options: Omit<Budget.Options, "limits"> & GuardOptions & { readonly limits?: Limits.Limits | undefined }
) {
  const known = yield* credentials
  if (known !== undefined) {
    const answering: Answering = {
      layer: guarded(options, known),
      provider: Redis.shown(known.baseUrl),
      costs: true,
      notice: `Answers come from ${Redis.shown(known.baseUrl)}, with the key in ANTHROPIC_API_KEY`,
      summary: Effect.undefined
    }
    return answering
  }
  const server = yield* serve({ limits: options.limits ?? embeddedLimits })
  const answering: Answering = {
    layer: guarded(options, { apiKey: Redacted.make("embedded"), baseUrl: server.url }),
    provider: `simulated, embedded in the command, at ${server.url}`,
    costs: false,
    notice: `No ANTHROPIC_API_KEY is set: the embedded simulated provider answers, at ${server.url}`,
    summary: Effect.map(server.stats, (stats) => `The embedded provider saw ${Provider.summary(stats)}`)
  }
  return answering
})
