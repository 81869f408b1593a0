/**
 * A pacing reverse proxy: clients in any language share one limit by changing their base URL.
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
 * - Callers send their own keys, which the gateway passes through, and never logs or stores. Or the gateway has `keys` of its
 *   own: callers send one of these, and the upstream gets the provider's credential instead. Bodies are passed on byte for byte.
 * - A caller that waits receives nothing for 20 seconds, so that errors keep their status. Then its response begins with
 *   status 200, and pings (in a stream) or white space (before JSON) keep it alive. A call that finally fails after that
 *   ends with an error event, or with a broken connection if the answer is not a stream.
 * - A call whose wait would be longer than `maxHold` is refused at once: 429 with a `retry-after` of 5 to 59 seconds.
 * - When a client disconnects, its call leaves the queue, and a request to the provider is aborted. A client that reads
 *   nothing for a minute is disconnected.
 * - When the scope closes, new requests are answered with 503, and the server closes when the clients of running requests have
 *   received their answers, at most after `drain`.
 * - `GET /floodgate/advice` says how many more agents help now (see `Agents.advise`), and `/floodgate/forecast` what agents would
 *   take that all start now.
 * - `GET /floodgate/` is a live page, `/metrics` is for Prometheus, `/healthz` answers while the gateway runs, and `/readyz`
 *   while it accepts requests.
 *
 * **Gotchas**
 *
 * The gateway listens on the loopback interface, and answers requests for the names of this machine only, because a website
 * could have its own name resolve to it; `hosts` adds names. On any other interface it requires a `token` from its callers, in the header
 * `x-floodgate-token` or in front of the path, as in `http://gateway:8788/token/TOKEN`, because the header for the key belongs
 * to the provider.
 *
 * **Example** (A gateway in a program)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Gateway from "@floodgate/gateway"
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
import * as LogLevel from "effect/LogLevel"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import { constVoid } from "effect/Function"
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http"
import * as Budget from "floodgate/Budget"
import * as Events from "floodgate/Events"
import * as Governor from "floodgate/Governor"
import type { Refusal } from "floodgate/protocol"
import { Engine, headerReader, statusOf, timerOf } from "floodgate/internal"
import { type Activity, type Journal, makeActivity, makeJournal } from "./activity.ts"
import { makeCallers } from "./callers.ts"
import * as OpenAnswer from "./openAnswer.ts"
import { type AuthResult, makeAuth } from "./auth.ts"
import type { ProxyParts } from "./call.ts"
import * as Proxy from "./proxy.ts"
import { type ParsedOptions, type Options, parse } from "./options.ts"
import * as Metrics from "./metrics.ts"
import * as Page from "./page.ts"
import * as Credentials from "./credentials.ts"
import { makeKeyring } from "./keys.ts"
import { KeyUsers } from "./keyUsers.ts"
import * as Caps from "./caps.ts"
import { CallerPurses } from "./purses.ts"
import { namedBy } from "./headers.ts"
import { agentOf, makeRecorder } from "./records.ts"
import * as Refusals from "./refusals.ts"
import { makeRouter, type Routed } from "./routes.ts"
import * as Bodies from "./bodies.ts"
import * as Response from "./response.ts"
import * as Server from "./server.ts"
import * as Transport from "./transport.ts"
import type * as Spending from "floodgate/Spending"

export type { Key } from "./keys.ts"
export type { Recorded } from "./records.ts"
export { type Options, providers } from "./options.ts"
export type { GatewayPlace } from "./places.ts"
export type { Rule } from "./rule.ts"
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
>()("@floodgate/gateway/Gateway") {}

/** The recent rejections, retries and pauses that the page shows. */
const Remembered = Context.Reference<Journal | undefined>("@floodgate/gateway/Remembered", {
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
 * import * as Gateway from "@floodgate/gateway"
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

/** Answers with text of the gateway itself. */
const plain = (response: ServerResponse, status: number, body: string, contentType = "text/plain; charset=utf-8") =>
  Response.whole(
    response,
    status,
    { "content-type": contentType, "cache-control": "no-store", "x-content-type-options": "nosniff" },
    body
  )

const closes: Refusal = { kind: "unavailable", message: "The gateway is shutting down: try again in a moment" }
const noWebSocket: Refusal = {
  kind: "upgradeRequired",
  message: "The gateway does not support WebSockets: send the request over HTTP/1.1"
}

/**
 * Whether a client requests a WebSocket. Codex tries one first, and falls back at once if the answer is 426. Any other upgrade is
 * ignored: Java's client offers `h2c` with each request, and would take a 426 as the final answer.
 */
const wantsWebSocket = ({ connection, upgrade = "" }: IncomingHttpHeaders): boolean =>
  /\bwebsocket\b/i.test(upgrade) && namedBy(connection).includes("upgrade")

/** What outlives a reload. */
interface LastingParts {
  readonly purses: CallerPurses
  readonly activity: Activity
  readonly accounts: Engine.Accounts
  readonly now: () => number
}

/** Builds everything that depends on the options. A reload replaces it as a whole. */
const makeGeneration = Effect.fnUntraced(function* (
  options: Options,
  checked: ParsedOptions,
  { accounts, activity, now, purses }: LastingParts
) {
  const { keys, rules = [] } = options
  const credentialNames = new Map(Array.from(checked.credentials, ([name, secret]) => [secret, name]))
  const recorder = options.record && makeRecorder(options.record)
  const engine = yield* Engine.make({
    ...options,
    places: checked.places,
    operation: "Gateway.make",
    accounts,
    credentialName: (credential) => credentialNames.get(credential),
    callOptions: makeCallers(rules, purses, (payer, bill) => activity.billed(payer, bill), keys !== undefined),
    used: (planned) => {
      const use = activity.used(agentOf(planned))
      const record = recorder?.used(planned)
      return (actual) => {
        use(actual)
        record?.(actual)
      }
    }
  })
  const context = yield* Effect.context<never>()
  const fork = Effect.runForkWith(context)
  const logsDebug = LogLevel.isGreaterThanOrEqualTo("Debug", Context.get(context, References.MinimumLogLevel))
  const transports = new Map<string, Transport.Transport>()
  for (const upstream of checked.upstreams.values()) {
    transports.set(upstream.name, yield* Transport.make(upstream, checked.timeout))
  }
  const parts: ProxyParts = {
    engine,
    transports,
    places: checked.places,
    activity,
    recorder,
    purses,
    now,
    timer: timerOf(context),
    log: logsDebug ? (end) => void fork(Effect.logDebug(end)) : undefined,
    keeper: yield* Response.makeKeeper(checked.silence, checked.keepAlive, () => activity.held()),
    maxHold: checked.maxHold,
    reviewAfter: 0.9 * Duration.toMillis(checked.silence)
  }
  return {
    checked,
    parts,
    door: makeAuth(checked.token, checked.hosts),
    keyring: keys && makeKeyring(keys),
    route: makeRouter(checked.upstreams, engine.route),
    open: 0,
    isOld: false,
    close: Effect.void as Effect.Effect<void>
  }
})

/** Everything that was built from one set of options. */
type Generation = Effect.Success<ReturnType<typeof makeGeneration>>

/** The answer to a request for one of the gateway's own pages; undefined for any other request. */
const own = (
  { refusal, target }: AuthResult,
  page: ReturnType<typeof Page.make>,
  metrics: Effect.Effect<string>,
  request: IncomingMessage,
  response: ServerResponse
): Effect.Effect<void> | undefined => {
  const path = target.replace(/\?.*$/, "")
  if (request.method !== "GET" || !/^\/(?:metrics$|floodgate(?:\/|$))/.test(path)) return undefined
  const file = path.slice("/floodgate".length)
  // The page itself asks for the token.
  const isOpen = refusal?.kind === "unauthorized" && path !== "/metrics" && Page.isFile(file)
  if (refusal !== undefined && !isOpen) return plain(response, statusOf(refusal), `${refusal.message}\n`)
  if (path === "/metrics") {
    return Effect.flatMap(metrics, (text) => plain(response, 200, text, Metrics.contentType))
  }
  return page(file, target.slice(path.length + 1), response)
}

type Serve = (request: IncomingMessage, response: ServerResponse) => void

/** A listener whose errors fail the request and not the process. A protocol of the options may throw, for example. */
const guarded =
  (serve: Serve, run: (effect: Effect.Effect<void>) => unknown): Serve =>
  (request, response) => {
    try {
      serve(request, response)
    } catch (thrown) {
      run(Refusals.failed(response, thrown))
    }
  }

/**
 * Counts a request as open until its client has received the answer, has disconnected, or has stalled for too long. Then it is
 * `released`.
 */
const answering = (
  generation: Generation,
  response: ServerResponse,
  run: (answer: Effect.Effect<void>) => Fiber.Fiber<void>,
  released: () => void = constVoid
): OpenAnswer.OpenAnswer => {
  const { activity } = generation.parts
  activity.open++
  generation.open++
  return OpenAnswer.make(response, run, () => {
    activity.open--
    generation.open--
    if (generation.isOld && generation.open === 0) run(generation.close)
    released()
    // However the request ended, its client must not be left waiting.
    if (!response.writableFinished) response.destroy()
  })
}

/** What serves all requests, whatever the options. */
interface ServerParts {
  readonly current: () => Generation
  readonly isClosing: () => boolean
  readonly page: ReturnType<typeof Page.make>
  readonly metrics: Effect.Effect<string>
  readonly memory: Bodies.BodyMemory
  readonly run: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly users: KeyUsers
}

/** A request that has been let in, or why not. */
interface Admitted extends AuthResult {
  /** Finds the credential that replaces the caller's key; undefined if the gateway has no keys. */
  readonly exchange: ((routed: Routed) => Credentials.Exchange) | undefined
}

/** Lets a request in by its key, where the gateway has keys: these replace the token and the check of the host. */
const admit = (
  { checked: { credentials }, keyring, parts: { activity, now } }: Generation,
  entry: AuthResult,
  { headers, rawHeaders }: IncomingMessage
): Admitted => {
  if (keyring === undefined) return { ...entry, exchange: undefined }
  const { isBearer, keys, target } = Credentials.presented(rawHeaders, entry.target)
  const holder = keyring.check(keys, now())
  if ("refusal" in holder) {
    activity.denied(holder)
    return { target, refusal: holder.refusal, exchange: undefined }
  }
  const exchange = (routed: Routed) =>
    Credentials.exchange(holder, credentials.get(routed.upstream.name), routed, headers, isBearer)
  return { target, refusal: undefined, exchange }
}

/** Answers a request for an upstream, or refuses it. */
const forward = (
  { current, isClosing, memory, run, users }: ServerParts,
  entry: AuthResult,
  request: IncomingMessage,
  response: ServerResponse
): void => {
  const generation = current()
  const { exchange: exchangeFor, refusal, target } = admit(generation, entry, request)
  const isWebSocket = wantsWebSocket(request.headers)
  // A WebSocket request is always a GET, in place of the POST that it replaces.
  const method = isWebSocket ? "POST" : (request.method ?? "GET")
  const routed = generation.route(method, target, headerReader(request.headers))
  const refused = (refusal: Refusal): void => {
    const refuse = Refusals.refuse(response, Refusals.refusalFor(refusal, routed.protocol))
    answering(generation, response, run).run(refuse)
  }
  if (refusal !== undefined) return refused(refusal)
  if (isClosing()) {
    response.setHeader("connection", "close")
    return refused(closes)
  }
  if (isWebSocket) {
    response.setHeader("connection", "close, upgrade").setHeader("upgrade", "HTTP/1.1")
    return refused(noWebSocket)
  }
  if ("message" in routed) return refused({ kind: "notFound", message: routed.message })
  const { maxBodyBytes, maxHeldBytes } = generation.checked
  const body = new Bodies.RequestBody(memory, maxHeldBytes, maxBodyBytes)
  const exchange = exchangeFor?.(routed)
  if (exchange !== undefined) users.enter(exchange.holder, response)
  const answer = answering(generation, response, run, () => body.release())
  Proxy.handle({ answering: answer, parts: generation.parts, routed, exchange, request, response }, body)
}

/** Serves all requests. */
const serving =
  (parts: ServerParts): Serve =>
  (request, response) => {
    const { current, isClosing, metrics, page, run } = parts
    request.on("error", () => {})
    response.on("error", () => {})
    const show = (shown: Effect.Effect<void>): void => {
      const fiber = run(shown)
      response.once("close", () => fiber.interruptUnsafe())
    }
    if (request.url === "/healthz") return show(plain(response, 200, "ok\n"))
    if (request.url === "/readyz") {
      return show(isClosing() ? plain(response, 503, "closing\n") : plain(response, 200, "ready\n"))
    }
    const generation = current()
    const entry = generation.door(request)
    const shown =
      request.method === "POST" && entry.target === "/floodgate/caps" && entry.refusal === undefined
        ? Caps.change(generation.checked.adminToken, generation.parts.purses, request, response)
        : own(entry, page, metrics, request, response)
    if (shown === undefined) forward(parts, entry, request, response)
    else show(shown)
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
 * import * as Gateway from "@floodgate/gateway"
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
  const first = parse("Gateway.make", options)
  const context = yield* Effect.context<never>()
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const budget = yield* Budget.TokenBudget
  const journal = Context.get(context, Remembered)
  const scope = yield* Effect.scope
  const activity = yield* makeActivity(context, now)
  const purses = new CallerPurses(options.spent ?? {}, context, scope)
  const governor = yield* Governor.Governor
  const memory = yield* Bodies.makeMemory
  const set = yield* FiberSet.make<void, never>()
  const run = yield* FiberSet.runtime(set)()

  const lasting: LastingParts = { purses, activity, accounts: Engine.makeAccounts(), now }
  const opened = Effect.fnUntraced(function* (options: Options, checked: ParsedOptions) {
    const inner = yield* Scope.fork(scope)
    const making = Scope.provide(makeGeneration(options, checked, lasting), inner).pipe(
      Effect.provideService(Governor.Governor, governor)
    )
    const made = yield* Effect.onError(making, () => Scope.close(inner, Exit.void))
    made.close = Scope.close(inner, Exit.void)
    activity.watch(purses.show(options.rules ?? [], options.keys !== undefined))
    return made
  })
  let current = yield* opened(options, first)
  const { server, url } = yield* Server.listen(first)
  const page = Page.make({
    activity,
    budget,
    governor,
    configured: new Set(Object.keys((yield* budget.status).pools)),
    hasKeys: () => current.keyring !== undefined,
    journal,
    purses,
    upstreams: () => current.checked.upstreams,
    now
  })
  const metrics = Metrics.exposition(context, budget)
  let closing = false
  const users = new KeyUsers()

  const reload = (next: Options): Effect.Effect<void> =>
    Effect.gen(function* () {
      const checked = parse("Gateway.reload", next)
      const made = yield* opened(next, checked)
      const old = current
      current = made
      old.isOld = true
      users.keep(made.keyring)
      if (old.open === 0) yield* old.close
    }).pipe(Effect.uninterruptible)

  const serve = serving({ current: () => current, isClosing: () => closing, memory, metrics, page, run, users })
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
): Layer.Layer<Gateway, Server.CannotListen, Budget.TokenBudget | Governor.Governor> => {
  parse("Gateway.layer", options)
  return Layer.effect(Gateway, make(options))
}
