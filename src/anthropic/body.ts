/** The body of a streamed response: watched event by event as the SDK reads it, and never held back. */
import { APIConnectionTimeoutError } from "@anthropic-ai/sdk"
import type * as Accounting from "../Accounting.ts"
import type { ResponseInfo } from "../governor/models.ts"
import { infoOf, receivedOf } from "../protocol/messages.ts"
import * as SdkErrors from "../signals/sdkErrors.ts"
import { type LlmErrorReason, MalformedResponse } from "../LlmError.ts"
import { anthropic } from "../protocol/anthropic.ts"
import { emptyAnswer, usageOf } from "../protocol/protocol.ts"
import { makeSseParser, type SseEvent } from "../protocol/sse.ts"

/** How a body ended. */
export type Conclusion =
  | { readonly _tag: "Complete"; readonly actual: Accounting.Actual | undefined; readonly info: ResponseInfo }
  | { readonly _tag: "Failed"; readonly reason: LlmErrorReason }
  | { readonly _tag: "Abandoned" }

/** A body as far as it was read. Its connection is the attempt's to close. */
export interface Body {
  /** Reads up to the first content. What is given is why the stream failed before it. */
  readonly begin: () => Promise<LlmErrorReason | undefined>
  /** The response that the SDK reads: what was read already, and the rest. Its end is told once. */
  readonly give: (ended: (conclusion: Conclusion) => void, signal: AbortSignal | null | undefined) => Response
  /** The response as far as it was read, ending as it did. */
  readonly replay: () => Response
}

/**
 * The same response with another body. Its constructor knows no address, no status above 599, and for some statuses no
 * body; a provider's proxy may answer with any of them.
 */
export const withBody = (
  response: Response,
  body: ReadableStream | string,
  headers: globalThis.Headers = response.headers
): Response => {
  const { status, statusText, url } = response
  const bodiless = [204, 205, 304].includes(status)
  const made = new Response(bodiless ? null : body, {
    headers: [...headers],
    status: Math.min(status, 599),
    statusText
  })
  return Object.defineProperties(made, { status: { value: status }, url: { value: url } })
}

/** A body that nobody refers to any more will never be read. */
const forgotten = new FinalizationRegistry<() => void>((left) => left())

type Source = NonNullable<ConstructorParameters<typeof ReadableStream<Uint8Array>>[0]> & { readonly type?: undefined }

/** Nothing came for too long, of a stream not even a ping. The SDK has no such timeout, so it is the error of its others. */
export class Stalled extends APIConnectionTimeoutError {
  constructor(silence: string) {
    super({ message: `The answer was silent for ${silence} (for streams see the middleware's option idleTimeout)` })
  }
}

export const watch = (
  response: Response,
  source: ReadableStream<Uint8Array>,
  options: {
    /** Milliseconds since the epoch. */
    readonly now: number
    readonly requestId: string | undefined
    readonly observed: (actual: Accounting.Actual) => void
    /** What a read gives, or a rejection with {@link Stalled} when it takes too long. */
    readonly inTime: <A>(read: () => Promise<A>) => Promise<A>
  }
): Body => {
  const reader = source.getReader()
  const parser = makeSseParser()
  const head: Array<Uint8Array> = []
  const fields = { requestId: options.requestId }
  let answer = emptyAnswer
  // The text is not kept: the SDK's caller has it.
  const received = () => receivedOf(answer, "")

  let events = 0
  let failure: LlmErrorReason | undefined
  let broken: { readonly thrown: unknown } | undefined

  const observe = (event: SseEvent): void => {
    if (event.data === "" || event.name === "ping") return
    events++
    answer = anthropic.observe(answer, event)
    if (answer.error !== undefined) {
      failure ??= SdkErrors.fromEvent(answer.error, answer.started ? received() : undefined, fields, options)
    }
    const actual = usageOf(answer)
    if (actual !== undefined) options.observed(actual)
  }

  /** The next chunk; undefined at the end, for which there is a failure then unless the stream was whole. */
  const read = async (): Promise<Uint8Array | undefined> => {
    try {
      const { value } = await options.inTime(() => reader.read())
      if (value !== undefined) {
        for (const event of parser.feed(value)) observe(event)
        return value
      }
      for (const event of parser.end()) observe(event)
      if (!answer.complete) {
        failure ??=
          events === 0
            ? new MalformedResponse({ ...fields, status: response.status, detail: "not a stream of events" })
            : SdkErrors.interrupted("truncated", received(), fields)
      }
    } catch (thrown) {
      const stalled = thrown instanceof Stalled
      // Everything is here, only the connection was left open.
      if (stalled && answer.complete) return undefined
      broken = { thrown }
      failure ??= stalled
        ? SdkErrors.interrupted("stalled", received(), fields)
        : SdkErrors.fromBroken(thrown, received(), fields, options)
    }
    return undefined
  }

  const respond = (source: Source): Response => withBody(response, new ReadableStream(source, { highWaterMark: 0 }))

  const finish = (controller: Pick<ReadableStreamDefaultController<Uint8Array>, "close" | "error">): void => {
    if (broken === undefined) controller.close()
    else controller.error(broken.thrown)
  }

  return {
    begin: async () => {
      const undecided = (): boolean => !answer.started && !answer.complete && failure === undefined
      while (undecided()) {
        const chunk = await read()
        if (chunk === undefined) break
        head.push(chunk)
      }
      return answer.started ? undefined : failure
    },
    give: (ended, signal) => {
      let over = false
      const end = (conclusion: Conclusion): void => {
        if (over) return
        over = true
        forgotten.unregister(end)
        signal?.removeEventListener("abort", left)
        ended(conclusion)
      }
      const settled = (): void =>
        end(
          failure === undefined
            ? { _tag: "Complete", actual: usageOf(answer), info: infoOf(answer) }
            : { _tag: "Failed", reason: failure }
        )
      const left = (): void => (failure === undefined && !answer.complete ? end({ _tag: "Abandoned" }) : settled())
      // Covers the caller's abort, and the SDK's own.
      signal?.addEventListener("abort", left, { once: true })
      if (signal?.aborted === true) left()
      const given = respond({
        pull: async (controller) => {
          const chunk = head.shift() ?? (await read())
          if (chunk !== undefined) return controller.enqueue(chunk)
          settled()
          finish(controller)
        },
        cancel: left
      })
      if (given.body !== null) forgotten.register(given.body, left, end)
      return given
    },
    replay: () =>
      respond({
        pull: (controller) => {
          const chunk = head.shift()
          if (chunk === undefined) finish(controller)
          else controller.enqueue(chunk)
        }
      })
  }
}
