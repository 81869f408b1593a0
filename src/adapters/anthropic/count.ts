/** Counts the tokens of a request of the SDK, through the client that sends it. */
import * as Effect from "effect/Effect"
import { countRequestOf } from "../../protocol/messages.ts"

/** A request as the SDK passes it to a middleware. */
export interface SdkRequest extends RequestInit {
  readonly url: string
  headers: globalThis.Headers
}

/** Headers of the original body, which do not apply to another. */
const ofBody = ["content-length", "content-encoding"]

/** The means to count a prompt, until it is sent. */
export interface PromptCounting {
  /** Interrupts itself after the request was sent. */
  readonly count: Effect.Effect<number, unknown> | undefined
  /** Forgets the request, which would be in memory as long as its answer is read. */
  readonly forget: () => void
}

/**
 * Counts the prompt of a request for a message. A request to another address, such as that of a cloud, is not counted, because
 * there is no such endpoint beside it.
 */
export const countingOf = (
  request: SdkRequest,
  body: object,
  next: (request: SdkRequest) => Promise<Response>
): PromptCounting => {
  let asked: Effect.Effect<number, unknown> | undefined = ask(request, body, next)
  return {
    count: new URL(request.url).pathname.endsWith("/v1/messages")
      ? Effect.suspend(() => asked ?? Effect.interrupt)
      : undefined,
    forget: () => {
      asked = undefined
    }
  }
}

const ask = (
  request: SdkRequest,
  body: object,
  next: (request: SdkRequest) => Promise<Response>
): Effect.Effect<number, unknown> =>
  Effect.tryPromise(async (signal) => {
    const { hash, origin, pathname, search } = new URL(request.url)
    const headers = new globalThis.Headers(request.headers)
    for (const name of ofBody) headers.delete(name)
    const url = `${origin}${pathname}/count_tokens${search}${hash}`
    const response = await next({ ...request, url, headers, body: JSON.stringify(countRequestOf(body)), signal })
    if (!response.ok) {
      await response.body?.cancel()
      throw new Error(`The provider answered with ${response.status}`)
    }
    const { input_tokens: tokens } = (await response.json()) as { readonly input_tokens?: unknown }
    return Number(tokens)
  })
