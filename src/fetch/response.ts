/** Web responses of governed calls, and the bodies of those that `fetch` gives. */
import type { HeaderReader } from "../protocol/headers.ts"
import type { Result, Source, Upstream } from "./engine.ts"

/** A response of `fetch`, as the engine takes it. */
export interface Sent extends Upstream {
  readonly header: HeaderReader
  readonly response: Response
}

/** The body of a response. Some `fetch`, such as node-fetch, give streams of Node. */
export const sourceOf = (response: Response): Source | undefined => {
  const body: unknown = response.body
  if (typeof body !== "object" || body === null || response.bodyUsed) return undefined
  const stream =
    "getReader" in body ? (body as ReadableStream<Uint8Array>) : ReadableStream.from(body as AsyncIterable<Uint8Array>)
  const reader = stream.getReader()
  return {
    read: async () => (await reader.read()).value,
    cancel: (reason) => void reader.cancel(reason).catch(() => {})
  }
}

/** A body that nobody refers to any more will never be read. */
const forgotten = new FinalizationRegistry<() => void>((left) => left())

/** A stream that is read as its reader asks. What ends it before its end cancels the source. */
const streamOf = (source: Source, signal: AbortSignal | undefined): ReadableStream<Uint8Array> => {
  let stop: (reason: unknown) => void = () => {}
  const token = {}
  const aborted = (): void => {
    source.cancel(signal?.reason)
    stop(signal?.reason)
    end()
  }
  const end = (): void => {
    forgotten.unregister(token)
    signal?.removeEventListener("abort", aborted)
  }
  const body = new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        stop = (reason) => controller.error(reason)
        try {
          const chunk = await source.read()
          if (signal?.aborted === true) return
          if (chunk !== undefined) return controller.enqueue(chunk)
          end()
          controller.close()
        } catch (thrown) {
          end()
          if (signal?.aborted !== true) controller.error(thrown)
        }
      },
      cancel: (reason) => {
        end()
        source.cancel(reason)
      }
    },
    { highWaterMark: 0 }
  )
  signal?.addEventListener("abort", aborted, { once: true })
  if (signal?.aborted === true) aborted()
  forgotten.register(body, () => source.cancel("nobody reads the body"), token)
  return body
}

/**
 * The same response with another body. Its constructor knows no address, no status above 599, and for some statuses no
 * body; a provider's proxy may answer with any of them.
 */
const withBody = (response: Response, body: Uint8Array<ArrayBuffer> | ReadableStream, headers: Headers): Response => {
  const { status, statusText, url } = response
  const bodiless = [204, 205, 304].includes(status)
  const made = new Response(bodiless ? null : body, { headers, status: Math.min(status, 599), statusText })
  return Object.defineProperties(made, { status: { value: status }, url: { value: url } })
}

/** What the caller of a governed `fetch` gets. */
export const governedResponse = (result: Result<Sent>, signal: AbortSignal | undefined): Response => {
  if (result._tag === "Refused") {
    const { body, headers, status } = result.refusal
    const more = result.isFinal ? { "x-should-retry": "false" } : undefined
    return new Response(body, { status, headers: { ...headers, ...more } })
  }
  const {
    body,
    isChanged,
    isFinal,
    response: { response }
  } = result
  const headers = new Headers([...response.headers])
  if (isFinal) headers.set("x-should-retry", "false")
  // `fetch` has decoded the body, and its length may have changed.
  if (headers.has("content-encoding") || isChanged) headers.delete("content-length")
  headers.delete("content-encoding")
  return withBody(
    response,
    body instanceof Uint8Array ? (body as Uint8Array<ArrayBuffer>) : streamOf(body, signal),
    headers
  )
}
