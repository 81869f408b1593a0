/**
 * Adapts clients of Anthropic's SDK to the governor: a middleware for code that calls the SDK itself, such as
 * `client.messages.create` in your program or in a framework.
 *
 * **When to use**
 *
 * - Your code, or a framework, has a client of the SDK: use this middleware. Programs without Effect use
 *   `Floodgate.create({ ... }).anthropic(client)` of `floodgate/promise`.
 * - Your code calls `LlmClient`: use `floodgate/providers/Anthropic`, through which `LlmClient` sends its calls.
 *
 * **Details**
 *
 * The {@link Governor} admits every call of the Messages API, whole or streamed, beta or not, settles it to its usage and
 * retries it by its policy. A call that finally fails throws the SDK's own error, and the SDK does not retry it. All other calls
 * (batches, files, `count_tokens`) are passed on unchanged.
 *
 * - The SDK's `timeout` does not include the time in the queue. A caller that aborts leaves the queue at once.
 * - A stream is retried while it has no content. Its reservation lasts until the body was read, cancelled or garbage collected.
 * - It also works with the SDK's clients for Bedrock, Vertex and Foundry.
 *
 * **Gotchas**
 *
 * The SDK's own `timeout` ends an attempt from outside. The SDK retries such a call up to `maxRetries` times, as without the
 * middleware, and each of these attempts is a new governed call. If the governor should retry timeouts, set a shorter `timeout`
 * in the middleware's `callOptions`.
 *
 * Refusals of the budget (a full queue, a call that can never fit) reach the caller as `BudgetError`, and failures of
 * the governor (its `timeout`, an open circuit, an answer that cannot be read) as `LlmError`.
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
 * @stability stable
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Engine from "../../http/engine.ts"
import { checks } from "../../http/models.ts"
import type * as Fetch from "../../http/index.ts"
import { FetchAnswer, makeCaller, type SendOnce } from "../../http/driven.ts"
import { type FetchResponse, fetchResponseOf } from "../../http/response.ts"
import type * as Governor from "../../Governor.ts"
import * as Input from "../../domain/input/checks.ts"
import { anthropic } from "../../protocol/anthropic.ts"
import { headerReader } from "../../protocol/headers.ts"
import { makeSseParser, type SseParser } from "../../protocol/sse.ts"
import { setTraceparent } from "../../call/trace.ts"
import { countingOf, type SdkRequest } from "./count.ts"
import { unmistakable } from "./unmistakable.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/** Options of the middleware. */
type Options = Pick<Fetch.Options, "accounting" | "callOptions" | "idleTimeout"> & {
  /**
   * The account whose limits a call counts towards: `"origin"` is the host with a hash of the credential, as in
   * `floodgate/fetch`.
   *
   * @default none: calls count towards the same limits as those of `LlmClient` over the same budget
   */
  readonly account?: "origin" | ((request: Fetch.CallRequest) => string | undefined) | undefined
  /**
   * The longest silence within a stream. Pings count as activity, so the length of a stream is not bounded. After a longer
   * silence, a call without content is retried, and one with content ends with the SDK's `APIConnectionTimeoutError`. The SDK's
   * own timeout does not end such a silence, and the reservation would be held as long as it lasts.
   *
   * An answer that is not a stream has no pings, and may be silent for 10 minutes, as long as the SDK waits for headers. An
   * error may be silent for `idleTimeout`, and its whole text may take four times as long.
   *
   * @default "1 minute": a live connection has pings while the model thinks
   */
  readonly idleTimeout?: Duration.Input | undefined
  /**
   * The provider's name as OpenTelemetry's GenAI conventions spell it, such as `aws.bedrock` or `gcp.vertex_ai`. The
   * middleware cannot tell them apart.
   *
   * @default "anthropic"
   */
  readonly name?: string | undefined
}

/** The properties that are read of the context that the SDK passes with a request. */
interface SdkContext {
  readonly options?: { readonly method: string; readonly path: string; readonly body?: unknown } | undefined
}

/**
 * A middleware of the SDK, described by its form, so that it fits any copy of the SDK.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export type Middleware = (
  request: SdkRequest,
  next: (request: SdkRequest) => Promise<Response>,
  ctx: SdkContext
) => Promise<Response>

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

/** Makes an error of the SDK. It is imported when it is needed, because a program with another client may not have it installed. */
const errorOfSdk = async (name: "APIConnectionError" | "APIConnectionTimeoutError", message: string) => {
  const sdk = await import("@anthropic-ai/sdk").catch(() => undefined)
  return sdk && new sdk[name]({ message })
}

/** The error for a body that was silent for too long: the SDK's own timeout error, if the SDK is installed. */
const stalled = (silence: string): Effect.Effect<unknown> =>
  Effect.promise(async () => {
    const message = `The answer was silent for ${silence} (for streams see the middleware's option idleTimeout)`
    return (await errorOfSdk("APIConnectionTimeoutError", message)) ?? new Engine.Stalled(silence)
  })

/**
 * Ends a final stream without content with an error, unless it has an error event, because the SDK takes a stream without events for
 * an answer.
 */
class SdkAnswer extends FetchAnswer {
  /** Reads a final stream, until it has an error event. */
  private parser: SseParser | undefined = undefined

  override begin(result: Engine.CallResult<FetchResponse>): void {
    if (result.isFinal) this.parser = makeSseParser()
    super.begin(result)
  }

  override write(piece: Uint8Array): boolean {
    if (this.parser?.feed(piece).some(({ name }) => name === "error") === true) this.parser = undefined
    return super.write(piece)
  }

  override end(): void {
    if (this.parser === undefined) return super.end()
    const message = "The answer is not an event stream, or it ended before its first content"
    void errorOfSdk("APIConnectionError", message).then((error) => this.cut(error ?? new Error(message)))
  }
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/** The body of a call; undefined for a request without options, or with a body of another kind. */
const bodyOf = ({ options }: SdkContext): Readonly<Record<string, unknown>> | undefined => {
  const body = options?.body
  return Predicate.isObject(body) && typeof Reflect.get(body, "model") === "string"
    ? (body as Readonly<Record<string, unknown>>)
    : undefined
}

const { accounting, callOptions, idleTimeout } = checks
const optionsCheck = Input.options<Options>({
  callOptions,
  accounting,
  account: Input.orFunction(Input.oneOf("origin")),
  idleTimeout,
  name: Input.text
})

/**
 * Makes a middleware that uses the governor of the context, for Effect programs with an SDK client. Calls that are running or
 * waiting when the scope closes fail, streams that are being read end with an error, and all later calls fail.
 *
 * @stability stable
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Middleware, never, Governor.Governor | Scope.Scope> {
  Input.check("FloodgateAnthropic.make", optionsCheck, options)
  const { account = () => "" } = options
  const engine = yield* Engine.make({
    ...options,
    operation: "FloodgateAnthropic.make",
    account: account === "origin" ? undefined : account,
    protocols: [anthropic],
    stalled
  })
  const call = yield* makeCaller(engine)

  /**
   * The final errors of calls, by the options object that the SDK keeps through its retries. The SDK always retries timeouts and
   * errors of `fetch`; that retry is refused here. Failed responses are not refused: the SDK heeds their `x-should-retry`, and
   * may have new credentials after a 401.
   */
  const givenUp = new WeakMap<object, { readonly thrown: unknown }>()

  return async (request, next, ctx) => {
    const { options: key } = ctx
    const parsed = bodyOf(ctx)
    if (key === undefined || parsed === undefined) return next(request)
    const { headers, url } = request
    const { method, path } = key
    const found = engine.route(method, path)
    const planned = found && engine.plan(found, { url, header: headerReader(headers), text: undefined, parsed })
    if (planned === undefined) return next(request)
    const before = headers.get("x-stainless-retry-count") === "0" ? undefined : givenUp.get(key)
    if (before !== undefined) throw before.thrown

    const signal = request.signal ?? undefined
    const isStream = parsed["stream"] === true
    const { count, forget } = countingOf(request, parsed, next)
    const send: SendOnce = async (signal, _change, _target, traceparent) => {
      forget()
      // Inner middlewares may change the headers, and do so in each attempt.
      const sent = new globalThis.Headers(headers)
      if (traceparent !== undefined) setTraceparent(sent, traceparent)
      const response = await next({ ...request, headers: sent, signal })
      return { ...fetchResponseOf(response), isStream }
    }
    try {
      return await call({ ...planned, countTokens: count }, signal, send, SdkAnswer)
    } catch (error) {
      if (signal?.aborted === true) throw error
      const thrown = unmistakable(error)
      givenUp.set(key, { thrown })
      throw thrown
    }
  }
})
