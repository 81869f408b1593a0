/**
 * The exchange of one attempt: its request for its answer, driven by the callbacks of the transport, without Effect. A whole answer is
 * collected, and a stream is read up to its first content. The functions of `reply.ts` decide what an answer means.
 */
import * as Effect from "effect/Effect"
import { constVoid } from "effect/Function"
import { maxHeld } from "../call/stream.ts"
import type * as Governor from "../Governor.ts"
import type { Patience, SilenceTimer } from "../call/silence.ts"
import { emptyAnswer } from "../protocol/protocol.ts"
import { makeSseParser, type SseParser } from "../protocol/sse.ts"
import type { BodyChange, HttpCall, Intake, OnUsage, Outlet, ProviderResponse } from "./models.ts"
import { FlowSilence, PassedStream, type SettledCall } from "./passing.ts"
import * as Reply from "./reply.ts"
import { type ChunkFlow, EventBody } from "./stream.ts"
import type { UsageRequests } from "./usageRequests.ts"

/** A ticket as the call that it stands for. */
export const ofTicket = (ticket: Governor.Ticket): SettledCall => ({
  place: ticket.place,
  observe: ticket.observeLimits,
  recordUsage: ticket.recordUsage,
  settle: ticket.succeed,
  settleFailed: ticket.fail
})

/** The ends of an attempt. One of these is called, unless it is left. */
export interface AttemptEnds<R extends ProviderResponse> {
  /** A whole answer. `rest` is left to do to settle its call. */
  readonly answered: (answer: Reply.EndedAnswer<R>, rest: Effect.Effect<void> | undefined) => void
  readonly failed: (failure: Effect.Effect<never, Reply.AttemptFailure<R>>) => void
  /** The first content of a stream has arrived. {@link HttpExchange.passOn} gives it to the outlet. */
  readonly streams: () => void
}

/** The tools that all exchanges of an engine share. */
export interface ExchangeTools {
  readonly usageRequests: UsageRequests
  readonly patienceOf: (planned: HttpCall) => Patience
  readonly used: (planned: HttpCall) => OnUsage | undefined
  /** Runs what is left to do, if there is anything. */
  readonly run: (rest: Effect.Effect<void> | undefined) => void
  readonly timer: SilenceTimer
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly seed: () => number
}

/** The parts of an exchange. */
export interface ExchangeParts<R extends ProviderResponse> {
  readonly tools: ExchangeTools
  readonly ends: AttemptEnds<R>
  readonly planned: HttpCall
  readonly call: SettledCall
  readonly outlet: Outlet<R>
  /** Notes to which account a response belongs. */
  readonly learn: (response: R) => void
  /** Sends the request. Returns the function that ends it and its answer. */
  readonly dispatch: (change: BodyChange | undefined, intake: Intake<R>) => (reason: unknown) => void
}

/** Exchanges one request for its answer. It is mutable. */
export class HttpExchange<R extends ProviderResponse> implements Intake<R>, ChunkFlow {
  /** Undefined when the attempt has ended: a stream must not keep its request in memory. */
  private parts: ExchangeParts<R> | undefined
  private reply: Reply.AttemptReply<R> | undefined = undefined
  private abort: (reason: unknown) => void = constVoid
  private hidesUsage = false
  private isLeft = false
  /** Bounds the silence of the body, and the time in which the whole body of an error arrives. */
  private silences: Array<FlowSilence> = []

  /** The chunks of a body that is read whole. */
  private chunks: Array<Uint8Array> = []
  private hasRoom: (bytes: number) => boolean = () => true
  /** Whether a whole answer is passed on, because there is no room for it. */
  private isUnread = false

  /** The events of a stream; undefined if the answer is whole. */
  private events: EventBody | undefined = undefined
  /** The beginning of a stream. */
  private ready: Array<Uint8Array> = []

  constructor(parts: ExchangeParts<R>) {
    this.parts = parts
  }

  /** Sends the request, asking for the usage if the caller did not and the service accepts that. */
  send(): void {
    this.guarded(({ dispatch, planned, tools }) => {
      const change = tools.usageRequests.changeOf(planned)
      this.hidesUsage = change !== undefined
      this.abort = dispatch(change, this)
      if (this.isLeft) this.abort(undefined)
    })
  }

  // ---------------------------------------------------------------------------
  // The response
  // ---------------------------------------------------------------------------

  readonly began = (response: R): void => this.guarded((parts) => this.begin(parts, response))

  readonly failed = (thrown: unknown): void =>
    this.guarded(({ planned: { places, request }, tools }) =>
      this.fail(Reply.thrownAt(thrown, tools.now(), places === undefined ? request.url : undefined))
    )

  private begin(parts: ExchangeParts<R>, response: R): void {
    const { hidesUsage } = this
    const { call, learn, planned, tools } = parts
    const { body, header, status } = response
    const reply = { planned, response, place: call.place, now: tools.now(), hidesUsage }
    this.reply = reply
    learn(response)
    const isSuccess = Reply.isSuccess(response)
    if (isSuccess) tools.run(call.observe(planned.match.protocol.limits({ status, header })))
    const parser = Reply.parserOf(reply)
    if (parser === undefined) this.hasRoom = Reply.roomFor(reply)
    else this.events = this.eventsOf(parts, reply, parser)
    if (body === undefined) return this.whole(parts, reply)
    const patience = tools.patienceOf(planned)
    this.bound(parts, isSuccess && parser === undefined ? Reply.forWhole(patience) : patience)
    if (!isSuccess) this.bound(parts, Reply.forError(patience))
    body.to(this)
  }

  private bound({ tools: { timer } }: ExchangeParts<R>, patience: Patience): void {
    const silence = new FlowSilence(patience, timer.now(), this)
    this.silences.push(silence)
    timer.add(silence)
  }

  // ---------------------------------------------------------------------------
  // The body
  // ---------------------------------------------------------------------------

  readonly data = (chunk: Uint8Array): void =>
    this.guarded((parts, reply) => {
      const { events } = this
      this.silences[0]!.silentSince = parts.tools.timer.now()
      if (events !== undefined) return this.hold(reply!, events.feed(chunk))
      this.chunks.push(chunk)
      if (!this.hasRoom(chunk.length)) this.tooLarge(parts, reply!)
    })

  readonly end = (): void =>
    this.guarded((parts, reply) => {
      if (this.events === undefined) this.whole(parts, reply!)
      else this.hold(reply!, this.events.end())
    })

  readonly broke = (thrown: unknown): void => this.broken(thrown, false)

  readonly stalled = (error: unknown): void => {
    const { abort, parts } = this
    this.broken(error, true)
    if (parts !== undefined) abort(error)
  }

  private broken(thrown: unknown, isStalled: boolean): void {
    this.guarded((parts, given) => {
      const reply = given!
      // There is nothing left to end.
      this.abort = constVoid
      if (this.events !== undefined) this.hold(reply, this.events.broke(thrown, isStalled))
      else if (Reply.isSuccess(reply.response)) this.fail(Reply.thrownAt(thrown, reply.now))
      else this.rejected(parts, reply, empty)
    })
  }

  // ---------------------------------------------------------------------------
  // Whole answers
  // ---------------------------------------------------------------------------

  private whole(parts: ExchangeParts<R>, reply: Reply.AttemptReply<R>): void {
    const body = Reply.join(this.chunks)
    if (!Reply.isSuccess(reply.response)) return this.rejected(parts, reply, body)
    const answer = Reply.wholeOf(reply, body, parts.tools.seed)
    if (answer === "events") {
      const events = (this.events = this.eventsOf(parts, reply, makeSseParser()))
      return this.hold(reply, [...events.feed(body), ...events.end()])
    }
    if ("failure" in answer) {
      if (answer.actual !== undefined) parts.call.recordUsage(answer.actual)
      return this.fail(Reply.failed(reply, answer.failure, body))
    }
    parts.tools.used(parts.planned)?.(answer.actual)
    const { actual, info } = answer
    const rest = parts.call.settle(actual, actual === undefined ? { ...info, bytes: body.length } : info)
    this.over()
    parts.ends.answered({ result: Reply.resultOf(reply, false), body }, rest)
  }

  /** The end of an error. Its body is empty if it was too large, too slow, or broke off. */
  private rejected(parts: ExchangeParts<R>, reply: Reply.AttemptReply<R>, body: Uint8Array): void {
    const error = decoder.decode(body)
    // The caller did not request the usage, so it must not see the error.
    if (reply.hidesUsage && parts.tools.usageRequests.isRefused(parts.planned, reply.response.status, error)) {
      this.unwatch(parts)
      this.chunks = []
      return this.send()
    }
    this.fail(Reply.failed(reply, Reply.reasonOf(reply, error), body))
  }

  /** Passes on an answer that is too large to be collected. Its usage stays unknown, so the call keeps its estimate. */
  private tooLarge(parts: ExchangeParts<R>, reply: Reply.AttemptReply<R>): void {
    const { abort, chunks } = this
    if (!Reply.isSuccess(reply.response)) {
      this.rejected(parts, reply, empty)
      return abort(undefined)
    }
    this.isUnread = true
    const events = (this.events = this.eventsOf(parts, { ...reply, hidesUsage: false }, Reply.opaque))
    const last = chunks.pop()!
    this.chunks = []
    this.ready = chunks
    this.hold(reply, events.feed(last))
  }

  // ---------------------------------------------------------------------------
  // Streams
  // ---------------------------------------------------------------------------

  private eventsOf({ call }: ExchangeParts<R>, reply: Reply.AttemptReply<R>, parser: SseParser): EventBody {
    const { hidesUsage, now, planned, response } = reply
    const { header, status } = response
    const { protocol } = planned.match
    const goesOn = planned.description.background === true
    return new EventBody({ protocol, header, status, now, parser, hidesUsage, goesOn, observed: call.recordUsage })
  }

  /** Holds back the beginning of a stream, up to its first content. A stream that fails before that can be retried. */
  private hold(reply: Reply.AttemptReply<R>, pieces: ReadonlyArray<Uint8Array>): void {
    const { abort, parts, ready } = this
    const { answer, broken, failure, isUndecided } = this.events!.progress
    ready.push(...pieces)
    if (isUndecided && ready.length < maxHeld) return
    if (!answer.started && failure !== undefined) {
      this.fail(Reply.failed(reply, failure, { pieces: ready, broken }))
      return abort(undefined)
    }
    parts!.ends.streams()
    if (this.parts === undefined) return
    // A layer around the governor takes its time. Nothing more is read until the stream is passed on.
    reply.response.body!.pause()
    this.silences[0]!.silentSince = undefined
  }

  /** Gives the stream to the outlet, which ends the attempt. `close` ends the call, and `passed` gets the stream. */
  passOn(close: () => Effect.Effect<void> | undefined, passed: (stream: PassedStream<R>) => void): void {
    const { abort, isUnread, ready } = this
    // The exchange may stay in memory as long as the stream.
    this.ready = []
    const { call, outlet, planned, tools } = this.parts!
    const [reply, events, silence] = [this.reply!, this.events!, this.silences[0]!]
    const body = reply.response.body!
    this.parts = this.reply = undefined
    const { run, timer } = tools
    const parts = { call, run, outlet, timer, events, body, silence, abort, close, used: tools.used(planned) }
    const stream = new PassedStream<R>(parts)
    passed(stream)
    stream.start({ ...Reply.resultOf(reply, false), isUnread }, ready)
  }

  // ---------------------------------------------------------------------------
  // Ends
  // ---------------------------------------------------------------------------

  /** Ends the exchange, because its caller has left. Returns what is left to do; undefined if it was over. */
  leave(): Effect.Effect<void> | undefined {
    const { parts } = this
    if (parts === undefined) return undefined
    this.isLeft = true
    // An answer that the provider continues may cost all that was reserved.
    const isGoingOn = parts.planned.description.background === true
    const rest = isGoingOn ? parts.call.settle(undefined, emptyAnswer) : undefined
    this.over()
    // Without a reason: if the error that its caller gets were that of the request, Anthropic's SDK would take it for a failed request.
    this.abort(undefined)
    return rest ?? Effect.void
  }

  /** Runs a step, unless the attempt has ended. The code of a protocol may throw in it. */
  private guarded(step: (parts: ExchangeParts<R>, reply: Reply.AttemptReply<R> | undefined) => void): void {
    const { abort, parts } = this
    if (parts === undefined) return
    try {
      step(parts, this.reply)
    } catch (thrown) {
      if (this.parts === undefined) throw thrown
      this.over()
      parts.ends.failed(Effect.die(thrown))
      abort(thrown)
    }
  }

  private fail(failure: Reply.AttemptFailure<R>): void {
    const parts = this.parts!
    this.over()
    parts.ends.failed(Effect.fail(failure))
  }

  private over(): void {
    this.unwatch(this.parts!)
    // The end of the request may not end a body that has arrived, or that a caller's function has made.
    this.reply?.response.body?.pause()
    this.parts = this.reply = undefined
  }

  private unwatch({ tools: { timer } }: ExchangeParts<R>): void {
    for (const silence of this.silences) timer.remove(silence)
    this.silences = []
  }
}

const empty = new Uint8Array(0)
const decoder = new TextDecoder()
