/** Makes governed calls, and writes their answers. */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Result from "effect/Result"
import type { IncomingMessage, ServerResponse } from "node:http"
import { Readable } from "node:stream"
import { Bounds, Deadline, Engine, Lines, MoneyWait, type Refusing, ReviewAt, type Silence } from "floodgate/internal"
import type { Activity, RequestEnd } from "./activity.ts"
import { type Caller, type FindCaller, inJob } from "./callers.ts"
import type { OpenAnswer } from "./openAnswer.ts"
import type { Exchange } from "./credentials.ts"
import * as Headers from "./headers.ts"
import type { JobCall } from "./jobs.ts"
import type { ParsedOptions } from "./options.ts"
import { addressed, upstreamOfPlace } from "./places.ts"
import type { CallerPurses } from "./purses.ts"
import type { JobTrees } from "./trees.ts"
import { agentOf, type CallRecorder } from "./records.ts"
import * as Refusals from "./refusals.ts"
import type { OpenRequest, RecentRequests } from "./requests.ts"
import * as Response from "./response.ts"
import type { Routed } from "./routes.ts"
import type { RequestSpan } from "./tracing.ts"
import type { Transport, UpstreamRequest, UpstreamResponse } from "./transport.ts"
import { type AskedTicket, asked, promised, refuseTicket } from "./ticketed.ts"
import type { Tickets } from "./tickets.ts"
import type { Whose } from "./whose.ts"

/** The parts of a gateway that all requests share. */
export interface ProxyParts {
  readonly engine: Engine.Engine
  readonly transports: ReadonlyMap<string, Transport>
  readonly places: ParsedOptions["places"]
  readonly activity: Activity
  readonly recorder: CallRecorder | undefined
  readonly purses: CallerPurses
  readonly trees: JobTrees
  readonly tickets: Tickets
  /** Finds the caller of a request by the rules. */
  readonly find: FindCaller
  /** Whether answers state the caps of their callers. */
  readonly statesCaps: boolean
  /** Where requests that have ended are remembered; undefined if they are not. */
  readonly requests: RecentRequests | undefined
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly keeper: Response.Keeper
  readonly timer: Silence.SilenceTimer
  /** Logs the end of a call; undefined if nothing logs at that level. */
  readonly log: ((end: Readonly<Record<string, unknown>>) => void) | undefined
  readonly maxHold: Duration.Duration
  /** When the wait is predicted a second time, in milliseconds after arrival: a refusal is still possible then. */
  readonly reviewAfter: number
}

/** A request on its way through the gateway. */
export interface ProxiedRequest {
  readonly answering: OpenAnswer
  readonly parts: ProxyParts
  readonly routed: Routed
  /** The caller's key and the credential that is sent instead, if the gateway has keys of its own. */
  readonly exchange: Exchange | undefined
  readonly whose: Whose
  /** Its record; undefined if it has none. */
  readonly record: OpenRequest | undefined
  /** Its span; undefined if the gateway does not trace. */
  readonly span: RequestSpan | undefined
  readonly request: IncomingMessage
  readonly response: ServerResponse
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

const ofCoding: ReadonlyArray<string> = ["content-length", "content-encoding"]
const ofLength = ofCoding.slice(0, 1)

/** The headers of a provider's answer that no longer hold. */
const outdated = (isDecoded: boolean, isOther: boolean): ReadonlyArray<string> | undefined => {
  if (isDecoded) return ofCoding
  return isOther ? ofLength : undefined
}

/** Writes the headers of an answer. `length` is that of a body which is sent at once. */
const writeHead = (
  response: ServerResponse,
  { isChanged, isFinal, place, response: sent }: Engine.CallResult<UpstreamResponse>,
  length?: number
): void => {
  const headers = Headers.incoming(sent.headers, outdated(sent.isDecoded, length !== undefined || isChanged))
  if (isFinal) headers["x-should-retry"] = "false"
  if (place !== undefined) headers["x-floodgate-place"] = place
  if (length !== undefined) headers["content-length"] = String(length)
  Response.begin(response, sent.status, headers, sent.phrase)
}

/** The content type of a stream to which the gateway can add an event. */
const contentTypes = { events: "text/event-stream", lines: "application/x-ndjson" } as const
const eventsOf = ({ streams }: Engine.HttpCall): keyof typeof contentTypes | undefined =>
  streams === "events" || streams === "lines" ? streams : undefined

/** Whether the client of a response that has begun can read an answer: it expects a stream, or a whole answer. */
const isExpected = (planned: Engine.HttpCall, status: number, isWhole: boolean): boolean =>
  status < 300 && (planned.streams === "list" || (eventsOf(planned) !== undefined) === !isWhole)

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/**
 * How long a call without a stream may wait for money that running calls have reserved, in milliseconds. Nothing is sent meanwhile,
 * so that a refusal has its status: a client takes the end of a response that has begun for a broken connection, and calls again.
 * Node's `fetch` waits 5 minutes for the status of an answer, and the SDKs of OpenAI and Anthropic for 10.
 */
const longestSilence = Bounds.bounds.moneyTime.max

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
    : { body: () => Readable.from(parts), headers: [...headers, "content-length", String(length)] }
}

/** The response to a call, which has to begin early if the call waits for long. */
const heldResponse = (response: ServerResponse, planned: Engine.HttpCall): Response.HeldResponse => {
  const { keepAlive } = planned.match.protocol
  const events = eventsOf(planned)
  return events === undefined
    ? { response, contentType: "application/json", text: keepAlive.whole, began: false, isHeldBack: false }
    : { response, contentType: contentTypes[events], text: keepAlive.stream, began: false, isHeldBack: false }
}

/** Whether something may be sent while a call waits: no byte may be added to a file, or to a stream of frames. */
const mayBegin = ({ description, streams }: Engine.HttpCall): boolean =>
  description.binary !== true && streams !== "frames"

/** Returns the function that counts and logs the end of a call, without its content and keys. */
const reporter = (
  { exchange, parts, record, routed }: ProxiedRequest,
  planned: Engine.HttpCall,
  startedAt: number,
  job: JobCall | undefined
) => {
  const { model, protocol } = planned.request
  const agent = agentOf(planned)
  return (outcome: RequestEnd["outcome"], status: number, place?: string, reason?: Refusing.Refusal["kind"]): void => {
    record?.ended(outcome, reason, place)
    const upstream = (parts.places && upstreamOfPlace(parts.places, model, place)) ?? routed.upstream.name
    parts.activity.ended({ upstream, outcome, agent })
    job?.ended(outcome)
    parts.log?.({
      event: "call",
      upstream,
      protocol,
      model,
      agent,
      ...(exchange !== undefined && { key: exchange.holder.name }),
      place,
      outcome,
      status,
      millis: parts.now() - startedAt
    })
  }
}

// -----------------------------------------------------------------------------
// Calls
// -----------------------------------------------------------------------------

/** A governed call on its way through the gateway. */
interface GatewayCall {
  readonly proxied: ProxiedRequest
  readonly planned: Engine.HttpCall
  readonly held: Response.HeldResponse
  readonly report: ReturnType<typeof reporter>
  /** Its ticket, if its caller asks for one. */
  readonly ticket: AskedTicket | undefined
  /** Releases what the call keeps until its answer begins. */
  readonly release: () => void
}

/** Writes the answer to a call. It is mutable. */
class CallAnswer implements Engine.Outlet<UpstreamResponse> {
  private readonly made: GatewayCall
  private readonly ended: () => void
  private driven: Engine.DrivenCall | undefined = undefined
  /** Whether the end of the call was counted. */
  private isReported = false
  /** Whether the client must read before more is written. */
  private isFull = false

  constructor(made: GatewayCall) {
    this.made = made
    this.ended = made.proxied.answering.drive(() => this.left())
  }

  /** Sets the call, once it has begun. */
  by(call: Engine.DrivenCall): void {
    this.driven = call
  }

  readonly whole = (result: Engine.CallResult<UpstreamResponse>, body: Uint8Array): void =>
    this.guarded(() => {
      const { held, planned, proxied } = this.made
      const { answering, parts, response } = proxied
      const { response: sent } = result
      this.answered(result)
      if (!held.began) writeHead(response, result, body.length)
      else if (!isExpected(planned, sent.status, true)) return this.tooLate(Refusals.answeredBy(sent, body))
      if (!Response.endAtOnce(parts.timer, response, this.ended, body)) answering.run(Response.end(response, body))
    })

  readonly begin = (result: Engine.CallResult<UpstreamResponse>): void =>
    this.guarded(() => {
      const { held, planned, proxied } = this.made
      const { isUnread = false, response: sent } = result
      this.answered(result)
      if (!held.began) return writeHead(proxied.response, result)
      if (isExpected(planned, sent.status, isUnread)) return
      this.driven?.leave("the answer came too late")
      this.tooLate(Refusals.answeredBy(sent, new Uint8Array(0)))
    })

  readonly write = (piece: Uint8Array): boolean => {
    const { parts, response } = this.made.proxied
    if (response.write(piece)) return true
    if (this.isFull || response.destroyed) return false
    this.isFull = true
    Response.whenRead(parts.timer, response, "drain", () => {
      this.isFull = false
      this.driven?.resume()
    })
    return false
  }

  readonly end = (): void => {
    const { answering, parts, response } = this.made.proxied
    if (!Response.endAtOnce(parts.timer, response, this.ended)) answering.run(Response.end(response))
  }

  readonly cut = (): void => {
    const { record, response } = this.made.proxied
    record?.ended("broke off")
    response.destroy()
    this.ended()
  }

  readonly failed = (cause: Cause.Cause<unknown>): void =>
    this.guarded(() => {
      const { held, planned, proxied } = this.made
      const why = Cause.squash(cause)
      if (Cause.hasInterrupts(cause)) return this.left()
      if (Cause.hasDies(cause)) throw why
      const own = Engine.refuse(planned, why)
      const { refusal, response } = own ?? Refusals.lost(planned, why, proxied.parts.now())
      this.report(own === undefined ? "failed" : "refused", response.status, undefined, refusal.kind)
      if (held.began) this.tooLate(refusal)
      else proxied.answering.run(Refusals.refuse(proxied.response, promised(this.made.ticket, why, response)))
    })

  /** Ends a response that has begun with status 200, and whose client would take an error for an answer. */
  private tooLate(refusal: Refusing.Refusal): void {
    const { planned, proxied } = this.made
    const { protocol } = planned.match
    const isStream = eventsOf(planned) !== undefined
    // A client would send a call again whose connection broke, and this one was executed.
    if (!isStream && refusal.kind !== "executed") return void proxied.response.destroy()
    const error = isStream ? protocol.refuseInStream(refusal) : protocol.refuse(refusal).body
    proxied.answering.run(Response.end(proxied.response, error))
  }

  private answered({ isFinal, place, response }: Engine.CallResult<UpstreamResponse>): void {
    // What the provider has refused was not executed: its outcome is known.
    if (response.status < 500) this.made.ticket?.ended("answered")
    this.report(isFinal ? "failed" : "answered", response.status, place)
  }

  /** Ends the call of a client that has disconnected. */
  private left(): void {
    this.report("hung up", 0)
    this.driven?.leave("the client hung up")
    this.ended()
  }

  private report(...end: Parameters<GatewayCall["report"]>): void {
    if (this.isReported) return
    this.isReported = true
    this.made.release()
    this.made.ticket?.ended(end[0])
    this.made.report(...end)
  }

  /** Runs a step. What a provider has sent may not be valid HTTP, and the code of a protocol may throw. */
  private guarded(step: () => void): void {
    try {
      step()
    } catch (thrown) {
      const { answering, response } = this.made.proxied
      this.report("failed", 0)
      this.driven?.leave(thrown)
      answering.run(Refusals.failed(response, thrown))
    }
  }
}

/** The caller, which the rules have found; undefined if they threw. */
const callerOf = ({ terms }: Engine.HttpCall): Caller | undefined =>
  Result.isSuccess(terms) ? (terms.success.callOptions as Caller) : undefined

/** Notes whose call it is, and makes its bill known to what is remembered of it. */
const noted = (
  { record, whose }: ProxiedRequest,
  planned: Engine.HttpCall,
  park: true | undefined
): Engine.HttpCall => {
  record?.asks(planned.request.model)
  const caller = callerOf(planned)
  if (caller === undefined) return planned
  whose.is(caller)
  if (record === undefined && park === undefined) return planned
  const onBilled = record === undefined ? caller.onBilled : billing(caller, record)
  const callOptions = { ...caller, onBilled, park }
  return { ...planned, terms: Result.map(planned.terms, (terms) => ({ ...terms, callOptions })) }
}

/** A function of its own, because a closure within `noted` would keep the request as long as its answer. */
const billing =
  ({ onBilled }: Caller, record: OpenRequest): Caller["onBilled"] =>
  (bill) => {
    record.billed(bill)
    onBilled?.(bill)
  }

/** Makes a governed call. */
export const govern = (proxied: ProxiedRequest, given: Engine.HttpCall, bytes: Buffer): void => {
  const { exchange, parts, record, request, response, routed, span } = proxied
  const caller = callerOf(given)
  const ticket = caller && asked(parts.tickets, request.headers, caller, bytes.length)
  if (ticket !== undefined && "refusal" in ticket) return refuseTicket(proxied, given, ticket)
  const planned = noted(proxied, given, ticket && true)
  const headers = Headers.outgoing(request.rawHeaders, request.headers.connection, true, exchange)
  const method = request.method ?? "POST"
  const startedAt = parts.now()
  const times = parts.recorder?.came(planned, startedAt)
  const seat = caller?.[inJob]
  const job = caller && parts.activity.jobs.open({ key: caller.caller.name, job: caller.job.name }, seat)
  const own = { upstream: routed.upstream.name, path: routed.path, headers }
  const dispatch: Engine.Dispatch<UpstreamResponse> = (change, target, intake, traceparent) => {
    if (times !== undefined) times.sentAt = parts.now()
    record?.sent(parts.now())
    job?.sent()
    const { headers: given, path, upstream } = target === undefined ? own : addressed(headers, target)
    const sent = Headers.traced(given, traceparent)
    const transport = parts.transports.get(upstream)!
    return transport.dispatch({ method, path, ...changed(bytes, sent, change) }, intake)
  }
  const paying = caller?.purses ?? []
  const held = heldResponse(response, planned)
  // The error event at the end of a stream says that a cap is reached, and clients do not retry it.
  const isRefusable = planned.streams !== "events" && (paying.length > 0 || seat !== undefined)
  held.isHeldBack = isRefusable
  if (mayBegin(planned)) parts.keeper.add(held)
  const leave = parts.purses.use(paying)
  seat?.enter()
  const release = (): void => {
    parts.keeper.remove(held)
    leave()
    seat?.leave()
  }
  const made = { proxied, planned, held, report: reporter(proxied, planned, startedAt, job), ticket, release }
  const outlet = new CallAnswer(made)
  const deadline = startedAt + Duration.toMillis(parts.maxHold)
  const around = (given: Context.Context<never>): Context.Context<never> => {
    const within = span === undefined ? given : span.around(given)
    const timed = Context.add(Context.add(within, Deadline, deadline), ReviewAt, startedAt + parts.reviewAfter)
    const context = seat === undefined ? timed : Context.add(timed, Lines, [seat.line])
    if (!isRefusable) return context
    const pays = (isPaying: boolean): void => void (held.isHeldBack = isPaying && !held.began)
    return Context.add(context, MoneyWait, { until: startedAt + longestSilence, pays })
  }
  outlet.by(parts.engine.start(planned, { around, dispatch, outlet }))
}
