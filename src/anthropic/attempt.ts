/** One attempt of the SDK's request, with what the governor needs to know of its failure. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { FailedAttempt } from "../governor/failure.ts"
import type * as Governor from "../Governor.ts"
import { infoOf, longestWaitMillis } from "../protocol/messages.ts"
import * as SdkErrors from "../signals/sdkErrors.ts"
import { LlmError, type LlmErrorReason, MalformedResponse } from "../LlmError.ts"
import { anthropic } from "../protocol/anthropic.ts"
import { requestIdOf } from "../protocol/errors.ts"
import { headerReader, signalOf as signalOfHeaders } from "../protocol/headers.ts"
import { usageOf } from "../protocol/protocol.ts"
import { type Body, Stalled, watch, withBody } from "./body.ts"

/** A request of the SDK. */
export interface Request extends RequestInit {
  readonly url: string
  headers: globalThis.Headers
}

/** Sends a request of the SDK. */
export type Next = (request: Request) => Promise<Response>

/** What is used of what the SDK tells of a request. */
export interface Context {
  readonly options?: { readonly method: string; readonly path: string; readonly body?: unknown } | undefined
  readonly parse: <A>(response: Response) => Promise<A>
}

/** A failed attempt, and what the SDK gets if it stays so. */
export class AttemptFailed extends FailedAttempt {
  readonly reason: LlmErrorReason
  readonly conclude: () => Response

  constructor(reason: LlmErrorReason, conclude: () => Response) {
    super(new LlmError({ reason }))
    this.reason = reason
    this.conclude = conclude
  }
}

const rethrow = (thrown: unknown) => (): never => {
  throw thrown
}

const tried = <A>(read: () => Promise<A>) => Effect.tryPromise({ try: read, catch: (thrown) => thrown })

/**
 * Reads from a body that may fall silent for ever: the SDK's own timeout ends with the headers. What takes too long closes
 * the connection.
 */
const inTime = <A>(read: Effect.Effect<A, unknown>, most: Duration.Duration, controller: AbortController) =>
  Effect.timeoutOrElse(read, {
    duration: most,
    orElse: () => {
      const stalled = new Stalled(Duration.format(most))
      controller.abort(stalled)
      return Effect.fail(stalled)
    }
  })

type Unread = Response & { readonly body: ReadableStream<Uint8Array> }

/**
 * Some `fetch`, such as node-fetch, give streams of Node. Those can be watched as little as read twice: a copy stands still
 * unless the other is read along with it.
 */
const asWeb = (response: Response): Response => {
  const body: unknown = response.body
  if (response.bodyUsed || typeof body !== "object" || body === null || "getReader" in body) return response
  return Symbol.asyncIterator in body
    ? withBody(response, ReadableStream.from(body as AsyncIterable<unknown>))
    : response
}

/** Whether there is a body to watch: another middleware may have read it, and some answers have none. */
const isUnread = (response: Response): response is Unread => response.body?.locked === false && !response.bodyUsed

/** A whole body, for which only its silences are too long: one that keeps coming is not cut off. */
const textOf = Effect.fnUntraced(function* (
  response: Response,
  silence: Duration.Duration,
  controller: AbortController
): Effect.fn.Return<string, unknown> {
  if (!isUnread(response))
    return yield* inTime(
      tried(() => response.text()),
      silence,
      controller
    )
  const reader = response.body.getReader()
  const decoder = new TextDecoder()
  let text = ""
  while (true) {
    const { value } = yield* inTime(
      tried(() => reader.read()),
      silence,
      controller
    )
    if (value === undefined) return text + decoder.decode()
    text += decoder.decode(value, { stream: true })
  }
})

/**
 * Sends the request; the caller ends it by the SDK's signal, the attempt by its own. The body ends with them: a reader of
 * it may be far from the connection, as behind Bedrock's decoder, whose `cancel` waits for the event that never comes.
 *
 * An error status is a failure; the SDK makes its own error of it and does not retry it.
 */
const send = (request: Request, next: Next, controller: AbortController, idleTimeout: Duration.Duration) =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const signals = [controller.signal, ...(request.signal ? [request.signal] : [])]
    const response = yield* Effect.tryPromise({
      try: async () => {
        // The middlewares within may write to the headers, and in each attempt they do.
        const headers = new globalThis.Headers(request.headers)
        return asWeb(await next({ ...request, headers, signal: AbortSignal.any(signals) }))
      },
      catch: (thrown) => new AttemptFailed(SdkErrors.fromThrown(thrown, { now }), rethrow(thrown))
    })
    if (response.ok) return response
    // An error is short: one that drips is not waited for, and is the error without its text.
    const told = inTime(textOf(response, idleTimeout, controller), Duration.times(idleTimeout, 4), controller)
    const body = yield* Effect.orElseSucceed(told, () => "")
    const { headers, status } = response
    const reason = SdkErrors.fromResponse({ status, headers, body }, { now: yield* Clock.currentTimeMillis })
    const given = new globalThis.Headers(headers)
    given.set("x-should-retry", "false")
    return yield* Effect.fail(new AttemptFailed(reason, () => withBody(response, body, given)))
  })

const signalOf = (response: Response) =>
  Effect.map(Clock.currentTimeMillis, (now) => signalOfHeaders(headerReader(response.headers), now))

/** An answer that comes as a whole. */
export const whole = (request: Request, next: Next, ctx: Context, idleTimeout: Duration.Duration) =>
  Effect.suspend(() => {
    const controller = new AbortController()
    const answer = answered(request, next, ctx, idleTimeout, controller)
    return Effect.onInterrupt(answer, () => Effect.sync(() => controller.abort()))
  })

const answered = Effect.fnUntraced(function* (
  request: Request,
  next: Next,
  ctx: Context,
  idleTimeout: Duration.Duration,
  controller: AbortController
): Effect.fn.Return<Governor.Outcome<Response>, AttemptFailed> {
  const response = yield* send(request, next, controller, idleTimeout)
  const now = yield* Clock.currentTimeMillis
  const parse = tried(() => ctx.parse<unknown>(response))
  // When all of it is here the SDK has nothing to wait for. There are no pings: a proxy may send its headers long before.
  const arrived = isUnread(response)
    ? textOf(response.clone(), Duration.millis(longestWaitMillis), controller)
    : Effect.void
  const parsed = yield* Effect.mapError(Effect.andThen(arrived, parse), (thrown) => {
    const reason = SdkErrors.fromThrown(thrown, { now })
    return new AttemptFailed(reason, reason._tag === "MalformedResponse" ? () => response : rethrow(thrown))
  })
  const answer = anthropic.answer(parsed)
  return { value: response, actual: usageOf(answer), signal: yield* signalOf(response), response: infoOf(answer) }
})

/**
 * A stream, opened up to its first content: until then nothing was given away, and it can be retried. Its connection
 * lives as long as the scope.
 */
export const opened = Effect.fnUntraced(function* (
  request: Request,
  next: Next,
  ticket: Governor.Ticket,
  idleTimeout: Duration.Duration
): Effect.fn.Return<Body, AttemptFailed, Scope.Scope> {
  const controller = yield* Effect.acquireRelease(
    Effect.sync(() => new AbortController()),
    (controller) => Effect.sync(() => controller.abort())
  )
  const response = yield* send(request, next, controller, idleTimeout)
  yield* ticket.observeLimits(yield* signalOf(response))
  const now = yield* Clock.currentTimeMillis
  const requestId = requestIdOf(headerReader(response.headers))
  if (!isUnread(response)) {
    const reason = new MalformedResponse({ status: response.status, requestId, detail: "no body to read" })
    return yield* Effect.fail(new AttemptFailed(reason, () => response))
  }
  const runPromise = Effect.runPromiseWith(yield* Effect.context<never>())
  const body = watch(response, response.body, {
    now,
    requestId,
    observed: ticket.recordUsage,
    inTime: (read) => runPromise(inTime(tried(read), idleTimeout, controller))
  })
  const failure = yield* Effect.promise(body.begin)
  if (failure === undefined) return body
  return yield* Effect.fail(new AttemptFailed(failure, body.replay))
})
