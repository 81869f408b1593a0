/**
 * Connections to an upstream. They are kept alive, do not limit how long an answer takes, and read a body only as fast as it is
 * consumed.
 */
import Undici, { type Dispatcher } from "undici"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Duplex, pipeline, Readable } from "node:stream"
import * as Zlib from "node:zlib"
import type { ResponseHeaders } from "./headers.ts"
import { Bounds, Engine, ProviderHeaders, monotonic, type Silence } from "floodgate/internal"
import type { Upstream } from "./routes.ts"

/** A body that is read chunk by chunk. */
export type ByteSource = Silence.Source<Uint8Array>

/** An answer of an upstream to a call. */
export interface UpstreamResponse extends Engine.ProviderResponse {
  readonly headers: ResponseHeaders
  /** The reason phrase, as it was sent. */
  readonly phrase: string
  /** Whether the body was decompressed. */
  readonly isDecoded: boolean
}

/** An answer of an upstream that is only passed on. */
export interface PassedResponse extends ByteSource {
  readonly status: number
  /** The reason phrase, as it was sent. */
  readonly phrase: string
  readonly headers: ResponseHeaders
}

/** A request to an upstream. */
export interface UpstreamRequest {
  readonly method: string
  readonly path: string
  readonly headers: ReadonlyArray<string>
  /** A function makes a body that can be read only once, for each time that the request is sent. */
  readonly body: string | Uint8Array | Readable | (() => Readable) | null
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
  private readonly failed: (error: unknown, receiver: Receiver) => void
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
  /** The reason phrase, as it was sent. */
  phrase = ""
  headers: ResponseHeaders = {}
  private connection: KeptConnection | undefined
  private sentAt = -Infinity
  private readonly now: () => number
  /** Whether any part of a response has arrived. */
  private isAnswered = false
  /** Whether the connection had served other requests before. */
  private isReused = false

  constructor(
    began: (receiver: Receiver) => void,
    failed: (error: unknown, receiver: Receiver) => void,
    now: () => number
  ) {
    this.began = began
    this.failed = failed
    this.now = now
  }

  /** Sets the connection that the request is given to. */
  via(connection: KeptConnection): void {
    this.connection = connection
  }

  /**
   * Whether the request met a kept connection that its server was just closing, so that it cannot have been executed: the connection
   * was used before, broke within {@link longestRaceMillis} of the request, and nothing of a response has arrived.
   */
  wasStale(error: unknown): boolean {
    return this.isReused && !this.isAnswered && isCut(error) && this.now() - this.sentAt < longestRaceMillis
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller
    this.sentAt = this.now()
    this.isReused = (this.connection?.answered ?? 0) > 0
    // The caller gave up while the connection was being made.
    if (this.broken !== undefined) controller.abort(this.broken.error as Error)
  }

  onResponseStart(_: unknown, status: number, headers: ResponseHeaders, phrase = ""): void {
    this.isAnswered = true
    // Responses with a status below 200 are informational; the final one follows.
    if (status < 200) return
    this.status = status
    // The client reads it as UTF-8, and the server writes Latin-1: the bytes stay the same.
    this.phrase = Buffer.from(phrase).toString("latin1")
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
    if (this.connection !== undefined) this.connection.answered++
    this.passOn()
    this.wake()
  }

  onResponseError(_: unknown, given: unknown): void {
    // A response that begins with an informational one, and goes on with something else.
    const isUnreadable = this.isAnswered && !this.hasBegun && given instanceof Undici.errors.HTTPParserError
    const error = isUnreadable ? new Engine.UnreadableResponse() : given
    this.broken ??= { error }
    this.passOn()
    if (!this.hasBegun) this.failed(this.broken.error, this)
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

/** A connection, which counts the answers on it. */
class KeptConnection extends Undici.Client {
  answered = 0

  constructor(...args: ConstructorParameters<typeof Undici.Client>) {
    super(...args)
    this.on("connect", () => (this.answered = 0))
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    if (handler instanceof Receiver) handler.via(this)
    return super.dispatch(options, handler)
  }
}

/**
 * A server that closes an idle connection just when a request arrives resets it within the time that a message takes there and back,
 * before it has read the request. One that breaks down while it works on a request takes longer.
 */
const longestRaceMillis = 1_000

/** Whether a request changes nothing, so that it may be sent twice. */
const isRepeatable = ({ body, method }: UpstreamRequest): boolean =>
  body === null && (method === "GET" || method === "HEAD")

/** Whether a connection broke in use, rather than while it was made. undici also gives up one whose response it cannot read. */
const isCut = (error: unknown): boolean => {
  const { code = "", message = "" } = (error ?? {}) as NodeJS.ErrnoException
  return ["UND_ERR_SOCKET", "ECONNRESET", "EPIPE"].includes(code) && !message.startsWith("bad ")
}

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
  const { headers, phrase, status } = receiver
  const header = ProviderHeaders.headerReader(headers)
  const decoder = decoders.get(header("content-encoding")?.trim().toLowerCase() ?? "")?.()
  const body = decoder === undefined ? receiver : decoded(receiver, decoder)
  return { status, phrase, header, headers, body, isDecoded: decoder !== undefined }
}

const poolOf = (origin: string, timeout: Duration.Duration, options: Undici.Pool.Options): Undici.Pool =>
  new Undici.Pool(origin, {
    ...options,
    headersTimeout: Duration.toMillis(timeout),
    // The engine limits the silence of bodies, because it tells streams from whole answers.
    bodyTimeout: 0,
    maxHeaderSize: Bounds.bounds.headerBytes.max,
    allowH2: false
  })

const pooled = (origin: string, timeout: Duration.Duration, options: Undici.Pool.Options) =>
  Effect.acquireRelease(
    Effect.sync(() => poolOf(origin, timeout, options)),
    (pool) => Effect.promise(() => pool.destroy().catch(() => {}))
  )

/** Gives a request to connections. */
const give = (pool: Undici.Pool, { body, headers, method, path }: UpstreamRequest, receiver: Receiver): Receiver => {
  const sent = typeof body === "function" ? body() : body
  pool.dispatch(
    { method: method as Dispatcher.HttpMethod, path, headers: headers as Array<string>, body: sent },
    receiver
  )
  return receiver
}

/** Connects to an upstream. `timeout` bounds the time until an answer begins. The connections close with the scope. */
export const make = Effect.fnUntraced(function* (
  { origin }: Upstream,
  timeout: Duration.Duration
): Effect.fn.Return<Transport, never, Scope.Scope> {
  const now = monotonic(yield* Clock.Clock)
  const kept = yield* pooled(origin, timeout, { factory: (url, options) => new KeptConnection(url, options) })
  // Where one kept connection is stale, the others are as well. So what is sent again gets a connection of its own.
  const fresh = yield* pooled(origin, timeout, { pipelining: 0 })
  const once = (pool: Undici.Pool, request: UpstreamRequest, signal: AbortSignal): Promise<PassedResponse> =>
    new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason)
      const { cancel } = give(pool, request, new Receiver(resolve, reject, now))
      signal.addEventListener("abort", () => cancel(signal.reason), { once: true })
    })
  return {
    dispatch: (request, { began, failed }) => {
      const begin = (receiver: Receiver): void => began(responseOf(receiver))
      let isLeft = false
      let current = new Receiver(
        begin,
        (error, receiver) => {
          if (isLeft || !receiver.wasStale(error)) return failed(error)
          current = give(fresh, request, new Receiver(begin, failed, now))
        },
        now
      )
      give(kept, request, current)
      return (reason) => {
        isLeft = true
        current.cancel(reason)
      }
    },
    send: async (request, signal) =>
      once(kept, request, signal).catch((error: unknown) => {
        if (isCut(error) && isRepeatable(request)) return once(fresh, request, signal)
        throw error
      })
  }
})
