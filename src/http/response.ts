/** Converts the responses of `fetch` for the engine, and its results to responses. */
import { streamOf } from "../call/stream.ts"
import { headerReader } from "../protocol/headers.ts"
import type { CallResult, ProviderResponse } from "./models.ts"
import type { BodyFlow, ByteSource, ChunkFlow } from "./stream.ts"

/** A response of `fetch` in the engine's form. */
export interface FetchResponse extends ProviderResponse {
  readonly response: Response
  /** Whether the body was already read, so that only the response itself can be returned. */
  readonly isSpent: boolean
}

/** A body that is read once, by a reader or by a flow. */
class StreamSource implements ByteSource, BodyFlow {
  private readonly reader: ReadableStreamDefaultReader<Uint8Array>
  private receiving: ChunkFlow | undefined = undefined
  private isPaused = false
  private isReading = false

  constructor(stream: ReadableStream<Uint8Array>) {
    this.reader = stream.getReader()
  }

  readonly read = async (): Promise<Uint8Array | undefined> => (await this.reader.read()).value

  readonly cancel = (reason?: unknown): void => void this.reader.cancel(reason).catch(() => {})

  get flow(): BodyFlow {
    return this
  }

  to(flow: ChunkFlow): void {
    this.receiving = flow
    this.pump()
  }

  /** Only a flow that receives data may end itself, so that no read is under way. */
  stop(): void {
    this.receiving = undefined
  }

  pause(): void {
    this.isPaused = true
  }

  resume(): void {
    this.isPaused = false
    this.pump()
  }

  private pump(): void {
    if (this.isReading || this.isPaused || this.receiving === undefined) return
    this.isReading = true
    this.reader.read().then(this.got, this.lost)
  }

  private readonly got = ({ value }: { readonly value?: Uint8Array | undefined }): void => {
    this.isReading = false
    if (value === undefined) return this.receiving?.end()
    this.receiving?.data(value)
    this.pump()
  }

  private readonly lost = (thrown: unknown): void => this.receiving?.broke(thrown)
}

/** A body that is read once. Some implementations of `fetch`, such as node-fetch, have streams of Node. */
export const sourceOf = (body: unknown): ByteSource | undefined => {
  if (typeof body !== "object" || body === null) return undefined
  return new StreamSource(
    "getReader" in body ? (body as ReadableStream<Uint8Array>) : ReadableStream.from(body as AsyncIterable<Uint8Array>)
  )
}

/**
 * Replaces the body of a response. The constructor of `Response` accepts no URL, no status above 599, and no body for some
 * statuses, but a provider's proxy may answer with any of them.
 */
const withBody = (response: Response, body: Uint8Array<ArrayBuffer> | ReadableStream): Response => {
  const { headers, status, statusText, url } = response
  const bodiless = status === 204 || status === 205 || status === 304
  const made = new Response(bodiless ? null : body, { headers, status: Math.min(status, 599), statusText })
  Object.defineProperty(made, "url", { value: url })
  return made.status === status ? made : Object.defineProperty(made, "status", { value: status })
}

/** The response that the caller of a governed call gets. Either signal ends its body. */
export const governedResponse = (
  result: CallResult<FetchResponse>,
  signal: AbortSignal | undefined,
  closed: AbortSignal
): Response => {
  const { body } = result
  return responseWith(result, body instanceof Uint8Array ? body : () => streamOf(body, signal, closed))
}

/** A response with the body that the caller gets, unless the caller's `fetch` has read the body before. */
export const responseWith = (
  { isChanged, isFinal, place, response: sent }: Omit<CallResult<FetchResponse>, "body">,
  body: Uint8Array | (() => ReadableStream)
): Response => {
  if (sent.isSpent && sent.response.ok) return sent.response
  const made = withBody(sent.response, typeof body === "function" ? body() : (body as Uint8Array<ArrayBuffer>))
  const isCompressed = sent.header("content-encoding") !== undefined
  const { headers } = made
  if (isFinal) headers.set("x-should-retry", "false")
  if (place !== undefined) headers.set("x-floodgate-place", place)
  // `fetch` has decompressed the body, and its length may have changed.
  if (isCompressed || isChanged) headers.delete("content-length")
  if (isCompressed) headers.delete("content-encoding")
  return made
}

/** Converts a response of `fetch` for the engine. */
export const fetchResponseOf = (response: Response): FetchResponse => {
  const isSpent = response.bodyUsed || response.body?.locked === true
  const body = isSpent ? undefined : sourceOf(response.body)
  // About forty headers are looked up, and a `Headers` object is slow at that.
  const header = headerReader(Object.fromEntries(response.headers))
  return { status: response.status, header, body, response, isSpent }
}
