/** Converts the responses of `fetch` for the engine, and its results to responses. */
import { headerReader } from "../protocol/headers.ts"
import type { CallResult, ProviderResponse } from "./models.ts"
import { ReadFlow } from "./stream.ts"

/** A response of `fetch` in the engine's form. */
export interface FetchResponse extends ProviderResponse {
  readonly response: Response
  /** Whether the body was already read, so that only the response itself can be returned. */
  readonly isSpent: boolean
}

/** Reads a body. Some implementations of `fetch`, such as node-fetch, have streams of Node. */
export const readerOf = (body: unknown): ReadableStreamDefaultReader<Uint8Array> | undefined => {
  if (typeof body !== "object" || body === null) return undefined
  const stream =
    "getReader" in body ? (body as ReadableStream<Uint8Array>) : ReadableStream.from(body as AsyncIterable<Uint8Array>)
  return stream.getReader()
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

/** A response with the body that the caller gets, unless the caller's `fetch` has read the body before. */
export const responseWith = (
  { isChanged, isFinal, place, response: sent }: CallResult<FetchResponse>,
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
  const reader = isSpent ? undefined : readerOf(response.body)
  const body = reader && new ReadFlow(() => reader.read())
  // About forty headers are looked up, and a `Headers` object is slow at that.
  const header = headerReader(Object.fromEntries(response.headers))
  return { status: response.status, header, body, response, isSpent }
}
