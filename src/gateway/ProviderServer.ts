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
 * import { ProviderServer } from "floodgate/gateway"
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
import type { RawMessageStreamEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as ByteSize from "effect/ByteSize"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import type * as HttpServerError from "effect/http/HttpServerError"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createServer } from "node:http"
import { invalid } from "../internal/invalid.ts"
import type { CountParams, Params } from "../LlmProvider.ts"
import * as engine from "../testing/engine.ts"
import * as headers from "../testing/headers.ts"
import type * as ProviderSim from "../testing/ProviderSim.ts"
import * as simulator from "../testing/simulator.ts"
import * as api from "./request.ts"

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
>()("floodgate/gateway/ProviderServer/ProviderServer") {}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

const encoder = new TextEncoder()

/** An event as it is sent; the first content is followed by a ping, as Anthropic does. */
const sse = (event: RawMessageStreamEvent): Uint8Array => {
  const ping = event.type === "content_block_start" ? `event: ping\ndata: {"type":"ping"}\n\n` : ""
  return encoder.encode(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n${ping}`)
}

const hasKey = ({ headers }: HttpServerRequest.HttpServerRequest): boolean =>
  (headers["x-api-key"] ?? "").trim() !== "" || /^bearer\s+\S/i.test(headers["authorization"] ?? "")

/** Ends the connection without another byte. */
const destroy = (request: HttpServerRequest.HttpServerRequest) =>
  Effect.sync(() => {
    NodeHttpServerRequest.toServerResponse(request).destroy()
  })

/**
 * Starts a provider server that listens until its scope closes. Throws a `RangeError` for options that make no sense.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<ProviderServer["Service"], HttpServerError.ServeError, Scope.Scope> {
  const { host = "127.0.0.1", maxBodyBytes = defaultMaxBodyBytes, port = 0, timeScale: scale = 1 } = options
  if (!(scale > 0 && scale < Infinity)) invalid("ProviderServer.timeScale", "a finite number > 0", scale)
  const mode = options.headers ?? "rounded"
  const self = simulator.make(options)
  const state = self.engine

  const clock = yield* Clock.Clock
  const start = clock.currentTimeNanosUnsafe()
  /** The provider's time: milliseconds since it started. */
  const now = (): number => (Number(clock.currentTimeNanosUnsafe() - start) / 1e6) * scale
  const wall = (): headers.Wall => ({ epochMillis: clock.currentTimeMillisUnsafe(), scale })
  const sleepUntil = (at: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      const wait = (at - now()) / scale
      return wait <= 0 ? Effect.void : Effect.sleep(wait)
    })
  /** A timer may fire a moment early, and the call must not count as aborted for that. */
  const finish = (call: engine.Call) =>
    Effect.andThen(
      sleepUntil(call.endsAt),
      Effect.sync(() => engine.advance(state, call.endsAt))
    )

  let served = 0
  const failure = (
    error: api.ApiError & { readonly errorCode?: string | undefined },
    more: Record<string, string> = {}
  ) => {
    const requestId = more["request-id"] ?? `req_http_${(++served).toString().padStart(8, "0")}`
    return HttpServerResponse.jsonUnsafe(headers.errorBody(error, requestId), {
      status: error.status,
      headers: { ...more, "request-id": requestId }
    })
  }

  const told = (model: string): Record<string, string> =>
    headers.rateLimits(mode, engine.figures(state, now(), model), wall())

  /** The body as JSON, or the answer to one that is none. */
  const readBody = (problemOf: (body: unknown) => string | undefined) =>
    Effect.gen(function* () {
      const request = yield* HttpServerRequest.HttpServerRequest
      if (!hasKey(request)) return yield* Effect.fail(api.unauthenticated)
      if (Number(request.headers["content-length"] ?? 0) > maxBodyBytes) {
        return yield* Effect.fail(api.tooLarge(maxBodyBytes))
      }
      const text = yield* Effect.provideService(
        request.text,
        HttpServerRequest.MaxBodySize,
        ByteSize.bytes(maxBodyBytes)
      ).pipe(
        Effect.mapError(({ reason }) =>
          reason._tag === "RequestParseError" && reason.reason === "BodyTooLarge"
            ? api.tooLarge(maxBodyBytes)
            : api.invalid("The body could not be read")
        )
      )
      const body = yield* Effect.try({
        try: (): unknown => JSON.parse(text),
        catch: () => api.invalid("The body is not valid JSON")
      })
      const problem = problemOf(body)
      return problem === undefined ? body : yield* Effect.fail(api.invalid(problem))
    })

  /** The call of an admitted request, or the answer to any other. */
  const admitted = Effect.fnUntraced(function* (
    answer: simulator.Answer,
    request: HttpServerRequest.HttpServerRequest
  ) {
    const { decision, params, requestId } = answer
    switch (decision._tag) {
      case "Refused":
        yield* destroy(request)
        return HttpServerResponse.empty()
      case "Rejected": {
        const limits = decision.status === 429 ? told(params.model) : {}
        const wait = headers.retryAfter(mode, decision.retryAfterMillis, wall())
        yield* sleepUntil(decision.answersAt)
        return failure(decision, { ...limits, ...wait, "request-id": requestId })
      }
      case "Accepted": {
        if (decision.call.fault !== "timeout") return decision.call
        yield* finish(decision.call)
        return failure(api.timedOut, { "request-id": requestId })
      }
    }
  })

  const messages = Effect.gen(function* () {
    const body = yield* readBody(api.createProblem)
    const request = yield* HttpServerRequest.HttpServerRequest
    const params = body as Params
    // Decides how the answer is sent, and is no part of what is asked.
    const streams = (body as { readonly stream?: unknown }).stream === true
    const answer = yield* Effect.acquireRelease(
      Effect.sync(() => simulator.ask(self, now(), params)),
      ({ decision }) =>
        Effect.sync(() => {
          if (decision._tag === "Accepted") engine.abort(state, now(), decision.call)
        })
    )
    const streamHeaders = streams ? told(params.model) : {}
    const call = yield* admitted(answer, request)
    if (HttpServerResponse.isHttpServerResponse(call)) return call
    const broken = Effect.andThen(destroy(request), Effect.never)

    if (!streams) {
      if (call.fault === "stall") return yield* Effect.never
      yield* finish(call)
      if (call.fault !== undefined) return yield* broken
      return HttpServerResponse.jsonUnsafe(simulator.message(self, answer), {
        headers: { ...told(params.model), "request-id": answer.requestId }
      })
    }

    yield* sleepUntil(call.firstTokenAt)
    const events = Stream.fromIterable(simulator.events(self, answer, call)).pipe(
      Stream.mapEffect(({ at, event }) => Effect.as(sleepUntil(at), sse(event)))
    )
    const ending: Effect.Effect<void> =
      call.fault === "stall" ? Effect.never : Effect.andThen(finish(call), call.fault === "cut" ? broken : Effect.void)
    return HttpServerResponse.stream(Stream.concat(events, Stream.drain(Stream.fromEffect(ending))), {
      contentType: "text/event-stream; charset=utf-8",
      headers: { ...streamHeaders, "cache-control": "no-cache", "request-id": answer.requestId }
    })
  })

  const countTokens = Effect.map(readBody(api.countProblem), (body) => {
    state.counters.countTokens++
    return HttpServerResponse.jsonUnsafe(
      { input_tokens: simulator.countTokens(self, body as CountParams) },
      { headers: { "request-id": `req_http_${(++served).toString().padStart(8, "0")}` } }
    )
  })

  const answered = <R>(effect: Effect.Effect<HttpServerResponse.HttpServerResponse, api.ApiError, R>) =>
    effect.pipe(
      Effect.catch((error) => Effect.succeed(failure(error))),
      Effect.catchDefect(() => Effect.succeed(failure(api.failed)))
    )

  const stats = Effect.sync(() => engine.stats(state, now()))
  const router = yield* HttpRouter.make
  yield* router.add("POST", "/v1/messages", answered(messages))
  yield* router.add("POST", "/v1/messages/count_tokens", answered(countTokens))
  yield* router.add("GET", "/healthz", HttpServerResponse.jsonUnsafe({ status: "ok" }))
  yield* router.add(
    "GET",
    "/stats",
    Effect.map(stats, (stats) => HttpServerResponse.jsonUnsafe({ ...stats, nowMillis: state.now, timeScale: scale }))
  )
  yield* router.add("*", "/*", (request) => Effect.succeed(failure(api.notFound(request.method, request.url))))

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
      engine.advance(state, now())
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
