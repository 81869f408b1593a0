/**
 * The simulated provider over real HTTP: four protocols with rate limits, latency and faults, for any client.
 *
 * It is the engine of `floodgate/testing` behind Anthropic's Messages (with `count_tokens` and message threads),
 * OpenAI's Chat Completions, Responses (with `previous_response_id` and conversations) and embeddings, and Gemini's
 * `generateContent`, whole and streamed. Official SDKs need only its URL as their base URL. `GET /healthz` answers while it runs, and `GET /stats`
 * returns its counters. With the option `server` it also has that server's own API (see below).
 *
 * **When to use**
 *
 * Use it to run a whole program, in any language, against limits of your choice, without a key and without cost. For
 * Effect code, tests with `ProviderSim` are faster and exact: it needs no network and runs under `TestClock`.
 *
 * **Details**
 *
 * - The path selects the protocol, with or without its version: `/v1/messages`, `/messages`, `/v1/chat/completions`.
 *   Other paths are answered with 404.
 * - All protocols share the limits, and each reports them as its provider does: in `anthropic-ratelimit-*` or
 *   `x-ratelimit-*` headers, and Gemini in errors. Errors have the provider's own status, code and form.
 * - The option `reply` may call tools. It gets every request in the form of the Messages API. If the request does not limit the
 *   output, `max_tokens` is infinite.
 * - Answers that can be continued are stored, the last 10,000 of them.
 * - A key is accepted in any of the providers' headers, and any key unless `keys` lists them. A request without a key is answered
 *   with 401, except with the option `server`, because those servers need none. Any model exists unless `models` says otherwise.
 * - With the option `server`, `GET /metrics` shows how many calls run and wait, under the names of vLLM and llama.cpp, and
 *   `GET /v1/models` the models. Ollama has `/api/chat` and `/api/generate`, `/api/tags`, `/api/ps` and `/api/version`, and answers 503
 *   when its queue is full. llama.cpp has `/completion`, `/health`, `/slots` and `/props`, and vLLM `/health`.
 * - With a `timeScale` of X the provider's time passes X times faster. Clients see that in their own time: `retry-after` and
 *   resets are simulated spans divided by X, limits per minute are multiplied by X, and bursts stay the same. A wait that is not
 *   a whole number of seconds is sent as a fraction, and also in `retry-after-ms`.
 * - A client that disconnects aborts its call. `GET /stats` counts it as aborted.
 * - Bodies above 32 MB are refused with 413, as at Anthropic.
 * - For a refused connection, the server accepts the connection and closes it without an answer.
 *
 * **Gotchas**
 *
 * Apart from limits on sizes, the server has no protection. It listens on the loopback interface unless `host` names another one.
 *
 * **Example** (A request to the server)
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
 * @stability unstable
 * @since 0.1.0
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import type * as HttpServerError from "effect/http/HttpServerError"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { createServer } from "node:http"
import * as Engine from "../engine.ts"
import * as Input from "../../domain/input/checks.ts"
import { simulated } from "../options.ts"
import type * as ProviderSim from "../ProviderSim.ts"
import * as ServerPages from "./serverPages.ts"
import { answered, play } from "./serving.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * The options of the simulated provider, and the address of the server.
 *
 * @stability unstable
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
   * The port; 0 chooses a free one, which `url` contains.
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
   * The keys that are accepted. Another key is answered as the provider of its protocol does: with 401, and by Gemini with 400.
   *
   * @default any key
   * @since 0.5.0
   */
  readonly keys?: ReadonlyArray<string> | undefined
  /**
   * Whether a model of this name exists. A call of another one is answered with 404, as the provider of its protocol does.
   *
   * @default every model exists
   * @since 0.5.0
   */
  readonly models?: ((model: string) => boolean) | undefined
  /**
   * The largest body in bytes.
   *
   * @default 33_554_432
   */
  readonly maxBodyBytes?: number | undefined
}

const optionsCheck = Input.options<Options>({
  ...simulated,
  host: Input.host,
  port: Input.port,
  timeScale: Input.positive,
  keys: Input.list(Input.text),
  models: Input.callback,
  maxBodyBytes: Input.number("an integer > 0", (bytes) => Number.isInteger(bytes) && bytes > 0)
})

/** Anthropic's limit for the Messages API. */
const defaultMaxBodyBytes = 32 * 1_024 * 1_024

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

/**
 * A running provider server.
 *
 * @stability unstable
 * @category services
 * @since 0.1.0
 */
export class ProviderServer extends Context.Service<
  ProviderServer,
  {
    /** The address of the server, such as `http://127.0.0.1:8080`: the `baseURL` for clients. */
    readonly url: string
    /** Every request, in the order of arrival. Times are milliseconds of the provider's time since it started. */
    readonly log: Effect.Effect<ReadonlyArray<ProviderSim.Entry>>
    /** The counters, which `GET /stats` also gives. */
    readonly stats: Effect.Effect<ProviderSim.Stats>
  }
>()("floodgate/testing/server/ProviderServer/ProviderServer") {}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/**
 * Starts a provider server that listens until its scope closes. Throws a `RangeError` for invalid options.
 *
 * **Example** (A server that stops with a scope)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import { ProviderServer } from "floodgate/testing/server"
 *
 * const program = Effect.gen(function* () {
 *   const { url } = yield* ProviderServer.make({ latency: { baseMillis: 1 } })
 *   const response = yield* Effect.promise(() => fetch(`${url}/v1/messages`, { method: "POST", body: "{}" }))
 *   return response.status
 * })
 *
 * await Effect.runPromise(Effect.scoped(program)) // => 401
 * ```
 *
 * @stability unstable
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<ProviderServer["Service"], HttpServerError.ServeError, Scope.Scope> {
  Input.check("ProviderServer.make", optionsCheck, options)
  const { host = "127.0.0.1", keys, maxBodyBytes = defaultMaxBodyBytes, models, port = 0, ...more } = options
  const { timeScale = 1, ...simulated } = more
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
  for (const [path, page] of ServerPages.of(playing)) yield* router.add("GET", path, page)
  yield* router.add("*", "/*", answered(playing, { keys, maxBodyBytes, models }))

  // Longer than clients keep idle connections, so that the server closes none while a request arrives.
  const listener = createServer({ keepAliveTimeout: 120_000 })
  // Node keeps a connection that has never had a request when the server closes, and with it the program.
  yield* Effect.addFinalizer(() => Effect.sync(() => listener.closeAllConnections()))
  const server = yield* NodeHttpServer.make(() => listener, { host, port, backlog: 4_096, gracefulShutdownTimeout: 0 })
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
 * A layer with a provider server that listens until the layer's scope closes.
 *
 * @stability unstable
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<ProviderServer, HttpServerError.ServeError> => {
  Input.check("ProviderServer.layer", optionsCheck, options)
  return Layer.effect(ProviderServer, make(options))
}
