/** One round trip to a provider behind a `LanguageModel`, under the governor: whole or streamed. */
import type * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import type * as Response from "effect/ai/Response"
import type * as Tool from "effect/ai/Tool"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type * as Governor from "../../Governor.ts"
import { FailedAttempt, forCaller } from "../../call/failure.ts"
import { bytesPerToken } from "../../protocol/requestSize.ts"
import * as Describe from "./describe.ts"
import * as Failure from "./failure.ts"

export type Tools = Record<string, Tool.Any>
type StreamPart = Response.StreamPart<Tools>

const judged = <E>(error: E): Effect.Effect<never, FailedAttempt<never, E>> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.fail(new FailedAttempt(Failure.failureOf(error, now), Effect.fail(error)))
  )

/** How round trips are made, see `Options`. */
export interface Settings {
  readonly governor: Governor.Governor["Service"]
  readonly call: Omit<Governor.Call, "bytes">
  readonly how: Governor.CallOptions
}

const callOf = ({ call }: Settings, request: Describe.Request): Governor.Call => ({
  ...call,
  ...Describe.requestSize(request)
})

/** A round trip that is answered as a whole. */
export const whole = <A extends LanguageModel.GenerateTextResponse<Tools>, E, R>(
  settings: Settings,
  method: string,
  request: Describe.Request,
  trip: Effect.Effect<A, E, R>
): Effect.Effect<A, E | AiError.AiError, R> => {
  const attempt = Effect.gen(function* () {
    const value = yield* Effect.catch(trip, judged)
    const seen = value.content.reduce(Describe.see, Describe.nothingSeen)
    return {
      value,
      actual: seen.usage && Describe.actualOf(seen.usage),
      signal: Describe.signalOf(seen),
      response: seen.info
    }
  })
  return forCaller(
    Effect.suspend(() => settings.governor.run(callOf(settings, request), () => attempt, settings.how)),
    (error) => Failure.toAiError(method, error)
  )
}

/** Opens a stream up to its first content: until then nothing was given away, and it can be retried. */
const open = Effect.fnUntraced(function* <E, R>(
  call: Governor.Call,
  ticket: Governor.Ticket,
  trip: Stream.Stream<StreamPart, E, R>
): Effect.fn.Return<Stream.Stream<StreamPart, E, R>, FailedAttempt<Stream.Stream<StreamPart>, E>, R | Scope.Scope> {
  let seen = Describe.nothingSeen
  const watch = (part: StreamPart): Effect.Effect<void> =>
    Effect.suspend(() => {
      seen = Describe.see(seen, part)
      const counted = seen.usage && Describe.actualOf(seen.usage)
      const outputTokens = Math.ceil(seen.characters / bytesPerToken)
      if (counted !== undefined) ticket.recordUsage(counted)
      else if (seen.started) ticket.recordUsage({ inputTokens: 0, outputTokens })
      // Now and not at the stream's end, because a consumer may leave with this part. A stream that ends without its
      // finish was cut: its scope settles it to what was observed.
      return part.type === "finish" || part.type === "error" ? conclude : Effect.void
    })
  const broken = (error: E): Effect.Effect<void> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => ticket.fail(Failure.failureOf(error, now)))
  const conclude = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    yield* ticket.observeLimits(Describe.signalOf(seen))
    yield* seen.error === undefined
      ? ticket.succeed(seen.usage && Describe.actualOf(seen.usage), seen.info)
      : ticket.fail(Failure.failureOfPart(seen.error.value, now))
  })

  const decided = Sink.takeUntil<StreamPart>(() => seen.started || seen.error !== undefined)
  const [head, rest] = yield* Effect.catch(Stream.peel(Stream.tap(trip, watch), decided), judged)
  if (seen.error !== undefined && !seen.started) {
    const failure = Failure.failureOfPart(seen.error.value, yield* Clock.currentTimeMillis)
    return yield* Effect.fail(new FailedAttempt(failure, Effect.succeed(Stream.fromArray(head))))
  }
  return Stream.concat(Stream.fromArray(head), rest).pipe(Stream.tapError(broken))
})

/** A round trip that is answered as a stream. */
export const streamed = <E, R>(
  settings: Settings,
  request: Describe.Request,
  trip: Stream.Stream<StreamPart, E, R>
): Stream.Stream<StreamPart, E | AiError.AiError, R> =>
  Stream.unwrap(
    forCaller(
      Effect.suspend(() => {
        const call: Governor.Call = { ...callOf(settings, request), stream: true }
        return settings.governor.open(call, (ticket) => open(call, ticket, trip), settings.how)
      }),
      (error) => Failure.toAiError("streamText", error)
    )
  )
