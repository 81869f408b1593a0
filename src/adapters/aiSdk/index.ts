/**
 * Adapts the Vercel AI SDK to the governor: a middleware for `wrapLanguageModel` with which any model shares the budget, also
 * Bedrock's, a gateway's or one that runs in this process, whose HTTP requests cannot be intercepted.
 *
 * **When to use**
 *
 * If a provider has an option for `fetch`, use `floodgate/fetch`: it sees the request as it is sent, and headers that the
 * provider's package does not pass on. Use this middleware for all other models.
 *
 * **Details**
 *
 * Each call of the model, and so each step of an agent, is admitted by the {@link Governor}, settled by the usage that the
 * SDK reports, and retried by the governor's policy.
 *
 * - The status, headers and body of the SDK's error decide what a failure means. A call that finally fails throws that error with
 *   `isRetryable: false`, so that the SDK does not retry it as well.
 * - A stream is retried while it has no content. It holds its reservation until it has been read, cancelled, aborted or garbage
 *   collected.
 * - A caller that aborts leaves the queue at once. The time in the queue is not part of the governor's `timeout`.
 * - Limits are read from the headers of an answer if the provider's package passes them on.
 * - The agent is `providerOptions.floodgate.agent`, or the header `x-floodgate-agent`; its job
 *   `providerOptions.floodgate.job`, or the header `x-floodgate-job`; and its class `providerOptions.floodgate.kind`.
 *
 * It works with versions 5, 6 and 7 of the SDK and does not depend on it. Programs without Effect use
 * `Floodgate.create({ ... }).aiSdk` of `floodgate/promise`.
 *
 * **Gotchas**
 *
 * Refusals of the budget are thrown as `BudgetError`, and failures of the governor (its `timeout`, an open circuit) as `LlmError`.
 * The SDK's own timeouts (`timeout`, `abortSignal`) start with the call, so they include the time in the queue.
 *
 * **Example** (A model under the budget)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as FloodgateAiSdk from "floodgate/ai-sdk"
 * import * as Budget from "floodgate/Budget"
 * import * as Governor from "floodgate/Governor"
 *
 * // With the SDK: generateText({ model: wrapLanguageModel({ model: bedrock("..."), middleware }), prompt })
 * const model = {
 *   provider: "example",
 *   modelId: "m-1",
 *   doGenerate: async () => ({ usage: { inputTokens: { total: 3 }, outputTokens: { total: 1 } } })
 * }
 *
 * const program = Effect.gen(function* () {
 *   const middleware = yield* FloodgateAiSdk.make()
 *   const params = { prompt: [{ role: "user", content: [{ type: "text", text: "Hello" }] }] }
 *   const { usage } = yield* Effect.promise(() => middleware.wrapGenerate({ params, model }))
 *   return usage.outputTokens.total
 * })
 *
 * const live = Governor.layer().pipe(
 *   Layer.provide(Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } }))
 * )
 *
 * await Effect.runPromise(Effect.scoped(Effect.provide(program, live))) // => 1
 * ```
 *
 * @stability unstable
 * @since 0.2.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import { FailedAttempt, forCaller } from "../../call/failure.ts"
import * as Called from "../../call/models.ts"
import { makeRunner } from "../../call/promises.ts"
import { conclude, type Conclusion, inScope, type PeekedStream, streamOf } from "../../call/stream.ts"
import * as Governor from "../../Governor.ts"
import { check, options as optionsOf, orFunction } from "../../domain/input/checks.ts"
import { LlmError } from "../../LlmError.ts"
import { requestIdOf } from "../../protocol/errors.ts"
import { signalOf } from "../../protocol/headers.ts"
import { usageOf } from "../../protocol/protocol.ts"
import * as SdkErrors from "../../protocol/sdkErrors.ts"
import * as Describe from "./describe.ts"
import { answerOf } from "../modelAnswer.ts"
import { watch } from "./stream.ts"

export type { CallParams } from "./describe.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/** The options of the middleware. */
type Options = {
  /**
   * How calls are admitted and bounded: agent, priority, `maxWait`, `timeout`... for all, or by the call and its model.
   *
   * @default no bounds; the agent is named by `providerOptions.floodgate.agent` or the header `x-floodgate-agent`
   */
  readonly callOptions?:
    | Governor.CallOptions
    | ((params: Describe.CallParams, model: ModelInfo) => Governor.CallOptions)
    | undefined
}

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

const optionsCheck = optionsOf<Options>({ callOptions: orFunction(Called.callOptionsCheck) })

/** The names of a model and of its provider. */
type ModelInfo = {
  readonly provider: string
  readonly modelId: string
}

/**
 * A middleware of the AI SDK, described by its form, so that it fits every version of the SDK whose models have these methods.
 *
 * @stability unstable
 * @category models
 * @since 0.2.0
 */
export interface Middleware {
  /** The oldest version of the specification that requires this property. Later versions of the SDK accept it. */
  readonly specificationVersion: "v3"
  readonly wrapGenerate: <Params extends Describe.CallParams, Result extends object>(options: {
    readonly params: Params
    readonly model: ModelInfo & { doGenerate(params: Params): PromiseLike<Result> }
  }) => Promise<Result>
  readonly wrapStream: <
    Params extends Describe.CallParams,
    Part,
    Result extends { stream: ReadableStream<Part> }
  >(options: {
    readonly params: Params
    readonly model: ModelInfo & { doStream(params: Params): PromiseLike<Result> }
  }) => Promise<Result>
}

// -----------------------------------------------------------------------------
// Attempts
// -----------------------------------------------------------------------------

/** Marks an error as not retryable, because the governor has retried it and the SDK must not. */
const final = (thrown: unknown): unknown => {
  if (Predicate.hasProperty(thrown, "isRetryable") && thrown.isRetryable === true) {
    Reflect.defineProperty(thrown, "isRetryable", { value: false, configurable: true, enumerable: true })
  }
  return thrown
}

/** Calls the model. The caller's signal and the end of the attempt both abort it. */
const ask = <Params extends Describe.CallParams, Result>(
  call: (params: Params) => PromiseLike<Result>,
  params: Params,
  signal: AbortSignal
) =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.tryPromise({
      try: async () => {
        const signals = params.abortSignal === undefined ? [signal] : [signal, params.abortSignal]
        return await call({ ...params, abortSignal: AbortSignal.any(signals) })
      },
      catch: (thrown) =>
        new FailedAttempt(
          new LlmError({ reason: SdkErrors.fromThrown(thrown, { now }) }),
          Effect.suspend(() => Effect.fail(final(thrown)))
        )
    })
  )

/** Aborts an attempt's request when its scope closes. */
const controllerOf = Effect.acquireRelease(
  Effect.sync(() => new AbortController()),
  (controller) => Effect.sync(() => controller.abort())
)

const signalFrom = (result: unknown) => signalOf(Describe.headersOf(result))

const whole = Effect.fnUntraced(function* <Params extends Describe.CallParams, Result>(
  call: (params: Params) => PromiseLike<Result>,
  params: Params
) {
  const { signal } = yield* controllerOf
  const value = yield* ask(call, params, signal)
  const answer = answerOf(value)
  return { value, actual: usageOf(answer), signal: signalFrom(value), response: answer }
}, Effect.scoped)

/** The result of a call, and its stream as far as it was read. */
interface OpenedStream<Part, Result> {
  readonly result: Result
  readonly watched: PeekedStream<Part>
}

/** Opens a stream up to its first content. Until then the caller has received nothing, so it can be retried. */
const opened = Effect.fnUntraced(function* <
  Params extends Describe.CallParams,
  Part,
  Result extends { stream: ReadableStream<Part> }
>(
  call: (params: Params) => PromiseLike<Result>,
  params: Params,
  ticket: Governor.Ticket
): Effect.fn.Return<OpenedStream<Part, Result>, FailedAttempt<Result, unknown>, Scope.Scope> {
  const { signal } = yield* controllerOf
  const inTime = async (params: Params): Promise<Result> => {
    const result = await call(params)
    // The attempt has ended in the meantime, so the late stream is of no use.
    if (signal.aborted) void result.stream.cancel(signal.reason).catch(() => {})
    return result
  }
  const result = yield* ask(inTime, params, signal)
  yield* ticket.observeLimits(signalFrom(result))
  const watched = watch(result.stream, {
    now: yield* Clock.currentTimeMillis,
    requestId: requestIdOf(Describe.headersOf(result)),
    observed: ticket.recordUsage
  })
  yield* Effect.addFinalizer(() => Effect.sync(() => watched.cancel()))
  const failure = yield* Effect.promise(watched.begin)
  if (failure === undefined) return { result, watched }
  return yield* Effect.fail(
    new FailedAttempt(
      new LlmError({ reason: failure }),
      Effect.sync(() => ({ ...result, stream: streamOf(watched.replay()) }))
    )
  )
})

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/**
 * Makes the middleware over the governor of the context, for Effect programs that use the AI SDK. When the scope closes, running
 * and waiting calls fail with a `ClosedError`, streams that are being read end with it, and later calls fail with it.
 *
 * @stability unstable
 * @category constructors
 * @since 0.2.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Middleware, never, Governor.Governor | Scope.Scope> {
  check("FloodgateAiSdk.make", optionsCheck, options)
  const governor = yield* Governor.Governor
  const { closed, run } = yield* makeRunner
  const runFork = Effect.runForkWith(yield* Effect.context<never>())

  const described = (params: Describe.CallParams, model: ModelInfo, stream: boolean) => {
    const { agent, call, job } = Describe.describe(params, model, stream)
    const { callOptions } = options
    const given = typeof callOptions === "function" ? callOptions(params, model) : callOptions
    if (given !== undefined) check("FloodgateAiSdk.make: callOptions", Called.callOptionsCheck, given)
    return { call, callOptions: { agent, job, ...given } }
  }

  /** The reservation's scope stays open until the stream ends, breaks or is cancelled. */
  const streamed = <Params extends Describe.CallParams, Part, Result extends { stream: ReadableStream<Part> }>(
    ask: (params: Params) => PromiseLike<Result>,
    params: Params,
    call: Governor.Call,
    callOptions: Governor.CallOptions
  ) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const attempt = (ticket: Governor.Ticket) =>
          Effect.map(opened<Params, Part, Result>(ask, params, ticket), (opened) => ({ ...opened, ticket }))
        const { opened: stream, scope } = yield* inScope(governor.open(call, attempt, callOptions), restore)
        const { result, ticket, watched } = stream
        const ended = (conclusion: Conclusion): void =>
          void runFork(Effect.ensuring(conclude(ticket, conclusion), Scope.close(scope, Exit.void)))
        return { ...result, stream: streamOf(watched.give(ended), params.abortSignal, closed) }
      })
    )

  return {
    specificationVersion: "v3",
    wrapGenerate: ({ model, params }) => {
      const { call, callOptions } = described(params, model, false)
      const governed = governor.run(call, () => whole((params) => model.doGenerate(params), params), callOptions)
      return run(forCaller(governed), params.abortSignal)
    },
    wrapStream: ({ model, params }) => {
      const { call, callOptions } = described(params, model, true)
      const governed = streamed((params) => model.doStream(params), params, call, callOptions)
      return run(forCaller(governed), params.abortSignal)
    }
  }
})
