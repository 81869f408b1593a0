/** The body of a streamed answer. Its events are observed while it is read, and nothing is held back. */
import type * as Accounting from "../Accounting.ts"
import * as Stream from "../call/stream.ts"
import type * as Silence from "../domain/input/silence.ts"
import { type LlmErrorReason, MalformedResponse } from "../LlmError.ts"
import { requestIdOf } from "../protocol/errors.ts"
import type { HeaderReader } from "../protocol/headers.ts"
import type { Protocol } from "../protocol/protocol.ts"
import { makeSseFilter, type SseEvent, type SseParser } from "../protocol/sse.ts"
import * as SdkErrors from "../protocol/sdkErrors.ts"

/** The bytes of a body. */
export interface ByteSource extends Silence.Source<Uint8Array> {
  /** All unread chunks if the whole body has arrived; undefined if more may follow. */
  readonly rest?: () => ReadonlyArray<Uint8Array> | undefined
}

export interface BodyOptions {
  readonly protocol: Protocol
  readonly header: HeaderReader
  readonly status: number
  /** Milliseconds since the epoch. */
  readonly now: number
  readonly source: ByteSource
  readonly parser: SseParser
  /** Whether to leave out the events that exist only because usage was requested. */
  readonly hidesUsage: boolean
  readonly observed: (actual: Accounting.Actual) => void
  /** Whether a read failed because the body was silent for too long. */
  readonly isStalled: (thrown: unknown) => boolean
}

/** Watches a body. Closing its connection is up to the attempt. */
export const watch = (options: BodyOptions): Stream.PeekedStream<Uint8Array> => {
  const { parser, protocol, source } = options
  const fields = { requestId: requestIdOf(options.header) }
  const filter = options.hidesUsage ? makeSseFilter((event) => protocol.usageRequest!.isExtra(event)) : undefined
  const progress = new Stream.StreamProgress(options.observed)
  let events = 0

  /** What an error event means. */
  const failureOf = (body: unknown): LlmErrorReason => {
    const read = protocol.failure({ status: 200, header: options.header, body }, options)
    return SdkErrors.reasonOf(read, { ...fields, received: progress.answer.started ? progress.received : undefined })
  }

  const observe = (event: SseEvent): void => {
    if (event.data === "") return
    events++
    progress.observe(protocol.observe(progress.answer, event), failureOf)
  }

  const cut = (): LlmErrorReason =>
    events === 0
      ? new MalformedResponse({ ...fields, status: options.status, detail: "not a stream of events" })
      : SdkErrors.interrupted("truncated", progress.received, fields)

  const end = (): void => {
    for (const event of parser.end()) observe(event)
    // An event that is too long to be parsed is still passed on.
    progress.isOpaque = parser.hasStopped()
    progress.ended(cut)
  }

  const stop = (thrown: unknown): void => {
    const stalled = options.isStalled(thrown)
    // The answer is complete; only the connection was left open.
    if (stalled && progress.answer.complete) return progress.ended(cut)
    const reason = stalled
      ? SdkErrors.interrupted("stalled", progress.received, fields)
      : SdkErrors.fromBroken(thrown, progress.received, fields, options)
    progress.broke(thrown, reason)
  }

  return Stream.watch(progress, async (ready) => {
    let chunk: Uint8Array | undefined
    try {
      chunk = await source.read()
    } catch (thrown) {
      stop(thrown)
      ready.push(...(filter?.end() ?? []))
      return
    }
    if (chunk === undefined) {
      end()
      ready.push(...(filter?.end() ?? []))
      return
    }
    const found = parser.feed(chunk)
    for (const event of found) observe(event)
    progress.isOpaque = parser.hasStopped()
    ready.push(...(filter?.push(chunk, found) ?? [chunk]))
  })
}
