/**
 * The simulated provider over real HTTP: four protocols with rate limits, latency and faults, for any client.
 *
 * It is the engine of `floodgate/testing` behind Anthropic's Messages (with `count_tokens` and message threads),
 * OpenAI's Chat Completions, Responses (with `previous_response_id` and conversations) and embeddings, and Gemini's
 * `generateContent`, whole and streamed. Official SDKs need only its URL as their base URL. `GET /healthz` answers while it runs, and `GET /stats`
 * returns its counters.
 *
 * **When to use**
 *
 * Use it to run a whole program, in any language, against limits of your choice, without a key and without cost. For
 * Effect code, tests with `ProviderSim` are faster and exact: it needs no network and runs under `TestClock`.
 *
 * **Details**
 *
 * - The path selects the protocol, with or without its version: `/v1/messages`, `/messages`, `/v1/chat/completions`.
 *   Other paths give a 404.
 * - All protocols share the limits, and each reports them as its provider does: in `anthropic-ratelimit-*` or
 *   `x-ratelimit-*` headers, and Gemini in the error. Errors have the provider's own status, code and form.
 * - The option `reply` may call tools. It gets every request in the terms of the Messages API; where the request sets no
 *   limit on the output, `max_tokens` is infinite.
 * - Answers that can be continued are stored, the last 10,000 of them.
 * - Any key is accepted, in any of the providers' headers, and none is a 401.
 * - With `timeScale` X the provider's time runs X times faster. Clients see that in their own time: `retry-after` and
 *   resets are simulated spans divided by X, limits per minute are multiplied by X, bursts stay. A wait that is no whole
 *   number of seconds is sent as a fraction, and in `retry-after-ms` besides.
 * - A client that disconnects aborts its call. `GET /stats` counts it as aborted.
 * - Bodies above 32 MB are refused with 413, as Anthropic does.
 * - A refused connection can only be acted: the server accepts it and closes it without an answer.
 *
 * **Gotchas**
 *
 * It has no protection except size limits. It listens on the loopback interface unless `host` names another.
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
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
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
import type * as Limits from "../../Limits.ts"
import { headerReader } from "../../protocol/headers.ts"
import { match, type Route } from "../../protocol/protocol.ts"
import * as Engine from "../engine.ts"
import * as Headers from "../headers.ts"
import type { HeaderMode } from "../models.ts"
import * as OptionChecks from "../options.ts"
import type * as ProviderSim from "../ProviderSim.ts"
import * as Simulator from "../simulator.ts"
import * as Conversations from "./conversations.ts"
import { anthropic } from "./dialects/anthropic.ts"
import * as Dialect from "./dialects/dialect.ts"
import { gemini } from "./dialects/gemini.ts"
import { openaiChat } from "./dialects/openaiChat.ts"
import { openaiEmbeddings } from "./dialects/openaiEmbeddings.ts"
import { openaiResponses } from "./dialects/openaiResponses.ts"
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
   * The address to listen on. The default is the loopback interface, because the server has no protection.
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
  readonly conversations: Conversations.Conversations
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
    nextId: () => `req_http_${(++served).toString().padStart(8, "0")}`,
    conversations: Conversations.make()
  }
}

/** Waits for a call's end. A timer may fire a moment early, and the call must not count as aborted for that. */
const finish = ({ self, sleepUntil }: Playing, call: Engine.Call): Effect.Effect<void> =>
  Effect.andThen(
    sleepUntil(call.endsAt),
    Effect.sync(() => Engine.advance(self.engine, call.endsAt))
  )

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/** A request that was understood: in which protocol, and what it asks. */
interface Asked {
  readonly dialect: Dialect.Dialect
  readonly read: Dialect.Read
  readonly exchange: Omit<Dialect.Exchange, "requestId">
  readonly query: URLSearchParams
  readonly streams: boolean
}

/** The headers that tell of the limits, under the names that the protocol has for them. */
const limitsTold = (
  { mode, now, self, wall }: Playing,
  { limitHeaders }: Dialect.Dialect,
  model: string
): Record<string, string> => {
  if (limitHeaders === undefined) return {}
  const figures = Engine.figures(self.engine, now(), model)
  if (limitHeaders === "anthropic") return Headers.rateLimits(mode, figures, wall())
  // OpenAI rounds nothing.
  return Headers.rateLimits(mode === "rounded" ? "openai" : mode, figures, wall(), "openai")
}

const requestIdOf = ({ requestIdHeader }: Dialect.Dialect, requestId: string): Record<string, string> =>
  requestIdHeader === undefined ? {} : { [requestIdHeader]: requestId }

const failure = (
  dialect: Dialect.Dialect,
  failed: Dialect.Failure,
  requestId: string,
  headers: Record<string, string> = {}
): HttpServerResponse.HttpServerResponse => {
  const { body, status } = dialect.failure(failed, requestId)
  return HttpServerResponse.jsonUnsafe(body, { status, headers: { ...headers, ...requestIdOf(dialect, requestId) } })
}

/** What a rejection says of the limit that was reached, and of the wait, in the caller's time. */
const rejectionOf = (
  { mode, now, self, wall }: Playing,
  { entry, retryAfterMillis, ...rejected }: Engine.Rejected
): Dialect.Failure => {
  const dimension = entry.rejectedBy as Limits.Dimension
  const figure = mode === "none" ? undefined : Engine.figures(self.engine, now(), entry.model)[dimension]
  return {
    ...rejected,
    limit: figure && { dimension, perMinute: Math.round(figure.limit * wall().scale) },
    retryAfterMillis: Headers.retryAfterMillis(mode, retryAfterMillis, wall())
  }
}

/** The call of an admitted request, or the answer to any other. */
const admitted = Effect.fnUntraced(function* (playing: Playing, dialect: Dialect.Dialect, answer: Simulator.Answer) {
  const { decision, params, requestId } = answer
  switch (decision._tag) {
    case "Refused":
      yield* Http.destroy
      return HttpServerResponse.empty()
    case "Rejected": {
      const limits = decision.status === 429 ? limitsTold(playing, dialect, params.model) : {}
      const { mode, wall } = playing
      const wait = dialect.limitHeaders === undefined ? {} : Headers.retryAfter(mode, decision.retryAfterMillis, wall())
      const rejection = rejectionOf(playing, decision)
      yield* playing.sleepUntil(decision.answersAt)
      return failure(dialect, rejection, requestId, { ...limits, ...wait })
    }
    case "Accepted": {
      if (decision.call.fault !== "timeout") return decision.call
      yield* finish(playing, decision.call)
      return failure(dialect, Request.timedOut, requestId)
    }
  }
})

/** Stores the conversation of an answer that was given in full. */
const keep = ({ conversations }: Playing, { dialect, read }: Asked, message: Message): void => {
  for (const [id, conversation] of dialect.stored(message, read)) conversations.keep(id, conversation)
}

const whole = Effect.fnUntraced(function* (
  playing: Playing,
  asked: Asked,
  answer: Simulator.Answer,
  call: Engine.Call
) {
  if (call.fault === "stall") return yield* Effect.never
  yield* finish(playing, call)
  if (call.fault !== undefined && call.fault !== "malformed") return yield* Http.broken
  const { dialect, exchange } = asked
  const { params, requestId } = answer
  const message = Simulator.message(playing.self, answer)
  const body = JSON.stringify(dialect.whole(message, { ...exchange, requestId }))
  const headers = { ...limitsTold(playing, dialect, params.model), ...requestIdOf(dialect, requestId) }
  const given = { contentType: "application/json", headers }
  if (call.fault === "malformed") return HttpServerResponse.text(body.slice(0, body.length / 2), given)
  keep(playing, asked, message)
  return HttpServerResponse.text(body, given)
})

const encoder = new TextEncoder()

/** An event that is no JSON, where the last events should be. */
const garbled = encoder.encode('data: {"type":"message_de\n\n')

const streamed = Effect.fnUntraced(function* (
  playing: Playing,
  asked: Asked,
  answer: Simulator.Answer,
  call: Engine.Call,
  limits: Record<string, string>
) {
  yield* playing.sleepUntil(call.firstTokenAt)
  const { dialect, exchange, query } = asked
  const { requestId } = answer
  const { contentType, write } = dialect.stream({ ...exchange, requestId }, query)
  const events = Stream.fromIterable(Simulator.events(playing.self, answer, call)).pipe(
    Stream.mapEffect(({ at, event }) =>
      Effect.map(playing.sleepUntil(at), () => {
        if (event.type === "message_stop") keep(playing, asked, Simulator.message(playing.self, answer))
        return encoder.encode(write(event))
      })
    ),
    Stream.filter((bytes) => bytes.length > 0)
  )
  const last = call.fault === "cut" ? Http.broken : Effect.void
  const ending = call.fault === "stall" ? Effect.never : Effect.andThen(finish(playing, call), last)
  const context = yield* Effect.context<HttpServerRequest.HttpServerRequest>()
  const end = Stream.fromEffect(Effect.provideContext(ending, context))
  const body = Stream.concat(events, call.fault === "malformed" ? Stream.map(end, () => garbled) : Stream.drain(end))
  return HttpServerResponse.stream(body, {
    contentType,
    headers: { ...limits, "cache-control": "no-cache", ...requestIdOf(dialect, requestId) }
  })
})

// -----------------------------------------------------------------------------
// Endpoints
// -----------------------------------------------------------------------------

const dialects: ReadonlyArray<Dialect.Dialect> = [anthropic, openaiEmbeddings, openaiChat, openaiResponses, gemini]
const protocols = dialects.map(({ protocol }) => protocol)

const generate = Effect.fnUntraced(function* (playing: Playing, asked: Asked, agent: string | undefined) {
  const { dialect, read, streams } = asked
  const answer = yield* Effect.acquireRelease(
    Effect.sync(() => Simulator.ask(playing.self, playing.now(), read.params, agent)),
    ({ decision }) =>
      Effect.sync(() => {
        if (decision._tag === "Accepted") Engine.abort(playing.self.engine, playing.now(), decision.call)
      })
  )
  // The headers of a stream are sent before its body, and know nothing of this answer's output.
  const limits = streams ? limitsTold(playing, dialect, read.params.model) : {}
  const call = yield* admitted(playing, dialect, answer)
  if (HttpServerResponse.isHttpServerResponse(call)) return call
  return yield* streams ? streamed(playing, asked, answer, call, limits) : whole(playing, asked, answer, call)
})

const countTokens = ({ nextId, self }: Playing, dialect: Dialect.Dialect, { params }: Dialect.Read) => {
  self.engine.counters.countTokens++
  return HttpServerResponse.jsonUnsafe(dialect.counted(Simulator.countTokens(self, params)), {
    headers: requestIdOf(dialect, nextId())
  })
}

/** Begins a conversation without an answer, which takes nothing of the limits. */
const begin = (
  { conversations, nextId, wall }: Playing,
  dialect: Dialect.Dialect,
  route: Route,
  body: Dialect.Body
) => {
  const requestId = nextId()
  const createdAt = Math.floor(wall().epochMillis / 1_000)
  const begun = dialect.begin?.(body, route, { createdAt, requestId })
  if (begun === undefined || !("conversation" in begun))
    return Effect.fail(begun ?? Request.notFound("POST", route.path))
  conversations.keep(begun.id, begun.conversation)
  return Effect.succeed(HttpServerResponse.jsonUnsafe(begun.body, { headers: requestIdOf(dialect, requestId) }))
}

/** Serves one request of a protocol. */
const served = Effect.fnUntraced(function* (
  playing: Playing,
  dialect: Dialect.Dialect,
  route: Route,
  request: HttpServerRequest.HttpServerRequest,
  maxBodyBytes: number
) {
  const { method, url } = request
  const begins = method === "POST" && dialect.begin !== undefined
  if (route.operation === "passThrough" && !begins) return yield* Effect.fail(Request.notFound(method, url))
  const body = yield* Http.readBody(maxBodyBytes)
  if (route.operation === "passThrough") return yield* begin(playing, dialect, route, body)
  const { find } = playing.conversations
  const counts = route.operation === "countTokens"
  const read = counts ? dialect.readCount(body, route, find) : dialect.read(body, route, find)
  if (!Dialect.isRead(read)) return yield* Effect.fail(read)
  if (counts) return countTokens(playing, dialect, read)
  const description = dialect.protocol.describe(body, route)
  const exchange = { body, createdAt: Math.floor(playing.wall().epochMillis / 1_000) }
  const query = Http.queryOf(url)
  const asked = { dialect, exchange, query, read, streams: description?.stream === true }
  return yield* generate(playing, asked, dialect.protocol.agentOf(body, headerReader(request.headers)))
})

/** Answers a request in the protocol that its path belongs to; of an unknown path in Anthropic's words. */
const answered = Effect.fnUntraced(function* (playing: Playing, maxBodyBytes: number) {
  const request = yield* HttpServerRequest.HttpServerRequest
  const { method, url } = request
  const found = match(protocols, method, url)
  const dialect = dialects.find(({ protocol }) => protocol === found?.protocol) ?? anthropic
  const answer =
    found === undefined
      ? Effect.fail(Request.notFound(method, url))
      : served(playing, dialect, found.route, request, maxBodyBytes)
  const failed = (error: Request.ApiError) => Effect.sync(() => failure(dialect, error, playing.nextId()))
  return yield* answer.pipe(
    Effect.catch(failed),
    Effect.catchDefect(() => failed(Request.failed))
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
  const { now } = playing
  const state = playing.self.engine
  const stats = Effect.sync(() => Engine.stats(state, now()))
  const router = yield* HttpRouter.make
  yield* router.add("GET", "/healthz", HttpServerResponse.jsonUnsafe({ status: "ok" }))
  yield* router.add(
    "GET",
    "/stats",
    Effect.map(stats, (stats) => HttpServerResponse.jsonUnsafe({ ...stats, nowMillis: state.now, timeScale }))
  )
  yield* router.add("*", "/*", answered(playing, maxBodyBytes))

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
