/**
 * Drives a call by the callbacks of its transport. The call enters Effect only if it has to wait or fails: then an effect does the
 * rest of it. The functions of `attempt.ts` decide what an answer means, as they do for the Effect driver.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { constVoid } from "effect/Function"
import type { GovernedCall } from "../call/governedCall.ts"
import { type Conclusion, maxHeld } from "../call/stream.ts"
import { type Patience, SilentStream, type SilenceTimer } from "../domain/input/silence.ts"
import { LlmError } from "../LlmError.ts"
import {
  Abandoned,
  type Attempted,
  type AttemptResponse,
  connectionTo,
  eventsOf,
  failed,
  join,
  forWhole,
  parserOf,
  passOn,
  type AttemptReply,
  resultOf,
  roomFor,
  thrownAt,
  wholeOf
} from "./attempt.ts"
import type { DrivenCall, HttpCall, Intake, OnUsage, Outlet, ProviderResponse } from "./models.ts"
import type { BodyFlow, EventBody, ChunkFlow } from "./stream.ts"

/** What an exchange needs from its engine. */
export interface ExchangeParts<R extends ProviderResponse> {
  readonly planned: HttpCall
  readonly call: GovernedCall
  readonly hidesUsage: boolean
  readonly patience: Patience
  readonly timer: SilenceTimer
  readonly outlet: Outlet<R>
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly seed: () => number
  readonly fork: (effect: Effect.Effect<void>) => unknown
  readonly used: () => OnUsage | undefined
  /** Notes to which account a response belongs. */
  readonly learn: (response: R) => void
  /** Reads a response in Effect. */
  readonly read: (attempt: AttemptResponse<R>) => Attempted<R>
  /** Continues the call in Effect, with the rest of its first attempt. */
  readonly goOn: (rest: Attempted<R>) => void
}

/** Bounds the silence of a body that is passed on. */
class FlowSilence extends SilentStream {
  readonly stall: (error: unknown) => void

  constructor(patience: Patience, stall: (error: unknown) => void) {
    super(patience)
    this.stall = stall
  }
}

/**
 * The exchange of one request for its answer. A whole answer is collected, and the chunks of a stream are passed on as they
 * arrive. It is mutable.
 */
export class DrivenExchange<R extends ProviderResponse> implements Intake<R>, ChunkFlow, DrivenCall {
  private readonly parts: ExchangeParts<R>
  /** Whether it takes no further part, because it has ended or its call continues in Effect. */
  private isOver = false
  private abort: (reason: unknown) => void = constVoid
  private reply!: AttemptReply<R>
  private body: BodyFlow | undefined = undefined
  private silence: FlowSilence | undefined = undefined

  /** The chunks of a whole answer. */
  private readonly chunks: Array<Uint8Array> = []
  private hasRoom: (bytes: number) => boolean = () => true

  /** The events of a stream; undefined if the answer is whole. */
  private events: EventBody | undefined = undefined
  /** The beginning of a stream, up to its first content. */
  private readonly ready: Array<Uint8Array> = []
  private isStreaming = false
  private used: OnUsage | undefined = undefined

  constructor(parts: ExchangeParts<R>) {
    this.parts = parts
  }

  /** Sends the request. `dispatch` returns the function that ends it. */
  send(dispatch: (intake: Intake<R>) => (reason: unknown) => void): void {
    this.abort = dispatch(this)
  }

  // ---------------------------------------------------------------------------
  // The response
  // ---------------------------------------------------------------------------

  readonly began = (response: R): void => this.guarded(() => this.begin(response))

  readonly failed = (thrown: unknown): void => {
    if (!this.isOver) this.goOnWith(Effect.fail(thrownAt<R>(thrown, this.parts.now())))
  }

  private begin(response: R): void {
    if (this.isOver) return
    const { call, hidesUsage, learn, now, patience, planned, read } = this.parts
    const { body, header, status } = response
    const reply = { planned, ticket: call, response, hidesUsage, now: now() }
    learn(response)
    if (status < 200 || status >= 300 || body?.flow === undefined) return this.goOn(reply, read)
    this.run(call.observe(planned.match.protocol.limits({ status, header })))
    this.reply = reply
    this.body = body.flow
    const parser = parserOf(reply)
    if (parser === undefined) this.hasRoom = roomFor(undefined, planned.hold)
    else this.events = eventsOf(reply, parser)
    this.listen(parser === undefined ? forWhole(patience) : patience)
    this.body.to(this)
  }

  private listen(patience: Patience): void {
    const { timer } = this.parts
    this.silence = new FlowSilence(patience, (error) => this.stalled(error))
    this.silence.silentSince = timer.now()
    timer.add(this.silence)
  }

  // ---------------------------------------------------------------------------
  // The body
  // ---------------------------------------------------------------------------

  // Without `guarded`, which would make a closure for each event of a stream.
  readonly data = (chunk: Uint8Array): void => {
    try {
      if (!this.isOver) this.receive(chunk)
    } catch (thrown) {
      this.threw(thrown)
    }
  }

  private receive(chunk: Uint8Array): void {
    const { events, silence } = this
    if (events !== undefined) this.forward(events.feed(chunk))
    else {
      this.chunks.push(chunk)
      if (!this.hasRoom(chunk.length)) this.passOn()
    }
    // While the reader takes no more, the silence of the provider does not count.
    if (silence!.silentSince !== undefined) silence!.silentSince = this.parts.timer.now()
  }

  readonly end = (): void =>
    this.guarded(() => {
      if (this.isOver) return
      if (this.events === undefined) this.whole(join(this.chunks))
      else this.forward(this.events.end())
    })

  readonly broke = (thrown: unknown): void => this.guarded(() => this.broken(thrown, false))

  private stalled(error: unknown): void {
    if (this.isOver) return
    const { abort } = this
    this.guarded(() => this.broken(error, true))
    abort(error)
  }

  private broken(thrown: unknown, isStalled: boolean): void {
    if (this.isOver) return
    // There is nothing left to end.
    this.abort = constVoid
    if (this.events === undefined) this.goOnWith(Effect.fail(thrownAt<R>(thrown, this.reply.now)))
    else this.forward(this.events.broke(thrown, isStalled))
  }

  // ---------------------------------------------------------------------------
  // Whole answers
  // ---------------------------------------------------------------------------

  private whole(bytes: Uint8Array): void {
    const { call, outlet, seed, used } = this.parts
    const { reply } = this
    const answer = wholeOf(reply, bytes, seed)
    if (answer._tag === "Open") return this.goOn(reply, answer.rest)
    used()?.(answer.actual)
    this.run(call.settle(answer.actual, answer.info))
    this.over()
    this.run(call.end(Exit.void))
    outlet.whole(resultOf(reply, bytes, false))
  }

  /** Passes on a whole answer that is too large to be collected. */
  private passOn(): void {
    const { body, chunks, reply } = this
    body!.stop()
    this.goOn(reply, (attempt) => passOn(attempt, chunks))
  }

  // ---------------------------------------------------------------------------
  // Streams
  // ---------------------------------------------------------------------------

  /** Passes on a part of a stream, once its first content has arrived. */
  private forward(pieces: ReadonlyArray<Uint8Array>): void {
    const { progress } = this.events!
    if (!this.isStreaming) {
      this.ready.push(...pieces)
      if (progress.isUndecided && this.ready.length < maxHeld) return
      if (!progress.answer.started && progress.failure !== undefined) return this.failedStream()
      this.isStreaming = true
      this.used = this.parts.used()
      this.parts.outlet.begin(this.reply.response, this.parts.hidesUsage)
      if (this.isOver) return
      this.write(this.ready.splice(0))
    } else this.write(pieces)
    if (progress.isOver) this.concluded()
  }

  private write(pieces: ReadonlyArray<Uint8Array>): void {
    const { body, parts, silence } = this
    let isFull = false
    for (const piece of pieces) isFull = !parts.outlet.write(piece) || isFull
    if (!isFull || this.isOver) return
    body!.pause()
    silence!.silentSince = undefined
  }

  readonly resume = (): void => {
    if (this.isOver) return
    this.silence!.silentSince = this.parts.timer.now()
    this.body!.resume()
  }

  /** A stream that failed before its first content can be retried. */
  private failedStream(): void {
    const { abort, events, ready, reply } = this
    const { progress } = events!
    const replay = { read: async () => ready.shift() ?? progress.finish(), cancel: () => {} }
    this.goOnWith(failed(reply, progress.failure!, replay))
    abort(undefined)
  }

  private concluded(): void {
    const { events, parts } = this
    const { broken, conclusion } = events!.progress
    this.conclude(conclusion)
    if (broken === undefined) parts.outlet.end()
    else parts.outlet.cut(broken.thrown)
  }

  /** Ends the call of a stream. */
  private conclude(conclusion: Conclusion): void {
    const { call } = this.parts
    this.over()
    try {
      this.settle(conclusion)
    } catch (thrown) {
      this.parts.fork(Effect.die(thrown))
    }
    this.run(call.end(conclusion._tag === "Abandoned" ? Exit.succeed(new Abandoned(conclusion.why)) : Exit.void))
  }

  private settle(conclusion: Conclusion): void {
    const { call } = this.parts
    if (conclusion._tag === "Complete") {
      this.used?.(conclusion.actual)
      this.run(call.settle(conclusion.actual, conclusion.info))
    } else if (conclusion._tag === "Failed") {
      this.run(call.settleFailed(new LlmError({ reason: conclusion.reason })))
    }
  }

  // ---------------------------------------------------------------------------
  // Ends
  // ---------------------------------------------------------------------------

  readonly leave = (why: unknown): void => {
    if (this.isOver) return
    const { abort, events, isStreaming, parts } = this
    if (isStreaming) this.conclude(events!.progress.left(why))
    else {
      this.over()
      this.run(parts.call.end(Exit.interrupt()))
    }
    abort(why)
  }

  /** Runs a step in which the code of a protocol may throw. */
  private guarded(step: () => void): void {
    try {
      step()
    } catch (thrown) {
      this.threw(thrown)
    }
  }

  private threw(thrown: unknown): void {
    if (this.isOver) throw thrown
    const { abort, isStreaming, parts } = this
    if (isStreaming) {
      this.leave(thrown)
      return parts.outlet.cut(thrown)
    }
    this.goOnWith(Effect.die(thrown))
    abort(thrown)
  }

  /** Continues in Effect with a response. */
  private goOn(reply: AttemptReply<R>, rest: (attempt: AttemptResponse<R>) => Attempted<R>): void {
    const { patience } = this.parts
    const opened = connectionTo(this.abort)
    this.goOnWith(Effect.flatMap(opened, (opened) => rest({ ...reply, opened, patience })))
  }

  private goOnWith(rest: Attempted<R>): void {
    this.over()
    this.parts.goOn(rest)
  }

  private over(): void {
    this.isOver = true
    if (this.silence !== undefined) this.parts.timer.remove(this.silence)
  }

  private run(effect: Effect.Effect<void> | undefined): void {
    if (effect !== undefined) this.parts.fork(effect)
  }
}
