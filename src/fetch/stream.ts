/**
 * The body of a streamed answer: watched event by event as its reader reads it, and never held back.
 */
import type * as Accounting from "../Accounting.ts"
import { type Conclusion, endOf, once } from "../governor/stream.ts"
import { type LlmErrorReason, MalformedResponse } from "../LlmError.ts"
import { requestIdOf } from "../protocol/errors.ts"
import type { HeaderReader } from "../protocol/headers.ts"
import { receivedOf } from "../protocol/messages.ts"
import { emptyAnswer, type Protocol, usageOf } from "../protocol/protocol.ts"
import { makeSseFilter, makeSseParser, type SseEvent } from "../protocol/sse.ts"
import * as SdkErrors from "../signals/sdkErrors.ts"

/** Bytes that are read one chunk after another. */
export interface Source {
  /** The next chunk; undefined at the end. It rejects when the body breaks. */
  readonly read: () => Promise<Uint8Array | undefined>
  /** Ends the body before its end. */
  readonly cancel: (reason?: unknown) => void
}

/** A body as far as it was read. Its connection is the attempt's to close. */
export interface Watched {
  /** Reads up to the first content. What is given is why the stream failed before it. */
  readonly begin: () => Promise<LlmErrorReason | undefined>
  /** What was read already, and the rest. Its end is reported once. */
  readonly give: (ended: (conclusion: Conclusion) => void) => Source
  /** The body as far as it was read, ending as it did. */
  readonly replay: () => Source
}

export interface Options {
  readonly protocol: Protocol
  readonly header: HeaderReader
  readonly status: number
  /** Milliseconds since the epoch. */
  readonly now: number
  readonly source: Source
  /** Whether the events that exist only because usage was requested are to be left out. */
  readonly hidesUsage: boolean
  readonly observed: (actual: Accounting.Actual) => void
  /** Whether a read failed because nothing came for too long. */
  readonly isStalled: (thrown: unknown) => boolean
}

export const watch = (options: Options): Watched => {
  const { header, now, protocol, source, status } = options
  const parser = makeSseParser()
  const filter = options.hidesUsage ? makeSseFilter((event) => protocol.usageRequest!.isExtra(event)) : undefined
  /** What was read and not given yet. */
  const ready: Array<Uint8Array> = []
  const fields = { requestId: requestIdOf(header) }
  let answer = emptyAnswer
  // The text is not kept: the reader has it.
  const received = () => receivedOf(answer, "")

  let events = 0
  let isOver = false
  let failure: LlmErrorReason | undefined
  let broken: { readonly thrown: unknown } | undefined

  const observe = (event: SseEvent): void => {
    if (event.data === "") return
    events++
    answer = protocol.observe(answer, event)
    if (answer.error !== undefined && failure === undefined) {
      const read = protocol.failure({ status: 200, header, body: answer.error }, { now })
      failure = SdkErrors.reasonOf(read, { ...fields, received: answer.started ? received() : undefined })
    }
    const actual = usageOf(answer)
    if (actual !== undefined) options.observed(actual)
  }

  const end = (): void => {
    isOver = true
    for (const event of parser.end()) observe(event)
    ready.push(...(filter?.end() ?? []))
    // What is too long to be read can still be passed on.
    if (answer.complete || parser.failure() !== undefined) return
    failure ??=
      events === 0
        ? new MalformedResponse({ ...fields, status, detail: "not a stream of events" })
        : SdkErrors.interrupted("truncated", received(), fields)
  }

  const stop = (thrown: unknown): void => {
    isOver = true
    ready.push(...(filter?.end() ?? []))
    const stalled = options.isStalled(thrown)
    // Everything is here, only the connection was left open.
    if (stalled && answer.complete) return
    broken = { thrown }
    failure ??= stalled
      ? SdkErrors.interrupted("stalled", received(), fields)
      : SdkErrors.fromBroken(thrown, received(), fields, { now })
  }

  /** Reads one chunk, if there is another. */
  const advance = async (): Promise<void> => {
    let chunk: Uint8Array | undefined
    try {
      chunk = await source.read()
    } catch (thrown) {
      return stop(thrown)
    }
    if (chunk === undefined) return end()
    const found = parser.feed(chunk)
    for (const event of found) observe(event)
    if (filter === undefined) ready.push(chunk)
    else ready.push(...filter.push(chunk, found))
  }

  /** The next piece of what was read; undefined at the end. */
  const next = async (): Promise<Uint8Array | undefined> => {
    for (;;) {
      const piece = ready.shift()
      if (piece !== undefined || isOver) return piece
      await advance()
    }
  }

  const finish = async (): Promise<undefined> => {
    if (broken !== undefined) throw broken.thrown
    return undefined
  }

  /** Whether a retry is still possible, and not yet called for. */
  const isUndecided = (): boolean =>
    !answer.started && !answer.complete && !isOver && failure === undefined && parser.failure() === undefined

  return {
    begin: async () => {
      while (isUndecided()) await advance()
      return answer.started ? undefined : failure
    },
    give: (ended) => {
      const conclude = once(ended)
      const settle = (): void => conclude(endOf(answer, failure))
      return {
        read: async () => {
          const piece = await next()
          if (piece !== undefined) return piece
          settle()
          return finish()
        },
        cancel: (why) => (failure === undefined && !answer.complete ? conclude({ _tag: "Abandoned", why }) : settle())
      }
    },
    replay: () => ({
      read: async () => ready.shift() ?? finish(),
      cancel: () => {}
    })
  }
}
