/** Passes requests on to their upstreams, and the answers back. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { PassThrough } from "node:stream"
import type { Refusal } from "floodgate/protocol"
import { type Engine, isRecord, type Match } from "floodgate/internal"
import * as Bodies from "./bodies.ts"
import { govern, type ProxiedRequest } from "./call.ts"
import * as Headers from "./headers.ts"
import * as Refusals from "./refusals.ts"
import * as Response from "./response.ts"
import { passedKindOf } from "./passed.ts"

// -----------------------------------------------------------------------------
// Other requests
// -----------------------------------------------------------------------------

/** Passes a request on unchanged, and its response back as it arrives. */
const pass = Effect.fnUntraced(function* (
  { exchange, parts: { activity, now, transports }, request, response, routed }: ProxiedRequest,
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
      transports.get(upstream)!.send({ method, path: routed.path, headers, body: body ?? arriving }, controller.signal),
    catch: (thrown) => thrown
  })
  const answer = yield* Effect.exit(sending)
  if (Exit.isFailure(answer)) {
    activity.ended({ outcome: "failed", upstream })
    const refusal = Refusals.unreachable(Cause.squash(answer.cause), now())
    return yield* Refusals.refuse(response, Refusals.refusalFor(refusal, routed.protocol))
  }
  activity.ended({ outcome: "passed", upstream })
  activity.passed(passedKindOf(routed.path), exchange?.holder.name ?? "")
  const { headers: received, phrase, status } = answer.value
  response.writeHead(status, phrase, Headers.incoming(received))
  yield* Response.relay(response, answer.value)
}, Effect.scoped)

// -----------------------------------------------------------------------------
// Calls
// -----------------------------------------------------------------------------

/** Rewriting a larger body takes too long: unless something can be inserted, usage is not requested, and the estimate is kept. */
const maxRewritten = 4 * 1_024 * 1_024

/** Refuses a call because of its body. */
const refuseBody = (
  { answering, parts, response, routed }: ProxiedRequest,
  { protocol }: Match,
  refusal: Refusal
): void => {
  parts.activity.ended({ outcome: "refused", upstream: routed.upstream.name })
  answering.run(Refusals.refuse(response, Refusals.refusalFor(refusal, protocol)))
}

/** Answers a call whose body was read. */
const answerCall = (proxied: ProxiedRequest, found: Match, bytes: Buffer, held: Bodies.RequestBody): void => {
  const { answering, exchange, parts, request, routed } = proxied
  const header = Headers.readerOf(request.headers, exchange)
  // Passing on a call that cannot be read would evade all caps and limits.
  if (!/^(?:identity)?$/i.test(header("content-encoding") ?? "")) return refuseBody(proxied, found, Refusals.encoded)
  /** What to do with a call. It does not refer to the parsed body, which takes several times as much memory. */
  const parsed = (body: unknown): (() => void) => {
    if (!isRecord(body)) return () => refuseBody(proxied, found, Refusals.notJson)
    const planned = parts.engine.plan(found, {
      url: routed.url,
      header,
      text: bytes.length <= maxRewritten ? () => bytes.toString() : undefined,
      parsed: body,
      hold: (length) => held.hold(length)
    })
    return next(proxied, planned, bytes)
  }
  if (Bodies.isQuick(bytes)) return parsed(Bodies.parse(bytes))()
  const refused = (values: number) => () => refuseBody(proxied, found, Refusals.tooManyValues(values))
  const read = Bodies.readLarge(held.memory, bytes, parsed, refused)
  const answered = Effect.flatMap(read, (answer) => Effect.sync(answer))
  answering.run(Effect.catchDefect(answered, (why) => Refusals.failed(proxied.response, why)))
}

/** Bedrock serves models with bodies that no protocol knows. */
const next =
  (proxied: ProxiedRequest, planned: Engine.HttpCall | undefined, bytes: Buffer): (() => void) =>
  () => {
    if (planned === undefined) proxied.answering.run(pass(proxied, bytes))
    else govern(proxied, planned, bytes)
  }

/** Answers a request whose upstream is known. The body of a call is read first. */
export const handle = (proxied: ProxiedRequest, body: Bodies.RequestBody): void => {
  const { answering, request, response, routed } = proxied
  const { call } = routed
  if (call === undefined) return answering.run(pass(proxied, undefined))
  body.read(request, (read) => {
    if (typeof read === "string") {
      response.setHeader("connection", "close")
      return refuseBody(proxied, call, Refusals.unread[read])
    }
    try {
      answerCall(proxied, call, read, body)
    } catch (thrown) {
      answering.run(Refusals.failed(response, thrown))
    }
  })
}
