/** One request and its response. */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import type { IncomingMessage, ServerResponse } from "node:http"
import { Readable } from "node:stream"
import { PassThrough } from "node:stream"
import * as Retry from "floodgate/Retry"
import { anthropic, type Protocol, type Refusal } from "floodgate/protocol"
import {
  at,
  Engine,
  harmless,
  isRecord,
  type Match,
  maxValues,
  parseJson,
  promptTokens,
  type RefusalResponse,
  ReviewAt
} from "floodgate/internal"
import type { Activity, RequestEnd } from "./activity.ts"
import * as Headers from "./headers.ts"
import type { CallerPurses } from "./purses.ts"
import * as Request from "./request.ts"
import * as Response from "./response.ts"
import type { Routed } from "./routes.ts"
import type { UpstreamRequest, UpstreamResponse, Transport } from "./transport.ts"

/** The parts of a gateway that all requests share. */
export interface ProxyParts {
  readonly engine: Engine.Engine
  readonly transports: ReadonlyMap<string, Transport>
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

// -----------------------------------------------------------------------------
// Records
// -----------------------------------------------------------------------------

/**
 * An answered call, without its content.
 *
 * @category models
 * @since 0.2.0
 */
export interface Recorded {
  /** When the request arrived, in milliseconds since the epoch. */
  readonly at: number
  readonly model: string
  readonly agent: string
  /** Tokens of the whole prompt, cached or not. */
  readonly inputTokens: number
  readonly outputTokens: number
  /** The time from the arrival of the request to its last attempt. */
  readonly waitedMillis: number
}

interface CallTimes {
  readonly at: number
  sentAt: number
}

/** Records calls. */
interface CallRecorder {
  readonly came: (planned: Engine.PlannedCall, at: number) => CallTimes
  readonly used: (planned: Engine.PlannedCall) => Engine.OnUsage
}

/** The agent that a call counts for. */
export const agentOf = ({ request, terms }: Engine.PlannedCall): string =>
  (Result.isSuccess(terms) ? terms.success.callOptions.agent : request.agent) ?? "unknown"

export const makeRecorder = (callback: (call: Recorded) => void): CallRecorder => {
  const record = harmless(callback)
  const times = new WeakMap<Engine.PlannedCall, CallTimes>()
  return {
    came: (planned, at) => {
      const own = { at, sentAt: at }
      times.set(planned, own)
      return own
    },
    used: (planned) => {
      const { model } = planned.request
      const agent = agentOf(planned)
      const { at, sentAt } = times.get(planned)!
      return (actual) => {
        if (actual === undefined) return
        const { outputTokens } = actual
        record({ at, model, agent, inputTokens: promptTokens(actual), outputTokens, waitedMillis: sentAt - at })
      }
    }
  }
}

// -----------------------------------------------------------------------------
// Refusals and failures
// -----------------------------------------------------------------------------

/** Answers with a refusal of the gateway. */
export const refuse = (response: ServerResponse, { body, headers, status }: RefusalResponse): Effect.Effect<void> =>
  Response.whole(response, status, headers, body)

/** A refusal on a route without a known protocol has Anthropic's form, which any client can read. */
export const refusalFor = (refusal: Refusal, protocol: Protocol = anthropic): RefusalResponse =>
  protocol.refuse(refusal)

/** The end of a call: the provider's answer, or a refusal by the gateway. */
type CallEnd =
  | ({ readonly _tag: "Answered" } & Engine.CallResult<UpstreamResponse>)
  | { readonly _tag: "Refused"; readonly refusal: RefusalResponse; readonly isLost: boolean }

const unread: Readonly<Record<Request.Unread, Refusal>> = {
  tooLarge: {
    kind: "tooLarge",
    message: "The body is larger than the gateway accepts (option maxBodyBytes): send less at once"
  },
  slow: {
    kind: "timedOut",
    message: "The body arrived too slowly, almost nothing in 10 seconds: use a faster connection"
  },
  full: {
    kind: "unavailable",
    message: "The gateway has no memory left for request bodies (option maxHeldBytes): try again in a moment"
  }
}

/** Why the provider could not be reached, without any part of the request. */
const whyOf = (thrown: unknown): string => {
  const { code, message } = (thrown ?? {}) as { readonly code?: unknown; readonly message?: unknown }
  const why = typeof code === "string" ? code : message
  return `No answer from the provider: ${typeof why === "string" && why !== "" ? why : "unknown error"}`
}

const failedHere: Refusal = { kind: "unavailable", message: "The gateway failed to handle this request: see its log" }

/** Answers a request on which the gateway itself failed, for example because a callback threw. A retry would not help. */
export const failed = (response: ServerResponse, why: unknown): Effect.Effect<void> =>
  Effect.andThen(
    Effect.logError("A request failed in the gateway", why),
    Effect.suspend(() => {
      if (response.headersSent) return Effect.void
      const refusal = refusalFor(failedHere)
      return refuse(response, { ...refusal, headers: { ...refusal.headers, "x-should-retry": "false" } })
    })
  )

/** The kind of refusal that corresponds to a status of the provider. */
const kindOf = (status: number): Refusal["kind"] => {
  if (status === 429) return "rateLimited"
  if (status === 413) return "tooLarge"
  return status === 402 ? "spendLimited" : "unavailable"
}

/** The number of bytes of a provider's error that are quoted. */
const maxQuoted = 1_000
const decoder = new TextDecoder()

/** The error that ends a stream that has already begun. */
const finalError = (result: CallEnd): Refusal => {
  if (result._tag === "Refused") {
    const { body, status } = result.refusal
    const message = at(parseJson(body), "error", "message")
    return { kind: kindOf(status), message: typeof message === "string" ? message : "The call was refused" }
  }
  const { status } = result.response
  const body = result.body instanceof Uint8Array ? decoder.decode(result.body.subarray(0, maxQuoted)) : ""
  return { kind: kindOf(status), message: `The provider answered with status ${status}: ${body}` }
}

// -----------------------------------------------------------------------------
// Exchanges
// -----------------------------------------------------------------------------

/** Passes a request on unchanged, and its response back as it arrives. */
const pass = Effect.fnUntraced(function* (
  { activity, transports }: ProxyParts,
  routed: Routed,
  request: IncomingMessage,
  response: ServerResponse,
  body: Buffer | undefined
) {
  const controller = yield* Effect.acquireRelease(
    Effect.sync(() => new AbortController()),
    (controller) => Effect.sync(() => controller.abort())
  )
  const { headers: given, method = "GET", rawHeaders } = request
  const headers = Headers.outgoing(rawHeaders, given.connection, false)
  const length = given["content-length"]
  const hasBody = length !== undefined || given["transfer-encoding"] !== undefined
  // With the caller's length the body is not sent in chunks, which some providers refuse.
  if (body === undefined && length !== undefined) headers.push("content-length", length)
  // The HTTP client destroys its body if the answer comes first. The request itself must stay readable.
  const arriving = body === undefined && hasBody ? request.pipe(new PassThrough()) : null
  const sending = Effect.tryPromise({
    try: () =>
      transports.get(routed.upstream.name)!(
        { method, path: routed.path, headers, body: body ?? arriving, read: false },
        controller.signal
      ),
    catch: (thrown) => thrown
  })
  const answer = yield* Effect.exit(sending)
  if (Exit.isFailure(answer)) {
    activity.ended({ outcome: "failed", upstream: routed.upstream.name })
    const message = whyOf(Cause.squash(answer.cause))
    return yield* refuse(response, refusalFor({ kind: "unavailable", message }))
  }
  activity.ended({ outcome: "passed", upstream: routed.upstream.name })
  response.writeHead(answer.value.status, Headers.incoming(answer.value.headers))
  yield* Response.relay(response, answer.value.body)
}, Effect.scoped)

/** Writes the outcome of a governed call to a response that has not begun. */
const answer = (response: ServerResponse, result: CallEnd): Effect.Effect<void> => {
  if (result._tag === "Refused") return refuse(response, result.refusal)
  const { body, isChanged, isFinal, response: sent } = result
  const isWhole = body instanceof Uint8Array
  const drop = [
    ...(isWhole || isChanged || sent.isDecoded ? ["content-length"] : []),
    ...(sent.isDecoded ? ["content-encoding"] : [])
  ]
  const headers = Headers.incoming(sent.headers, drop)
  if (isFinal) headers["x-should-retry"] = "false"
  if (isWhole) headers["content-length"] = String(body.length)
  response.writeHead(sent.status, headers)
  return isWhole ? Response.end(response, body) : Response.relay(response, body)
}

/** Writes the outcome of a governed call to a response that has begun with status 200. */
const complete = (response: ServerResponse, planned: Engine.PlannedCall, result: CallEnd): Effect.Effect<void> => {
  const { protocol } = planned.match
  const isStream = planned.streams === "events"
  if (result._tag === "Answered") {
    const { body, isUnread, response: sent } = result
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
  return Response.end(response, protocol.refuseInStream(finalError(result)))
}

/** The outcome of a call without an answer: the budget refused it, or the provider could not be reached. */
const refused = (planned: Engine.PlannedCall, error: unknown): CallEnd => {
  const refusal = Engine.refuse(planned, error)
  if (refusal !== undefined) return { _tag: "Refused", refusal, isLost: false }
  const lost = refusalFor({ kind: "unavailable", message: whyOf(error) }, planned.match.protocol)
  // The governor has retried it already.
  return {
    _tag: "Refused",
    refusal: { ...lost, headers: { ...lost.headers, "x-should-retry": "false" } },
    isLost: true
  }
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

/** Makes a governed call. */
const govern = (
  parts: ProxyParts,
  routed: Routed,
  request: IncomingMessage,
  response: ServerResponse,
  planned: Engine.PlannedCall,
  bytes: Buffer
): Effect.Effect<void> => {
  const { activity, engine, keeper, maxHold, now, reviewAfter, transports } = parts
  const { protocol } = planned.match
  const transport = transports.get(routed.upstream.name)!
  const headers = Headers.outgoing(request.rawHeaders, request.headers.connection, true)
  const outgoing = { method: request.method ?? "POST", path: routed.path, headers, read: true }
  const send: Engine.SendAttempt<UpstreamResponse> = (signal, change) => {
    if (times !== undefined) times.sentAt = now()
    return transport({ ...outgoing, ...changed(bytes, headers, change) }, signal)
  }
  const { name: upstream } = routed.upstream
  const isStream = planned.streams === "events"
  const { model, protocol: spoken } = planned.request
  const agent = agentOf(planned)
  const held: Response.HeldResponse = {
    response,
    contentType: isStream ? "text/event-stream" : "application/json",
    text: isStream ? protocol.keepAlive.stream : protocol.keepAlive.whole,
    began: false
  }
  const nameOf = (result: CallEnd): RequestEnd["outcome"] => {
    if (result._tag === "Refused") return result.isLost ? "failed" : "refused"
    return result.isFinal ? "failed" : "answered"
  }
  const startedAt = now()
  const times = parts.recorder?.came(planned, startedAt)
  const ended = (outcome: RequestEnd["outcome"], status: number): Effect.Effect<void> => {
    activity.ended({ upstream, outcome, agent })
    // Neither content nor keys are logged.
    const millis = now() - startedAt
    return Effect.logDebug({ event: "call", upstream, protocol: spoken, model, agent, outcome, status, millis })
  }
  const call = engine
    .call(planned, send)
    .pipe(Retry.withDeadline(maxHold), Effect.provideService(ReviewAt, startedAt + reviewAfter))
  keeper.add(held)
  return Effect.uninterruptibleMask((restore) => {
    const leave = parts.purses.use(
      Result.isSuccess(planned.terms) ? (planned.terms.success.callOptions.purses ?? []) : []
    )
    return Effect.flatMap(Effect.exit(restore(call)), (exit): Effect.Effect<void> => {
      leave()
      keeper.remove(held)
      if (Exit.isFailure(exit) && (Cause.hasInterrupts(exit.cause) || Cause.hasDies(exit.cause))) {
        const outcome = Cause.hasInterrupts(exit.cause) ? "hung up" : "failed"
        return Effect.andThen(ended(outcome, 0), Effect.failCause(exit.cause as Cause.Cause<never>))
      }
      const result: CallEnd = Exit.isSuccess(exit)
        ? { _tag: "Answered", ...exit.value }
        : refused(planned, Cause.squash(exit.cause))
      const status = result._tag === "Refused" ? result.refusal.status : result.response.status
      const left = Effect.sync(() => {
        if (result._tag === "Answered" && !(result.body instanceof Uint8Array)) result.body.cancel("the client hung up")
      })
      const written = held.began ? complete(response, planned, result) : answer(response, result)
      return Effect.andThen(
        ended(nameOf(result), status),
        Effect.onInterrupt(restore(written), () => left)
      )
    })
  })
}

const why = "the gateway must be able to read it"
const encoded: Refusal = { kind: "invalid", message: `Send the body of a call without content-encoding: ${why}` }
const notJson: Refusal = { kind: "invalid", message: `Send the body of a call as a JSON object in UTF-8: ${why}` }
const tooMany = (values: number): Refusal => ({
  kind: "tooLarge",
  message: `The body has ${values} JSON values, and the gateway reads at most ${maxValues}: send fewer messages`
})

/** Refuses a call because of its body. */
const refuseBody = (
  parts: ProxyParts,
  routed: Routed,
  { protocol }: Match,
  response: ServerResponse,
  refusal: Refusal
): Effect.Effect<void> =>
  Effect.suspend(() => {
    parts.activity.ended({ outcome: "refused", upstream: routed.upstream.name })
    return refuse(response, refusalFor(refusal, protocol))
  })

/** Answers a call whose body was read. */
const answerCall = (
  parts: ProxyParts,
  routed: Routed,
  found: Match,
  request: IncomingMessage,
  response: ServerResponse,
  bytes: Buffer,
  held: Request.Body
): Effect.Effect<void> => {
  const header = Headers.readerOf(request.headers)
  const refused = (refusal: Refusal) => refuseBody(parts, routed, found, response, refusal)
  // Passing on a call that cannot be read would evade all caps and limits.
  if (!/^(?:identity)?$/i.test(header("content-encoding") ?? "")) return refused(encoded)
  const parsed = (body: unknown): Effect.Effect<void> => {
    if (!isRecord(body)) return refused(notJson)
    // Bedrock serves models with bodies that no protocol knows.
    const planned = parts.engine.plan(found, {
      url: routed.url,
      header,
      text: bytes.length <= maxRewritten ? () => bytes.toString() : undefined,
      parsed: body,
      hold: (length) => held.hold(length)
    })
    return planned === undefined
      ? pass(parts, routed, request, response, bytes)
      : govern(parts, routed, request, response, planned, bytes)
  }
  return bytes.length <= Request.quickBytes
    ? parsed(Request.parse(bytes))
    : Request.readLarge(held.memory, bytes, parsed, (values) => refused(tooMany(values)))
}

/** Answers a request whose upstream is known. The body of a call is read first. */
export const handle = (
  parts: ProxyParts,
  routed: Routed,
  request: IncomingMessage,
  response: ServerResponse,
  body: Request.Body,
  run: (answer: Effect.Effect<void>) => void
): void => {
  const { call } = routed
  if (call === undefined) return run(pass(parts, routed, request, response, undefined))
  body.read(request, (read) => {
    if (typeof read !== "string") {
      const answered = Effect.suspend(() => answerCall(parts, routed, call, request, response, read, body))
      return run(Effect.catchDefect(answered, (why) => failed(response, why)))
    }
    response.setHeader("connection", "close")
    run(refuseBody(parts, routed, call, response, unread[read]))
  })
}
