/** Serves requests: the gateway's own pages, and those for an upstream, which are let in or refused. */
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { constVoid } from "effect/Function"
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http"
import { ProviderHeaders, type Refusing } from "floodgate/internal"
import type { AuthResult } from "./auth.ts"
import * as Bodies from "./bodies.ts"
import * as Credentials from "./credentials.ts"
import * as Endpoints from "./endpoints.ts"
import type { EndpointRequest, EndpointParts } from "./endpoints.ts"
import type { Generation } from "./generation.ts"
import { namedBy } from "./headers.ts"
import * as Http1 from "./http1.ts"
import type { KeyUsers } from "./keyUsers.ts"
import * as OpenAnswer from "./openAnswer.ts"
import * as Proxy from "./proxy.ts"
import * as RateLimits from "./rateLimits.ts"
import * as Refusals from "./refusals.ts"
import * as Response from "./response.ts"
import type { Routed } from "./routes.ts"
import type { Listener } from "./server.ts"
import { type Whose, whoseIs } from "./whose.ts"

const closes: Refusing.Refusal = { kind: "unavailable", message: "The gateway is shutting down: try again in a moment" }
const noWebSocket: Refusing.Refusal = {
  kind: "upgradeRequired",
  message: "The gateway does not support WebSockets: send the request over HTTP/1.1"
}

/**
 * Whether a client requests a WebSocket. Codex tries one first, and falls back at once if the answer is 426. Any other upgrade is
 * ignored: Java's client offers `h2c` with each request, and would take a 426 as the final answer.
 */
const wantsWebSocket = ({ connection, upgrade = "" }: IncomingHttpHeaders): boolean =>
  /\bwebsocket\b/i.test(upgrade) && namedBy(connection).includes("upgrade")

/** The answer to a request for something of the gateway's own; undefined for any other request. */
const own = (entry: AuthResult, asked: EndpointRequest): Effect.Effect<void> | undefined => {
  const { parts, request, response } = asked
  const { refusal, target } = entry
  const path = target.replace(/\?.*$/, "")
  const isOther = refusal !== undefined && refusal.kind !== "unauthorized"
  const endpoint = Endpoints.endpointOf(request.method, path)
  if (endpoint !== undefined) {
    const query = target.slice(path.length + 1)
    return Endpoints.denial(endpoint, entry, asked) ?? endpoint.answer({ ...asked, query })
  }
  if (request.method !== "GET") return undefined
  // A browser at the root looks for the page. No provider has one there.
  if (path === "/" && !isOther && /\btext\/html\b/i.test(request.headers.accept ?? "")) {
    return Response.whole(response, 302, { location: "/floodgate/", "cache-control": "no-store" }, "")
  }
  if (!path.startsWith("/floodgate/")) return undefined
  return refusal === undefined ? parts.page.nothing(response) : Endpoints.refuse(response, refusal)
}

/** A listener whose errors fail the request and not the process. A protocol of the options may throw, for example. */
export const guarded =
  (serve: Listener, run: (effect: Effect.Effect<void>) => unknown): Listener =>
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

/** The parts that serve all requests and do not depend on the options. */
export interface ServerParts extends EndpointParts {
  readonly current: () => Generation
  readonly memory: Bodies.BodyMemory
  readonly run: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly users: KeyUsers
}

/** A request that was admitted, or the reason why it was refused. */
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

/** Makes a response state the caps of its caller, as they are when its headers are sent. */
const stateCaps = ({ now, purses }: Generation["parts"], whose: Whose, response: ServerResponse): void =>
  Response.states(response, (retryAfter) =>
    RateLimits.fieldsOf(purses.policies(whose.caller.purses), now(), retryAfter)
  )

/** Answers a request for an upstream, or refuses it. */
const forward = (
  { current, isClosing, memory, run, users }: ServerParts,
  entry: AuthResult,
  broken: Refusing.Refusal | undefined,
  request: IncomingMessage,
  response: ServerResponse
): void => {
  const generation = current()
  const { exchange: exchangeFor, refusal, target } = admit(generation, entry, request)
  const isWebSocket = wantsWebSocket(request.headers)
  // A WebSocket request is always a GET, in place of the POST that it replaces.
  const method = isWebSocket ? "POST" : (request.method ?? "GET")
  const routed = generation.route(method, target, ProviderHeaders.headerReader(request.headers))
  const { parts } = generation
  const span = generation.beginSpan(request, response, routed)
  const record = parts.requests?.open()
  const body = new Bodies.RequestBody(memory, generation.checked.maxHeldBytes, generation.checked.maxBodyBytes)
  let whose: Whose | undefined
  const answer = answering(generation, response, run, () => {
    span?.end()
    body.release()
    if (record !== undefined) parts.requests?.close(record, response, whose?.caller)
  })
  const refused = (refusal: Refusing.Refusal): void => {
    record?.ended("refused", refusal.kind)
    answer.run(Refusals.refuse(response, Refusals.refusalFor(refusal, routed.protocol)))
  }
  if (broken !== undefined) {
    response.setHeader("connection", "close")
    return refused(broken)
  }
  if (refusal !== undefined) return refused(refusal)
  const found = "message" in routed ? undefined : routed
  const exchange = found && exchangeFor?.(found)
  if (found !== undefined) {
    whose = whoseIs(parts.find, found, request, exchange)
    record?.goesTo(found.upstream.name)
    if (parts.statesCaps) stateCaps(parts, whose, response)
  }
  if (isClosing()) {
    response.setHeader("connection", "close")
    return refused(closes)
  }
  if (isWebSocket) {
    response.setHeader("connection", "close, upgrade").setHeader("upgrade", "HTTP/1.1")
    return refused(noWebSocket)
  }
  if ("message" in routed) return refused({ kind: "notFound", message: routed.message })
  if (exchange !== undefined) users.enter(exchange.holder, response)
  Proxy.handle({ answering: answer, parts, routed, exchange, whose: whose!, record, span, request, response }, body)
}

/** Serves all requests. */
export const serving =
  (parts: ServerParts): Listener =>
  (request, response) => {
    const { current, run } = parts
    request.on("error", () => {})
    response.on("error", () => {})
    const show = (shown: Effect.Effect<void>): void => {
      const fiber = run(shown)
      response.once("close", () => fiber.interruptUnsafe())
    }
    Http1.normalize(request)
    const generation = current()
    const asked: EndpointRequest = { parts, generation, request, response, query: "" }
    const health = Endpoints.healthOf(request.url)
    if (health !== undefined) return show(health.answer(asked))
    const entry = generation.door(request)
    const broken = Http1.refusalOf(request)
    if (broken !== undefined) return forward(parts, entry, broken, request, response)
    const shown = own(entry, asked)
    if (shown === undefined) return forward(parts, entry, undefined, request, response)
    return show(shown)
  }
