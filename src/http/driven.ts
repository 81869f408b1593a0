/** The answer to a governed `fetch` whose call is driven by its transport. */
import type * as Effect from "effect/Effect"
import { forgotten } from "../call/stream.ts"
import type { CallResult, DrivenCall, Outlet } from "./models.ts"
import { type FetchResponse, responseWith } from "./response.ts"

interface Settlers {
  readonly resolve: (response: Response | PromiseLike<Response>) => void
  readonly reject: (thrown: unknown) => void
}

/**
 * Gives the caller its response. It is mutable.
 *
 * The open connection and the signals refer to it, and a body that nobody reads must still be garbage collected. So it refers to
 * the response and its body only while the caller waits for them.
 */
export class FetchAnswer implements Outlet<FetchResponse> {
  readonly response: Promise<Response>
  private readonly signal: AbortSignal | undefined
  private readonly open: Set<FetchAnswer>
  private readonly inEffect: (call: Effect.Effect<CallResult<FetchResponse>, unknown>) => Promise<Response>
  private settlers: Settlers | undefined
  private call: DrivenCall | undefined = undefined
  /** The body, while its reader waits for more. */
  private reader: ReadableStreamDefaultController<Uint8Array> | undefined = undefined
  private readonly pieces: Array<Uint8Array> = []
  private ended: { readonly thrown: { readonly error: unknown } | undefined } | undefined = undefined
  private isOver = false

  /** `open` is the set of all answers that can still be aborted, to which this one is added. */
  constructor(
    signal: AbortSignal | undefined,
    open: Set<FetchAnswer>,
    inEffect: (call: Effect.Effect<CallResult<FetchResponse>, unknown>) => Promise<Response>
  ) {
    this.signal = signal
    this.open = open
    this.inEffect = inEffect
    this.response = new Promise((resolve, reject) => (this.settlers = { resolve, reject }))
    signal?.addEventListener("abort", this.aborted)
    open.add(this)
  }

  /** Sets the call, once it has begun. */
  by(call: DrivenCall): void {
    this.call = call
  }

  readonly whole = (result: CallResult<FetchResponse>): void => {
    this.over()
    this.settle(() => responseWith(result, result.body as Uint8Array))
  }

  readonly begin = (response: FetchResponse, isChanged: boolean): void =>
    this.settle(() => responseWith({ response, isChanged, isFinal: false }, () => this.body()))

  readonly write = (piece: Uint8Array): boolean => {
    if (this.reader === undefined) this.pieces.push(piece)
    else this.reader.enqueue(piece)
    this.reader = undefined
    return false
  }

  readonly end = (): void => this.endWith(undefined)

  readonly cut = (error: unknown): void => this.endWith({ error })

  readonly goOn = (call: Effect.Effect<CallResult<FetchResponse>, unknown>): void => {
    this.over()
    this.settle(() => this.inEffect(call))
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

  private settle(make: () => Response | PromiseLike<Response>): void {
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
    this.signal?.removeEventListener("abort", this.aborted)
  }
}
