/** Passes requests on to their upstreams, and the answers back. */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import type { IncomingMessage, ServerResponse } from "node:http"
import { PassThrough, Readable } from "node:stream"
import * as Retry from "floodgate/Retry"
import type { Refusal } from "floodgate/protocol"
import type { Activity, RequestEnd } from "./activity.ts"
import type { Exchange } from "./credentials.ts"
import * as Headers from "./headers.ts"
import { type Engine, isRecord, type Match, ReviewAt } from "floodgate/internal"
import type { CallerPurses } from "./purses.ts"
import { agentOf, type CallRecorder } from "./records.ts"
import * as Refusals from "./refusals.ts"
import * as Bodies from "./bodies.ts"
import * as Response from "./response.ts"
import type { ParsedOptions } from "./options.ts"
import { passedKindOf } from "./passed.ts"
import { addressed, upstreamOfPlace } from "./places.ts"
import type { Routed } from "./routes.ts"
import type { Transport, UpstreamRequest, UpstreamResponse } from "./transport.ts"

/** The parts of a gateway that all requests share. */
export interface ProxyParts {
  readonly engine: Engine.Engine
  readonly transports: ReadonlyMap<string, Transport>
  readonly places: ParsedOptions["places"]
  readonly activity: Activity
  readonly recorder: CallRecorder | undefined
  readonly purses: CallerPurses
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly keeper: Response.Keeper
  readonly maxHold: Duration.Duration
  /** When the wait is predicted a second time, in milliseconds after arrival: a refusal is still possible then. */
  readonly reviewAfter: number
}

/** A request on its way through the gateway. */
export interface ProxiedRequest {
  readonly parts: ProxyParts
  readonly routed: Routed
  /** The caller's key and the credential that is sent instead, if the gateway has keys of its own. */
  readonly exchange: Exchange | undefined
  readonly request: IncomingMessage
  readonly response: ServerResponse
}

// -----------------------------------------------------------------------------
// Other requests
// -----------------------------------------------------------------------------

/** Passes a request on unchanged, and its response back as it arrives. */
const pass = Effect.fnUntraced(function* (
  { exchange, parts: { activity, transports }, request, response, routed }: ProxiedRequest,
  body: Buffer | undefined
) {
  const controller = yield* Effect.acquireRelease(
    Effect.sync(() => new AbortController()),
    (controller) => Effect.sync(() => controller.abort())
  )
  const { headers: given, method = "GET", rawHeaders } = request
  const { name: upstream } = routed.upstream
  const headers = Headers.outgoing(rawHeaders, given.connection, false, exchange)
  const length = given["content-length"]
  const hasBody = length !== undefined || given["transfer-encoding"] !== undefined
  // With the caller's length the body is not sent in chunks, which some providers refuse.
  if (body === undefined && length !== undefined) headers.push("content-length", length)
  // The HTTP client destroys its body if the answer comes first. The request itself must stay readable.
  const arriving = body === undefined && hasBody ? request.pipe(new PassThrough()) : null
  const sending = Effect.tryPromise({
    try: () =>
      transports.get(upstream)!(
        { method, path: routed.path, headers, body: body ?? arriving, read: false },
        controller.signal
      ),
    catch: (thrown) => thrown
  })
  const answer = yield* Effect.exit(sending)
  if (Exit.isFailure(answer)) {
    activity.ended({ outcome: "failed", upstream })
    return yield* Refusals.refuse(response, Refusals.refusalFor(Refusals.unreachable(Cause.squash(answer.cause))))
  }
  activity.ended({ outcome: "passed", upstream })
  activity.passed(passedKindOf(routed.path), exchange?.holder.name ?? "")
  response.writeHead(answer.value.status, Headers.incoming(answer.value.headers))
  yield* Response.relay(response, answer.value.body)
}, Effect.scoped)

// -----------------------------------------------------------------------------
// Calls
// -----------------------------------------------------------------------------

/** Writes the end of a governed call to a response that has not begun. */
const answer = (response: ServerResponse, end: Refusals.CallEnd): Effect.Effect<void> => {
  if (end._tag === "Refused") return Refusals.refuse(response, end.refusal)
  const { body, isChanged, isFinal, place, response: sent } = end
  const isWhole = body instanceof Uint8Array
  const drop = [
    ...(isWhole || isChanged || sent.isDecoded ? ["content-length"] : []),
    ...(sent.isDecoded ? ["content-encoding"] : [])
  ]
  const headers = Headers.incoming(sent.headers, drop)
  if (isFinal) headers["x-should-retry"] = "false"
  if (place !== undefined) headers["x-floodgate-place"] = place
  if (isWhole) headers["content-length"] = String(body.length)
  response.writeHead(sent.status, headers)
  return isWhole ? Response.end(response, body) : Response.relay(response, body)
}

/** Writes the end of a governed call to a response that has begun with status 200. */
const complete = (response: ServerResponse, planned: Engine.HttpCall, end: Refusals.CallEnd): Effect.Effect<void> => {
  const { protocol } = planned.match
  const isStream = planned.streams === "events"
  if (end._tag === "Answered") {
    const { body, isUnread, response: sent } = end
    const isWhole = body instanceof Uint8Array || isUnread === true
    // A client cannot read a whole answer as a stream, or a stream as a whole answer.
    const isExpectedKind = planned.streams === "list" || isStream === !isWhole
    if (sent.status < 300 && isExpectedKind) {
      return body instanceof Uint8Array ? Response.end(response, body) : Response.relay(response, body)
    }
    if (!(body instanceof Uint8Array)) body.cancel("the answer came too late")
  }
  // The status is already 200, so the client would take an error for an answer.
  if (!isStream) return Effect.sync(() => void response.destroy())
  return Response.end(response, protocol.refuseInStream(Refusals.finalError(end)))
}

/** Rewriting a larger body takes too long: unless something can be inserted, usage is not requested, and the estimate is kept. */
const maxRewritten = 4 * 1_024 * 1_024
/** From this size on, an insertion does not copy the body, or a running call would hold it twice. */
const largeBytes = 64 * 1_024

/** The body that is sent: the caller's own bytes wherever they are not changed. */
const changed = (
  bytes: Buffer,
  headers: ReadonlyArray<string>,
  change: Engine.BodyChange | undefined
): Pick<UpstreamRequest, "body" | "headers"> => {
  if (change === undefined) return { body: bytes, headers }
  if ("text" in change) return { body: change.text, headers }
  const start = bytes.indexOf("{") + 1
  const parts = [bytes.subarray(0, start), Buffer.from(change.insert), bytes.subarray(start)]
  const length = bytes.length + parts[1]!.length
  return length < largeBytes
    ? { body: Buffer.concat(parts), headers }
    : { body: Readable.from(parts), headers: [...headers, "content-length", String(length)] }
}

/** The response to a call, which has to begin early if the call waits for long. */
const heldResponse = (response: ServerResponse, { match, streams }: Engine.HttpCall): Response.HeldResponse => {
  const { keepAlive } = match.protocol
  return streams === "events"
    ? { response, contentType: "text/event-stream", text: keepAlive.stream, began: false }
    : { response, contentType: "application/json", text: keepAlive.whole, began: false }
}

const outcomeOf = (end: Refusals.CallEnd): RequestEnd["outcome"] => {
  if (end._tag === "Refused") return end.isLost ? "failed" : "refused"
  return end.isFinal ? "failed" : "answered"
}

/** Returns the function that counts and logs the end of a call, without its content and keys. */
const reporter = ({ exchange, parts, routed }: ProxiedRequest, planned: Engine.HttpCall, startedAt: number) => {
  const { model, protocol } = planned.request
  const agent = agentOf(planned)
  return (outcome: RequestEnd["outcome"], status: number, place?: string): Effect.Effect<void> => {
    const upstream = (parts.places && upstreamOfPlace(parts.places, model, place)) ?? routed.upstream.name
    parts.activity.ended({ upstream, outcome, agent })
    const millis = parts.now() - startedAt
    const key = exchange === undefined ? {} : { key: exchange.holder.name }
    return Effect.logDebug({ event: "call", upstream, protocol, model, agent, ...key, place, outcome, status, millis })
  }
}

/** Makes a governed call. */
const govern = (proxied: ProxiedRequest, planned: Engine.HttpCall, bytes: Buffer): Effect.Effect<void> => {
  const { exchange, parts, request, response, routed } = proxied
  const { engine, keeper, maxHold, now, purses, recorder, reviewAfter, transports } = parts
  const headers = Headers.outgoing(request.rawHeaders, request.headers.connection, true, exchange)
  const outgoing = { method: request.method ?? "POST", read: true }
  const startedAt = now()
  const times = recorder?.came(planned, startedAt)
  const own = { upstream: routed.upstream.name, path: routed.path, headers }
  const send: Engine.SendAttempt<UpstreamResponse> = (signal, change, target) => {
    if (times !== undefined) times.sentAt = now()
    const { headers: sent, path, upstream } = target === undefined ? own : addressed(headers, target)
    return transports.get(upstream)!({ ...outgoing, path, ...changed(bytes, sent, change) }, signal)
  }
  const call = engine
    .call(planned, send)
    .pipe(Retry.withDeadline(maxHold), Effect.provideService(ReviewAt, startedAt + reviewAfter))
  const paying = Result.isSuccess(planned.terms) ? (planned.terms.success.callOptions.purses ?? []) : []
  const report = reporter(proxied, planned, startedAt)
  const held = heldResponse(response, planned)
  keeper.add(held)
  return Effect.uninterruptibleMask((restore) => {
    const leave = purses.use(paying)
    return Effect.flatMap(Effect.exit(restore(call)), (exit): Effect.Effect<void> => {
      leave()
      keeper.remove(held)
      if (Exit.isFailure(exit) && (Cause.hasInterrupts(exit.cause) || Cause.hasDies(exit.cause))) {
        const outcome = Cause.hasInterrupts(exit.cause) ? "hung up" : "failed"
        return Effect.andThen(report(outcome, 0), Effect.failCause(exit.cause as Cause.Cause<never>))
      }
      const end: Refusals.CallEnd = Exit.isSuccess(exit)
        ? { _tag: "Answered", ...exit.value }
        : Refusals.refused(planned, Cause.squash(exit.cause))
      const written = held.began ? complete(response, planned, end) : answer(response, end)
      const abandon = Effect.sync(() => {
        if (end._tag === "Answered" && !(end.body instanceof Uint8Array)) end.body.cancel("the client hung up")
      })
      return Effect.andThen(
        end._tag === "Refused"
          ? report(outcomeOf(end), end.refusal.status)
          : report(outcomeOf(end), end.response.status, end.place),
        Effect.onInterrupt(restore(written), () => abandon)
      )
    })
  })
}

/** Refuses a call because of its body. */
const refuseBody = (
  { parts, response, routed }: ProxiedRequest,
  { protocol }: Match,
  refusal: Refusal
): Effect.Effect<void> =>
  Effect.suspend(() => {
    parts.activity.ended({ outcome: "refused", upstream: routed.upstream.name })
    return Refusals.refuse(response, Refusals.refusalFor(refusal, protocol))
  })

/** Answers a call whose body was read. */
const answerCall = (
  proxied: ProxiedRequest,
  found: Match,
  bytes: Buffer,
  held: Bodies.RequestBody
): Effect.Effect<void> => {
  const { exchange, parts, request, routed } = proxied
  const header = Headers.readerOf(request.headers, exchange)
  // Passing on a call that cannot be read would evade all caps and limits.
  if (!/^(?:identity)?$/i.test(header("content-encoding") ?? "")) return refuseBody(proxied, found, Refusals.encoded)
  const parsed = (body: unknown): Effect.Effect<void> => {
    if (!isRecord(body)) return refuseBody(proxied, found, Refusals.notJson)
    const planned = parts.engine.plan(found, {
      url: routed.url,
      header,
      text: bytes.length <= maxRewritten ? () => bytes.toString() : undefined,
      parsed: body,
      hold: (length) => held.hold(length)
    })
    // Bedrock serves models with bodies that no protocol knows.
    return planned === undefined ? pass(proxied, bytes) : govern(proxied, planned, bytes)
  }
  return bytes.length <= Bodies.quickBytes
    ? parsed(Bodies.parse(bytes))
    : Bodies.readLarge(held.memory, bytes, parsed, (values) =>
        refuseBody(proxied, found, Refusals.tooManyValues(values))
      )
}

/** Answers a request whose upstream is known. The body of a call is read first. */
export const handle = (
  proxied: ProxiedRequest,
  body: Bodies.RequestBody,
  run: (answer: Effect.Effect<void>) => void
): void => {
  const { request, response, routed } = proxied
  const { call } = routed
  if (call === undefined) return run(pass(proxied, undefined))
  body.read(request, (read) => {
    if (typeof read !== "string") {
      const answered = Effect.suspend(() => answerCall(proxied, call, read, body))
      return run(Effect.catchDefect(answered, (why) => Refusals.failed(response, why)))
    }
    response.setHeader("connection", "close")
    run(refuseBody(proxied, call, Refusals.unread[read]))
  })
}
