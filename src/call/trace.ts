/**
 * The span of a call, with the names of OpenTelemetry's GenAI conventions.
 *
 * A call has one span for all of its attempts, and that of a stream ends with the stream. There is no span if the program does not
 * trace. Spans contain no prompt, no answer and no key.
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import { TracerTimingEnabled } from "effect/References"
import * as Tracer from "effect/Tracer"
import type { Reservation } from "../Budget.ts"
import type * as Limits from "../Limits.ts"
import { LlmError } from "../LlmError.ts"
import type { PlacedBecause } from "../places/placement.ts"
import type { HeaderReader } from "../protocol/headers.ts"
import { readTraceparent, traceparentName, writeTraceparent } from "../protocol/traceparent.ts"
import { causeOf, errorType } from "./failure.ts"
import { isTraced } from "./governedCall.ts"
import type { Call, ResponseInfo } from "./models.ts"
import type { ReportedUsage } from "./reported.ts"

// -----------------------------------------------------------------------------
// Across processes
// -----------------------------------------------------------------------------

/** The nearest span that may be shown to others. */
const shown = (span: Tracer.AnySpan | undefined): Tracer.AnySpan | undefined =>
  span !== undefined && Context.get(span.annotations, Tracer.DisablePropagation)
    ? shown(span._tag === "Span" ? Option.getOrUndefined(span.parent) : undefined)
    : span

/** The header `traceparent` with which a receiver continues the trace of a context; undefined if the context has none. */
export const headerOf = (context: Context.Context<never>): string | undefined => {
  const span = shown(Context.getOrUndefined(context, Tracer.ParentSpan))
  return span && writeTraceparent(span)
}

/** A context whose calls continue the trace of a request, by its header `traceparent`, if the program traces. */
export const continuing = (
  context: Context.Context<never>,
  header: string | null | undefined
): Context.Context<never> => {
  const parent = isTraced(context) ? readTraceparent(header) : undefined
  return parent === undefined ? context : Context.add(context, Tracer.ParentSpan, Tracer.externalSpan(parent))
}

const tracestateName = "tracestate"

/** Whether AWS's signature covers the header. Whoever changes it breaks the signature. */
const isSigned = (authorization: string | null | undefined): boolean => {
  const [, signed = ""] = /^AWS4-\S+ .*\bSignedHeaders=([^,\s]+)/.exec(authorization ?? "") ?? []
  return signed.toLowerCase().split(";").includes(traceparentName)
}

/**
 * The headers that a request loses when it gets another `traceparent`: the caller's own, and its `tracestate` unless the trace goes on.
 * Undefined if the request must keep its own.
 *
 * Source for signatures: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
 */
export const replaced = (header: HeaderReader): ReadonlyArray<string> | undefined => {
  if (isSigned(header("authorization"))) return undefined
  return readTraceparent(header(traceparentName)) === undefined ? [traceparentName, tracestateName] : [traceparentName]
}

/** Passes the trace of a call on in its headers. */
export const setTraceparent = (headers: Headers, traceparent: string): void => {
  const lost = replaced((name) => headers.get(name))
  if (lost === undefined) return
  for (const name of lost) headers.delete(name)
  headers.set(traceparentName, traceparent)
}

// -----------------------------------------------------------------------------
// The span of a call
// -----------------------------------------------------------------------------

/** Runs the attempts of a call in a span. */
export const within = <A, E, R>(
  attempt: {
    readonly call: { span: Tracer.Span | undefined }
    readonly pool: { readonly name: string }
    readonly request: Call
  },
  attempts: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const { call, pool, request } = attempt
  const operation = request.operation ?? "chat"
  const attributes = {
    "gen_ai.operation.name": operation,
    "gen_ai.request.model": request.model,
    "floodgate.pool": pool.name,
    ...(request.provider !== undefined && { "gen_ai.provider.name": request.provider }),
    ...(request.maxTokens !== undefined && { "gen_ai.request.max_tokens": request.maxTokens }),
    ...(request.stream === true && { "gen_ai.request.stream": true })
  }
  const begun = Effect.map(Effect.makeSpan(`${operation} ${request.model}`, { kind: "client", attributes }), (span) => {
    call.span = span
    return span
  })
  return Effect.flatMap(Effect.uninterruptible(begun), (span) =>
    Effect.provideService(attempts, Tracer.ParentSpan, span)
  ) as Effect.Effect<A, E, R>
}

/** Adds the attributes that are known. */
const note = (span: Tracer.Span, attributes: Readonly<Record<string, unknown>>): void => {
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) span.attribute(key, value)
}

/** Notes where an attempt goes, and why. */
export const placed = (span: Tracer.Span, place: string, pool: string, why: PlacedBecause): void =>
  note(span, { "floodgate.place": place, "floodgate.place.why": why, "floodgate.pool": pool })

/** Notes that an attempt was admitted. */
export const admitted = (
  span: Tracer.Span,
  { agent, binding, estimate }: Pick<Reservation, "agent" | "binding" | "estimate">
): void =>
  note(span, {
    "floodgate.agent": agent,
    "floodgate.queue.bound_by": binding,
    "floodgate.estimate.input_tokens": estimate.inputTokens,
    "floodgate.estimate.output_tokens": estimate.outputTokens,
    "floodgate.estimate.tokens": estimate.tokens
  })

/** Notes that an attempt failed. */
export const failed = (
  span: Tracer.Span,
  attempt: number,
  reason: string,
  limit: Limits.Dimension | undefined,
  nanos: bigint
): void => {
  note(span, { "floodgate.limit": limit })
  span.event("floodgate.attempt.failed", nanos, { "error.type": reason, "floodgate.attempt": attempt })
}

/** Notes that an attempt succeeded, its usage, and what the response says about itself. */
export const succeeded = (
  span: Tracer.Span,
  reported: ReportedUsage | undefined,
  { finishReason, id, model }: ResponseInfo
): void => {
  note(span, {
    "gen_ai.response.id": id,
    "gen_ai.response.model": model,
    "gen_ai.response.finish_reasons": finishReason && [finishReason]
  })
  if (reported === undefined) return
  const { actual, prompt, read, written } = reported
  note(span, {
    "gen_ai.usage.input_tokens": prompt,
    "gen_ai.usage.output_tokens": actual.outputTokens,
    "gen_ai.usage.cache_read.input_tokens": read > 0 ? read : undefined,
    "gen_ai.usage.cache_write.input_tokens": written > 0 ? written : undefined
  })
}

/** The history of a call. */
interface History {
  readonly attempts: number
  /** Milliseconds in the queue. */
  readonly queued: number
  /** Milliseconds between attempts. */
  readonly waited: number
  readonly clock: Clock.Clock
}

/** Ends the span with the history of the call. */
export const ended = (
  span: Tracer.Span,
  { attempts, clock, queued, waited }: History,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<void> =>
  Effect.withFiber(({ context }) => {
    note(span, {
      "floodgate.attempts": attempts,
      "floodgate.queue.seconds": queued / 1_000,
      "floodgate.retry.wait.seconds": waited / 1_000
    })
    const error = Exit.findErrorOption(exit)
    if (error._tag === "Some") noteError(span, error.value)
    span.end(Context.get(context, TracerTimingEnabled) ? clock.currentTimeNanosUnsafe() : 0n, shownExit(exit))
    return Effect.void
  })

/**
 * The end of a call as its span has it: a failure by its name alone. Errors hold what the provider has said, which may repeat the
 * request, and exporters write errors and their causes out.
 */
const shownExit = (exit: Exit.Exit<unknown, unknown>): Exit.Exit<void, Error> => {
  if (exit._tag === "Success") return Exit.void
  if (Cause.hasInterruptsOnly(exit.cause)) return Exit.interrupt()
  const name = errorType(Cause.squash(exit.cause))
  return Exit.fail(Object.assign(new Error(name), { name, stack: name }))
}

const noteError = (span: Tracer.Span, error: unknown): void => {
  note(span, { "error.type": errorType(error) })
  const cause = causeOf(error)
  if (!(cause instanceof LlmError)) return
  note(span, {
    "http.response.status_code": cause.status,
    "floodgate.request.id": cause.requestId,
    "floodgate.stopped_by": cause.stoppedBy
  })
}
