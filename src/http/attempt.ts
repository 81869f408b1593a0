/** Reads the response to an attempt, whole or up to the first content of a stream. */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import type * as Accounting from "../Accounting.ts"
import { FailedAttempt } from "../call/failure.ts"
import type { PeekedStream } from "../call/stream.ts"
import type * as Governor from "../Governor.ts"
import { bound, type Bounded, type OpenResponse, type Patience } from "../domain/input/silence.ts"
import { LlmError, type LlmErrorReason, MalformedResponse } from "../LlmError.ts"
import { requestIdOf } from "../protocol/errors.ts"
import { parseJson } from "../protocol/json.ts"
import { makeJsonListParser } from "../protocol/jsonList.ts"
import { longestWaitMillis } from "../protocol/messages.ts"
import { maxValues, ValueCounter } from "../protocol/jsonValues.ts"
import { type Answer, emptyAnswer, usageOf } from "../protocol/protocol.ts"
import { makeSseParser, type SseParser } from "../protocol/sse.ts"
import * as SdkErrors from "../protocol/sdkErrors.ts"
import { type HttpCall, type CallResult, type ProviderResponse, type OnUsage } from "./models.ts"
import { sourceOf } from "./response.ts"
import { type ByteSource, EventBody, watch } from "./stream.ts"

// -----------------------------------------------------------------------------
// Bodies
// -----------------------------------------------------------------------------

/** Why a body was abandoned before its end. */
export class Abandoned {
  readonly why: unknown
  constructor(why: unknown) {
    this.why = why
  }
}
const whyLeft = (value: unknown): unknown => (value instanceof Abandoned ? value.why : undefined)

/**
 * The connection of an attempt, which is aborted when the attempt's scope closes. It is made here because a closure within the
 * call would keep the call in memory as long as the stream.
 */
export const connection: Effect.Effect<OpenResponse, never, Scope.Scope> = Effect.withFiber(({ context }) => {
  const opened: OpenResponse = { controller: new AbortController(), isOver: false }
  const close = (exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> => {
    // An abort costs time even if there is nothing left to abort.
    if (!opened.isOver) opened.controller.abort(Exit.isSuccess(exit) ? whyLeft(exit.value) : undefined)
    return Effect.void
  }
  return Effect.as(Scope.addFinalizerExit(Context.getUnsafe(context, Scope.Scope), close), opened)
})

/** The connection of an attempt that was begun elsewhere, which `abort` ends. */
export const connectionTo = (abort: (reason: unknown) => void): typeof connection =>
  Effect.map(connection, (opened) => {
    const { signal } = opened.controller
    signal.addEventListener("abort", () => abort(signal.reason), { once: true })
    return opened
  })

const empty = new Uint8Array(0)

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

const bounded = (source: ByteSource | undefined, opened: OpenResponse, how: Patience) =>
  source === undefined ? Effect.undefined : bound(source, opened, how)

const mebibyte = 1_024 * 1_024
/** Larger than any answer with images. Without a bound, a few compressed KB could unpack to more than the memory. */
const maxBytes = 32 * mebibyte
const maxErrorBytes = mebibyte
/** This much of an answer is read without being accounted for. */
const fewBytes = 64 * 1_024

/** The chunks of a body, all of them or as many as there was room for. */
interface BodyChunks {
  readonly chunks: Array<Uint8Array>
  readonly isWhole: boolean
}

/** Reads a body until it ends or has no more room. `bound` limits its silences; nothing limits the time in all. */
const gather = (
  source: ByteSource | undefined,
  hasRoom: (bytes: number) => boolean
): Effect.Effect<BodyChunks, unknown> => {
  const chunks: Array<Uint8Array> = []
  if (source === undefined) return Effect.succeed({ chunks, isWhole: true })
  const read = async (): Promise<BodyChunks> => {
    for (;;) {
      const chunk = await source.read()
      if (chunk === undefined) return { chunks, isWhole: true }
      chunks.push(chunk)
      if (!hasRoom(chunk.length)) return { chunks, isWhole: false }
    }
  }
  return Effect.tryPromise({ try: read, catch: (thrown) => thrown })
}

/** Decides whether more bytes fit: at most `max`, and beyond {@link fewBytes} only if `hold` has room for them. */
export const roomFor = (max = maxBytes, hold: (bytes: number) => boolean = () => true) => {
  let size = 0
  return (bytes: number): boolean => {
    const before = Math.max(size, fewBytes)
    size += bytes
    return size <= max && (size <= fewBytes || hold(size - before))
  }
}

const decoder = new TextDecoder()
const longestWait = Duration.millis(longestWaitMillis)
/** The patience with a whole answer, which a model may think about for minutes before its first byte. */
export const forWhole = ({ stalled }: Patience): Patience => ({ silence: longestWait, stalled })

const typeOf = ({ header }: ProviderResponse): string => header("content-type")?.toLowerCase() ?? ""

// -----------------------------------------------------------------------------
// Responses
// -----------------------------------------------------------------------------

/** The response to an attempt. */
export interface AttemptReply<R extends ProviderResponse> {
  readonly planned: HttpCall
  readonly ticket: Governor.Ticket
  readonly response: R
  /** When the response arrived, in milliseconds since the epoch. */
  readonly now: number
  /** Whether the usage was requested although the caller did not. */
  readonly hidesUsage: boolean
}

/** The response to an attempt, and what is needed to read it. */
export interface AttemptResponse<R extends ProviderResponse> extends AttemptReply<R> {
  readonly opened: OpenResponse
  readonly patience: Patience
}

/** A successful attempt, and its stream if the answer is not whole yet. */
export interface AttemptAnswer<R extends ProviderResponse> {
  readonly result: CallResult<R>
  readonly stream?: Pick<PeekedStream<Uint8Array>, "give"> & { readonly ticket: Governor.Ticket }
}

/** A failed attempt. Its caller gets the provider's own response, or what was thrown. */
export type AttemptFailure<R extends ProviderResponse> = FailedAttempt<CallResult<R>, unknown>

export type Attempted<R extends ProviderResponse> = Effect.Effect<AttemptAnswer<R>, AttemptFailure<R>, Scope.Scope>

/** A request that has no response, or whose response broke off. */
export const thrownAt = <R extends ProviderResponse>(thrown: unknown, now: number): AttemptFailure<R> =>
  new FailedAttempt(new LlmError({ reason: SdkErrors.fromThrown(thrown, { now }) }), Effect.fail(thrown))

export const resultOf = <R extends ProviderResponse>(
  { hidesUsage, response, ticket }: AttemptReply<R>,
  body: Uint8Array | ByteSource,
  isFinal: boolean
): CallResult<R> => ({ response, body, isChanged: hidesUsage, isFinal, place: ticket.place })

/** A failed attempt, whose caller gets this body. */
export const failed = <R extends ProviderResponse>(
  attempt: AttemptReply<R>,
  reason: LlmErrorReason,
  body: Uint8Array | ByteSource
): Effect.Effect<never, AttemptFailure<R>> =>
  Effect.fail(new FailedAttempt(new LlmError({ reason }), Effect.succeed(resultOf(attempt, body, true))))

/** A failure with the reason that the body, or a part of it, gives. */
export const failedWith = <R extends ProviderResponse>(attempt: AttemptReply<R>, body: unknown, bytes: Uint8Array) => {
  const { now, planned, response } = attempt
  const read = planned.match.protocol.failure({ status: response.status, header: response.header, body }, { now })
  return failed(attempt, SdkErrors.reasonOf(read), bytes)
}

/** The body of an error. It is short, so a body that takes too long is treated as empty. */
export const errorOf = <R extends ProviderResponse>({ opened, patience, response }: AttemptResponse<R>) =>
  Effect.flatMap(bounded(response.body, opened, patience), (body) =>
    Effect.match(Effect.timeoutOption(gather(body, roomFor(maxErrorBytes)), Duration.times(patience.silence, 4)), {
      onFailure: () => empty,
      onSuccess: Option.match({
        onNone: () => empty,
        onSome: ({ chunks, isWhole }) => (isWhole ? join(chunks) : empty)
      })
    })
  )

/** A whole answer: what it used and says about itself, or that its call goes on as an attempt that is not over. */
export type WholeAnswer<R extends ProviderResponse> =
  | { readonly _tag: "Answered"; readonly actual: Accounting.Actual | undefined; readonly info: Answer }
  | { readonly _tag: "Open"; readonly rest: (attempt: AttemptResponse<R>) => Attempted<R> }

/** Reads a whole answer. `seed` makes it unpredictable how the values of a large one are counted. */
export const wholeOf = <R extends ProviderResponse>(
  reply: AttemptReply<R>,
  bytes: Uint8Array,
  seed: () => number
): WholeAnswer<R> => {
  const { planned, response } = reply
  if (bytes.length > maxValues && hasTooManyValues(bytes, seed())) {
    return { _tag: "Answered", actual: undefined, info: emptyAnswer }
  }
  const parsed = parseJson(decoder.decode(bytes))
  if (parsed === undefined) {
    // Some services send events under the type of JSON. They are read, so that requested usage is counted and hidden.
    if (planned.streams === "events") return { _tag: "Open", rest: (attempt) => readStream(attempt, again(bytes)) }
    const requestId = requestIdOf(response.header)
    const reason = new MalformedResponse({ status: response.status, requestId, detail: "no JSON" })
    return { _tag: "Open", rest: () => failed(reply, reason, bytes) }
  }
  const info = planned.match.protocol.answer(parsed)
  return info.error === undefined
    ? { _tag: "Answered", actual: usageOf(info), info }
    : { _tag: "Open", rest: () => failedWith(reply, info.error, bytes) }
}

const again = (bytes: Uint8Array): ByteSource => sourceOf(new Response(bytes as Uint8Array<ArrayBuffer>).body)!

/** Reads a whole answer, and settles its call. */
export const readWhole = Effect.fnUntraced(function* <R extends ProviderResponse>(
  attempt: AttemptResponse<R>,
  used: OnUsage
): Effect.fn.Return<AttemptAnswer<R>, AttemptFailure<R>, Scope.Scope> {
  const { now, opened, patience, planned, response, ticket } = attempt
  const arrived = response.body?.rest?.()
  if (arrived !== undefined) opened.isOver = true
  const source = arrived === undefined ? yield* bounded(response.body, opened, forWhole(patience)) : undefined
  const gathered =
    arrived === undefined
      ? yield* Effect.mapError(gather(source, roomFor(undefined, planned.hold)), (thrown) => thrownAt<R>(thrown, now))
      : { chunks: arrived, isWhole: true }
  if (!gathered.isWhole) return passedOn(attempt, [...gathered.chunks], source!)
  const bytes = join(gathered.chunks)
  const random = yield* Random.Random
  const answer = wholeOf(attempt, bytes, () => random.nextIntUnsafe())
  if (answer._tag === "Open") return yield* answer.rest(attempt)
  used(answer.actual)
  yield* ticket.succeed(answer.actual, answer.info)
  return { result: resultOf(attempt, bytes, false) }
})

const hasTooManyValues = (bytes: Uint8Array, seed: number): boolean => {
  const counter = new ValueCounter(bytes, seed)
  counter.next(bytes.length)
  return counter.values > maxValues
}

/** Finds no events, so that a body is only passed on. It has no state. */
const opaque: SseParser = { feed: () => [], end: () => [], hasStopped: () => true }

/** The body of a response whose events a parser finds. */
export const eventsOf = <R extends ProviderResponse>(
  { hidesUsage, now, planned, response: { header, status }, ticket }: AttemptReply<R>,
  parser: SseParser
): EventBody => {
  const { protocol } = planned.match
  return new EventBody({ protocol, header, status, now, parser, hidesUsage, observed: ticket.recordUsage })
}

/** Passes on a whole answer that is too large to be read. Its usage stays unknown, so the call keeps its estimate. */
const passedOn = <R extends ProviderResponse>(
  attempt: AttemptResponse<R>,
  chunks: Array<Uint8Array>,
  source: Bounded<Uint8Array>
): AttemptAnswer<R> => {
  const { ticket } = attempt
  const whole = { ...source, read: async () => chunks.shift() ?? (await source.read()) }
  const { give } = watch(eventsOf({ ...attempt, hidesUsage: false }, opaque), whole)
  return { result: { ...resultOf(attempt, empty, false), isUnread: true }, stream: { ticket, give } }
}

/** Passes on a whole answer of which too many chunks were collected. */
export const passOn = <R extends ProviderResponse>(
  attempt: AttemptResponse<R>,
  chunks: Array<Uint8Array>
): Attempted<R> => {
  const patience = forWhole(attempt.patience)
  const source = bound(attempt.response.body!, attempt.opened, patience)
  return Effect.map(source, (source) => passedOn(attempt, chunks, source))
}

/** Reads a stream up to its first content. Until then nothing was passed on, and the call can be retried. */
export const readStream = Effect.fnUntraced(function* <R extends ProviderResponse>(
  attempt: AttemptResponse<R>,
  from: ByteSource,
  parser: SseParser = makeSseParser()
): Effect.fn.Return<AttemptAnswer<R>, AttemptFailure<R>, Scope.Scope> {
  const { opened, patience, ticket } = attempt
  const { begin, give, replay } = watch(eventsOf(attempt, parser), yield* bound(from, opened, patience))
  const failure = yield* Effect.promise(begin)
  if (failure !== undefined) return yield* failed(attempt, failure, replay())
  return { result: resultOf(attempt, empty, false), stream: { ticket, give } }
})

/**
 * The parser for the events of a streamed response; undefined for a response that is read whole. If a stream was requested,
 * anything but JSON is read as one, because some services send another content type. A file is passed on like a stream without
 * events.
 */
export const parserOf = <R extends ProviderResponse>({
  planned,
  response
}: Pick<AttemptReply<R>, "planned" | "response">): SseParser | undefined => {
  const type = typeOf(response)
  const isJson = type.includes("json")
  if (planned.description.binary === true && !isJson) return opaque
  const isOther = planned.streams === "events" && !isJson
  if (response.isStream ?? (type.includes("text/event-stream") || isOther)) return makeSseParser()
  return planned.streams === "list" && isJson ? makeJsonListParser() : undefined
}
