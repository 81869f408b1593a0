/**
 * A middleware for the official SDK: code that already calls `client.messages.create` gets the budget and the retries by
 * one line, frameworks included, in an Effect app or not.
 *
 * **Details**
 *
 * Every call of the Messages API, whole or streamed, beta or not, is admitted by the {@link Governor}, settled by its
 * usage and retried by its policy. What finally fails reaches the caller as the SDK's own error, and the SDK does not
 * retry it again. All other calls (batches, files, `count_tokens`) pass through as if the middleware were not there.
 *
 * - The time in the queue does not count towards the SDK's `timeout`. A caller who aborts leaves the queue at once.
 * - A stream is retried while it has no content. Its reservation lives until the body was read, cancelled or abandoned.
 * - It works the same for the SDK's clients of Bedrock, Vertex and Foundry: a middleware sees their calls in one form.
 *
 * **Gotchas**
 *
 * The SDK's own `timeout` ends an attempt from outside, so such a call is retried by the SDK's `maxRetries`, as without
 * the middleware; each of its attempts is admitted anew. For timeouts that the governor retries, give the middleware's
 * `callOptions` a shorter `timeout`.
 *
 * What the budget refuses (a full queue, a call that can never fit) reaches the caller as a `BudgetError`, and what the
 * governor ends (its `timeout`, an open circuit) as an `LlmError`.
 *
 * **Example** (a plain program)
 *
 * ```ts doctest
 * import Anthropic from "@anthropic-ai/sdk"
 * import * as Floodgate from "floodgate/anthropic"
 *
 * const floodgate = Floodgate.create({ limits: { inputTokens: { perMinute: 2_000_000 } } })
 * const client = new Anthropic({ apiKey: "test", middleware: [floodgate.middleware] })
 *
 * client.middleware.length // => 1
 * await floodgate.dispose()
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import type * as Estimator from "../Estimator.ts"
import * as Governor from "../Governor.ts"
import { durationOf } from "../input/arguments.ts"
import { describe, type Params } from "../protocol/messages.ts"
import { LlmError } from "../LlmError.ts"
import { anthropic } from "../protocol/anthropic.ts"
import { headerReader } from "../protocol/headers.ts"
import { match } from "../protocol/protocol.ts"
import * as Attempt from "./attempt.ts"
import type { Conclusion } from "./body.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * How the middleware treats calls.
 *
 * @category options
 * @since 0.1.0
 */
interface MiddlewareOptions {
  /**
   * How calls are admitted and bounded: agent, priority, `maxWait`, `timeout`... for all, or by the request.
   *
   * @default no bounds; the agent is named by the header `x-floodgate-agent`, by Claude Code's session, or by the request's
   * `metadata.user_id`
   */
  readonly callOptions?: Governor.CallOptions | ((params: Params) => Governor.CallOptions) | undefined
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

/**
 * A middleware of the SDK, by what is used of it: it fits whichever copy of the SDK a client comes from.
 *
 * @category models
 * @since 0.1.0
 */
export type Middleware = (request: Attempt.Request, next: Attempt.Next, ctx: Attempt.Context) => Promise<Response>

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/** The request of a call of the Messages API; undefined for every other call. */
const paramsOf = ({ options }: Attempt.Context): Params | undefined => {
  if (options === undefined || match([anthropic], options.method, options.path)?.route.operation !== "generate") {
    return undefined
  }
  const body = options.body as Partial<Params> | null | undefined
  return typeof body === "object" && typeof body?.model === "string" ? (body as Params) : undefined
}

const optionsOf = (
  params: Params,
  agent: string | undefined,
  given: MiddlewareOptions["callOptions"]
): Governor.CallOptions => ({
  agent,
  ...(typeof given === "function" ? given(params) : given)
})

/** What a call fails with that is interrupted, but not by its caller. */
const closed = (): Error => new Error("The floodgate of this client was closed; the call was not made, or was aborted")

/**
 * The SDK holds an error for a timeout of its own if its text or its cause's speaks of one: it retries it, and gives its
 * caller another in its place. So these texts have a hyphen there.
 */
const unmistakable = (error: unknown): unknown => {
  for (const one of [error, Predicate.hasProperty(error, "cause") ? error.cause : undefined]) {
    const text = String(one)
    const hyphened = text.replace(/(timed?) ?(?=out)/gi, "$1-")
    if (hyphened !== text && Predicate.isObject(one)) Object.defineProperty(one, "toString", { value: () => hyphened })
  }
  return error
}

const concluded = (ticket: Governor.Ticket, conclusion: Conclusion): Effect.Effect<void> => {
  switch (conclusion._tag) {
    case "Complete":
      return ticket.succeed(conclusion.actual, conclusion.info)
    case "Failed":
      return ticket.fail(new LlmError({ reason: conclusion.reason }))
    case "Abandoned":
      return Effect.void
  }
}

/**
 * Makes the middleware over the governor of the context: for Effect apps that hold an SDK client. Calls that run or wait
 * when the scope closes fail, and so does every later one.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: MiddlewareOptions = {}
): Effect.fn.Return<Middleware, never, Governor.Governor | Scope.Scope> {
  const idleTimeout = durationOf("Floodgate.idleTimeout", options.idleTimeout ?? "1 minute")
  const governor = yield* Governor.Governor
  const run = yield* FiberSet.runtime(yield* FiberSet.make<Response, unknown>())()
  const runFork = Effect.runForkWith(yield* Effect.context<never>())

  /**
   * What calls ended with that were given up, by the options object that the SDK keeps through its retries. It retries
   * what `fetch` threw and every timeout, whatever it is told; that retry is refused here. Answers are not: it heeds
   * their `x-should-retry`, and may have new credentials for a 401.
   */
  const givenUp = new WeakMap<object, { readonly thrown: unknown }>()

  /** Concludes a stream. The request is not at hand here: it would stay in memory as long as the stream. */
  const ended = (ticket: Governor.Ticket, scope: Scope.Closeable) => (conclusion: Conclusion) =>
    void runFork(Effect.andThen(concluded(ticket, conclusion), Scope.close(scope, Exit.void)))

  /** The reservation lives as long as the body: its scope closes when the body ends, breaks or is cancelled. */
  const streamed = (call: Governor.Call, how: Governor.CallOptions, request: Attempt.Request, next: Attempt.Next) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const attempt = (ticket: Governor.Ticket) =>
          Effect.map(Attempt.opened(request, next, ticket, idleTimeout), (body) => ({ body, ticket }))
        const { body, ticket } = yield* Effect.onExit(
          restore(Scope.provide(governor.open({ ...call, stream: true }, attempt, how), scope)),
          (exit) => (Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit))
        )
        return body.give(ended(ticket, scope), request.signal)
      })
    )

  return async (request, next, ctx) => {
    const params = paramsOf(ctx)
    if (params === undefined) return next(request)
    const key = ctx.options!
    const before = request.headers.get("x-stainless-retry-count") === "0" ? undefined : givenUp.get(key)
    if (before !== undefined) throw before.thrown

    const described = describe(params, {}, headerReader(request.headers))
    const how = optionsOf(params, described.agent, options.callOptions)
    const call: Governor.Call = { ...described.call, provider: options.name ?? "anthropic" }
    const signal = request.signal ?? undefined
    const fiber = run(
      params.stream === true
        ? streamed(call, how, request, next)
        : governor.run(call, () => Attempt.whole(request, next, ctx, idleTimeout), how),
      signal === undefined ? {} : { signal }
    )
    const exit = await new Promise<Exit.Exit<Response, unknown>>((resolve) => void fiber.addObserver(resolve))
    if (Exit.isSuccess(exit)) return exit.value
    signal?.throwIfAborted()
    const error = Cause.hasInterruptsOnly(exit.cause) ? closed() : Cause.squash(exit.cause)
    try {
      if (error instanceof Attempt.AttemptFailed) return error.conclude()
      throw unmistakable(error)
    } catch (thrown) {
      givenUp.set(key, { thrown })
      throw thrown
    }
  }
})

/**
 * What {@link create} gives.
 *
 * @category models
 * @since 0.1.0
 */
export interface Installation {
  /** To be given to any number of clients: `new Anthropic({ middleware: [middleware] })`. */
  readonly middleware: Middleware
  /** The budget's status, for a dashboard or a log. */
  readonly status: () => Promise<Budget.BudgetStatus>
  /** All that was learned of calls so far, as plain data: to be kept, and given to the next {@link create} as `learned`. */
  readonly learned: () => Promise<Estimator.Learned>
  /** Closes the budget. Calls that run or wait fail, and so does every later one. */
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
 * **Gotchas**
 *
 * Throws a `RangeError` that names the option when limits, concurrency or headroom make no sense.
 *
 * @category constructors
 * @since 0.1.0
 */
export const create = (options: Options = {}): Installation => {
  const { accounting, callOptions, idleTimeout, learned, name, retry, ...budget } = options
  const governor = Governor.layer({ accounting, learned, retry })
  const runtime = ManagedRuntime.make(Layer.provideMerge(governor, Budget.layer(budget)))
  const scope = Scope.makeUnsafe()
  const middleware = runtime.runSync(Scope.provide(make({ callOptions, idleTimeout, name }), scope))
  return {
    middleware,
    status: () => runtime.runPromise(Effect.flatMap(Budget.TokenBudget, (budget) => budget.status)),
    learned: () => runtime.runPromise(Effect.flatMap(Governor.Governor, (governor) => governor.learned)),
    dispose: () => Effect.runPromise(Effect.andThen(Scope.close(scope, Exit.void), runtime.disposeEffect))
  }
}
