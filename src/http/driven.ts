/** Makes governed calls for callers that expect a response of `fetch`. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { makeClosed } from "../call/promises.ts"
import { forgotten } from "../call/stream.ts"
import { continuing } from "../call/trace.ts"
import { onAbort } from "../call/aborts.ts"
import type { Engine } from "./engine.ts"
import type { BodyChange, CallResult, DrivenCall, HttpCall, Outlet, Target } from "./models.ts"
import { traceparentName } from "../protocol/traceparent.ts"
import { type FetchResponse, responseWith } from "./response.ts"

/**
 * Gives the caller its response. It is mutable.
 *
 * The open connection and the signals refer to it, and a body that nobody reads must still be garbage collected. So it refers to
 * the response and its body only while the caller waits for them.
 */
export class FetchAnswer implements Outlet<FetchResponse> {
  private readonly signal: AbortSignal | undefined
  private readonly open: Set<FetchAnswer>
  private settlers: PromiseWithResolvers<Response> | undefined
  private call: DrivenCall | undefined = undefined
  /** The body, while its reader waits for more. */
  private reader: ReadableStreamDefaultController<Uint8Array> | undefined = undefined
  private readonly pieces: Array<Uint8Array> = []
  private ended: { readonly thrown: { readonly error: unknown } | undefined } | undefined = undefined
  private isOver = false
  /** Stops waiting for the signal. */
  private readonly withdraw: (() => void) | undefined

  /** `open` is the set of all answers that can still be aborted, to which this one is added. */
  constructor(signal: AbortSignal | undefined, open: Set<FetchAnswer>, settlers: PromiseWithResolvers<Response>) {
    this.signal = signal
    this.open = open
    this.settlers = settlers
    this.withdraw = signal && onAbort(signal, this.aborted)
    open.add(this)
  }

  /** Sets the call, once it has begun. Its caller may have aborted it on the way. */
  by(call: DrivenCall): void {
    this.call = call
    if (this.isOver) call.leave(this.signal?.reason)
  }

  whole(result: CallResult<FetchResponse>, body: Uint8Array): void {
    this.over()
    this.settle(() => responseWith(result, body))
  }

  begin(result: CallResult<FetchResponse>): void {
    this.settle(() => responseWith(result, () => this.body()))
  }

  write(piece: Uint8Array): boolean {
    const { reader } = this
    this.reader = undefined
    if (reader === undefined) this.pieces.push(piece)
    else reader.enqueue(piece)
    // A body that is read several times at once asks for more as soon as it has got one.
    return this.reader !== undefined
  }

  end(): void {
    this.endWith(undefined)
  }

  cut(error: unknown): void {
    this.endWith({ error })
  }

  failed(cause: Cause.Cause<unknown>): void {
    this.over()
    this.settle(() => {
      throw Cause.squash(cause)
    })
  }

  /** The caller's body. It reads from the provider only what its reader asks for. */
  private body(): ReadableStream<Uint8Array> {
    const body = new ReadableStream<Uint8Array>(
      { pull: (reader) => this.pull(reader), cancel: (reason) => this.leave(reason) },
      { highWaterMark: 0 }
    )
    forgotten.register(body, () => this.leave("nobody reads the body"), this)
    return body
  }

  private pull(reader: ReadableStreamDefaultController<Uint8Array>): void {
    const piece = this.pieces.shift()
    if (piece !== undefined) return reader.enqueue(piece)
    this.reader = reader
    if (this.ended === undefined) this.call?.resume()
    else this.finish()
  }

  private endWith(thrown: { readonly error: unknown } | undefined): void {
    this.over()
    this.ended ??= { thrown }
    this.finish()
  }

  private finish(): void {
    const { ended, reader } = this
    this.reader = undefined
    if (ended?.thrown === undefined) reader?.close()
    else reader?.error(ended.thrown.error)
  }

  private leave(reason: unknown): void {
    this.over()
    this.call?.leave(reason)
  }

  private readonly aborted = (): void => this.abort(this.signal!.reason)

  /** Ends the call and its answer. */
  abort(reason: unknown): void {
    this.leave(reason)
    this.pieces.length = 0
    this.settle(() => {
      throw reason
    })
    this.endWith({ error: reason })
  }

  private settle(make: () => Response): void {
    const { settlers } = this
    this.settlers = undefined
    try {
      if (settlers !== undefined) settlers.resolve(make())
    } catch (thrown) {
      settlers!.reject(thrown)
    }
  }

  /** Nothing can end the call any more. */
  private over(): void {
    if (this.isOver) return
    this.isOver = true
    forgotten.unregister(this)
    this.open.delete(this)
    this.withdraw?.()
  }
}

/** Sends a request once. The signal also ends the body of the response. */
export type SendOnce = (
  signal: AbortSignal,
  change: BodyChange | undefined,
  target: Target | undefined,
  traceparent: string | undefined
) => Promise<FetchResponse>

/** Makes a planned call. It rejects with the error of `send` or of the governor. Throws if the signal is aborted before. */
export type MakeCall = (
  planned: HttpCall,
  signal: AbortSignal | undefined,
  send: SendOnce,
  Answer?: typeof FetchAnswer
) => Promise<Response>

/** It is a function of its own because a closure within the call would keep the request in memory as long as a stream. */
const aborting = (controller: AbortController) => (reason: unknown) => controller.abort(reason)

/** Makes calls until the scope closes. Then those that are running end with a `ClosedError`, and all later ones fail with it. */
export const makeCaller = (engine: Engine): Effect.Effect<MakeCall, never, Scope.Scope> =>
  Effect.map(makeClosed, (closed) => {
    const open = new Set<FetchAnswer>()
    closed.addEventListener("abort", () => open.forEach((answer) => answer.abort(closed.reason)), { once: true })
    return (planned, signal, send, Answer = FetchAnswer) => {
      closed.throwIfAborted()
      signal?.throwIfAborted()
      const settlers = Promise.withResolvers<Response>()
      const answer = new Answer(signal, open, settlers)
      const call = engine.start<FetchResponse>(planned, {
        around: (context) => continuing(context, planned.request.header(traceparentName)),
        dispatch: (change, target, { began, failed }, traceparent) => {
          const controller = new AbortController()
          send(controller.signal, change, target, traceparent).then(began, failed)
          return aborting(controller)
        },
        outlet: answer
      })
      answer.by(call)
      return settlers.promise
    }
  })
