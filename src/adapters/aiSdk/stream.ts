/** Watches a stream of the AI SDK part by part while its reader reads it. */
import type * as Accounting from "../../Accounting.ts"
import * as Stream from "../../call/stream.ts"
import type { LlmErrorReason } from "../../LlmError.ts"
import { isRecord } from "../../protocol/json.ts"
import * as SdkErrors from "../../protocol/sdkErrors.ts"
import { step } from "../modelAnswer.ts"

/** A watched stream. `cancel` does nothing once it has ended. */
interface WatchedStream<Part> extends Stream.PeekedStream<Part> {
  readonly cancel: (reason?: unknown) => void
}

/** Watches a stream. `now` is in milliseconds since the epoch. */
export const watch = <Part>(
  source: ReadableStream<Part>,
  options: {
    readonly now: number
    readonly requestId: string | undefined
    readonly observed: (actual: Accounting.Actual) => void
  }
): WatchedStream<Part> => {
  const reader = source.getReader()
  const fields = { requestId: options.requestId }
  const progress = new Stream.StreamProgress(options.observed)
  const received = () => (progress.answer.started ? progress.received : undefined)

  const thrownReason = (thrown: unknown): LlmErrorReason => {
    const arrived = received()
    return arrived === undefined
      ? SdkErrors.fromThrown(thrown, options)
      : SdkErrors.fromBroken(thrown, arrived, fields, options)
  }

  /** The error of a part is the provider's error event, or an error of the SDK. */
  const failureOf = (error: unknown): LlmErrorReason => {
    const isEvent = typeof error === "string" || (isRecord(error) && !(error instanceof Error))
    if (!isEvent) return thrownReason(error)
    const data = isRecord(error) && "error" in error ? error : { error }
    return SdkErrors.fromEvent(data, received(), fields, options)
  }

  const advance = async (ready: Array<Part>): Promise<void> => {
    try {
      const { done, value } = await reader.read()
      if (done) return progress.ended(() => SdkErrors.interrupted("truncated", progress.received, fields))
      progress.observe(step(progress.answer, value), failureOf)
      ready.push(value)
    } catch (thrown) {
      progress.broke(thrown, thrownReason(thrown))
    }
  }

  const cancel = (reason?: unknown) => void reader.cancel(reason).catch(() => {})
  return { ...Stream.watch(progress, advance, cancel), cancel }
}
