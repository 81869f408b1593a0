/** Passes on requests that are no calls, unless they cost what nobody counts and a cap applies to their callers. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { IncomingMessage } from "node:http"
import { PassThrough } from "node:stream"
import type { Engine, Refusing } from "floodgate/internal"
import type * as Bodies from "./bodies.ts"
import type { ProxiedRequest } from "./call.ts"
import * as Headers from "./headers.ts"
import { passedKindOf } from "./passed.ts"
import * as Refusals from "./refusals.ts"
import * as Response from "./response.ts"

/** Whether a request has a body. */
export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0

/** Decides on a request, with its body or before it was read. */
const judge = ({ exchange, parts, request, routed }: ProxiedRequest, body: string | undefined): Engine.Judgement =>
  parts.engine.judge({
    method: request.method ?? "GET",
    url: routed.url,
    header: Headers.readerOf(request.headers, exchange),
    protocol: routed.protocol,
    hasBody: hasBody(request),
    body,
    caller: exchange === undefined ? undefined : `the key ${exchange.holder.name}`
  })

/** This much of a body is searched for the name of a model, to report requests that nobody counts. */
const maxSearched = 64 * 1_024

/** Reads the beginning of a body that is passed on as it arrives. */
const searched = (request: IncomingMessage, found: (text: string) => void): void => {
  const chunks: Array<Buffer> = []
  let size = 0
  request.on("data", (chunk: Buffer) => {
    if (size < maxSearched) chunks.push(chunk)
    size += chunk.length
  })
  request.on("end", () => found(Buffer.concat(chunks).toString("latin1", 0, maxSearched)))
}

/** Passes a request on unchanged, and its response back as it arrives. */
const pass = Effect.fnUntraced(function* (proxied: ProxiedRequest, body: Buffer | undefined) {
  const { exchange, parts, record, request, response, routed, span } = proxied
  const { activity, now, transports } = parts
  const controller = yield* Effect.acquireRelease(
    Effect.sync(() => new AbortController()),
    (controller) => Effect.sync(() => controller.abort())
  )
  const { headers: given, method = "GET", rawHeaders } = request
  const { name: upstream } = routed.upstream
  const headers = [
    ...Headers.traced(Headers.outgoing(rawHeaders, given.connection, false, exchange), span?.traceparent)
  ]
  const length = given["content-length"]
  const isSent = length !== undefined || given["transfer-encoding"] !== undefined
  if (body === undefined && isSent) searched(request, (text) => void judge(proxied, text))
  // With the caller's length the body is not sent in chunks, which some providers refuse.
  if (body === undefined && length !== undefined) headers.push("content-length", length)
  // The HTTP client destroys its body if the answer comes first. The request itself must stay readable.
  const arriving = body === undefined && isSent ? request.pipe(new PassThrough()) : null
  const sending = Effect.tryPromise({
    try: () =>
      transports.get(upstream)!.send({ method, path: routed.path, headers, body: body ?? arriving }, controller.signal),
    catch: (thrown) => thrown
  })
  record?.sent(now())
  const answer = yield* Effect.exit(sending)
  if (Exit.isFailure(answer)) {
    activity.ended({ outcome: "failed", upstream })
    const refusal = Refusals.unreachable(Cause.squash(answer.cause), now())
    record?.ended("failed", refusal.kind)
    return yield* Refusals.refuse(response, Refusals.refusalFor(refusal, routed.protocol))
  }
  activity.ended({ outcome: "passed", upstream })
  record?.ended("passed")
  activity.passed(passedKindOf(routed.path), exchange?.holder.name ?? "")
  const { headers: received, phrase, status } = answer.value
  Response.begin(response, status, Headers.incoming(received), phrase)
  yield* Response.relay(response, answer.value, () => record?.ended("broke off"))
}, Effect.scoped)

const refuse = (
  { answering, parts, record, response, routed }: ProxiedRequest,
  refusal: Refusing.RefusalResponse,
  reason: Refusing.Refusal["kind"]
): void => {
  record?.ended("refused", reason)
  parts.activity.ended({ outcome: "refused", upstream: routed.upstream.name })
  answering.run(Refusals.refuse(response, refusal))
}

/** Passes on a request whose body was read, unless it is refused. */
export const passRead = (proxied: ProxiedRequest, bytes: Buffer): void => {
  const verdict = judge(proxied, bytes.toString("latin1"))
  if (typeof verdict === "object") refuse(proxied, verdict, "spendLimited")
  else proxied.answering.run(pass(proxied, bytes))
}

/** Passes on a request, unless it is refused. Its body is read first if a cap applies to its caller, and as it arrives otherwise. */
export const passOn = (proxied: ProxiedRequest, body: Bodies.RequestBody): void => {
  const verdict = judge(proxied, undefined)
  if (typeof verdict === "object") return refuse(proxied, verdict, "spendLimited")
  if (verdict === "passes") return proxied.answering.run(pass(proxied, undefined))
  const { request, response, routed } = proxied
  body.read(request, (read) => {
    if (typeof read === "string") {
      response.setHeader("connection", "close")
      const refusal = Refusals.unread[read]
      return refuse(proxied, Refusals.refusalFor(refusal, routed.protocol), refusal.kind)
    }
    try {
      passRead(proxied, read)
    } catch (thrown) {
      proxied.record?.ended("failed")
      proxied.answering.run(Refusals.failed(response, thrown))
    }
  })
}
