/**
 * A reverse proxy that paces: clients in any language share one limit by changing a base URL.
 *
 * Requests go to Anthropic, OpenAI, Gemini, or any service that speaks their protocols. Calls are admitted by the `Governor`,
 * settled by the usage in their answers and retried by its policy, as those of the governed `fetch` are; where another
 * gateway answers 429, this one lets the caller wait. All other requests pass as they are.
 *
 * **Details**
 *
 * - The path decides where a request goes, as do `anthropic-version` and `x-goog-api-key` where providers share a path;
 *   `/anthropic/...`, `/openai/...` and `/gemini/...`, or any other name of an upstream, always do. A base URL may end with
 *   the version or not.
 * - Keys are the callers' own: they are passed through, never logged and never kept. Bodies go on byte for byte.
 * - A caller that waits hears nothing for 20 seconds, so that errors keep their status. Then its response begins with
 *   status 200, and pings (in a stream) or white space (before JSON) keep it alive. A call that fails for good after that
 *   ends with an error event, or with a broken connection where the answer is no stream.
 * - A call whose wait would be longer than `maxHold` is refused at once: 429 with a `retry-after` of 5 to 59 seconds.
 * - A client that hangs up gives up its place, and its call at the provider is aborted.
 * - When the scope closes, new requests are answered 503, those that run end, and then the server closes.
 * - `GET /floodgate/` is a live page, `/metrics` is for Prometheus, `/healthz` says that it runs, and `/readyz` that it takes
 *   requests.
 *
 * **Gotchas**
 *
 * It listens on the loopback interface. On any other it demands a `token` of its callers, in the header `x-floodgate-token`
 * or in front of the path, as `http://gateway:8788/token/TOKEN`: the header for the key belongs to the provider.
 *
 * **Example** (A gateway in a program)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Gateway from "floodgate/gateway"
 * import * as Governor from "floodgate/Governor"
 *
 * const live = Gateway.layer({ upstreams: { anthropic: "https://api.anthropic.com" } }).pipe(
 *   Layer.provide(Governor.layer()),
 *   Layer.provide(Budget.layer({ limits: { requests: { perMinute: 50 } } })),
 *   Layer.provide(Gateway.layerEvents)
 * )
 *
 * const program = Effect.gen(function* () {
 *   const { url } = yield* Gateway.Gateway
 *   return yield* Effect.promise(async () => (await fetch(`${url}/healthz`)).status)
 * })
 *
 * await Effect.runPromise(Effect.provide(program, live)) // => 200
 * ```
 *
 * @since 0.2.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as Scope from "effect/Scope"
import type { IncomingMessage, ServerResponse } from "node:http"
import * as Budget from "../Budget.ts"
import * as Events from "../Events.ts"
import * as Engine from "../fetch/engine.ts"
import * as Governor from "../Governor.ts"
import { durationOf, finiteOf, invalid } from "../input/arguments.ts"
import { headerReader } from "../protocol/headers.ts"
import { Activity, type Journal, makeJournal } from "./activity.ts"
import { makeCallers, type Rule } from "./callers.ts"
import { isAtHome, isLoopback, makeDoor } from "./door.ts"
import * as Exchange from "./exchange.ts"
import * as Page from "./page.ts"
import { Purses, type Spent } from "./purses.ts"
import { makeRouter, type Routed, type Upstream, upstreamOf } from "./routes.ts"
import * as Request from "./request.ts"
import * as Response from "./response.ts"
import * as Server from "./server.ts"
import * as Transport from "./transport.ts"

export { CannotListen } from "./server.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * How a gateway is made.
 *
 * @category options
 * @since 0.2.0
 */
export interface Options extends Omit<Engine.EngineOptions, "callOptions"> {
  /**
   * The providers, by name: `anthropic`, `openai` and `gemini` are found by the paths of their protocols, any other by its
   * name in front of the path. Requests go to no other host.
   *
   * @default the public addresses of Anthropic, OpenAI and Gemini
   */
  readonly upstreams?: Readonly<Record<string, string>> | undefined
  /** @default "127.0.0.1": any other than loopback opens it to the network, and demands a `token` */
  readonly host?: string | undefined
  /** The port; 0 takes a free one, which `url` then names. @default 0 */
  readonly port?: number | undefined
  /** What callers have to know; at least 16 characters of letters, digits, `-` and `_`. @default none */
  readonly token?: string | undefined
  /**
   * Weights and priorities of callers, and caps in dollars; for each setting the first rule that fits and has it counts. Prices
   * are those of the governor.
   *
   * @default none
   */
  readonly rules?: ReadonlyArray<Rule> | undefined
  /** What an earlier gateway had spent of its caps, as its `spent` gave it. @default nothing */
  readonly spent?: Spent | undefined
  /**
   * The longest that a call is held until its last attempt begins; what is foreseen to wait longer is refused at once. Of the
   * common clients the most impatient give up after 10 minutes, and an answer takes its time as well.
   *
   * @default "5 minutes"
   */
  readonly maxHold?: Duration.Input | undefined
  /**
   * How long a caller hears nothing: so long the status can be the provider's. Some clients bear a minute of silence.
   *
   * @default "20 seconds"
   */
  readonly silence?: Duration.Input | undefined
  /** How often a response is kept alive that has begun early. @default "10 seconds" */
  readonly keepAlive?: Duration.Input | undefined
  /**
   * The longest that one attempt may take until the provider begins to answer.
   *
   * @default "10 minutes"
   */
  readonly timeout?: Duration.Input | undefined
  /** The longest that calls which run may go on when the gateway closes. @default "2 minutes" */
  readonly drain?: Duration.Input | undefined
  /** The largest body of a call in bytes. @default 33_554_432: Anthropic's limit */
  readonly maxBodyBytes?: number | undefined
  /** Bytes of all bodies of calls that wait or run; the next is answered 503. @default 268_435_456 */
  readonly maxHeldBytes?: number | undefined
  /** @default 10_000; the next connection is closed */
  readonly maxConnections?: number | undefined
  /** Gets each call that was answered, once its usage is known: the trace of what is sent. @default nobody */
  readonly record?: ((call: Exchange.Recorded) => void) | undefined
}

const providers = {
  anthropic: "https://api.anthropic.com",
  openai: "https://api.openai.com",
  gemini: "https://generativelanguage.googleapis.com"
}

/** What the gateway itself serves stands under these names. */
const reserved = ["floodgate", "healthz", "readyz", "metrics", "token"]

const positive = (option: string, value: number): number =>
  Number.isInteger(value) && value > 0 ? value : invalid(`Gateway.${option}`, "an integer > 0", value)

const upstreamsOf = (given: Readonly<Record<string, string>>): ReadonlyMap<string, Upstream> => {
  const parsed = new Map<string, Upstream>()
  for (const [name, address] of Object.entries(given)) {
    if (!/^[a-z\d][a-z\d-]*$/.test(name) || reserved.includes(name)) {
      invalid("Gateway.upstreams", "names of lower-case letters, digits and hyphens, none of them the gateway's", name)
    }
    const expected = "addresses such as https://api.anthropic.com, without a query or a password"
    parsed.set(name, upstreamOf(name, address) ?? invalid("Gateway.upstreams", expected, name))
  }
  return parsed.size > 0 ? parsed : invalid("Gateway.upstreams", "at least one upstream", "none")
}

const parse = (options: Options) => {
  const { host = "127.0.0.1", port = 0, token } = options
  if (!(Number.isInteger(port) && port >= 0 && port < 65_536)) {
    invalid("Gateway.port", "an integer from 0 to 65535", port)
  }
  if (token !== undefined && !/^[\w-]{16,}$/.test(token)) {
    invalid("Gateway.token", "at least 16 letters, digits, hyphens and underscores", "another text")
  }
  if (token === undefined && !isLoopback(host)) {
    invalid("Gateway.token", "a token, because others can reach the host", "none")
  }
  return {
    host,
    port,
    token,
    upstreams: upstreamsOf(options.upstreams ?? providers),
    maxHold: finiteOf("Gateway.maxHold", options.maxHold ?? "5 minutes"),
    silence: durationOf("Gateway.silence", options.silence ?? "20 seconds"),
    keepAlive: finiteOf("Gateway.keepAlive", options.keepAlive ?? "10 seconds"),
    timeout: finiteOf("Gateway.timeout", options.timeout ?? "10 minutes"),
    drain: finiteOf("Gateway.drain", options.drain ?? "2 minutes"),
    maxBodyBytes: positive("maxBodyBytes", options.maxBodyBytes ?? 32 * 1_024 * 1_024),
    maxHeldBytes: positive("maxHeldBytes", options.maxHeldBytes ?? 256 * 1_024 * 1_024),
    maxConnections: positive("maxConnections", options.maxConnections ?? 10_000)
  }
}

// -----------------------------------------------------------------------------
// Services
// -----------------------------------------------------------------------------

/**
 * A running gateway.
 *
 * @category services
 * @since 0.2.0
 */
export class Gateway extends Context.Service<
  Gateway,
  {
    /** Where it listens, such as `http://127.0.0.1:8788`: the base URL of clients. */
    readonly url: string
    /**
     * Replaces its options while calls run: those that came before end as they began. Host, port and the most connections stay.
     * Throws a `RangeError` for options that make no sense, and goes on with those that it had.
     */
    readonly reload: (options: Options) => Effect.Effect<void>
    /** What was spent of the caps: keep it, and pass it to the next gateway as `spent`. It is plain JSON, and names no key. */
    readonly spent: Effect.Effect<Spent>
  }
>()("floodgate/gateway/Gateway") {}

/** What the page knows of rejections, retries and pauses. */
const Remembered = Context.Reference<Journal | undefined>("floodgate/gateway/Remembered", {
  defaultValue: () => undefined
})

/**
 * Remembers the last rejections, retries and pauses, so that the page can show them. Provide it to the budget, to the governor
 * and to the gateway.
 *
 * @category layers
 * @since 0.2.0
 */
export const layerEvents: Layer.Layer<never> = Layer.effectContext(
  Effect.sync(() => {
    const journal = makeJournal()
    return Context.make(Events.Observer, journal.add).pipe(Context.add(Remembered, journal))
  })
)

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

const plain = (response: ServerResponse, status: number, body: string, contentType = "text/plain; charset=utf-8") => {
  response.writeHead(status, {
    "content-type": contentType,
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff"
  })
  response.end(body)
}

/** What options make of the gateway: it is replaced as a whole. */
const setUp = Effect.fnUntraced(function* (
  options: Options,
  checked: ReturnType<typeof parse>,
  purses: Purses,
  activity: Activity,
  now: () => number
) {
  const { rules = [] } = options
  const callers = makeCallers(rules, purses)
  const recorder = options.record && Exchange.makeRecorder(options.record)
  const engine = yield* Engine.make({
    ...options,
    callOptions: callers,
    used: (request) => {
      const { agent } = callers(request)
      const use = activity.used(agent)
      const record = recorder?.used(request, agent)
      return (actual) => {
        use(actual)
        record?.(actual)
      }
    }
  })
  const transports = new Map<string, Transport.Transport>()
  for (const upstream of checked.upstreams.values()) {
    transports.set(upstream.name, yield* Transport.make(upstream, checked.timeout))
  }
  const parts: Exchange.Parts = {
    engine,
    transports,
    activity,
    recorder,
    agentOf: (request) => callers(request).agent,
    now,
    keeper: yield* Response.makeKeeper(checked.silence, checked.keepAlive, () => activity.held()),
    maxHold: Duration.toMillis(checked.maxHold),
    reviewAfter: 0.9 * Duration.toMillis(checked.silence)
  }
  return {
    checked,
    parts,
    door: makeDoor(checked.token),
    route: makeRouter(checked.upstreams, engine.route),
    open: 0,
    isOld: false,
    close: Effect.void as Effect.Effect<void>
  }
})

/** A gateway as its options have it. */
type Setup = Effect.Success<ReturnType<typeof setUp>>

/** What is asked of the gateway itself; false where it is none of that. */
const own = (
  target: string,
  token: string | undefined,
  page: Effect.Success<ReturnType<typeof Page.make>>,
  context: Context.Context<never>,
  request: IncomingMessage,
  response: ServerResponse
): boolean => {
  const path = target.replace(/\?.*$/, "")
  if (request.method !== "GET" || !/^\/(?:metrics$|floodgate(?:\/|$))/.test(path)) return false
  // Without a token, a page elsewhere could read it through a name of its own that points here.
  if (token === undefined && !isAtHome(request)) plain(response, 403, "Ask for it as localhost\n")
  else if (path === "/metrics") {
    plain(response, 200, PrometheusMetrics.formatUnsafe(context), "text/plain; version=0.0.4; charset=utf-8")
  } else if (path === "/floodgate") {
    response.writeHead(302, { location: "floodgate/" }).end()
  } else page(path.slice("/floodgate".length), response)
  return true
}

/** Answers a request by its upstream. It is open until it is answered, or until its client is gone. */
const answer = (
  setup: Setup,
  routed: Routed,
  request: IncomingMessage,
  response: ServerResponse,
  memory: Request.Memory,
  run: (answer: Effect.Effect<void>) => Fiber.Fiber<void>
): void => {
  const { activity } = setup.parts
  const { maxBodyBytes, maxHeldBytes } = setup.checked
  const body = new Request.Body(memory, maxHeldBytes, maxBodyBytes)
  let answering: Fiber.Fiber<void> | undefined
  let isOver = false
  const over = (): void => {
    if (isOver) return
    isOver = true
    activity.open--
    setup.open--
    if (setup.isOld && setup.open === 0) run(setup.close)
    body.release()
    // Whatever ended it, nobody is left waiting.
    if (!response.writableEnded) response.destroy()
  }
  activity.open++
  setup.open++
  Exchange.exchange(setup.parts, routed, request, response, body, (answer) => {
    answering = run(answer)
    answering.addObserver(over)
  })
  response.once("close", () => {
    if (answering === undefined) over()
    else answering.interruptUnsafe()
  })
}

/**
 * Starts a gateway over the governor of the context, which listens until its scope closes.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` for options that make no sense, and for a host that others can reach without a `token`.
 *
 * @category constructors
 * @since 0.2.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Gateway["Service"], Server.CannotListen, Budget.TokenBudget | Governor.Governor | Scope.Scope> {
  const first = parse(options)
  const context = yield* Effect.context<never>()
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const budget = yield* Budget.TokenBudget
  const journal = Context.get(context, Remembered)
  const scope = yield* Effect.scope
  const activity = new Activity(context, now)
  const { rules = [], spent = {} } = options
  const purses = new Purses(rules, spent, now, (agent, dollars) => activity.spent(agent, dollars))
  const governor = yield* Governor.Governor
  const memory = { held: 0 }
  const set = yield* FiberSet.make<void, never>()
  const run = yield* FiberSet.runtime(set)()

  const opened = Effect.fnUntraced(function* (options: Options, checked: ReturnType<typeof parse>) {
    const inner = yield* Scope.fork(scope)
    const making = Scope.provide(setUp(options, checked, purses, activity, now), inner).pipe(
      Effect.provideService(Governor.Governor, governor)
    )
    const made = yield* Effect.onError(making, () => Scope.close(inner, Exit.void))
    made.close = Scope.close(inner, Exit.void)
    for (const rule of options.rules ?? []) activity.watch(purses.pot(rule), rule.cap?.per, now)
    return made
  })
  let current = yield* opened(options, first)
  const { server, url } = yield* Server.listen(first)
  const page = yield* Page.make({
    activity,
    budget,
    journal,
    purses,
    upstreams: () => current.checked.upstreams,
    now
  })
  let closing = false

  const reload = (next: Options): Effect.Effect<void> =>
    Effect.gen(function* () {
      const checked = parse(next)
      Purses.check(next.rules ?? [])
      const made = yield* opened(next, checked)
      const old = current
      current = made
      old.isOld = true
      if (old.open === 0) yield* old.close
    }).pipe(Effect.uninterruptible)

  const serve = (request: IncomingMessage, response: ServerResponse): void => {
    request.on("error", () => {})
    response.on("error", () => {})
    if (request.url === "/healthz") return plain(response, 200, "ok\n")
    if (request.url === "/readyz") return plain(response, closing ? 503 : 200, closing ? "closing\n" : "ready\n")
    const setup = current
    const target = setup.door(request)
    if (target === undefined) return plain(response, 401, "This gateway wants its token\n")
    if (own(target, setup.checked.token, page, context, request, response)) return
    if (closing) {
      response.setHeader("connection", "close")
      const refusal = Exchange.refusalFor({
        kind: "unavailable",
        message: "This gateway is closing; come back in a moment"
      })
      return void run(Exchange.refuse(response, refusal))
    }
    const routed = setup.route(request.method ?? "GET", target, headerReader(request.headers))
    if (routed === undefined) return plain(response, 404, "No upstream of this gateway serves this path\n")
    answer(setup, routed, request, response, memory, run)
  }
  server.on("request", serve)
  yield* Effect.addFinalizer(() => {
    closing = true
    return Server.drained(() => activity.open, current.checked.drain)
  })
  return { url, reload, spent: Effect.sync(() => purses.kept) }
})

// -----------------------------------------------------------------------------
// Layers
// -----------------------------------------------------------------------------

/**
 * A gateway that listens as long as the layer lives. Give the governor and the budget the same {@link layerEvents}.
 *
 * @category layers
 * @since 0.2.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Gateway, Server.CannotListen, Budget.TokenBudget | Governor.Governor> =>
  Layer.effect(Gateway, make(options))
