/** Converts the responses of `fetch` for the engine, and its results to responses. */
import { streamOf } from "../call/stream.ts"
import { headerReader } from "../protocol/headers.ts"
import type { CallResult, ProviderResponse } from "./models.ts"
import type { ByteSource } from "./stream.ts"

/** A response of `fetch` in the engine's form. */
export interface FetchResponse extends ProviderResponse {
  readonly response: Response
  /** Whether the body was already read, so that only the response itself can be returned. */
  readonly isSpent: boolean
}

/** A body that is read once. Some implementations of `fetch`, such as node-fetch, have streams of Node. */
export const sourceOf = (body: unknown): ByteSource | undefined => {
  if (typeof body !== "object" || body === null) return undefined
  const stream =
    "getReader" in body ? (body as ReadableStream<Uint8Array>) : ReadableStream.from(body as AsyncIterable<Uint8Array>)
  const reader = stream.getReader()
  return {
    read: async () => (await reader.read()).value,
    cancel: (reason) => void reader.cancel(reason).catch(() => {})
  }
}

/**
 * Replaces the body of a response. The constructor of `Response` accepts no URL, no status above 599, and no body for some
 * statuses, but a provider's proxy may answer with any of them.
 */
const withBody = (response: Response, body: Uint8Array<ArrayBuffer> | ReadableStream): Response => {
  const { headers, status, statusText, url } = response
  const bodiless = [204, 205, 304].includes(status)
  const made = new Response(bodiless ? null : body, {
    headers: [...headers],
    status: Math.min(status, 599),
    statusText
  })
  Object.defineProperty(made, "url", { value: url })
  return made.status === status ? made : Object.defineProperty(made, "status", { value: status })
}

/** The response that the caller of a governed call gets. Either signal ends its body. */
export const governedResponse = (
  result: CallResult<FetchResponse>,
  signal: AbortSignal | undefined,
  closed: AbortSignal
): Response => {
  const { body, isChanged, isFinal, place, response: sent } = result
  if (sent.isSpent && sent.response.ok) return sent.response
  const given = body instanceof Uint8Array ? (body as Uint8Array<ArrayBuffer>) : streamOf(body, signal, closed)
  const made = withBody(sent.response, given)
  const { headers } = made
  if (isFinal) headers.set("x-should-retry", "false")
  if (place !== undefined) headers.set("x-floodgate-place", place)
  // `fetch` has decompressed the body, and its length may have changed.
  if (headers.has("content-encoding") || isChanged) headers.delete("content-length")
  headers.delete("content-encoding")
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
