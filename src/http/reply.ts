/** Interprets a response to an attempt: how its body is read, what it used, and why it failed. */
import { bounds } from "../domain/bounds.ts"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Accounting from "../Accounting.ts"
import { FailedAttempt } from "../call/failure.ts"
import type { Patience } from "../call/silence.ts"
import { LlmError, type LlmErrorReason } from "../LlmError.ts"
import { makeFrameParser } from "../protocol/amazonFrames.ts"
import { parseJson } from "../protocol/json.ts"
import { makeJsonListParser } from "../protocol/jsonList.ts"
import { maxValues, ValueCounter } from "../protocol/jsonValues.ts"
import { longestWaitMillis } from "../protocol/messages.ts"
import { type Answer, emptyAnswer, usageOf } from "../protocol/protocol.ts"
import * as SdkErrors from "../protocol/sdkErrors.ts"
import { makeSseParser, type SseParser } from "../protocol/sse.ts"
import type { CallResult, HttpCall, ProviderResponse } from "./models.ts"
import { noAnswer } from "./noAnswer.ts"

/** The response to an attempt. */
export interface AttemptReply<R extends ProviderResponse> {
  readonly planned: HttpCall
  readonly response: R
  /** The place that has answered; undefined if the model has no places. */
  readonly place: string | undefined
  /** When the response arrived, in milliseconds since the epoch. */
  readonly now: number
  /** Whether the usage was requested although the caller did not. */
  readonly hidesUsage: boolean
}

// -----------------------------------------------------------------------------
// Bodies
// -----------------------------------------------------------------------------

/** Joins chunks. */
export const join = (chunks: ReadonlyArray<Uint8Array>): Uint8Array => {
  if (chunks.length === 1) return chunks[0]!
  const all = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0))
  let offset = 0
  for (const chunk of chunks) {
    all.set(chunk, offset)
    offset += chunk.length
  }
  return all
}

/** This much of an answer is read without being accounted for. */
const fewBytes = 64 * 1_024

export const isSuccess = ({ status }: ProviderResponse): boolean => status >= 200 && status < 300

/**
 * Decides whether more bytes of a body that is read whole fit: as many as {@link bounds} allow, and beyond {@link fewBytes} only
 * if the caller's `hold` has room for them.
 */
export const roomFor = <R extends ProviderResponse>({ planned, response }: AttemptReply<R>) => {
  const [max, hold] = isSuccess(response) ? [bounds.answer.max, planned.hold] : [bounds.error.max, undefined]
  let size = 0
  return (bytes: number): boolean => {
    const before = Math.max(size, fewBytes)
    size += bytes
    return size <= max && (size <= fewBytes || hold === undefined || hold(size - before))
  }
}

const longestWait = Duration.millis(longestWaitMillis)
/** The patience with a whole answer, which a model may think about for minutes before its first byte. */
export const forWhole = ({ stalled }: Patience): Patience => ({ silence: longestWait, stalled })
/** The patience with the whole body of an error, which is short. */
export const forError = ({ silence, stalled }: Patience): Patience => ({ silence: Duration.times(silence, 4), stalled })

/** Finds no events, so that a body is only passed on. It has no state. */
export const opaque: SseParser = { feed: () => [], end: () => [], hasStopped: () => true }

/**
 * The parser for the events of a streamed response; undefined for a response that is read whole. If a stream was requested,
 * anything but JSON is read as one, because some services send another content type. A file is passed on like a stream without
 * events.
 */
export const parserOf = <R extends ProviderResponse>({ planned, response }: AttemptReply<R>): SseParser | undefined => {
  if (!isSuccess(response) || response.body === undefined) return undefined
  const type = response.header("content-type")?.toLowerCase() ?? ""
  const isJson = type.includes("json")
  if (planned.description.binary === true && !isJson) return opaque
  const { streams } = planned
  // Objects on lines are read like those of a list.
  if (streams === "lines" || (streams === "list" && isJson)) return makeJsonListParser()
  if (streams === "frames" && !isJson) return makeFrameParser()
  const isOther = streams === "events" && !isJson
  return (response.isStream ?? (type.includes("text/event-stream") || isOther)) ? makeSseParser() : undefined
}

// -----------------------------------------------------------------------------
// Whole answers
// -----------------------------------------------------------------------------

/** The usage of a whole answer and its facts, or why it failed. `"events"` if the body is a stream of events. */
export type WholeAnswer =
  | { readonly actual: Accounting.Actual | undefined; readonly info: Answer }
  | { readonly failure: LlmErrorReason; readonly actual?: Accounting.Actual | undefined }
  | "events"

const decoder = new TextDecoder()

/** Reads a whole answer. `seed` makes it unpredictable how the values of a large one are counted. */
export const wholeOf = <R extends ProviderResponse>(
  reply: AttemptReply<R>,
  bytes: Uint8Array,
  seed: () => number
): WholeAnswer => {
  const { planned } = reply
  if (bytes.length > maxValues && hasTooManyValues(bytes, seed())) return { actual: undefined, info: emptyAnswer }
  const parsed = parseJson(decoder.decode(bytes))
  if (parsed === undefined) {
    // Some services send events under the type of JSON. They are read, so that requested usage is counted and hidden.
    if (planned.streams === "events") return "events"
    return { failure: noAnswer(reply.response, bytes, "no JSON") }
  }
  const info = planned.match.protocol.answer(parsed)
  const actual = usageOf(info)
  return info.error === undefined ? { actual, info } : { failure: reasonOf(reply, info.error), actual }
}

const hasTooManyValues = (bytes: Uint8Array, seed: number): boolean => {
  const counter = new ValueCounter(bytes, seed)
  counter.next(bytes.length)
  return counter.values > maxValues
}

// -----------------------------------------------------------------------------
// Failures
// -----------------------------------------------------------------------------

/** The reason for a failure that the body, or a part of it, gives. */
export const reasonOf = <R extends ProviderResponse>({ now, planned, response }: AttemptReply<R>, body: unknown) => {
  const { header, status } = response
  return SdkErrors.reasonOf(planned.match.protocol.failure({ status, header, body }, { now }))
}

/** An answer that has ended. */
export interface EndedAnswer<R extends ProviderResponse> {
  readonly result: CallResult<R>
  /** The whole body, or what was read of a stream that failed before its first content. */
  readonly body: Uint8Array | FailedStream
}

/** A stream that failed before its first content. */
export interface FailedStream {
  readonly pieces: ReadonlyArray<Uint8Array>
  /** Set if it broke off. */
  readonly broken: { readonly thrown: unknown } | undefined
}

/** A failed attempt. Its caller gets the provider's own response, or what was thrown. */
export type AttemptFailure<R extends ProviderResponse> = FailedAttempt<EndedAnswer<R>, unknown>

export const resultOf = <R extends ProviderResponse>(
  { hidesUsage, place, response }: AttemptReply<R>,
  isFinal: boolean
): CallResult<R> => ({ response, isChanged: hidesUsage, isFinal, place })

/** A failed attempt, whose caller gets this body, unless it would take it for an answer. */
export const failed = <R extends ProviderResponse>(
  reply: AttemptReply<R>,
  reason: LlmErrorReason,
  body: EndedAnswer<R>["body"]
): AttemptFailure<R> => {
  const error = new LlmError({ reason })
  const isNoAnswer = reason._tag === "MalformedResponse" && reason.executed !== undefined
  return new FailedAttempt(
    error,
    isNoAnswer ? Effect.fail(error) : Effect.succeed({ result: resultOf(reply, true), body })
  )
}

/**
 * A request that has no response, or whose response broke off: its caller gets what was thrown. What cannot be read would look like a
 * lost connection, and be sent again.
 */
export const thrownAt = <R extends ProviderResponse>(
  thrown: unknown,
  now: number,
  address?: string
): AttemptFailure<R> => {
  const error = new LlmError({ reason: SdkErrors.fromThrown(thrown, { now, address }) })
  const isUnreadable = error.reason._tag === "MalformedResponse" && error.reason.executed !== undefined
  return new FailedAttempt(error, Effect.fail(isUnreadable ? error : thrown))
}
