/** Runs one round trip of a `LanguageModel`, whole or streamed, as a call of the governor. */
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
import { conclude, StreamProgress } from "../../call/stream.ts"
import { LlmError } from "../../LlmError.ts"
import { emptyAnswer, usageOf } from "../../protocol/protocol.ts"
import { step } from "../modelAnswer.ts"
import * as Describe from "./describe.ts"
import * as Failure from "./failure.ts"

export type Tools = Record<string, Tool.Any>
type StreamPart = Response.StreamPart<Tools>

const judged = <E>(error: E): Effect.Effect<never, FailedAttempt<never, E>> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.fail(new FailedAttempt(Failure.failureOf(error, now), Effect.fail(error)))
  )

/** The parts that the round trips of a model share. */
export interface Trips {
  readonly governor: Governor.Governor["Service"]
  readonly call: Omit<Governor.Call, "bytes">
  readonly callOptions: Governor.CallOptions
}

const callOf = ({ call }: Trips, request: Describe.Readable): Governor.Call => ({
  ...call,
  ...Describe.describe(request, call)
})

/** A round trip that is answered as a whole. */
export const whole = <A extends LanguageModel.GenerateTextResponse<Tools>, E, R>(
  trips: Trips,
  method: string,
  request: Describe.Readable,
  trip: Effect.Effect<A, E, R>
): Effect.Effect<A, E | AiError.AiError, R> => {
  const attempt = Effect.gen(function* () {
    const value = yield* Effect.catch(trip, judged)
    const answer = value.content.reduce(step, emptyAnswer)
    const finish = value.content.find((part) => part.type === "finish")
    return { value, actual: usageOf(answer), signal: finish && Describe.signalOf(finish), response: answer }
  })
  return forCaller(
    Effect.suspend(() => trips.governor.run(callOf(trips, request), () => attempt, trips.callOptions)),
    (error) => Failure.toAiError(method, error)
  )
}

/** Opens a stream up to its first content. Until then the caller has received nothing, so it can be retried. */
const open = Effect.fnUntraced(function* <E, R>(
  ticket: Governor.Ticket,
  trip: Stream.Stream<StreamPart, E, R>
): Effect.fn.Return<Stream.Stream<StreamPart, E, R>, FailedAttempt<Stream.Stream<StreamPart>, E>, R | Scope.Scope> {
  const clock = yield* Clock.Clock
  const progress = new StreamProgress(ticket.recordUsage)
  const reasonOf = (error: unknown) => Failure.reasonOfPart(error, clock.currentTimeMillisUnsafe())
  const observe = (part: StreamPart): Effect.Effect<void> =>
    Effect.suspend(() => {
      progress.observe(step(progress.answer, part), reasonOf)
      // Concluded with this part and not at the stream's end, because a consumer may leave with it. A stream without it was cut
      // off; its scope settles it to what was observed.
      if (part.type === "error") return conclude(ticket, progress.conclusion)
      if (part.type !== "finish") return Effect.void
      return Effect.andThen(ticket.observeLimits(Describe.signalOf(part)), conclude(ticket, progress.conclusion))
    })
  const broken = (error: E): Effect.Effect<void> =>
    Effect.suspend(() => ticket.fail(Failure.failureOf(error, clock.currentTimeMillisUnsafe())))

  const decided = Sink.takeUntil<StreamPart>(() => !progress.isUndecided)
  const [head, rest] = yield* Effect.catch(Stream.peel(Stream.tap(trip, observe), decided), judged)
  if (progress.failure !== undefined && !progress.answer.started) {
    const failure = new LlmError({ reason: progress.failure })
    return yield* Effect.fail(new FailedAttempt(failure, Effect.succeed(Stream.fromArray(head))))
  }
  return Stream.concat(Stream.fromArray(head), rest).pipe(Stream.tapError(broken))
})

/** A round trip that is answered as a stream. */
export const streamed = <E, R>(
  trips: Trips,
  request: Describe.Readable,
  trip: Stream.Stream<StreamPart, E, R>
): Stream.Stream<StreamPart, E | AiError.AiError, R> =>
  Stream.unwrap(
    forCaller(
      Effect.suspend(() => {
        const call: Governor.Call = { ...callOf(trips, request), stream: true }
        return trips.governor.open(call, (ticket) => open(ticket, trip), trips.callOptions)
      }),
      (error) => Failure.toAiError("streamText", error)
    )
  )
