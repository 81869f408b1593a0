/** Tells calls from other requests, and reads the bodies of calls. */
import * as Effect from "effect/Effect"
import { type Engine, Json, type Matching, type Refusing } from "floodgate/internal"
import * as Bodies from "./bodies.ts"
import { govern, type ProxiedRequest } from "./call.ts"
import { evasionIn } from "./evasion.ts"
import * as Headers from "./headers.ts"
import * as Refusals from "./refusals.ts"
import { passOn, passRead } from "./passing.ts"

// -----------------------------------------------------------------------------
// Calls
// -----------------------------------------------------------------------------

/** Rewriting a larger body takes too long: unless something can be inserted, usage is not requested, and the estimate is kept. */
const maxRewritten = 4 * 1_024 * 1_024

/** Refuses a call because of how it was sent. */
const refuseBody = (
  { answering, parts, record, response, routed }: ProxiedRequest,
  found: Matching.Match | undefined,
  refusal: Refusing.Refusal
): void => {
  record?.ended("refused", refusal.kind)
  parts.activity.ended({ outcome: "refused", upstream: routed.upstream.name })
  answering.run(Refusals.refuse(response, Refusals.refusalFor(refusal, (found ?? routed).protocol)))
}

/** Answers a request on which the gateway itself failed. */
const fail = ({ record, response }: ProxiedRequest, thrown: unknown): Effect.Effect<void> => {
  record?.ended("failed")
  return Refusals.failed(response, thrown)
}

/** Answers a call whose body was read. */
const answerCall = (proxied: ProxiedRequest, found: Matching.Match, bytes: Buffer, held: Bodies.RequestBody): void => {
  const { answering, exchange, parts, request, routed } = proxied
  const header = Headers.readerOf(request.headers, exchange)
  // Passing on a call that cannot be read would evade all caps and limits.
  if (!/^(?:identity)?$/i.test(header("content-encoding") ?? "")) return refuseBody(proxied, found, Refusals.encoded)
  /** Decides what to do with a call. It does not refer to the parsed body, which takes several times as much memory. */
  const parsed = (body: unknown): (() => void) => {
    const isObject = Json.isRecord(body)
    if (!isObject && bytes.length > 0) return () => refuseBody(proxied, found, Refusals.notJson)
    const planned = parts.engine.plan(found, {
      url: routed.url,
      header,
      text: bytes.length <= maxRewritten ? () => bytes.toString() : undefined,
      parsed: isObject ? body : {},
      hold: (length) => held.hold(length)
    })
    // A request without a body may be another one than a call.
    if (!isObject && planned !== undefined) return () => refuseBody(proxied, found, Refusals.notJson)
    return next(proxied, planned, bytes)
  }
  if (Bodies.isQuick(bytes)) return parsed(Bodies.parse(bytes))()
  const refused = (values: number) => () => refuseBody(proxied, found, Refusals.tooManyValues(values))
  const read = Bodies.readLarge(held.memory, bytes, parsed, refused)
  const answered = Effect.flatMap(read, (answer) => Effect.sync(answer))
  answering.run(Effect.catchDefect(answered, (why) => fail(proxied, why)))
}

/** Some paths have bodies that no protocol knows: Bedrock's of other models, and OpenAI's conversations. */
const next =
  (proxied: ProxiedRequest, planned: Engine.HttpCall | undefined, bytes: Buffer): (() => void) =>
  () => {
    if (planned === undefined) passRead(proxied, bytes)
    else govern(proxied, planned, bytes)
  }

/** Answers a request whose upstream is known. The body of a call is read first. */
export const handle = (proxied: ProxiedRequest, body: Bodies.RequestBody): void => {
  const { answering, request, response, routed } = proxied
  const { call } = routed
  const evasion = evasionIn(proxied)
  if (evasion !== undefined) return refuseBody(proxied, evasion.match, evasion.refusal)
  if (call === undefined) return passOn(proxied, body)
  body.read(request, (read) => {
    if (typeof read === "string") {
      response.setHeader("connection", "close")
      return refuseBody(proxied, call, Refusals.unread[read])
    }
    try {
      answerCall(proxied, call, read, body)
    } catch (thrown) {
      answering.run(fail(proxied, thrown))
    }
  })
}
