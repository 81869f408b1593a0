/**
 * Connections to an upstream. They are kept alive, do not limit how long an answer takes, and read a body only as fast as it is
 * consumed.
 */
import Undici from "@effect/platform-node/Undici"
import type { Dispatcher } from "@effect/platform-node/Undici"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Duplex, pipeline, Readable } from "node:stream"
import * as Zlib from "node:zlib"
import type { ResponseHeaders } from "./headers.ts"
import { Engine, headerReader, type Source } from "floodgate/internal"
import type { Upstream } from "./routes.ts"

/** A body that is read chunk by chunk. */
export type ByteSource = Source<Uint8Array>

/** An answer of an upstream to a call. */
export interface UpstreamResponse extends Engine.ProviderResponse {
  readonly headers: ResponseHeaders
  /** Whether the body was decompressed. */
  readonly isDecoded: boolean
}

/** An answer of an upstream that is only passed on. */
export interface PassedResponse extends ByteSource {
  readonly status: number
  readonly headers: ResponseHeaders
}

/** What is sent to an upstream. */
export interface UpstreamRequest {
  readonly method: string
  readonly path: string
  readonly headers: ReadonlyArray<string>
  readonly body: string | Uint8Array | Readable | null
}

/** Sends requests. */
export interface Transport {
  /** Sends a request whose answer is only passed on. */
  readonly send: (request: UpstreamRequest, signal: AbortSignal) => Promise<PassedResponse>
  /** Sends a call. Returns the function that ends it and its answer. */
  readonly dispatch: (request: UpstreamRequest, intake: Engine.Intake<UpstreamResponse>) => (reason: unknown) => void
}

/** Decompressors by content encoding. An upstream may compress although the request asked it not to. */
const decoders = new Map<string, () => Duplex>([
  ["gzip", Zlib.createGunzip],
  ["x-gzip", Zlib.createGunzip],
  ["deflate", Zlib.createInflate],
  ["br", Zlib.createBrotliDecompress],
  ["zstd", Zlib.createZstdDecompress]
])

/** How many bytes of a body are buffered before the connection pauses. */
const maxUnread = 64 * 1_024

/** Receives a response. Its body is passed on to a flow, or buffered for a reader. */
class Receiver implements Dispatcher.DispatchHandler, ByteSource, Engine.BodyFlow {
  private readonly began: (receiver: Receiver) => void
  private readonly failed: (error: unknown) => void
  private controller: Dispatcher.DispatchController | undefined
  private hasBegun = false
  private receiving: Engine.ChunkFlow | undefined
  private chunks: Array<Uint8Array> = []
  private unread = 0
  private isOver = false
  /** Whether the flow wants nothing for now. */
  private isPaused = false
  private isWaking = false
  private broken: { readonly error: unknown } | undefined
  private reader:
    | { readonly resolve: (chunk: Uint8Array | undefined) => void; readonly reject: (error: unknown) => void }
    | undefined
  status = 0
  headers: ResponseHeaders = {}

  constructor(began: (receiver: Receiver) => void, failed: (error: unknown) => void) {
    this.began = began
    this.failed = failed
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller
    // The caller gave up while the connection was being made.
    if (this.broken !== undefined) controller.abort(this.broken.error as Error)
  }

  onResponseStart(_: unknown, status: number, headers: ResponseHeaders): void {
    // Responses with a status below 200 are informational; the final one follows.
    if (status < 200) return
    this.status = status
    this.headers = headers
    this.hasBegun = true
    this.began(this)
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Uint8Array): void {
    this.chunks.push(chunk)
    this.unread += chunk.length
    if (this.unread > maxUnread) controller.pause()
    this.wake()
  }

  onResponseEnd(): void {
    this.isOver = true
    this.passOn()
    this.wake()
  }

  onResponseError(_: unknown, error: unknown): void {
    this.broken ??= { error }
    this.passOn()
    if (!this.hasBegun) this.failed(this.broken.error)
    this.wake()
  }

  // ---------------------------------------------------------------------------
  // Passing on
  // ---------------------------------------------------------------------------

  to(flow: Engine.ChunkFlow): void {
    this.receiving = flow
    this.passOn()
  }

  pause(): void {
    this.isPaused = true
    this.controller?.pause()
  }

  resume(): void {
    this.isPaused = false
    this.passOn()
    if (!this.isPaused) this.controller?.resume()
  }

  /** Gives the flow what has arrived. */
  private passOn(): void {
    const { isPaused, receiving } = this
    if (receiving === undefined || isPaused) return
    if (this.chunks.length > 0) this.take(receiving.data)
    if (this.isPaused || this.receiving === undefined || (this.broken === undefined && !this.isOver)) return
    this.receiving = undefined
    if (this.broken === undefined) receiving.end()
    else receiving.broke(this.broken.error)
  }

  // ---------------------------------------------------------------------------
  // Reading
  // ---------------------------------------------------------------------------

  /** Gives the flow or the reader all chunks that have arrived, because joining small chunks costs less than writing each. */
  private wake(): void {
    if ((this.reader === undefined && this.receiving === undefined) || this.isWaking) return
    this.isWaking = true
    queueMicrotask(this.awake)
  }

  private readonly awake = (): void => {
    this.isWaking = false
    if (this.receiving !== undefined) return this.passOn()
    const { reader } = this
    this.reader = undefined
    if (this.chunks.length > 0) this.take((chunk) => reader?.resolve(chunk))
    else if (this.broken === undefined) reader?.resolve(undefined)
    else reader?.reject(this.broken.error)
  }

  private take(give: (chunk: Uint8Array) => void): void {
    const { chunks, unread } = this
    this.chunks = []
    this.unread = 0
    give(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks))
    // More may arrive during this call, and the end, so what arrived before must have been given.
    if (unread > maxUnread && !this.isPaused) this.controller?.resume()
  }

  readonly read = (): Promise<Uint8Array | undefined> => {
    if (this.chunks.length > 0) return new Promise((resolve) => this.take(resolve))
    if (this.broken !== undefined) return Promise.reject(this.broken.error)
    if (this.isOver) return Promise.resolve(undefined)
    return new Promise((resolve, reject) => (this.reader = { resolve, reject }))
  }

  readonly cancel = (reason?: unknown): void => {
    if (this.isOver || this.broken !== undefined) return
    const error = reason instanceof Error ? reason : new Error("The response was abandoned before its end")
    this.chunks = []
    if (this.controller === undefined) this.onResponseError(undefined, error)
    else this.controller.abort(error)
  }
}

/** Whether a request changes nothing, so that it may be sent twice. */
const isRepeatable = ({ body, method }: UpstreamRequest): boolean =>
  body === null && (method === "GET" || method === "HEAD")

/** Whether a connection broke in use, rather than while it was made. */
const isCut = (error: unknown): boolean =>
  ["UND_ERR_SOCKET", "ECONNRESET", "EPIPE"].includes((error as NodeJS.ErrnoException | undefined)?.code ?? "")

const chunksOf = async function* ({ read }: ByteSource): AsyncGenerator<Uint8Array> {
  for (let chunk = await read(); chunk !== undefined; chunk = await read()) yield chunk
}

/** A decompressed body. */
const decoded = (body: ByteSource, decoder: Duplex): Engine.BodyFlow => {
  // The reader of the body gets the error.
  pipeline(Readable.from(chunksOf(body)), decoder, (error) => {
    if (error) body.cancel(error)
  })
  const chunks = decoder[Symbol.asyncIterator]() as AsyncIterator<Uint8Array, undefined>
  return new Engine.ReadFlow(async () => {
    const read = await chunks.next()
    // The compressed data may end before the response, which nothing reads any more.
    if (read.done === true) body.cancel()
    return read
  })
}

const responseOf = (receiver: Receiver): UpstreamResponse => {
  const { headers, status } = receiver
  const header = headerReader(headers)
  const decoder = decoders.get(header("content-encoding")?.trim().toLowerCase() ?? "")?.()
  const body = decoder === undefined ? receiver : decoded(receiver, decoder)
  return { status, header, headers, body, isDecoded: decoder !== undefined }
}

/** Connects to an upstream. `timeout` bounds the time until an answer begins. The connections close with the scope. */
export const make = ({ origin }: Upstream, timeout: Duration.Duration): Effect.Effect<Transport, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(
        () =>
          new Undici.Pool(origin, {
            headersTimeout: Duration.toMillis(timeout),
            // The engine limits the silence of bodies, because it tells streams from whole answers.
            bodyTimeout: 0,
            allowH2: false
          })
      ),
      (pool) => Effect.promise(() => pool.destroy().catch(() => {}))
    ),
    (pool): Transport => {
      const sent = ({ body, headers, method, path }: UpstreamRequest, receiver: Receiver): Receiver => {
        const request = { method: method as Dispatcher.HttpMethod, path, headers: headers as Array<string>, body }
        pool.dispatch(request, receiver)
        return receiver
      }
      const once = (request: UpstreamRequest, signal: AbortSignal): Promise<PassedResponse> =>
        new Promise((resolve, reject) => {
          if (signal.aborted) return reject(signal.reason)
          const { cancel } = sent(request, new Receiver(resolve, reject))
          signal.addEventListener("abort", () => cancel(signal.reason), { once: true })
        })
      return {
        dispatch: (request, { began, failed }) =>
          sent(request, new Receiver((receiver) => began(responseOf(receiver)), failed)).cancel,
        send: async (request, signal) =>
          // An upstream may close an idle connection just when the next request arrives.
          once(request, signal).catch((error: unknown) => {
            if (isCut(error) && isRepeatable(request)) return once(request, signal)
            throw error
          })
      }
    }
  )
