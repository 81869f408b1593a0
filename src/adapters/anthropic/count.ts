/** Counts the tokens of a request of the SDK, through the client that sends it. */
import * as Effect from "effect/Effect"
import { countRequestOf } from "../../protocol/messages.ts"

/** A request as the SDK passes it to a middleware. */
interface SentRequest extends RequestInit {
  readonly url: string
  headers: globalThis.Headers
}

/** Headers of the original body, which do not apply to another. */
const ofBody = ["content-length", "content-encoding"]

/** What a count needs. */
interface Asking<Request> {
  readonly request: Request
  readonly body: object
  readonly next: (request: Request) => Promise<Response>
}

/** How a prompt is counted, until it is sent. */
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
export const countingOf = <Request extends SentRequest>(
  request: Request,
  body: object,
  next: (request: Request) => Promise<Response>
): PromptCounting => {
  let held: Asking<Request> | undefined = { request, body, next }
  const count = Effect.suspend(() => (held === undefined ? Effect.interrupt : ask(held)))
  return {
    count: new URL(request.url).pathname.endsWith("/v1/messages") ? count : undefined,
    forget: () => {
      held = undefined
    }
  }
}

const ask = <Request extends SentRequest>({ body, next, request }: Asking<Request>): Effect.Effect<number, unknown> =>
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
