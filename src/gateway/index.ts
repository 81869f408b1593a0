/**
 * A reverse proxy that paces: clients in any language share one limit by changing a base URL.
 *
 * Requests go to Anthropic, OpenAI, Gemini, or any service that speaks their protocols. The `Governor` admits calls, settles
 * them to the usage in their answers, and retries them by its policy, as with the governed `fetch`. Where another gateway
 * answers 429, this one lets the caller wait. All other requests are passed on unchanged.
 *
 * **Details**
 *
 * - The path of a request decides its provider. Where providers share a path, the headers `anthropic-version` and
 *   `x-goog-api-key` decide. The name of an upstream in front of the path, as in `/anthropic/...`, always decides. A base URL
 *   may end with the version or not.
 * - Callers send their own keys. The gateway passes keys through, and never logs or stores them. Bodies are passed on byte
 *   for byte.
 * - A caller that waits receives nothing for 20 seconds, so that errors keep their status. Then its response begins with
 *   status 200, and pings (in a stream) or white space (before JSON) keep it alive. A call that finally fails after that
 *   ends with an error event, or with a broken connection if the answer is not a stream.
 * - A call whose wait would be longer than `maxHold` is refused at once: 429 with a `retry-after` of 5 to 59 seconds.
 * - When a client disconnects, its call leaves the queue, and a request to the provider is aborted.
 * - When the scope closes, new requests are answered with 503, running requests are completed, and then the server closes.
 * - `GET /floodgate/` is a live page, `/metrics` is for Prometheus, `/healthz` answers while the gateway runs, and `/readyz`
 *   while it accepts requests.
 *
 * **Gotchas**
 *
 * The gateway listens on the loopback interface. On any other interface it requires a `token` from its callers, in the header
 * `x-floodgate-token` or in front of the path, as in `http://gateway:8788/token/TOKEN`, because the header for the key belongs
 * to the provider.
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
import { headerReader } from "../protocol/headers.ts"
import { type Activity, type Journal, makeActivity, makeJournal } from "./activity.ts"
import { makeCallers } from "./callers.ts"
import { isAtHome, makeDoor } from "./door.ts"
import * as Exchange from "./exchange.ts"
import { type Checked, type Options, parse } from "./options.ts"
import * as Page from "./page.ts"
import { Purses } from "./purses.ts"
import { makeRouter, type Routed } from "./routes.ts"
import * as Request from "./request.ts"
import * as Response from "./response.ts"
import * as Server from "./server.ts"
import * as Transport from "./transport.ts"
import type * as Spending from "../Spending.ts"

export type { Rule } from "./callers.ts"
export type { Recorded } from "./exchange.ts"
export type { Options } from "./options.ts"
export { CannotListen } from "./server.ts"

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
    /** The address of the gateway, such as `http://127.0.0.1:8788`: the base URL for clients. */
    readonly url: string
    /**
     * Replaces the options while calls run. Earlier calls keep the options they began with; host, port and `maxConnections` do
     * not change. Throws a `RangeError` for invalid options, and keeps the old ones.
     */
    readonly reload: (options: Options) => Effect.Effect<void>
    /** What was spent of the caps, as plain JSON without keys. Store it, and pass it to the next gateway as `spent`. */
    readonly spent: Effect.Effect<Readonly<Record<string, Effect.Success<Spending.Purse["kept"]>>>>
  }
>()("floodgate/gateway/Gateway") {}

/** The recent rejections, retries and pauses that the page shows. */
const Remembered = Context.Reference<Journal | undefined>("floodgate/gateway/Remembered", {
  defaultValue: () => undefined
})

/**
 * Records recent rejections, retries and pauses for the page. Provide it to the budget, to the governor and to the gateway.
 *
 * **Example** (Around all three)
 *
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Gateway from "floodgate/gateway"
 * import * as Governor from "floodgate/Governor"
 *
 * const live = Gateway.layer({ port: 8_788 }).pipe(
 *   Layer.provide(Governor.layer()),
 *   Layer.provide(Budget.layer({ limits: { requests: { perMinute: 50 } } })),
 *   Layer.provide(Gateway.layerEvents)
 * )
 * ```
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

const isClosing = Exchange.refusalFor({
  kind: "unavailable",
  message: "This gateway is closing; try again in a moment"
})

/** Builds what depends on the options. A reload replaces all of it. */
const setUp = Effect.fnUntraced(function* (
  options: Options,
  checked: Checked,
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

/** The parts of a gateway that depend on its options. */
type Setup = Effect.Success<ReturnType<typeof setUp>>

/** Answers a request for one of the gateway's own pages. Returns false for any other request. */
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
  // Without a token, a page on another site could read it through a host name of its own that resolves to this address.
  if (token === undefined && !isAtHome(request)) plain(response, 403, "Ask for it as localhost\n")
  else if (path === "/metrics") {
    plain(response, 200, PrometheusMetrics.formatUnsafe(context), "text/plain; version=0.0.4; charset=utf-8")
  } else if (path === "/floodgate") {
    response.writeHead(302, { location: "floodgate/" }).end()
  } else page(path.slice("/floodgate".length), response)
  return true
}

type Serve = (request: IncomingMessage, response: ServerResponse) => void

/** A listener whose error fails its own request, and not the process: a protocol of the options may throw. */
const guarded =
  (serve: Serve, run: (effect: Effect.Effect<void>) => unknown): Serve =>
  (request, response) => {
    try {
      serve(request, response)
    } catch (thrown) {
      run(Exchange.failed(response, thrown))
    }
  }

/** Answers a request with the upstream's answer. It counts as open until it is answered, or until its client disconnects. */
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
    // However it ended, the client must not be left waiting.
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
 * Starts a gateway that uses the governor of the context. It listens until its scope closes.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` for invalid options, and for a host that is not loopback without a `token`.
 *
 * **Example** (Other weights from now on)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Gateway from "floodgate/gateway"
 * import * as Governor from "floodgate/Governor"
 *
 * const program = Effect.gen(function* () {
 *   const gateway = yield* Gateway.make({ rules: [{ agent: "nightly-*", priority: -5 }] })
 *   yield* gateway.reload({ rules: [{ agent: "nightly-*", priority: -5, weight: 0.1 }] })
 *   return yield* gateway.spent
 * })
 *
 * const live = Governor.layer().pipe(Layer.provideMerge(Budget.layer()))
 *
 * await Effect.runPromise(Effect.scoped(Effect.provide(program, live))) // => {}
 * ```
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
  const activity = yield* makeActivity(context, now)
  const purses = new Purses(options.spent ?? {}, now, (agent, dollars) => activity.spent(agent, dollars))
  const governor = yield* Governor.Governor
  const memory = yield* Request.makeMemory
  const set = yield* FiberSet.make<void, never>()
  const run = yield* FiberSet.runtime(set)()

  const opened = Effect.fnUntraced(function* (options: Options, checked: Checked) {
    const inner = yield* Scope.fork(scope)
    const making = Scope.provide(setUp(options, checked, purses, activity, now), inner).pipe(
      Effect.provideService(Governor.Governor, governor)
    )
    const made = yield* Effect.onError(making, () => Scope.close(inner, Exit.void))
    made.close = Scope.close(inner, Exit.void)
    activity.watch(purses.show(options.rules ?? []))
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
      return void run(Exchange.refuse(response, isClosing))
    }
    const routed = setup.route(request.method ?? "GET", target, headerReader(request.headers))
    if ("message" in routed) {
      const refusal = Exchange.refusalFor({ kind: "notFound", message: routed.message }, routed.protocol)
      return void run(Exchange.refuse(response, refusal))
    }
    answer(setup, routed, request, response, memory, run)
  }
  server.on("request", Server.oneByOne(guarded(serve, run)))
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
 * A layer with a gateway that listens until the layer's scope closes. Provide the same {@link layerEvents} to the governor and
 * the budget.
 *
 * @category layers
 * @since 0.2.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Gateway, Server.CannotListen, Budget.TokenBudget | Governor.Governor> =>
  Layer.effect(Gateway, make(options))
