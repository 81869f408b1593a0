/**
 * A middleware for the official SDK: code that already calls `client.messages.create` gets the budget and the retries by
 * one line, frameworks included, in an Effect app or not.
 *
 * **Details**
 *
 * Every call of the Messages API is admitted by the {@link Governor}, settled by its usage and retried by its policy.
 * What finally fails reaches the caller as the SDK's own error. Other calls pass through.
 *
 * **Gotchas**
 *
 * Retries have one owner: give the client `maxRetries: 0`, as `clientOptions` does. The SDK cannot be told from a
 * middleware not to retry a connection that failed.
 *
 * **Example** (a plain program)
 *
 * ```ts doctest
 * import Anthropic from "@anthropic-ai/sdk"
 * import * as Floodgate from "floodgate/anthropic"
 *
 * const floodgate = Floodgate.create({ limits: { inputTokens: { perMinute: 2_000_000 } } })
 * const client = new Anthropic({ apiKey: "test", ...floodgate.clientOptions })
 *
 * client.maxRetries // => 0
 * await floodgate.dispose()
 * ```
 *
 * @since 0.1.0
 */
import type { Middleware, MiddlewareContext, MiddlewareNext } from "@anthropic-ai/sdk"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import * as Governor from "../Governor.ts"
import * as AnthropicErrors from "../internal/anthropicErrors.ts"
import * as Headers from "../internal/headers.ts"
import type * as Limits from "../Limits.ts"
import { describe, messageActual, type Params, type UsageReport } from "../internal/messages.ts"
import type { Pushback } from "../LlmError.ts"
import { LlmError } from "../LlmError.ts"
import { watchBody } from "./watchBody.ts"

type Request = Parameters<Middleware>[0]

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * How calls are attributed.
 *
 * @category options
 * @since 0.1.0
 */
export interface MiddlewareOptions {
  /** The fairness key of a call. @default the request's `metadata.user_id`, or "default" */
  readonly agentOf?: ((params: Params) => string | undefined) | undefined
}

// -----------------------------------------------------------------------------
// Attempts
// -----------------------------------------------------------------------------

/** An attempt that failed: what the governor needs to know, and what the caller gets if it stays so. */
class AttemptFailed {
  readonly isRetryable: boolean
  readonly retryAfter: Duration.Duration | undefined
  readonly usage: Limits.Usage
  readonly pushback: Pushback | undefined
  readonly signal: Limits.Signal | undefined
  readonly conclude: () => Response

  constructor(error: LlmError, conclude: () => Response) {
    this.isRetryable = error.isRetryable
    this.retryAfter = error.retryAfter
    this.usage = error.usage
    this.pushback = error.pushback
    this.signal = error.signal
    this.conclude = conclude
  }
}

/** The SDK makes its own error of this response, and does not retry it. */
const final = (response: Response): Response => {
  const headers = new globalThis.Headers(response.headers)
  headers.set("x-should-retry", "false")
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers })
}

const rejection = Effect.fnUntraced(function* (response: Response) {
  const body = yield* Effect.promise(() =>
    response
      .clone()
      .json()
      .catch(() => undefined)
  )
  const now = yield* Clock.currentTimeMillis
  const reason = AnthropicErrors.fromThrown(
    { status: response.status, headers: response.headers, error: body },
    { now }
  )
  return yield* Effect.fail(new AttemptFailed(new LlmError({ reason }), () => final(response)))
})

const send = (request: Request, next: MiddlewareNext) =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const response = yield* Effect.tryPromise({
      try: () => next(request),
      catch: (thrown) =>
        new AttemptFailed(new LlmError({ reason: AnthropicErrors.fromThrown(thrown, { now }) }), () => {
          throw thrown
        })
    })
    return response.ok ? response : yield* rejection(response)
  })

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

const isMessagesCall = (ctx: MiddlewareContext): boolean =>
  ctx.options !== undefined && ctx.options.method === "post" && /^\/v1\/messages(\?|$)/.test(ctx.options.path)

const defaultAgent = (params: Params): string | undefined => params.metadata?.user_id ?? undefined

/**
 * Makes the middleware over the governor of the context: for Effect apps that hold an SDK client.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: MiddlewareOptions = {}
): Effect.fn.Return<Middleware, never, Governor.Governor> {
  const governor = yield* Governor.Governor
  const context = yield* Effect.context<never>()
  const runFork = Effect.runForkWith(context)
  const runPromiseExit = Effect.runPromiseExitWith(context)
  const agentOf = options.agentOf ?? defaultAgent

  const whole = (
    call: Governor.Call,
    how: Governor.CallOptions,
    request: Request,
    next: MiddlewareNext,
    ctx: MiddlewareContext
  ) =>
    governor.run(
      call,
      () =>
        Effect.gen(function* () {
          const response = yield* send(request, next)
          const message = yield* Effect.promise(() => ctx.parse<{ readonly usage?: UsageReport }>(response))
          const now = yield* Clock.currentTimeMillis
          return {
            value: response,
            actual: message?.usage && messageActual(message.usage),
            signal: Headers.signal((name) => response.headers.get(name), now)
          }
        }),
      how
    )

  /** The reservation lives as long as the body: its scope closes when the body ends, breaks or is cancelled. */
  const streamed = (call: Governor.Call, how: Governor.CallOptions, request: Request, next: MiddlewareNext) =>
    governor.retry(
      Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          const opened = Effect.gen(function* () {
            const ticket = yield* governor.admit(call, how)
            const response = yield* Effect.tapError(send(request, next), ticket.fail)
            const now = yield* Clock.currentTimeMillis
            yield* ticket.heard(Headers.signal((name) => response.headers.get(name), now))
            return watchBody(response, {
              now,
              observed: ticket.observed,
              ended: (conclusion) => {
                const told =
                  conclusion._tag === "Failed"
                    ? ticket.fail(conclusion.error)
                    : conclusion._tag === "Complete"
                      ? ticket.succeed(conclusion.actual)
                      : Effect.void
                runFork(Effect.andThen(told, Scope.close(scope, Exit.void)))
              }
            })
          })
          return yield* Effect.onExit(restore(Scope.provide(opened, scope)), (exit) =>
            Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit)
          )
        })
      ),
      how
    )

  return async (request, next, ctx) => {
    if (!isMessagesCall(ctx)) return next(request)
    const params = ctx.options!.body as Params
    const how: Governor.CallOptions = { agent: agentOf(params) }
    const call = describe(params)
    const exit = await runPromiseExit(
      params.stream === true ? streamed(call, how, request, next) : whole(call, how, request, next, ctx),
      request.signal == null ? {} : { signal: request.signal }
    )
    if (Exit.isSuccess(exit)) return exit.value
    request.signal?.throwIfAborted()
    const error = Cause.squash(exit.cause)
    if (error instanceof AttemptFailed) return error.conclude()
    throw error
  }
})

/**
 * What {@link create} gives.
 *
 * @category models
 * @since 0.1.0
 */
export interface Installation {
  readonly middleware: Middleware
  /** To be spread into the client's options: the middleware, and the SDK's own retries off. */
  readonly clientOptions: { readonly middleware: Array<Middleware>; readonly maxRetries: 0 }
  /** The budget's status, for a dashboard or a log. */
  readonly status: () => Promise<Budget.BudgetStatus>
  /** Closes the budget. Calls that still wait fail. */
  readonly dispose: () => Promise<void>
}

/**
 * How {@link create} makes its budget and its governor.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends Budget.Options, Governor.Options, MiddlewareOptions {}

/**
 * Makes a middleware with a budget of its own, for programs without Effect. Share one between all clients that call the
 * same provider with the same limits.
 *
 * @category constructors
 * @since 0.1.0
 */
export const create = (options: Options = {}): Installation => {
  const budget = Budget.layer(options)
  const runtime = ManagedRuntime.make(Layer.provideMerge(Governor.layer(options), budget))
  const made = runtime.runPromise(make(options))
  const middleware: Middleware = async (request, next, ctx) => (await made)(request, next, ctx)
  return {
    middleware,
    clientOptions: { middleware: [middleware], maxRetries: 0 },
    status: () => runtime.runPromise(Effect.flatMap(Budget.TokenBudget, (shared) => shared.status)),
    dispose: () => runtime.dispose()
  }
}
