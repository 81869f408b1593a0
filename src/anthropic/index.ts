/**
 * A middleware for the official SDK: code that already calls `client.messages.create` gets the budget and the retries by
 * one line, frameworks included. Programs without Effect have it as `Floodgate.create({ ... }).middleware` of
 * `floodgate/promise`.
 *
 * **Details**
 *
 * Every call of the Messages API, whole or streamed, beta or not, is admitted by the {@link Governor}, settled by its
 * usage and retried by its policy. Final failures reach the caller as the SDK's own errors, and the SDK does not retry
 * them. All other calls (batches, files, `count_tokens`) pass through unchanged.
 *
 * - The time in the queue does not count towards the SDK's `timeout`. A caller who aborts leaves the queue at once.
 * - A stream is retried while it has no content. Its reservation lives until the body was read, cancelled or abandoned.
 * - It also works with the SDK's clients for Bedrock, Vertex and Foundry.
 *
 * **Gotchas**
 *
 * The SDK's own `timeout` ends an attempt from outside, so such a call is retried by the SDK's `maxRetries`, as without
 * the middleware; each of its attempts is admitted anew. For timeouts that the governor retries, give the middleware's
 * `callOptions` a shorter `timeout`.
 *
 * Refusals of the budget (a full queue, a call that can never fit) reach the caller as `BudgetError`, and failures of
 * the governor (its `timeout`, an open circuit) as `LlmError`.
 *
 * **Example** (An Effect program with an SDK client)
 *
 * ```ts doctest
 * import Anthropic from "@anthropic-ai/sdk"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Floodgate from "floodgate/anthropic"
 * import * as Budget from "floodgate/Budget"
 * import * as Governor from "floodgate/Governor"
 *
 * const governed = Governor.layer().pipe(Layer.provide(Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } })))
 *
 * const program = Effect.gen(function* () {
 *   const middleware = yield* Floodgate.make() // lives as long as the scope
 *   return new Anthropic({ apiKey: "test", middleware: [middleware] }).middleware.length
 * })
 *
 * await Effect.runPromise(Effect.scoped(Effect.provide(program, governed))) // => 1
 * ```
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Engine from "../fetch/engine.ts"
import { governedResponse, sentOf } from "../fetch/response.ts"
import { makeRun } from "../governor/promises.ts"
import type * as Governor from "../Governor.ts"
import { anthropic } from "../protocol/anthropic.ts"
import { headerReader } from "../protocol/headers.ts"
import { unmistakable } from "./unmistakable.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * How the middleware treats calls.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends Omit<Engine.EngineOptions, "account" | "protocols" | "streamUsage"> {
  /**
   * The account whose limits a call counts towards: `"origin"` is the host with a hash of the credential, as in
   * `floodgate/fetch`.
   *
   * @default none: calls count towards the same limits as those of `LlmClient` over the same budget
   */
  readonly account?: "origin" | ((request: Engine.CallRequest) => string | undefined) | undefined
  /**
   * The longest silence within a stream. Pings are signs of life: while they come, nothing bounds the whole of a stream.
   * After it a call without content is retried, and one with content ends with the SDK's `APIConnectionTimeoutError`; else
   * the reservation would be held for as long as the silence lasts, which the SDK's own timeout does not end.
   *
   * An answer that is no stream has no pings, and may be silent for 10 minutes, as long as the SDK waits for its headers.
   * An error may be silent for `idleTimeout`, and its text may take four times as long in all.
   *
   * @default "1 minute": a live connection has pings while the model thinks
   */
  readonly idleTimeout?: Duration.Input | undefined
  /**
   * The provider's name as OpenTelemetry's GenAI conventions spell it, such as `aws.bedrock` or `gcp.vertex_ai`: a
   * middleware sees the calls of all in one form.
   *
   * @default "anthropic"
   */
  readonly name?: string | undefined
}

/** A request of the SDK. */
interface Request extends RequestInit {
  readonly url: string
  headers: globalThis.Headers
}

/** What is used of what the SDK tells of a request. */
interface Context {
  readonly options?: { readonly method: string; readonly path: string; readonly body?: unknown } | undefined
}

/**
 * A middleware of the SDK, by what is used of it: it fits whichever copy of the SDK a client comes from.
 *
 * @category models
 * @since 0.1.0
 */
export type Middleware = (
  request: Request,
  next: (request: Request) => Promise<Response>,
  ctx: Context
) => Promise<Response>

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

/**
 * Nothing came for too long. The SDK has no such timeout, so it is the error of its others. The SDK is asked for it when it is
 * needed: a program that has this module for another client need not have it.
 */
const stalled = (silence: string): Effect.Effect<unknown> =>
  Effect.promise(async () => {
    const message = `The answer was silent for ${silence} (for streams see the middleware's option idleTimeout)`
    try {
      const { APIConnectionTimeoutError } = await import("@anthropic-ai/sdk")
      return new APIConnectionTimeoutError({ message })
    } catch {
      return new Engine.Stalled(silence)
    }
  })

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/** The body of a call; undefined for a request without options, or with another kind of body. */
const bodyOf = ({ options }: Context): Readonly<Record<string, unknown>> | undefined => {
  const body = options?.body
  return Predicate.isObject(body) && typeof Reflect.get(body, "model") === "string"
    ? (body as Readonly<Record<string, unknown>>)
    : undefined
}

/**
 * Makes the middleware over the governor of the context: for Effect apps that hold an SDK client. Calls that run or wait
 * when the scope closes fail, and so does every later one.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Middleware, never, Governor.Governor | Scope.Scope> {
  const { account = () => "" } = options
  const engine = yield* Engine.make({
    ...options,
    account: account === "origin" ? undefined : account,
    protocols: [anthropic],
    stalled
  })
  const run = yield* makeRun

  /**
   * What calls ended with that were given up, by the options object that the SDK keeps through its retries. It retries
   * what `fetch` threw and every timeout, whatever it is told; that retry is refused here. Answers are not: it heeds
   * their `x-should-retry`, and may have new credentials for a 401.
   */
  const givenUp = new WeakMap<object, { readonly thrown: unknown }>()

  return async (request, next, ctx) => {
    const { options: key } = ctx
    const parsed = bodyOf(ctx)
    if (key === undefined || parsed === undefined) return next(request)
    const { headers, url } = request
    const { method, path } = key
    const found = engine.route(method, path)
    const planned = found && engine.plan(found, { url, header: headerReader(headers), body: "", parsed })
    if (planned === undefined) return next(request)
    const before = headers.get("x-stainless-retry-count") === "0" ? undefined : givenUp.get(key)
    if (before !== undefined) throw before.thrown

    const signal = request.signal ?? undefined
    const isStream = parsed["stream"] === true
    const call = engine.call(planned, async (signal) => {
      // The middlewares within may write to the headers, and in each attempt they do.
      const response = await next({ ...request, headers: new globalThis.Headers(headers), signal })
      return { ...sentOf(response), isStream }
    })
    try {
      return governedResponse(await run(call, signal), signal)
    } catch (error) {
      if (signal?.aborted === true) throw error
      const thrown = unmistakable(error)
      givenUp.set(key, { thrown })
      throw thrown
    }
  }
})
