/**
 * `LlmClient` makes Messages API calls under a budget and with retries.
 *
 * It composes the two: each attempt holds a reservation of the {@link TokenBudget}, and the retry policy, which is a `Schedule`,
 * says when the next attempt begins. The {@link Governor} carries that out for every client; this one measures requests, makes
 * attempts over an {@link LlmProvider}, and reads the usage of responses.
 *
 * **Details**
 *
 * What a call goes through, from the inside to the outside; `Governor.ts` has this pipe:
 *
 * ```ts
 * pipe(
 *   attempt, //         one request to the provider
 *   timed, //           ends a request that takes too long; the time in the queue does not count
 *   broken, //          refuses while the circuit breaker of the pool is open
 *   settled(settle), // replaces the estimate by the usage, and lets the budget judge a failure
 *   reserved, //        waits for the TokenBudget: each attempt has a reservation of its own
 *   warmed, //          lets one call fill the provider's cache before the others that share its prefix
 *   retried //          waits as the retry policy says; meanwhile the call holds nothing
 * )
 * ```
 *
 * **Example** (twelve agents over one client; the provider is simulated here)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 * import { ProviderSim } from "floodgate/testing"
 *
 * const ask = (agent: string) =>
 *   LlmClient.create(
 *     { model: "claude-sonnet-5", max_tokens: 100, messages: [{ role: "user", content: "Hello" }] },
 *     { agent }
 *   )
 *
 * const agents = Array.from({ length: 12 }, (_, n) => `agent ${n}`)
 * const program = Effect.forEach(agents, ask, { concurrency: "unbounded" })
 *
 * const live = LlmClient.layerProvider().pipe(
 *   Layer.provide(Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } })),
 *   Layer.provide(ProviderSim.layer({ latency: { baseMillis: 1 } }))
 * )
 *
 * const messages = await Effect.runPromise(Effect.provide(program, live))
 * messages.length // => 12
 * ```
 *
 * @since 0.1.0
 */
import type * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type { BudgetError, TokenBudget } from "./Budget.ts"
import type * as Estimator from "./Estimator.ts"
import * as Governor from "./Governor.ts"
import * as OptionChecks from "./call/models.ts"
import * as Input from "./domain/input/checks.ts"
import { check, span } from "./domain/input/checks.ts"
import { problemOf, textOfEvent } from "./protocol/messages.ts"
import { InvalidRequest, LlmError, StreamInterrupted } from "./LlmError.ts"
import * as LlmProvider from "./LlmProvider.ts"
import type * as Messages from "./Messages.ts"
import { describe, PartialAnswer, readAnswer } from "./protocol/anthropic.ts"
import { usageOf } from "./protocol/protocol.ts"
import type * as Anthropic from "./adapters/anthropic/provider.ts"
import * as Retry from "./Retry.ts"

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

/**
 * How one call is made.
 *
 * @category options
 * @since 0.1.0
 */
export interface CallOptions extends Governor.CallOptions {
  /** Calls of one kind resemble each other: estimates are learned per kind. @default the agent */
  readonly kind?: string | undefined
  /** The number of input tokens, if it is known, for example from `countTokens`. @default estimated */
  readonly inputTokens?: number | undefined
}

/**
 * Makes calls to a provider's Messages API under a budget and with retries.
 *
 * @category services
 * @since 0.1.0
 */
export class LlmClient extends Context.Service<
  LlmClient,
  {
    /** One answer. Interrupting it while it waits takes nothing; while it runs, it aborts the request. */
    readonly create: (
      params: LlmProvider.Params,
      options?: CallOptions
    ) => Effect.Effect<LlmProvider.Message, LlmError | BudgetError>
    /**
     * One answer as a stream of its events, with back-pressure. It is retried only until the consumer has received
     * content. After that it fails with the reason `StreamInterrupted`, which holds what was received. The reservation
     * lives as long as the stream, and interrupting the consumer aborts the request.
     */
    readonly stream: (
      params: LlmProvider.StreamParams,
      options?: CallOptions
    ) => Stream.Stream<LlmProvider.StreamEvent, LlmError | BudgetError>
    /** The number of input tokens as the provider counts them. It has limits of its own, so it is retried but not budgeted. */
    readonly countTokens: (params: LlmProvider.CountParams) => Effect.Effect<number, LlmError | BudgetError>
    /** Everything learned about calls so far. Keep it, and pass it to the next client as `learned`. */
    readonly learned: Effect.Effect<Estimator.Learned>
  }
>()("floodgate/LlmClient/LlmClient") {}

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

/**
 * The layers over the SDK could not load it: `@anthropic-ai/sdk` is an optional peer, to be installed beside Floodgate. A
 * client over another provider, by {@link layerProvider}, does not need it.
 *
 * @category errors
 * @since 0.4.0
 */
export class SdkMissing extends Schema.TaggedError<SdkMissing>("floodgate/LlmClient/SdkMissing")("SdkMissing", {
  /** The layer, such as `LlmClient.layer`. */
  operation: Schema.String,
  /** What the import failed with. */
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `${this.operation} needs the package @anthropic-ai/sdk, which could not be loaded: npm install @anthropic-ai/sdk`
  }
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

const route = { operation: "generate", path: "/v1/messages" } as const

/** Fails as the provider would, but before the call waits. Undefined if the params can be read. */
const invalidParams = (
  method: "create" | "stream" | "countTokens",
  params: unknown
): Effect.Effect<never, LlmError> | undefined => {
  const problem = problemOf(params, { counts: method === "countTokens" })
  return problem === undefined
    ? undefined
    : Effect.fail(new LlmError({ reason: new InvalidRequest({ detail: `LlmClient.${method}: ${problem}` }) }))
}

const make = Effect.fnUntraced(function* (
  retry: Retry.Policy<LlmError> = Retry.make()
): Effect.fn.Return<LlmClient["Service"], never, Governor.Governor | LlmProvider.LlmProvider> {
  const governor = yield* Governor.Governor
  const provider = yield* LlmProvider.LlmProvider

  const describeFor = (
    params: LlmProvider.StreamParams,
    inputTokens: number | undefined,
    kind: string | undefined
  ): Governor.Call => {
    const { bytes, continues, fast, maxTokens, priceFactor, stored, textBytes, thinking } = describe(params, route)!
    return {
      model: params.model,
      kind,
      bytes,
      textBytes,
      inputTokens,
      maxTokens,
      thinking,
      continues,
      stored,
      fast,
      priceFactor,
      provider: provider.name
    }
  }

  const openStream = (
    { stream: _, ...params }: LlmProvider.StreamParams,
    { inputTokens, kind, ...how }: CallOptions
  ) => {
    const call = { ...describeFor(params, inputTokens, kind), stream: true }
    return governor.open(call, (ticket) => openAttempt(provider, params, ticket), how)
  }

  return LlmClient.of({
    create: (params, options = {}) =>
      Effect.suspend(() => {
        check("LlmClient.create", checkCall, options)
        const { inputTokens, kind, ...how } = options
        const attempt = () =>
          Effect.map(provider.create(params), ({ signal, value }) => {
            const answer = readAnswer(value)
            return { value, actual: usageOf(answer), signal, response: answer }
          })
        return invalidParams("create", params) ?? governor.run(describeFor(params, inputTokens, kind), attempt, how)
      }),
    stream: (params, options = {}) =>
      Stream.unwrap(
        Effect.suspend(() => {
          check("LlmClient.stream", checkCall, options)
          return invalidParams("stream", params) ?? openStream(params, options)
        })
      ),
    countTokens: (params) =>
      invalidParams("countTokens", params) ??
      Retry.withPolicy(
        Effect.map(provider.countTokens(params), (reply) => reply.value),
        // As in governed calls, whatever the policy's `while` accepts.
        Schedule.while(retry, ({ input }) => input.error.isRetryable)
      ),
    learned: governor.learned
  })
})

// -----------------------------------------------------------------------------
// Streams
// -----------------------------------------------------------------------------

/** Opens a stream up to its first content: until then nothing was given away, and it can be retried. */
const openAttempt = Effect.fnUntraced(function* (
  provider: LlmProvider.LlmProvider["Service"],
  params: LlmProvider.Params,
  ticket: Governor.Ticket
) {
  const seen = new PartialAnswer()
  const watch = (event: LlmProvider.StreamEvent) =>
    Effect.suspend(() => {
      seen.take(event)
      const { answer } = seen
      const actual = usageOf(answer)
      if (actual !== undefined) ticket.recordUsage(actual)
      // Now and not at the stream's end, because a consumer may leave with this event.
      return answer.complete ? ticket.succeed(actual, answer) : Effect.void
    })
  /** Only `message_stop` says that a stream is whole. */
  const whole = Effect.suspend(() =>
    seen.answer.complete
      ? Effect.void
      : Effect.fail(new LlmError({ reason: new StreamInterrupted({ kind: "truncated", received: seen.soFar }) }))
  )

  const reply = yield* provider.stream(params)
  yield* ticket.observeLimits(reply.signal)
  const events = Stream.tap(reply.value, watch).pipe(
    // What breaks after the whole answer takes nothing from it.
    Stream.catchIf(
      () => seen.answer.complete,
      () => Stream.empty
    ),
    Stream.onEnd(whole)
  )
  const [head, rest] = yield* Stream.peel(
    events,
    Sink.takeUntil(() => seen.answer.started || seen.answer.complete)
  )
  return Stream.concat(Stream.fromArray(head), rest).pipe(
    Stream.tapError((error) => ticket.fail(error)),
    Stream.mapError((error) => ticket.annotate(interrupted(error, seen)))
  )
})

/** What the consumer is told once it has content: whatever broke the stream, this is what it has. */
const interrupted = ({ reason }: LlmError, { soFar }: PartialAnswer): LlmError => {
  const { code, detail, requestId, retryAfter, signal, status } = reason
  const kind = reason._tag === "StreamInterrupted" ? reason.kind : "failed"
  const received = { ...(reason.received ?? soFar), started: true }
  return new LlmError({
    reason: new StreamInterrupted({ kind, code, detail, received, requestId, retryAfter, signal, status })
  })
}

// -----------------------------------------------------------------------------
// Layers
// -----------------------------------------------------------------------------

/**
 * A client over the governor and the provider of the context.
 *
 * **Example** (A client and another way in under one governor)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Fetch from "floodgate/fetch"
 * import * as Governor from "floodgate/Governor"
 * import * as LlmClient from "floodgate/LlmClient"
 * import { ProviderSim } from "floodgate/testing"
 *
 * const program = Effect.gen(function* () {
 *   const client = yield* LlmClient.LlmClient
 *   const fetch = yield* Fetch.make() // for clients of other providers
 *   return [typeof client.create, typeof fetch]
 * }).pipe(Effect.scoped)
 *
 * const live = LlmClient.layerNoDeps.pipe(
 *   Layer.provideMerge(Governor.layer()),
 *   Layer.provide(Budget.layer({ limits: { requests: { perMinute: 1_000 } } })),
 *   Layer.provide(ProviderSim.layer())
 * )
 *
 * await Effect.runPromise(Effect.provide(program, live)) // => ["function", "function"]
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNoDeps: Layer.Layer<LlmClient, never, Governor.Governor | LlmProvider.LlmProvider> = Layer.fresh(
  // A constant is built once for a whole program, which may have two clients.
  Layer.effect(LlmClient, make())
)

/**
 * A client over any provider, with a governor of its own.
 *
 * **Example** (Over a simulated provider, with more patience)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 * import * as Retry from "floodgate/Retry"
 * import { ProviderSim } from "floodgate/testing"
 *
 * const params = {
 *   model: "claude-sonnet-5",
 *   max_tokens: 100,
 *   messages: [{ role: "user" as const, content: "What is a token bucket?" }]
 * }
 *
 * const live = LlmClient.layerProvider({ retry: Retry.make({ attempts: 8, maxElapsed: "1 hour" }) }).pipe(
 *   Layer.provide(Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } })),
 *   Layer.provide(ProviderSim.layer({ latency: { baseMillis: 1 } }))
 * )
 *
 * const { stop_reason } = await Effect.runPromise(Effect.provide(LlmClient.create(params), live))
 *
 * stop_reason // => "end_turn"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerProvider = (
  options: Governor.Options = {}
): Layer.Layer<LlmClient, never, TokenBudget | LlmProvider.LlmProvider> => {
  check("LlmClient.layerProvider", checkLayerProvider, options)
  const { retry: policy = Retry.make<LlmError>() } = options
  // The governor composes the two: it reserves each attempt from the TokenBudget of the context, and retries by the policy.
  const governor = Governor.layer({ ...options, retry: policy })
  return Layer.fresh(Layer.effect(LlmClient, make(policy))).pipe(Layer.provide(governor))
}

const configured: Input.Checks<Omit<Anthropic.Options, "apiKey" | "baseUrl"> & Governor.Options> = {
  ...OptionChecks.made,
  timeout: span,
  idleTimeout: span
}
const checkLayer = Input.options<Anthropic.Options & Governor.Options>(
  { ...configured, apiKey: Input.apiKey, baseUrl: Input.text },
  "apiKey"
)
const checkLayerConfig = Input.options(configured)
const checkLayerProvider = Input.options(OptionChecks.made)
const checkCall = Input.options<CallOptions>({
  ...OptionChecks.called,
  kind: Input.text,
  inputTokens: Input.notNegative
})

/** The SDK is an optional peer and everything else works without it, so only these layers load its adapter. */
const overSdk = <E>(
  operation: string,
  { accounting, learned, prices, retry }: Governor.Options,
  adapted: (adapter: typeof Anthropic) => Layer.Layer<LlmProvider.LlmProvider, E>
): Layer.Layer<LlmClient, E | SdkMissing, TokenBudget> => {
  const adapter = Effect.tryPromise({
    try: () => import("./adapters/anthropic/provider.ts"),
    catch: (cause) => new SdkMissing({ operation, cause })
  })
  return layerProvider({ accounting, learned, prices, retry }).pipe(
    Layer.provide(Layer.unwrap(Effect.map(adapter, adapted)))
  )
}

/**
 * A client over Anthropic's API through the official SDK, which must be installed. Fails with {@link SdkMissing} if it is not.
 *
 * **Example** (A key that the program has)
 *
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Redacted from "effect/Redacted"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 * import * as Presets from "floodgate/Presets"
 *
 * const live = LlmClient.layer({ apiKey: Redacted.make("sk-ant-..."), timeout: "2 minutes" }).pipe(
 *   Layer.provide(Budget.layer({ limits: Presets.anthropic.build }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Anthropic.Options & Governor.Options
): Layer.Layer<LlmClient, SdkMissing, TokenBudget> => {
  check("LlmClient.layer", checkLayer, options)
  const { apiKey, baseUrl, idleTimeout, timeout } = options
  return overSdk("LlmClient.layer", options, (adapter) => adapter.layer({ apiKey, baseUrl, idleTimeout, timeout }))
}

/**
 * A client over Anthropic's API that reads `ANTHROPIC_API_KEY` and, if it is set, `ANTHROPIC_BASE_URL` from the
 * configuration. Fails with a `ConfigError` that names the variable when the key is missing, and with {@link SdkMissing} when
 * the SDK is.
 *
 * **Example** (Without a key)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as ConfigProvider from "effect/ConfigProvider"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 *
 * const live = LlmClient.layerConfig().pipe(
 *   Layer.provide(Budget.layer()),
 *   Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({})))
 * )
 *
 * const error = await Effect.runPromise(Effect.flip(Effect.provide(LlmClient.LlmClient, live)))
 *
 * error._tag // => "ConfigError"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Omit<Anthropic.Options, "apiKey" | "baseUrl"> & Governor.Options = {}
): Layer.Layer<LlmClient, Config.ConfigError | SdkMissing, TokenBudget> => {
  check("LlmClient.layerConfig", checkLayerConfig, options)
  const { idleTimeout, timeout } = options
  return overSdk("LlmClient.layerConfig", options, (adapter) => adapter.layerConfig({ idleTimeout, timeout }))
}

// -----------------------------------------------------------------------------
// Accessors
// -----------------------------------------------------------------------------

/**
 * One answer from the client of the context, see {@link LlmClient}.
 *
 * **Example** (For an agent, and not for ever)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 * import { ProviderSim } from "floodgate/testing"
 *
 * const params = {
 *   model: "claude-sonnet-5",
 *   max_tokens: 100,
 *   messages: [{ role: "user" as const, content: "What is a token bucket?" }]
 * }
 *
 * const live = LlmClient.layerProvider().pipe(
 *   Layer.provide(Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } })),
 *   Layer.provide(ProviderSim.layer({ latency: { baseMillis: 1 } }))
 * )
 *
 * const call = LlmClient.create(params, { agent: "researcher", maxWait: "30 seconds", timeout: "2 minutes" })
 *
 * const { role } = await Effect.runPromise(Effect.provide(call, live))
 *
 * role // => "assistant"
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const create = (
  params: LlmProvider.Params,
  options?: CallOptions
): Effect.Effect<LlmProvider.Message, LlmError | BudgetError, LlmClient> =>
  Effect.flatMap(LlmClient, (client) => client.create(params, options))

/**
 * One answer as a stream from the client of the context, see {@link LlmClient}.
 *
 * **Example** (The kinds of events)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Stream from "effect/Stream"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 * import { ProviderSim } from "floodgate/testing"
 *
 * const params = {
 *   model: "claude-sonnet-5",
 *   max_tokens: 100,
 *   messages: [{ role: "user" as const, content: "What is a token bucket?" }]
 * }
 *
 * const live = LlmClient.layerProvider().pipe(
 *   Layer.provide(Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } })),
 *   Layer.provide(ProviderSim.layer({ latency: { baseMillis: 1 } }))
 * )
 *
 * const events = LlmClient.stream(params).pipe(Stream.map(({ type }) => type), Stream.runCollect)
 *
 * const types = await Effect.runPromise(Effect.provide(events, live))
 *
 * types.at(0) // => "message_start"
 * types.at(-1) // => "message_stop"
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const stream = (
  params: LlmProvider.StreamParams,
  options?: CallOptions
): Stream.Stream<LlmProvider.StreamEvent, LlmError | BudgetError, LlmClient> =>
  Stream.unwrap(Effect.map(LlmClient, (client) => client.stream(params, options)))

/**
 * The number of input tokens from the client of the context, see {@link LlmClient}.
 *
 * **Example** (Before a call)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 * import { ProviderSim } from "floodgate/testing"
 *
 * const params = {
 *   model: "claude-sonnet-5",
 *   max_tokens: 100,
 *   messages: [{ role: "user" as const, content: "What is a token bucket?" }]
 * }
 *
 * const live = LlmClient.layerProvider().pipe(
 *   Layer.provide(Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } })),
 *   Layer.provide(ProviderSim.layer({ latency: { baseMillis: 1 } }))
 * )
 *
 * const counted = LlmClient.countTokens(params).pipe(
 *   Effect.flatMap((inputTokens) => LlmClient.create(params, { inputTokens })),
 *   Effect.map(({ usage }) => usage.input_tokens)
 * )
 *
 * await Effect.runPromise(Effect.provide(counted, live)) // => 6
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const countTokens = (
  params: LlmProvider.CountParams
): Effect.Effect<number, LlmError | BudgetError, LlmClient> =>
  Effect.flatMap(LlmClient, (client) => client.countTokens(params))

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/**
 * The text of an answer, that is its text blocks joined. For an event of a stream, the text that it adds. Tool calls
 * and thinking have no text.
 *
 * **Example** (A stream of text)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 * import { ProviderSim } from "floodgate/testing"
 *
 * const params = {
 *   model: "claude-sonnet-5",
 *   max_tokens: 100,
 *   messages: [{ role: "user" as const, content: "What is a token bucket?" }]
 * }
 *
 * const whole = Effect.map(LlmClient.create(params), LlmClient.text)
 * const pieces = LlmClient.stream(params).pipe(Stream.map(LlmClient.text), Stream.mkString)
 *
 * const program = Effect.all([whole, pieces]).pipe(
 *   Effect.provide(LlmClient.layerProvider()),
 *   Effect.provide(Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } })),
 *   Effect.provide(ProviderSim.layer({ reply: () => "A bucket that refills.", latency: { baseMillis: 1 } }))
 * )
 *
 * await Effect.runPromise(program) // => ["A bucket that refills.", "A bucket that refills."]
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const text = (answer: Messages.MessageResponse | Messages.MessageEvent): string =>
  "content" in answer
    ? answer.content.map((block) => (block.type === "text" ? (block.text ?? "") : "")).join("")
    : textOfEvent(answer)
