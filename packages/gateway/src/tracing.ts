/**
 * The span of a request at the gateway, with the names of OpenTelemetry's HTTP conventions, if the gateway traces.
 *
 * It continues the trace of the caller, and the span of a governed call is its child. It has neither path nor query, because callers
 * send keys and tokens there.
 *
 * Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (1.42, stable)
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import { TracerEnabled } from "effect/References"
import * as Tracer from "effect/Tracer"
import type { IncomingMessage, ServerResponse } from "node:http"
import { Trace } from "floodgate/internal"
import type { NoRoute, Routed } from "./routes.ts"

/** The span of an open request. */
export interface RequestSpan {
  /** The context in which its call is made. */
  readonly around: (context: Context.Context<never>) => Context.Context<never>
  /** The header with which an upstream continues the trace. */
  readonly traceparent: string | undefined
  readonly end: () => void
}

/** Begins the span of a request; undefined if the gateway does not trace. */
export type BeginSpan = (
  request: IncomingMessage,
  response: ServerResponse,
  routed: Routed | NoRoute
) => RequestSpan | undefined

/** Other methods would be names of spans that callers choose. */
const methods: ReadonlySet<string> = new Set(["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"])

/** The exit of a request: a server reports only its own failures, and no refusals. */
const exitOf = ({ statusCode, writableFinished }: ServerResponse): Exit.Exit<unknown, unknown> => {
  if (!writableFinished) return Exit.interrupt()
  return statusCode >= 500 ? Exit.fail(`HTTP ${statusCode}`) : Exit.void
}

/** Returns the function that begins spans in this context. */
export const makeBeginSpan = (context: Context.Context<never>): BeginSpan => {
  const tracer = Context.getOrUndefined(context, Tracer.Tracer)
  if (tracer === undefined || !Context.get(context, TracerEnabled)) return () => undefined
  const clock = Context.get(context, Clock.Clock)
  return (request, response, routed) => {
    const { method = "GET" } = request
    const header = request.headers["traceparent"]
    const around = Trace.continuing(context, typeof header === "string" ? header : undefined)
    const parent = Context.getOption(around, Tracer.ParentSpan)
    const call = "call" in routed ? routed.call : undefined
    const named = methods.has(method) ? method : "HTTP"
    const span = tracer.span({
      name: call === undefined ? named : `${named} ${call.protocol.name}`,
      parent,
      annotations: Context.empty(),
      links: [],
      startTime: clock.currentTimeNanosUnsafe(),
      kind: "server",
      root: Option.isNone(parent),
      sampled: Option.match(parent, { onNone: () => true, onSome: ({ sampled }) => sampled })
    })
    span.attribute("http.request.method", methods.has(method) ? method : "_OTHER")
    span.attribute("url.scheme", "http")
    if ("upstream" in routed) span.attribute("floodgate.upstream", routed.upstream.name)
    if (call !== undefined) span.attribute("floodgate.protocol", call.protocol.name)
    return {
      around: (given) => Context.add(given, Tracer.ParentSpan, span),
      traceparent: Trace.headerOf(Context.make(Tracer.ParentSpan, span)),
      end: () => {
        const { statusCode } = response
        if (response.headersSent) span.attribute("http.response.status_code", statusCode)
        if (statusCode >= 500) span.attribute("error.type", String(statusCode))
        span.end(clock.currentTimeNanosUnsafe(), exitOf(response))
      }
    }
  }
}
