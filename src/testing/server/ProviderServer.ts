/**
 * The simulated provider over real HTTP: the Messages API with rate limits, latency and faults, for any client.
 *
 * It is the engine of `floodgate/testing` behind `POST /v1/messages` (JSON, or events when `stream` is true),
 * `POST /v1/messages/count_tokens`, `GET /healthz` and `GET /stats`. The official SDK needs only its `baseURL`.
 *
 * **When to use**
 *
 * To run a whole program, in any language, against limits of your choice without a key and without cost. Tests of Effect
 * code are faster and exact with `ProviderSim`, which needs no network and runs under `TestClock`.
 *
 * **Details**
 *
 * - Any key is accepted, as `x-api-key` or `authorization: Bearer`, and none is a 401.
 * - With `timeScale` X the provider's time runs X times faster. Clients see that in their own time: `retry-after` and
 *   resets are simulated spans divided by X, limits per minute are multiplied by X, bursts stay. A wait that is no whole
 *   number of seconds is sent as a fraction, and in `retry-after-ms` besides.
 * - A client that disconnects aborts its call. `GET /stats` counts it as aborted.
 * - Bodies above 32 MB are refused with 413, as Anthropic does.
 * - A refused connection can only be acted: the server accepts it and closes it without an answer.
 *
 * **Gotchas**
 *
 * It has no protection beyond limits on sizes. It listens on the loopback interface unless `host` says otherwise.
 *
 * **Example** (Ask it something)
 *
 * ```ts doctest
 * import Anthropic from "@anthropic-ai/sdk"
 * import * as Effect from "effect/Effect"
 * import { ProviderServer } from "floodgate/testing/server"
 *
 * const program = Effect.gen(function* () {
 *   const server = yield* ProviderServer.ProviderServer
 *   const client = new Anthropic({ baseURL: server.url, apiKey: "any", maxRetries: 0 })
 *   const message = yield* Effect.promise(() =>
 *     client.messages.create({
 *       model: "claude-sonnet-5",
 *       max_tokens: 100,
 *       messages: [{ role: "user", content: "Hello" }]
 *     })
 *   )
 *   return message.usage.input_tokens
 * }).pipe(
 *   Effect.provide(ProviderServer.layer({ limits: { requests: { perMinute: 50 } }, timeScale: 100 }))
 * )
 *
 * await Effect.runPromise(program) // => 2
 * ```
 *
 * @since 0.1.0
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import type * as HttpServerError from "effect/http/HttpServerError"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createServer } from "node:http"
import type { CountParams, Params } from "../../LlmProvider.ts"
import * as Engine from "../engine.ts"
import * as Headers from "../headers.ts"
import type { HeaderMode } from "../models.ts"
import * as OptionChecks from "../options.ts"
import type * as ProviderSim from "../ProviderSim.ts"
import * as Simulator from "../simulator.ts"
import * as Validity from "../validity.ts"
import * as Http from "./http.ts"
import * as Request from "./request.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * The simulated provider, and where it listens.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends ProviderSim.Options {
  /**
   * The address to listen on: the loopback interface by default, because nothing here protects from others.
   *
   * @default "127.0.0.1"
   */
  readonly host?: string | undefined
  /**
   * The port; 0 takes a free one, which `url` then names.
   *
   * @default 0
   */
  readonly port?: number | undefined
  /**
   * How many times faster than real time the provider's time passes.
   *
   * @default 1
   */
  readonly timeScale?: number | undefined
  /**
   * The largest body in bytes.
   *
   * @default 33_554_432
   */
  readonly maxBodyBytes?: number | undefined
}

const check = OptionChecks.fields<Options>({
  ...OptionChecks.simulated,
  host: OptionChecks.host,
  port: OptionChecks.number(
    "an integer from 0 to 65535",
    (port) => Number.isInteger(port) && port >= 0 && port < 65_536
  ),
  timeScale: OptionChecks.positive,
  maxBodyBytes: OptionChecks.number("an integer > 0", (bytes) => Number.isInteger(bytes) && bytes > 0)
})

/** Anthropic's limit for the Messages API. */
const defaultMaxBodyBytes = 32 * 1_024 * 1_024

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

/**
 * A running provider server.
 *
 * @category services
 * @since 0.1.0
 */
export class ProviderServer extends Context.Service<
  ProviderServer,
  {
    /** Where it listens, such as `http://127.0.0.1:8080`: the `baseURL` of a client. */
    readonly url: string
    /** Every request, in the order of arrival. Times are milliseconds of the provider's time since it started. */
    readonly log: Effect.Effect<ReadonlyArray<ProviderSim.Entry>>
    /** The counters, which `GET /stats` also gives. */
    readonly stats: Effect.Effect<ProviderSim.Stats>
  }
>()("floodgate/testing/server/ProviderServer/ProviderServer") {}

// -----------------------------------------------------------------------------
// The simulated provider in real time
// -----------------------------------------------------------------------------

/** A simulated provider whose time passes by a clock. */
interface Playing {
  readonly self: Simulator.Simulator
  readonly mode: HeaderMode
  /** How many times faster its time passes. */
  readonly scale: number
  /** The provider's time: milliseconds since it started. */
  readonly now: () => number
  /** Where the provider's clock stands in the caller's time. */
  readonly wall: () => Headers.Wall
  readonly sleepUntil: (at: number) => Effect.Effect<void>
  /** The name of a request that never reached the simulation. */
  readonly nextId: () => string
}

const play = (options: ProviderSim.Options, scale: number, clock: Clock.Clock): Playing => {
  const start = clock.currentTimeNanosUnsafe()
  const now = (): number => (Number(clock.currentTimeNanosUnsafe() - start) / 1e6) * scale
  let served = 0
  return {
    self: Simulator.make(options),
    mode: options.headers ?? "rounded",
    scale,
    now,
    wall: () => ({ epochMillis: clock.currentTimeMillisUnsafe(), scale }),
    sleepUntil: (at) =>
      Effect.suspend(() => {
        const wait = (at - now()) / scale
        return wait <= 0 ? Effect.void : Effect.sleep(wait)
      }),
    nextId: () => `req_http_${(++served).toString().padStart(8, "0")}`
  }
}

/** Waits for a call's end. A timer may fire a moment early, and the call must not count as aborted for that. */
const finish = ({ self, sleepUntil }: Playing, call: Engine.Call): Effect.Effect<void> =>
  Effect.andThen(
    sleepUntil(call.endsAt),
    Effect.sync(() => Engine.advance(self.engine, call.endsAt))
  )

const limitsTold = ({ mode, now, self, wall }: Playing, model: string): Record<string, string> =>
  Headers.rateLimits(mode, Engine.figures(self.engine, now(), model), wall())

// -----------------------------------------------------------------------------
// Endpoints
// -----------------------------------------------------------------------------

/** The call of an admitted request, or the answer to any other. */
const admitted = Effect.fnUntraced(function* (playing: Playing, answer: Simulator.Answer) {
  const { decision, params, requestId } = answer
  switch (decision._tag) {
    case "Refused":
      yield* Http.destroy
      return HttpServerResponse.empty()
    case "Rejected": {
      const limits = decision.status === 429 ? limitsTold(playing, params.model) : {}
      const wait = Headers.retryAfter(playing.mode, decision.retryAfterMillis, playing.wall())
      yield* playing.sleepUntil(decision.answersAt)
      return Http.failure(decision, requestId, { ...limits, ...wait })
    }
    case "Accepted": {
      if (decision.call.fault !== "timeout") return decision.call
      yield* finish(playing, decision.call)
      return Http.failure(Request.timedOut, requestId)
    }
  }
})

/** A connection that breaks: nothing more comes of it. */
const broken = Effect.andThen(Http.destroy, Effect.never)

const whole = Effect.fnUntraced(function* (playing: Playing, answer: Simulator.Answer, call: Engine.Call) {
  if (call.fault === "stall") return yield* Effect.never
  yield* finish(playing, call)
  if (call.fault !== undefined) return yield* broken
  return HttpServerResponse.jsonUnsafe(Simulator.message(playing.self, answer), {
    headers: { ...limitsTold(playing, answer.params.model), "request-id": answer.requestId }
  })
})

const streamed = Effect.fnUntraced(function* (
  playing: Playing,
  answer: Simulator.Answer,
  call: Engine.Call,
  limits: Record<string, string>
) {
  yield* playing.sleepUntil(call.firstTokenAt)
  const events = Stream.fromIterable(Simulator.events(playing.self, answer, call)).pipe(
    Stream.mapEffect(({ at, event }) => Effect.as(playing.sleepUntil(at), Http.sse(event)))
  )
  const last = call.fault === "cut" ? broken : Effect.void
  const ending = call.fault === "stall" ? Effect.never : Effect.andThen(finish(playing, call), last)
  const context = yield* Effect.context<HttpServerRequest.HttpServerRequest>()
  const body = Stream.concat(events, Stream.drain(Stream.fromEffect(Effect.provideContext(ending, context))))
  return HttpServerResponse.stream(body, {
    contentType: "text/event-stream; charset=utf-8",
    headers: { ...limits, "cache-control": "no-cache", "request-id": answer.requestId }
  })
})

const messages = Effect.fnUntraced(function* (playing: Playing, maxBodyBytes: number) {
  const body = yield* Http.readBody(Validity.createProblem, maxBodyBytes)
  const params = body as Params
  // Decides how the answer is sent, and is no part of what is asked.
  const streams = (body as { readonly stream?: unknown }).stream === true
  const answer = yield* Effect.acquireRelease(
    Effect.sync(() => Simulator.ask(playing.self, playing.now(), params)),
    ({ decision }) =>
      Effect.sync(() => {
        if (decision._tag === "Accepted") Engine.abort(playing.self.engine, playing.now(), decision.call)
      })
  )
  // The headers of a stream are sent before its body, and know nothing of this answer's output.
  const limits = streams ? limitsTold(playing, params.model) : {}
  const call = yield* admitted(playing, answer)
  if (HttpServerResponse.isHttpServerResponse(call)) return call
  return yield* streams ? streamed(playing, answer, call, limits) : whole(playing, answer, call)
})

const countTokens = ({ nextId, self }: Playing, maxBodyBytes: number) =>
  Effect.map(Http.readBody(Validity.countProblem, maxBodyBytes), (body) => {
    self.engine.counters.countTokens++
    return HttpServerResponse.jsonUnsafe(
      { input_tokens: Simulator.countTokens(self, body as CountParams) },
      { headers: { "request-id": nextId() } }
    )
  })

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/**
 * Starts a provider server that listens until its scope closes. Throws a `RangeError` for options that make no sense.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<ProviderServer["Service"], HttpServerError.ServeError, Scope.Scope> {
  check("ProviderServer", options)
  const { host = "127.0.0.1", maxBodyBytes = defaultMaxBodyBytes, port = 0, timeScale = 1, ...simulated } = options
  const playing = play(simulated, timeScale, yield* Clock.Clock)
  const { nextId, now } = playing
  const state = playing.self.engine
  const answered = <R>(effect: Effect.Effect<HttpServerResponse.HttpServerResponse, Request.ApiError, R>) =>
    effect.pipe(
      Effect.catch((error) => Effect.sync(() => Http.failure(error, nextId()))),
      Effect.catchDefect(() => Effect.sync(() => Http.failure(Request.failed, nextId())))
    )
  const stats = Effect.sync(() => Engine.stats(state, now()))
  const router = yield* HttpRouter.make
  yield* router.add("POST", "/v1/messages", answered(messages(playing, maxBodyBytes)))
  yield* router.add("POST", "/v1/messages/count_tokens", answered(countTokens(playing, maxBodyBytes)))
  yield* router.add("GET", "/healthz", HttpServerResponse.jsonUnsafe({ status: "ok" }))
  yield* router.add(
    "GET",
    "/stats",
    Effect.map(stats, (stats) => HttpServerResponse.jsonUnsafe({ ...stats, nowMillis: state.now, timeScale }))
  )
  yield* router.add("*", "/*", ({ method, url }) =>
    Effect.sync(() => Http.failure(Request.notFound(method, url), nextId()))
  )

  const server = yield* NodeHttpServer.make(
    // Longer than clients keep idle connections, so that none is closed under a request.
    () => createServer({ keepAliveTimeout: 120_000 }),
    { host, port, backlog: 4_096, gracefulShutdownTimeout: 0 }
  )
  yield* server.serve(router.asHttpEffect())
  return {
    url: HttpServer.formatAddress(server.address),
    stats,
    log: Effect.sync(() => {
      Engine.advance(state, now())
      return [...state.log]
    })
  }
})

// -----------------------------------------------------------------------------
// Layers
// -----------------------------------------------------------------------------

/**
 * A provider server that listens as long as the layer lives.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<ProviderServer, HttpServerError.ServeError> =>
  Layer.effect(ProviderServer, make(options))
