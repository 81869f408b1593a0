/** The sources of advice and forecasts: a running gateway, or limits that the user states. */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Flag from "effect/cli/Flag"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import { Advise, AdviceFigures, Json, baseUrl, Advice, LimitWords } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import type * as Limits from "floodgate/Limits"
import { innermost } from "@floodgate/gateway/internal/errors"
import * as Exit from "@floodgate/gateway/internal/exit"
import { optional } from "@floodgate/gateway/internal/flags"
import * as Redis from "@floodgate/gateway/internal/redis"

/** The topic of a question. */
export type Topic = "advice" | "forecast" | "status"

/** Answers questions about agents. */
export interface AdviceSource {
  /** Names the source of its answers. */
  readonly name: string
  readonly ask: (topic: Topic, figures?: AdviceFigures.AdviceFigures) => Effect.Effect<unknown, Exit.CommandError>
}

// -----------------------------------------------------------------------------
// A gateway
// -----------------------------------------------------------------------------

/** The address of a gateway that is started without flags. */
export const usualAddress = "http://127.0.0.1:8788"
/** The expectation that an address of a gateway must meet. */
export const expected = `an address such as ${usualAddress}`

export const isAddress = (text: string): boolean => baseUrl(text) !== undefined

/** The flag for the gateway to ask. */
export const gatewayFlag = Flag.String("gateway").pipe(
  Flag.filter(isAddress, () => expected),
  Flag.withMetavar("<url>"),
  optional(`The gateway to ask (default: FLOODGATE_GATEWAY_URL, or ${usualAddress})`)
)

/** Which gateway to ask, and with which token. */
export interface GatewayAddress {
  readonly url: string
  readonly token: Redacted.Redacted<string> | undefined
}

/** The address of the flag or of the environment, with the token of the environment. */
export const addressOf = (given: Option.Option<string>): Effect.Effect<GatewayAddress, Exit.CommandError> =>
  Effect.gen(function* () {
    const token = yield* Config.option(Config.Redacted("FLOODGATE_GATEWAY_TOKEN"))
    const variable = yield* Config.option(Config.String("FLOODGATE_GATEWAY_URL"))
    const url = Option.getOrElse(given, () => Option.getOrElse(variable, () => usualAddress))
    if (!isAddress(url)) {
      const message = `FLOODGATE_GATEWAY_URL: expected ${expected}, got something else (not shown)`
      return yield* Exit.failure("usage", message)
    }
    return {
      url: url.replace(/\/+$/, ""),
      token: Option.getOrUndefined(token)
    }
  }).pipe(Effect.mapError(({ message }) => Exit.failure("usage", message)))

/** A gateway answers at once, unless it is overloaded. */
const timeout = Duration.seconds(8)

const queryOf = (figures: AdviceFigures.AdviceFigures): string => {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(figures)) if (value !== undefined) query.set(name, String(value))
  return query.size === 0 ? "" : `?${query}`
}

/** Explains why a gateway did not answer a question, and what to do. */
const refused = (address: string, status: number, body: string): Exit.CommandError => {
  const error = Json.at(Json.parseJson(body), "error")
  if (status === 401) {
    const isAdmin = typeof error === "string" && error.startsWith("The admin token")
    const variable = isAdmin ? "FLOODGATE_GATEWAY_ADMIN_TOKEN" : "FLOODGATE_GATEWAY_TOKEN"
    return Exit.failure(
      "usage",
      `The gateway at ${address} requires its ${isAdmin ? "admin " : ""}token: set ${variable}`
    )
  }
  if (typeof error === "string") return Exit.failure("usage", error)
  const [first = ""] = body.split("\n")
  if (status === 403) return Exit.failure("usage", first)
  return Exit.failure(
    "network",
    `${address} answers ${status}: is it a Floodgate gateway, and not older than this command?`
  )
}

/** Sends a request to a running gateway, and returns its JSON. If nothing answers, it fails with the exit code of the network. */
export const exchange = (
  { token, url }: GatewayAddress,
  request: HttpClientRequest.HttpClientRequest,
  /** A hint for when no gateway answers. */
  otherwise: string
): Effect.Effect<Readonly<Record<string, unknown>>, Exit.CommandError> => {
  const address = Redis.shown(url)
  const headers = token === undefined ? {} : { "x-floodgate-token": Redacted.value(token) }
  const away = (why: string): Exit.CommandError =>
    Exit.failure("network", `No gateway answers at ${address} (${why}): ${otherwise}`)
  return request.pipe(
    HttpClientRequest.prependUrl(`${url}/floodgate/`),
    HttpClientRequest.setHeaders(headers),
    HttpClient.execute,
    Effect.flatMap((response) => Effect.map(response.text, (text) => ({ status: response.status, text }))),
    Effect.timeout(timeout),
    Effect.mapError((error) => away(error._tag === "TimeoutError" ? "no answer in time" : innermost(error))),
    Effect.flatMap(({ status, text }) => {
      const body = Json.parseJson(text)
      return status === 200 && Json.isRecord(body) ? Effect.succeed(body) : Effect.fail(refused(address, status, text))
    }),
    Effect.provide(FetchHttpClient.layer)
  )
}

const orLimits = "start one with `floodgate gateway`, or state the limits, as in --tokens-per-second 60000"

/** Asks a running gateway. */
export const gateway = (address: GatewayAddress): AdviceSource => ({
  name: `the gateway at ${Redis.shown(address.url)}`,
  ask: (topic, figures = {}) => exchange(address, HttpClientRequest.get(`${topic}${queryOf(figures)}`), orLimits)
})

// -----------------------------------------------------------------------------
// Stated limits
// -----------------------------------------------------------------------------

const nameOf = (limits: Limits.Limits | undefined, concurrency: number | undefined): string => {
  const stated = [
    ...(limits === undefined ? [] : [LimitWords.limitsText(limits)]),
    ...(concurrency === undefined ? [] : [`${Words.counted(concurrency, "call")} at once`])
  ]
  return stated.length === 0 ? "no limits (none are stated)" : `the stated limits (${stated.join(", ")})`
}

/** Answers from limits that nobody uses yet. */
export const stated = (
  limits: Limits.Limits | undefined,
  concurrency: number | undefined
): Effect.Effect<AdviceSource, never, Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Layer.build(Agents.layer.pipe(Layer.provide(Budget.layer({ limits, concurrency }))))
    // JSON has null for infinite amounts.
    const budget = Effect.map(
      Effect.flatMap(Budget.TokenBudget, ({ status }) => status),
      (status): unknown => JSON.parse(JSON.stringify(status))
    )
    const answer = (topic: Topic, figures: AdviceFigures.AdviceFigures) => {
      if (topic === "status") return budget
      const question = AdviceFigures.questionOf(topic, figures)
      return topic === "forecast"
        ? Advise.foretold(topic, question)
        : Effect.map(Advise.advise(topic, question), Advice.plain)
    }
    return {
      name: nameOf(limits, concurrency),
      ask: (topic, figures = {}) =>
        Effect.suspend((): Effect.Effect<unknown, { readonly message: string }, Budget.TokenBudget> =>
          answer(topic, figures)
        ).pipe(
          Effect.mapError(({ message }) => Exit.failure("usage", message)),
          Effect.catchDefect((defect) =>
            defect instanceof RangeError ? Effect.fail(Exit.failure("usage", defect.message)) : Effect.die(defect)
          ),
          Effect.provideContext(context)
        )
    }
  })
