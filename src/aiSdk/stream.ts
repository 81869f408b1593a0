/** A stream of the AI SDK: watched part by part as it is read, and never held back. */
import type * as Accounting from "../Accounting.ts"
import { type Conclusion, endOf, once } from "../governor/stream.ts"
import type { LlmErrorReason } from "../LlmError.ts"
import { isRecord } from "../protocol/json.ts"
import { receivedOf } from "../protocol/messages.ts"
import { emptyAnswer, usageOf } from "../protocol/protocol.ts"
import * as SdkErrors from "../signals/sdkErrors.ts"
import { step } from "./describe.ts"

/** A stream as far as it was read. */
export interface Watched<Part> {
  /** Reads up to the first content. What is given is why the stream failed before it. */
  readonly begin: () => Promise<LlmErrorReason | undefined>
  /** The stream that the caller reads: what was read already, and the rest. Its end is told once. */
  readonly give: (ended: (conclusion: Conclusion) => void, signal: AbortSignal | undefined) => ReadableStream<Part>
  /** The stream as far as it was read, ending as it did. */
  readonly replay: () => ReadableStream<Part>
}

/** A stream that nobody refers to any more will never be read. */
const forgotten = new FinalizationRegistry<() => void>((left) => left())

/** Begins to watch a stream. `now` is in milliseconds since the epoch. */
export const watch = <Part>(
  source: ReadableStream<Part>,
  options: {
    readonly now: number
    readonly requestId: string | undefined
    readonly observed: (actual: Accounting.Actual) => void
  }
): Watched<Part> => {
  const reader = source.getReader()
  const head: Array<Part> = []
  const fields = { requestId: options.requestId }
  let answer = emptyAnswer
  let failure: LlmErrorReason | undefined
  let broken: { readonly thrown: unknown } | undefined
  const received = () => receivedOf(answer, "")

  /** A provider puts its error event into the part, or an error of the SDK's. */
  const failed = (error: unknown): LlmErrorReason => {
    const isEvent = typeof error === "string" || (isRecord(error) && !(error instanceof Error))
    if (isEvent) {
      const data = isRecord(error) && "error" in error ? error : { error }
      return SdkErrors.fromEvent(data, answer.started ? received() : undefined, fields, options)
    }
    return answer.started
      ? SdkErrors.fromBroken(error, received(), fields, options)
      : SdkErrors.fromThrown(error, options)
  }

  const observe = (part: Part): void => {
    answer = step(answer, part)
    if (answer.error !== undefined) failure ??= failed(answer.error)
    const actual = usageOf(answer)
    if (actual !== undefined) options.observed(actual)
  }

  /** The next part; undefined at the end, for which there is a failure then unless the stream was whole. */
  const read = async (): Promise<Part | undefined> => {
    try {
      const { done, value } = await reader.read()
      if (!done) {
        observe(value)
        return value
      }
      if (!answer.complete) failure ??= SdkErrors.interrupted("truncated", received(), fields)
    } catch (thrown) {
      broken = { thrown }
      failure ??= answer.started
        ? SdkErrors.fromBroken(thrown, received(), fields, options)
        : SdkErrors.fromThrown(thrown, options)
    }
    return undefined
  }

  const finish = (controller: Pick<ReadableStreamDefaultController<Part>, "close" | "error">): void => {
    if (broken === undefined) controller.close()
    else controller.error(broken.thrown)
  }

  /** Whether a retry is still possible, and not yet called for. */
  const isUndecided = (): boolean => !answer.started && failure === undefined

  return {
    begin: async () => {
      while (isUndecided()) {
        const part = await read()
        if (part === undefined) break
        head.push(part)
      }
      return answer.started ? undefined : failure
    },
    give: (ended, signal) => {
      const end = once((conclusion) => {
        forgotten.unregister(end)
        signal?.removeEventListener("abort", left)
        ended(conclusion)
      })
      const settled = (): void => end(endOf(answer, failure))
      const left = (): void =>
        failure === undefined && !answer.complete ? end({ _tag: "Abandoned", why: undefined }) : settled()
      signal?.addEventListener("abort", left, { once: true })
      if (signal?.aborted === true) left()
      const given = new ReadableStream<Part>(
        {
          pull: async (controller) => {
            const part = head.shift() ?? (await read())
            if (part !== undefined) return controller.enqueue(part)
            settled()
            finish(controller)
          },
          cancel: async (reason) => {
            left()
            await reader.cancel(reason)
          }
        },
        { highWaterMark: 0 }
      )
      forgotten.register(given, left, end)
      return given
    },
    replay: () =>
      new ReadableStream<Part>({
        pull: (controller) => {
          const part = head.shift()
          if (part === undefined) finish(controller)
          else controller.enqueue(part)
        }
      })
  }
}
