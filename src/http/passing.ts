/** Passes the stream of an answer on to its outlet, with back-pressure, and ends the call when the stream ends. */
import * as Effect from "effect/Effect"
import type { DirectTicket } from "../call/direct.ts"
import { inOrder } from "../call/settlement.ts"
import type { Conclusion } from "../call/stream.ts"
import { type Patience, SilentStream, type SilenceTimer } from "../call/silence.ts"
import { LlmError } from "../LlmError.ts"
import type { CallResult, DrivenCall, OnUsage, Outlet, ProviderResponse } from "./models.ts"
import type { BodyFlow, ChunkFlow, EventBody } from "./stream.ts"

/** The call as its attempt settles it. Each function returns what is left to do, if there is anything. */
export type SettledCall = Pick<DirectTicket, "observe" | "place" | "recordUsage" | "settle" | "settleFailed">

/** Bounds the silence of a body for whoever receives it. */
export class FlowSilence extends SilentStream {
  receiver: { readonly stalled: (error: unknown) => void }

  constructor(patience: Patience, now: number, receiver: FlowSilence["receiver"]) {
    super(patience)
    this.silentSince = now
    this.receiver = receiver
  }

  stall(error: unknown): void {
    this.receiver.stalled(error)
  }
}

const none: ReadonlyArray<Uint8Array> = []
const empty = new Uint8Array(0)

/** The parts of a stream. They last as long as the stream, so they must not refer to the request. */
export interface StreamParts<R extends ProviderResponse> {
  readonly call: SettledCall
  readonly outlet: Outlet<R>
  readonly timer: SilenceTimer
  /** Runs what is left to do, if there is anything. */
  readonly run: (rest: Effect.Effect<void> | undefined) => void
  readonly events: EventBody
  readonly body: BodyFlow
  readonly silence: FlowSilence
  /** Ends the request and its answer. */
  readonly abort: (reason: unknown) => void
  /** Ends the call. Returns what is left to do, if there is anything. */
  readonly close: () => Effect.Effect<void> | undefined
  readonly used: OnUsage | undefined
}

/**
 * Some clients, such as Ollama's, stop reading when an answer is complete, and leave its end unread. What follows is short, so it is
 * read for them, and the call ends.
 */
const maxTail = 16

/** A stream that goes to its outlet, so that its attempt cannot fail any more. It is mutable. */
export class PassedStream<R extends ProviderResponse> implements ChunkFlow, DrivenCall {
  private readonly parts: StreamParts<R>
  /** The chunks that were read. The outlet has taken those before `next`. */
  private held: Array<Uint8Array> = []
  private next = 0
  private isOver = false
  /** How many chunks were read beyond a complete answer for a reader that takes no more. */
  private tail = 0

  constructor(parts: StreamParts<R>) {
    this.parts = parts
    parts.silence.receiver = this
  }

  /** Passes on what was read before, and then the rest. */
  start(result: CallResult<R>, pieces: Array<Uint8Array>): void {
    const { body, outlet, silence, timer } = this.parts
    silence.silentSince = timer.now()
    this.held = pieces
    this.guarded(() => {
      outlet.begin(result)
      if (!this.isOver) this.forward(none)
      if (this.isOver) return
      body.to(this)
      if (silence.silentSince !== undefined) body.resume()
    })
  }

  // Without `guarded`, which would make a closure for each event.
  readonly data = (chunk: Uint8Array): void => {
    const { events, silence, timer } = this.parts
    try {
      if (this.isOver) return
      // While the reader takes no more, the silence of the provider does not count.
      if (silence.silentSince !== undefined) silence.silentSince = timer.now()
      this.forward(events.feed(chunk))
    } catch (thrown) {
      this.threw(thrown)
    }
  }

  readonly end = (): void => this.guarded(() => this.forward(this.parts.events.end()))

  readonly broke = (thrown: unknown): void => this.guarded(() => this.forward(this.parts.events.broke(thrown, false)))

  readonly stalled = (error: unknown): void => {
    if (this.isOver) return
    this.guarded(() => this.forward(this.parts.events.broke(error, true)))
    this.parts.abort(error)
  }

  /** Writes until the outlet is full, or everything if there is nothing more to read, so that the call ends at once. */
  private forward(pieces: ReadonlyArray<Uint8Array>): void {
    const { held, parts } = this
    const { body, events, outlet, silence } = parts
    const { progress } = events
    let isFull = silence.silentSince === undefined
    for (const piece of pieces) held.push(piece)
    while (this.next < held.length && (!isFull || progress.isOver)) isFull = !outlet.write(this.taken())
    if (this.isOver) return
    if (progress.isOver) return this.concluded()
    if (!isFull || (progress.answer.complete && this.tail++ < maxTail)) return
    body.pause()
    silence.silentSince = undefined
  }

  /** The next piece. An array of very many would move all others if it were shifted. */
  private taken(): Uint8Array {
    const { held, next } = this
    const piece = held[next]!
    held[next] = empty
    this.next++
    if (this.next === held.length) this.drop()
    return piece
  }

  private drop(): void {
    this.held.length = this.next = 0
  }

  readonly resume = (): void => {
    const { body, silence, timer } = this.parts
    if (this.isOver) return
    silence.silentSince = timer.now()
    if (this.held.length > 0) this.guarded(() => this.forward(none))
    if (!this.isOver && silence.silentSince !== undefined) body.resume()
  }

  readonly leave = (why: unknown): void => {
    const { abort, events } = this.parts
    if (this.isOver) return
    this.conclude(events.progress.left)
    abort(why)
  }

  private concluded(): void {
    const { events, outlet } = this.parts
    const { broken, conclusion } = events.progress
    this.conclude(conclusion)
    if (broken === undefined) outlet.end()
    else outlet.cut(broken.thrown)
  }

  private conclude(conclusion: Conclusion): void {
    const { body, close, run, silence, timer } = this.parts
    this.isOver = true
    this.drop()
    timer.remove(silence)
    body.pause()
    run(inOrder(this.settled(conclusion), close()))
  }

  private settled(conclusion: Conclusion): Effect.Effect<void> | undefined {
    const { call, used } = this.parts
    try {
      if (conclusion._tag === "Failed") return call.settleFailed(new LlmError({ reason: conclusion.reason }))
      // The end of the call settles one that was abandoned.
      if (conclusion._tag === "Abandoned") return undefined
      used?.(conclusion.actual)
      return call.settle(conclusion.actual, conclusion.info)
    } catch (thrown) {
      return Effect.die(thrown)
    }
  }

  /** Runs a step in which the code of a protocol may throw. */
  private guarded(step: () => void): void {
    try {
      if (!this.isOver) step()
    } catch (thrown) {
      this.threw(thrown)
    }
  }

  private threw(thrown: unknown): void {
    if (this.isOver) throw thrown
    this.leave(thrown)
    this.parts.outlet.cut(thrown)
  }
}
