/**
 * `LlmClient` makes calls to a Messages API under a token budget and a retry policy.
 *
 * It composes the two: each attempt holds a reservation of the {@link TokenBudget}, and the retry policy, which is a
 * `Schedule`, says when the next attempt begins. The {@link Governor} does that for every client. `LlmClient` itself describes
 * requests, makes attempts over an {@link LlmProvider}, and reads the usage in responses.
 *
 * **Details**
 *
 * The governor composes the steps of a call, from the inside to the outside. Those that it does not need are left out:
 *
 * ```ts
 * pipe(
 *   attempt, //                one request to the provider
 *   withTimeout, //            ends a request that takes too long; the time in the queue does not count
 *   withBreaker, //            refuses while the circuit breaker of the pool is open
 *   withSettlement(settle), // replaces the estimate by the usage, and lets the budget judge a failure
 *   withAdmission, //          waits for the TokenBudget: each attempt has a reservation of its own
 *   withWarmup, //             lets one call fill the provider's cache before the others that share its prefix
 *   withRetries //             waits as the retry policy says; meanwhile the call holds nothing
 * )
 * ```
 *
 * **Example** (Twelve agents over one client, with a simulated provider)
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
 * @stability stable
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
import type * as Direct from "./call/direct.ts"
import * as OptionChecks from "./call/models.ts"
import { minCountedBytes } from "./call/counting.ts"
import { layerOf } from "./call/governor.ts"
import * as Placing from "./call/places.ts"
import * as Input from "./domain/input/checks.ts"
import { check, span } from "./domain/input/checks.ts"
import { countRequestOf, problemOf, textOfEvent } from "./protocol/messages.ts"
import { InvalidRequest, LlmError, StreamInterrupted } from "./LlmError.ts"
import * as LlmProvider from "./LlmProvider.ts"
import type * as Messages from "./Messages.ts"
import { hint } from "./domain/input/nearest.ts"
import { shown } from "./domain/input/shown.ts"
import * as PriceTable from "./domain/prices.ts"
import * as SyncForm from "./domain/syncForm.ts"
import { bodyOf, parsePlaces, placeChecks, placesCheck, StatedPlaces } from "./places/parse.ts"
import type { PlacesOptions, PlaceStatus, ProviderPlace } from "./Places.ts"
import * as Prices from "./Prices.ts"
import { hasServerTools } from "./protocol/serverTools.ts"
import { describe, PartialAnswer, readAnswer } from "./protocol/anthropic.ts"
import { usageOf } from "./protocol/protocol.ts"
import type * as Anthropic from "./adapters/anthropic/provider.ts"
import * as Retry from "./Retry.ts"

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

/**
 * The options of a call.
 *
 * @stability stable
 * @category options
 * @since 0.1.0
 */
export interface CallOptions extends Governor.CallOptions {
  /** Groups similar calls: the estimator learns from one call for the others of its kind. @default the agent */
  readonly kind?: string | undefined
  /** The number of input tokens, if you know it, for example from `countTokens`. @default estimated */
  readonly inputTokens?: number | undefined
}

/**
 * Makes calls to a provider's Messages API under a budget and with retries.
 *
 * @stability stable
 * @category services
 * @since 0.1.0
 */
export class LlmClient extends Context.Service<
  LlmClient,
  {
    /** Requests an answer. An interruption in the queue costs nothing; later it aborts the request. */
    readonly create: (
      params: LlmProvider.Params,
      options?: CallOptions
    ) => Effect.Effect<LlmProvider.Message, LlmError | BudgetError>
    /**
     * Requests an answer as a stream of its events, with back-pressure. It is retried only before the first content. After that, a
     * failure has the reason `StreamInterrupted`, which holds what was received. The reservation lives as long as the stream, and
     * interrupting the consumer aborts the request.
     */
    readonly stream: (
      params: LlmProvider.StreamParams,
      options?: CallOptions
    ) => Stream.Stream<LlmProvider.StreamEvent, LlmError | BudgetError>
    /** Counts input tokens as the provider does. It is retried but not budgeted, because the provider limits it separately. */
    readonly countTokens: (params: LlmProvider.CountParams) => Effect.Effect<number, LlmError | BudgetError>
    /** Everything learned about calls so far. Keep it, and pass it to the next client as `learned`. */
    readonly learned: Effect.Effect<Estimator.Learned>
    /**
     * Why calls go to each place, or do not.
     *
     * @since 0.5.0
     */
    readonly places: Effect.Effect<ReadonlyArray<PlaceStatus>>
  }
>()("floodgate/LlmClient/LlmClient") {}

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

/**
 * The SDK could not be loaded. `@anthropic-ai/sdk` is an optional peer dependency: install it beside Floodgate, or use
 * {@link layerProvider}, which does not need it.
 *
 * @stability stable
 * @category errors
 * @since 0.4.0
 */
export class SdkMissing
  extends /* @__PURE__ */ Schema.TaggedError<SdkMissing>("floodgate/LlmClient/SdkMissing")("SdkMissing", {
    /** The layer, such as `LlmClient.layer`. */
    operation: Schema.String,
    /** The error of the import. */
    cause: /* @__PURE__ */ Schema.Defect()
  })
{
  override get message(): string {
    return `${this.operation} needs the package @anthropic-ai/sdk, which could not be loaded: npm install @anthropic-ai/sdk`
  }
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

const route = { operation: "generate", path: "/v1/messages" } as const

/** A provider, and the fields of the params that it gets instead of the caller's. */
interface ProviderAt {
  readonly provider: LlmProvider.LlmProvider["Service"]
  readonly fields?: Readonly<Record<string, unknown>>
}

/** The destination of a model's calls. */
interface Destination extends ProviderAt {
  /** Its places, and what each gets; undefined if the client has only one provider. */
  readonly places?: { readonly call: Governor.Call["places"]; readonly at: (name: string) => ProviderAt }
}

/** Counts the prompt of a call. */
const countWith = (
  provider: LlmProvider.LlmProvider["Service"],
  params: LlmProvider.StreamParams
): Effect.Effect<number, LlmError> =>
  Effect.suspend(() => Effect.map(provider.countTokens(countRequestOf(params)), ({ value }) => value))

/** A call as the governor gets it. */
const describeFor = (
  { fields, places, provider }: Destination,
  params: LlmProvider.StreamParams,
  inputTokens: number | undefined,
  kind: string | undefined
): Governor.Call => {
  const described = describe(params, route)!
  const { bytes, caches, continues, fast, maxTokens, prefixes, priceFactor, stored, textBytes, thinking, tier } =
    described
  return {
    countTokens: bytes < minCountedBytes ? undefined : countWith(provider, { ...params, ...fields }),
    model: params.model,
    kind,
    bytes,
    textBytes,
    inputTokens,
    maxTokens,
    thinking,
    continues,
    prefixes,
    stored,
    caches,
    fast,
    tier,
    priceFactor,
    serverTools: hasServerTools(params),
    provider: provider.name,
    places: places?.call
  }
}

/** Makes a client. `destinationOf` returns where calls of a model go, or why it cannot be called. */
const makeFor = (
  governor: Governor.Governor["Service"],
  retry: Retry.Policy<LlmError>,
  destinationOf: (model: string) => Destination | string
) => {
  // The client checks the options of its calls.
  const run = SyncForm.of<Direct.Run>(governor.run) ?? governor.run
  const { open } = SyncForm.of<Direct.OpenForms>(governor.open) ?? governor

  /** Finds where a call goes. Fails before the call is queued if the provider would reject the params. */
  const sentTo = (
    method: "create" | "stream" | "countTokens",
    params: LlmProvider.CountParams
  ): Destination | LlmError => {
    const to = problemOf(params, { counts: method === "countTokens" }) ?? destinationOf(params.model)
    if (typeof to !== "string") return to
    return new LlmError({ reason: new InvalidRequest({ detail: `LlmClient.${method}: ${to}` }) })
  }

  const openStream = (
    to: Destination,
    { stream: _, ...params }: LlmProvider.StreamParams,
    { inputTokens, kind, ...options }: CallOptions
  ) => {
    const call = { ...describeFor(to, params, inputTokens, kind), stream: true }
    const attempt = (ticket: Governor.Ticket) => {
      const { fields, provider } = to.places?.at(ticket.place!) ?? to
      return openAttempt(provider, { ...params, ...fields }, ticket)
    }
    return open(call, attempt, options)
  }

  return LlmClient.of({
    create: (params, options = {}) =>
      Effect.suspend(() => {
        check("LlmClient.create", checkCall, options)
        const { inputTokens, kind, ...callOptions } = options
        const to = sentTo("create", params)
        if (to instanceof LlmError) return Effect.fail(to)
        const attempt = (ticket: Governor.Ticket) => {
          const { fields, provider } = to.places?.at(ticket.place!) ?? to
          return Effect.map(
            provider.create(fields === undefined ? params : { ...params, ...fields }),
            ({ signal, value }) => {
              const answer = readAnswer(value)
              return { value, actual: usageOf(answer), signal, response: answer }
            }
          )
        }
        return run(describeFor(to, params, inputTokens, kind), attempt, callOptions)
      }),
    stream: (params, options = {}) =>
      Stream.unwrap(
        Effect.suspend(() => {
          check("LlmClient.stream", checkCall, options)
          const to = sentTo("stream", params)
          return to instanceof LlmError ? Effect.fail(to) : openStream(to, params, options)
        })
      ),
    countTokens: (params) =>
      Effect.suspend(() => {
        const to = sentTo("countTokens", params)
        if (to instanceof LlmError) return Effect.fail(to)
        const { fields, provider } = to
        return Retry.withPolicy(
          Effect.map(provider.countTokens({ ...params, ...fields }), (reply) => reply.value),
          // The policy's `while` may accept more, but governed calls never retry these either.
          Schedule.while(retry, ({ input }) => input.error.isRetryable)
        )
      }),
    learned: governor.learned,
    places: governor.places
  })
}

const make = Effect.fnUntraced(function* (
  retry: Retry.Policy<LlmError> = Retry.make()
): Effect.fn.Return<LlmClient["Service"], never, Governor.Governor | LlmProvider.LlmProvider> {
  const only = { provider: yield* LlmProvider.LlmProvider }
  return makeFor(yield* Governor.Governor, retry, () => only)
})

// -----------------------------------------------------------------------------
// Streams
// -----------------------------------------------------------------------------

/** Opens a stream up to its first content. Until then the consumer has received nothing, so it can be retried. */
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
      // Not at the end of the stream, because the consumer may stop reading after this event.
      return answer.complete ? ticket.succeed(actual, answer) : Effect.void
    })
  /** A stream is complete only after `message_stop`. */
  const complete = Effect.suspend(() =>
    seen.answer.complete
      ? Effect.void
      : Effect.fail(new LlmError({ reason: new StreamInterrupted({ kind: "truncated", received: seen.soFar }) }))
  )

  const reply = yield* provider.stream(params)
  yield* ticket.observeLimits(reply.signal)
  const events = Stream.tap(reply.value, watch).pipe(
    // A failure after the complete answer does not matter.
    Stream.catchIf(
      () => seen.answer.complete,
      () => Stream.empty
    ),
    Stream.onEnd(complete)
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

/** The failure of a stream whose consumer has received content. It holds what was received. */
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
 * **Example** (A client and a governed fetch under one governor)
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
 * @stability stable
 * @category layers
 * @since 0.1.0
 */
export const layerNoDeps: Layer.Layer<LlmClient, never, Governor.Governor | LlmProvider.LlmProvider> =
  /* @__PURE__ */ Layer.fresh(
    // Layers are memoized by reference, and a program may have two clients.
    /* @__PURE__ */ Layer.effect(LlmClient, /* @__PURE__ */ make())
  )

/**
 * A client over any provider, with a governor of its own.
 *
 * **Example** (A simulated provider, and more retries)
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
 * @stability stable
 * @category layers
 * @since 0.1.0
 */
export const layerProvider = (
  options: Governor.Options = {}
): Layer.Layer<LlmClient, never, TokenBudget | LlmProvider.LlmProvider> => {
  check("LlmClient.layerProvider", providerOptionsCheck, options)
  const { retry: policy = Retry.make<LlmError>() } = options
  // The governor reserves each attempt from the TokenBudget of the context, and retries by the policy.
  const governor = layerOf({ ...options, retry: policy })
  return Layer.fresh(Layer.effect(LlmClient, make(policy))).pipe(Layer.provide(governor))
}

// -----------------------------------------------------------------------------
// Places
// -----------------------------------------------------------------------------

/** The providers of all places. One that serves several models is built once. */
const providersOf = /* @__PURE__ */ Effect.fnUntraced(function* <E, R>({ models }: PlacesOptions<ProviderPlace<E, R>>) {
  const built = new Map<unknown, LlmProvider.LlmProvider["Service"]>()
  for (const { provider } of Object.values(models).flat()) {
    if (built.has(provider)) continue
    built.set(provider, Context.get(yield* Layer.build(Layer.fresh(provider)), LlmProvider.LlmProvider))
  }
  return built
})

const destinationsOf = <E, R>(
  options: PlacesOptions<ProviderPlace<E, R>>,
  providers: ReadonlyMap<unknown, LlmProvider.LlmProvider["Service"]>
): ((model: string) => Destination | string) => {
  const providerAt = ({ given }: { readonly given: ProviderPlace<E, R> }): ProviderAt => {
    return { provider: providers.get(given.provider)!, fields: bodyOf(given, "anthropic-messages") }
  }
  const models = new Map<string, Destination>()
  const parsed = parsePlaces(options, ({ provider }) => ({ provider: providers.get(provider)!.name }))
  for (const [model, { byName, call }] of parsed) {
    const places = new Map(Array.from(byName, ([name, place]) => [name, providerAt(place)]))
    const [first] = places.values()
    models.set(model, { ...first!, places: { call, at: (name) => places.get(name)! } })
  }
  return (model) => models.get(model) ?? `no place has the model ${shown(model)}: ${hint(model, models.keys())}`
}

/**
 * A client whose models can each be called at several places, see {@link Places}. Each call goes where it starts first, or to the
 * cheapest place that answers in time. A model without places is refused.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` if a model has no place, if two of its places have one limit, or if the policy `"cheapest"` knows no price
 * of a place.
 *
 * **Example** (A second organisation, used when the first is full)
 *
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Redacted from "effect/Redacted"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 * import * as Anthropic from "floodgate/providers/Anthropic"
 *
 * const live = LlmClient.layerPlaces({
 *   models: {
 *     "claude-opus-5": [
 *       { name: "ours", provider: Anthropic.layer({ apiKey: Redacted.make("sk-ant-...") }) },
 *       { name: "research", provider: Anthropic.layer({ apiKey: Redacted.make("sk-ant-...") }) }
 *     ]
 *   }
 * }).pipe(Layer.provide(Budget.layer()))
 * ```
 *
 * @stability stable
 * @category layers
 * @since 0.4.0
 */
export const layerPlaces = <E = never, R = never>(
  places: PlacesOptions<ProviderPlace<E, R>>,
  options: Governor.Options = {}
): Layer.Layer<LlmClient, E, TokenBudget | R> => {
  check("LlmClient.layerPlaces", providerOptionsCheck, options)
  const { prices, retry: policy = Retry.make<LlmError>() } = options
  const table = { ...Prices.published, ...prices }
  const isPriced = (model: string): boolean => PriceTable.find(model, table) !== undefined
  check(
    "LlmClient.layerPlaces",
    placesCheck<ProviderPlace>(checkPlace, ({ provider }) => provider, isPriced),
    places
  )
  const client = Effect.gen(function* () {
    const governor = yield* Governor.Governor
    return makeFor(governor, policy, destinationsOf(places, yield* providersOf(places)))
  })
  const stated = new Map(Array.from(parsePlaces(places), ([model, { call }]) => [model, call]))
  const governor = layerOf({ ...options, retry: policy }, Placing.make).pipe(
    Layer.provide(Layer.succeed(StatedPlaces, stated))
  )
  return Layer.fresh(Layer.effect(LlmClient, client)).pipe(Layer.provide(governor))
}

const checkPlace = Input.options<ProviderPlace>(
  { ...placeChecks, provider: Input.that("a layer of LlmProvider", Layer.isLayer) },
  "name",
  "provider"
)

const configured: Input.Checks<Omit<Anthropic.Options, "apiKey" | "baseUrl"> & Governor.Options> = {
  ...OptionChecks.governorChecks,
  timeout: span,
  idleTimeout: span
}
const checkLayer = Input.options<Anthropic.Options & Governor.Options>(
  { ...configured, apiKey: Input.apiKey, baseUrl: Input.text },
  "apiKey"
)
const checkLayerConfig = Input.options(configured)
const providerOptionsCheck = Input.options(OptionChecks.governorChecks)
const checkCall = Input.options<CallOptions>({
  ...OptionChecks.callOptionsChecks,
  kind: Input.text,
  inputTokens: Input.notNegative
})

/** Loads the SDK's adapter only when the layer is built, because everything else must work without the SDK. */
const overSdk = <E>(
  operation: string,
  options: Governor.Options,
  adapted: (adapter: typeof Anthropic) => Layer.Layer<LlmProvider.LlmProvider, E>
): Layer.Layer<LlmClient, E | SdkMissing, TokenBudget> => {
  const adapter = Effect.tryPromise({
    try: () => import("./adapters/anthropic/provider.ts"),
    catch: (cause) => new SdkMissing({ operation, cause })
  })
  return layerProvider(options).pipe(Layer.provide(Layer.unwrap(Effect.map(adapter, adapted))))
}

/**
 * A client over Anthropic's API through the official SDK. Fails with {@link SdkMissing} if the SDK is not installed.
 *
 * **Example** (With a key)
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
 * @stability stable
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Anthropic.Options & Governor.Options
): Layer.Layer<LlmClient, SdkMissing, TokenBudget> => {
  check("LlmClient.layer", checkLayer, options)
  const { apiKey, baseUrl, idleTimeout, timeout, ...governing } = options
  return overSdk("LlmClient.layer", governing, (adapter) => adapter.layer({ apiKey, baseUrl, idleTimeout, timeout }))
}

/**
 * A client over Anthropic's API that reads `ANTHROPIC_API_KEY` and, if it is set, `ANTHROPIC_BASE_URL` from the
 * configuration. Fails with a `ConfigError` that names the variable if the key is missing, and with {@link SdkMissing} if the SDK is
 * not installed.
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
 * @stability stable
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Omit<Anthropic.Options, "apiKey" | "baseUrl"> & Governor.Options = {}
): Layer.Layer<LlmClient, Config.ConfigError | SdkMissing, TokenBudget> => {
  check("LlmClient.layerConfig", checkLayerConfig, options)
  const { idleTimeout, timeout, ...governing } = options
  return overSdk("LlmClient.layerConfig", governing, (adapter) => adapter.layerConfig({ idleTimeout, timeout }))
}

// -----------------------------------------------------------------------------
// Accessors
// -----------------------------------------------------------------------------

/**
 * Requests an answer from the client of the context, see {@link LlmClient}.
 *
 * **Example** (An agent, and a limited wait)
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
 * @stability stable
 * @category combinators
 * @since 0.1.0
 */
export const create = (
  params: LlmProvider.Params,
  options?: CallOptions
): Effect.Effect<LlmProvider.Message, LlmError | BudgetError, LlmClient> =>
  Effect.flatMap(LlmClient, (client) => client.create(params, options))

/**
 * Requests an answer as a stream from the client of the context, see {@link LlmClient}.
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
 * @stability stable
 * @category combinators
 * @since 0.1.0
 */
export const stream = (
  params: LlmProvider.StreamParams,
  options?: CallOptions
): Stream.Stream<LlmProvider.StreamEvent, LlmError | BudgetError, LlmClient> =>
  Stream.unwrap(Effect.map(LlmClient, (client) => client.stream(params, options)))

/**
 * Counts input tokens with the client of the context, see {@link LlmClient}.
 *
 * **Example** (Counting before a call)
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
 * @stability stable
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
 * The text of an answer: its text blocks, joined. For an event of a stream, the text that it adds. Tool calls and thinking have
 * no text.
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
 * @stability stable
 * @category getters
 * @since 0.1.0
 */
export const text = (answer: Messages.MessageResponse | Messages.MessageEvent): string =>
  "content" in answer
    ? answer.content.map((block) => (block.type === "text" ? (block.text ?? "") : "")).join("")
    : textOfEvent(answer)
