/**
 * Adapts Anthropic's SDK to `LlmProvider`, so that `LlmClient` sends its calls through it: one attempt per call, typed failures,
 * and an abort that reaches the wire. For code that calls the SDK itself, use the middleware of `floodgate/anthropic`.
 *
 * **Details**
 *
 * - The SDK's retries are off. With its two retries within five attempts, one call would make up to 15 requests, and the shared
 *   budget would not see its waits.
 * - Interruption aborts the HTTP request, and so does the end of a stream's scope.
 * - Timeouts use Effect's clock. The SDK's own timeout covers only the headers, so a body that stalls would hang forever.
 * - A stream is complete at `message_stop`. The SDK's iterator may end without an error when the connection is cut.
 * - Pings count as activity, so a model may think for a long time, and a dead connection is still noticed.
 *
 * **Gotchas**
 *
 * The SDK refuses a `max_tokens` above 21,333 without a stream unless the request has a timeout. This adapter always sets one:
 * `max_tokens` is only a limit, and {@link Options.timeout} bounds the call. Versions of the SDK before 0.137 use the client's own
 * timeout instead, so a client for {@link fromClient} must have one.
 *
 * **Example** (A provider from a key)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { LlmProvider } from "floodgate/LlmProvider"
 * import * as Anthropic from "floodgate/providers/Anthropic"
 *
 * const program = Effect.gen(function* () {
 *   const provider = yield* LlmProvider
 *   const { value, signal } = yield* provider.create({
 *     model: "claude-sonnet-5-5",
 *     max_tokens: 100,
 *     messages: [{ role: "user", content: "Hello" }]
 *   })
 *   return [value.usage, signal?.dimensions.inputTokens?.remaining]
 * })
 *
 * Effect.runPromise(Effect.provide(program, Anthropic.layerConfig()))
 * ```
 *
 * @stability stable
 * @since 0.1.0
 */
import Sdk from "@anthropic-ai/sdk"
import { type ServerSentEvent, Stream as SdkStream } from "@anthropic-ai/sdk/core/streaming"
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { constVoid } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { headerOf } from "../../call/trace.ts"
import * as Input from "../../domain/input/checks.ts"
import { bound, type Bounded } from "../../call/silence.ts"
import { longestWaitMillis, readEvent } from "../../protocol/messages.ts"
import * as SdkErrors from "../../protocol/sdkErrors.ts"
import { InvalidRequest, LlmError, type LlmErrorReason, MalformedResponse, TimedOut } from "../../LlmError.ts"
import {
  type CountParams,
  LlmProvider,
  type Message,
  type Params,
  type Reply,
  type StreamEvent
} from "../../LlmProvider.ts"
import { PartialAnswer } from "../../protocol/anthropic.ts"
import { requestIdOf } from "../../protocol/errors.ts"
import { headerReader, signalOf } from "../../protocol/headers.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/** How long one attempt may take. */
type Timeouts = {
  /**
   * The longest wait for an answer, or for the headers of a stream, without the time in the queue.
   *
   * @default "10 minutes", as in the SDK; longer answers should be streamed
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * The longest silence within a stream. Pings count as activity, so the length of a stream is not bounded.
   *
   * @default "1 minute": a live connection has pings while the model thinks
   */
  readonly idleTimeout?: Duration.Input | undefined
}

/**
 * The options of a provider over a new client of the SDK.
 *
 * @stability stable
 * @category options
 * @since 0.1.0
 */
export interface Options extends Timeouts {
  readonly apiKey: Redacted.Redacted<string>
  /**
   * The address of the API.
   *
   * @default "https://api.anthropic.com"
   */
  readonly baseUrl?: string | undefined
}

/** The options of {@link fromClient}. */
type ClientOptions = Timeouts & {
  /**
   * The provider's name as OpenTelemetry's GenAI conventions spell it, such as `aws.bedrock` or `gcp.vertex_ai`.
   *
   * @default "anthropic"
   */
  readonly name?: string | undefined
}

const timeouts: Input.Checks<Timeouts> = { timeout: Input.span, idleTimeout: Input.span }
const checkFromClient = Input.options<ClientOptions>({ ...timeouts, name: Input.text })
const checkLayer = Input.options<Options>({ ...timeouts, apiKey: Input.apiKey, baseUrl: Input.text }, "apiKey")
const checkLayerConfig = Input.options(timeouts)

type RequestOptions = {
  readonly maxRetries: 0
  readonly timeout: number
  readonly signal: AbortSignal
  readonly headers?: Readonly<Record<string, string>>
}

/** The result of a method of the SDK, by its form. */
type Pending = {
  readonly withResponse: () => Promise<{ readonly data: unknown; readonly response: Response }>
}

/**
 * The methods that are called: `messages.create`, and `messages.countTokens` if the client has it. The clients of
 * `@anthropic-ai/sdk` and of its packages for AWS, Bedrock, Vertex and Foundry all fit, whichever copy of the SDK they contain.
 */
type SdkClient = {
  readonly messages: {
    readonly create: (params: Omit<Params, "stream"> & { readonly stream: boolean }, options: RequestOptions) => Pending
    readonly countTokens?: ((params: CountParams, options: RequestOptions) => Pending) | undefined
  }
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/** The SDK's timeout is later than ours, so that Effect's clock decides; `setTimeout` accepts at most 2^31 - 1 ms. */
const sdkMargin = 60_000
const sdkMaxMillis = 2 ** 31 - 1
/** After `message_stop` the body is read to its end, so that the connection can be used again; for no longer than this. */
const drainMillis = 1_000

const replyOf = <A>(value: A, response: Response, secret: string | undefined): Reply<A> => {
  const header = headerReader(response.headers)
  return { value, signal: signalOf(header), requestId: requestIdOf(header, secret) }
}

/**
 * Ends the SDK's own iterator. Until that ends, the SDK keeps a streamed request, its body and its signal in memory. The events
 * are read without that iterator, so it is ended here when nothing is left to read.
 */
const letGo = (stream: AsyncIterable<unknown>): void => {
  const iterator = stream[Symbol.asyncIterator]()
  // An iterator that has not begun would end without its cleanup.
  iterator
    .next()
    .then(() => iterator.return?.())
    .then(constVoid, constVoid)
}

const isMessage = (value: unknown): value is Message =>
  Predicate.hasProperty(value, "content") &&
  Array.isArray(value.content) &&
  Predicate.hasProperty(value, "usage") &&
  Predicate.hasProperty(value.usage, "output_tokens")

const isCount = (value: unknown): value is { readonly input_tokens: number } =>
  Predicate.hasProperty(value, "input_tokens") && typeof value.input_tokens === "number"

const fail = (reason: LlmErrorReason) => Effect.fail(new LlmError({ reason }))

/** The key or token of the client, to be removed from the provider's messages. */
const secretOf = (
  client: SdkClient & { readonly apiKey?: unknown; readonly authToken?: unknown }
): string | undefined => [client.apiKey, client.authToken].find(Predicate.isString)

const addressOf = ({ baseURL }: SdkClient & { readonly baseURL?: unknown }): string | undefined =>
  Predicate.isString(baseURL) ? baseURL : undefined

/** The settings for requests of a client. */
interface Use {
  readonly address: string | undefined
  readonly secret: string | undefined
  readonly timeout: Duration.Duration
  readonly idleTimeout: Duration.Duration
}

/** One request, until the promise of `send` resolves. `controller` aborts if the caller is interrupted. */
const attempt = <A>(
  { address, secret, timeout }: Use,
  send: (options: RequestOptions) => Promise<A>,
  controller: AbortController
): Effect.Effect<A, LlmError> =>
  Effect.withFiber<A, LlmError>(({ context }) => {
    const clock = Context.get(context, Clock.Clock)
    const traceparent = headerOf(context)
    return Effect.tryPromise({
      try: () =>
        send({
          maxRetries: 0,
          timeout: Math.min(Math.ceil(Duration.toMillis(timeout)) + sdkMargin, sdkMaxMillis),
          signal: controller.signal,
          ...(traceparent !== undefined && { headers: { traceparent } })
        }),
      catch: (error) =>
        new LlmError({ reason: SdkErrors.fromThrown(error, { now: clock.currentTimeMillisUnsafe(), secret, address }) })
    })
  }).pipe(
    Effect.onInterrupt(() => Effect.sync(() => controller.abort())),
    Effect.timeoutOrElse({ duration: timeout, orElse: () => fail(new TimedOut({ after: timeout })) })
  )

const malformed = ({ status }: Response, { requestId, signal }: Reply<unknown>) =>
  fail(new MalformedResponse({ status, requestId, signal }))

/** A request with a whole answer. */
const whole = Effect.fnUntraced(function* <A>(
  use: Use,
  send: (options: RequestOptions) => Pending,
  read: (data: unknown) => A | undefined
): Effect.fn.Return<Reply<A>, LlmError> {
  const { data, response } = yield* attempt(use, (options) => send(options).withResponse(), new AbortController())
  const value = read(data)
  const reply = replyOf(value, response, use.secret)
  return value === undefined ? yield* malformed(response, reply) : { ...reply, value }
})

/** A request with a streamed answer, which can be read until the scope closes. */
const streamed = Effect.fnUntraced(function* (use: Use, send: (options: RequestOptions) => Pending) {
  const controller = yield* Effect.acquireRelease(
    Effect.sync(() => new AbortController()),
    (controller) => Effect.sync(() => controller.abort())
  )
  const { data, response } = yield* attempt(use, (options) => send(options).withResponse(), controller)
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      controller.abort()
      letGo(data as AsyncIterable<unknown>)
    })
  )
  const reply = replyOf(response, response, use.secret)
  const type = response.headers.get("content-type") ?? ""
  if (type.startsWith("text/html") || type.startsWith("application/json")) return yield* malformed(response, reply)
  const raw = SdkStream.rawEvents(response, controller)
  const source = { read: async () => (await raw.next()).value ?? undefined, cancel: constVoid }
  const bounded = yield* bound(source, controller, { silence: use.idleTimeout, stalled })
  const value = events(bounded, { requestId: reply.requestId }, use.secret).pipe(
    Stream.ensuring(Effect.sync(() => controller.abort()))
  )
  return { ...reply, value }
})

/**
 * A provider over your own client: with your headers, proxy or middleware, or from the package for AWS, Bedrock, Vertex
 * or Foundry.
 *
 * **Gotchas**
 *
 * The client's own `maxRetries` and `timeout` are not used. Bedrock cannot count tokens: `countTokens` over
 * `AnthropicBedrock` fails with Bedrock's answer. Over a client without the method it fails with `InvalidRequest`.
 *
 * **Example** (A client that goes through a gateway)
 *
 * ```ts
 * import Sdk from "@anthropic-ai/sdk"
 * import * as Anthropic from "floodgate/providers/Anthropic"
 *
 * const client = new Sdk({ baseURL: "https://gateway.example.com", defaultHeaders: { "x-team": "documents" } })
 * const provider = Anthropic.fromClient(client, { timeout: "2 minutes" })
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.1.0
 */
export const fromClient = (client: SdkClient, options: ClientOptions = {}): LlmProvider["Service"] => {
  Input.check("Anthropic.fromClient", checkFromClient, options)
  const { messages } = client
  const use: Use = {
    address: addressOf(client),
    secret: secretOf(client),
    timeout: Duration.fromInputUnsafe(options.timeout ?? longestWaitMillis),
    idleTimeout: Duration.fromInputUnsafe(options.idleTimeout ?? "1 minute")
  }
  return LlmProvider.of({
    name: options.name ?? "anthropic",
    create: (params) =>
      whole(
        use,
        (options) => messages.create({ ...params, stream: false }, options),
        (data) => (isMessage(data) ? data : undefined)
      ),
    stream: (params) => streamed(use, (options) => messages.create({ ...params, stream: true }, options)),
    countTokens: (params) =>
      messages.countTokens === undefined
        ? fail(new InvalidRequest({ detail: "this client has no messages.countTokens" }))
        : whole(
            use,
            (options) => messages.countTokens!(params, options),
            (data) => (isCount(data) ? data.input_tokens : undefined)
          )
  })
}

const make = (options: Options): Effect.Effect<LlmProvider["Service"]> =>
  Effect.sync(() => {
    const { baseUrl = "https://api.anthropic.com", idleTimeout, timeout } = options
    const apiKey = Redacted.value(options.apiKey)
    // Each request has its own timeout. Older SDKs require one of the client if `max_tokens` is large.
    const client = new Sdk({ apiKey, baseURL: baseUrl, maxRetries: 0, timeout: sdkMaxMillis })
    return fromClient(client, { timeout, idleTimeout })
  })

// -----------------------------------------------------------------------------
// Layers
// -----------------------------------------------------------------------------

/**
 * A provider over a new client of the SDK. The environment is not read: see {@link layerConfig}.
 *
 * **Details**
 *
 * The key stays `Redacted` outside of the SDK, and is removed from everything that a provider returns in an error.
 *
 * **Gotchas**
 *
 * The layer throws a `RangeError` when the key is empty.
 *
 * **Example** (A provider, and a client over it)
 *
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Redacted from "effect/Redacted"
 * import * as LlmClient from "floodgate/LlmClient"
 * import * as Anthropic from "floodgate/providers/Anthropic"
 *
 * const provider = Anthropic.layer({ apiKey: Redacted.make("sk-ant-..."), timeout: "2 minutes" })
 * const client = LlmClient.layerProvider().pipe(Layer.provide(provider))
 * ```
 *
 * @stability stable
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<LlmProvider> => {
  Input.check("Anthropic.layer", checkLayer, options)
  return Layer.effect(LlmProvider, make(options))
}

const noKey = { message: "ANTHROPIC_API_KEY is not set, or blank: set it to a key of the provider" }
const Key = Schema.String.annotate(noKey).check(Schema.isPattern(/\S/, noKey))

/**
 * A layer that reads `ANTHROPIC_API_KEY` and, if it is there, `ANTHROPIC_BASE_URL` from the configuration.
 *
 * **Details**
 *
 * Fails with a `ConfigError` that says what to set when the key is missing or blank.
 *
 * **Example** (With the environment of a test)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as ConfigProvider from "effect/ConfigProvider"
 * import * as Layer from "effect/Layer"
 * import { LlmProvider } from "floodgate/LlmProvider"
 * import * as Anthropic from "floodgate/providers/Anthropic"
 *
 * const environment = ConfigProvider.layer(ConfigProvider.fromUnknown({ ANTHROPIC_API_KEY: "sk-ant-..." }))
 * const live = Anthropic.layerConfig({ timeout: "2 minutes" }).pipe(Layer.provide(environment))
 *
 * await Effect.runPromise(Effect.provide(Effect.map(LlmProvider, ({ name }) => name), live)) // => "anthropic"
 * ```
 *
 * @stability stable
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (options: Timeouts = {}): Layer.Layer<LlmProvider, Config.ConfigError> => {
  Input.check("Anthropic.layerConfig", checkLayerConfig, options)
  return Layer.effect(
    LlmProvider,
    Config.all({
      apiKey: Config.schema(Schema.Redacted(Key), "ANTHROPIC_API_KEY"),
      baseUrl: Config.option(Config.NonEmptyString("ANTHROPIC_BASE_URL"))
    }).pipe(
      Effect.flatMap(({ apiKey, baseUrl }) => make({ ...options, apiKey, baseUrl: Option.getOrUndefined(baseUrl) }))
    )
  )
}

// -----------------------------------------------------------------------------
// Streams
// -----------------------------------------------------------------------------

/** Names a read that took too long, which the stream turns into its own failure. */
const stalled = (silence: string) => Effect.succeed(new Error(`silent for ${silence}`))

/** The events of a response, one for each pull, so that a slow consumer slows down the connection. */
const events = (
  source: Bounded<ServerSentEvent>,
  fields: { readonly requestId: string | undefined },
  secret: string | undefined
): Stream.Stream<StreamEvent, LlmError> => {
  const seen = new PartialAnswer()
  const interrupted = (kind: "truncated" | "stalled") =>
    SdkErrors.interrupted(kind, seen.soFar, { ...fields, status: 200 })

  const read = Effect.clockWith((clock) =>
    Effect.tryPromise({
      try: source.read,
      catch: (error) => {
        const now = clock.currentTimeMillisUnsafe()
        const reason = source.isStalled(error)
          ? interrupted("stalled")
          : SdkErrors.fromBroken(error, seen.soFar, fields, { now, secret })
        return new LlmError({ reason })
      }
    })
  )
  const drain = read.pipe(
    Effect.repeat({ until: Predicate.isUndefined }),
    Effect.timeoutOrElse({ duration: drainMillis, orElse: () => Effect.void }),
    Effect.ignore
  )

  const pull: Effect.Effect<Arr.NonEmptyReadonlyArray<StreamEvent>, LlmError | Cause.Done> = Effect.gen(function* () {
    if (seen.answer.complete) {
      yield* drain
      return yield* Cause.done()
    }
    while (true) {
      const next = yield* read
      if (next === undefined) return yield* fail(interrupted("truncated"))
      const event = readEvent(next)
      switch (event._tag) {
        case "Event":
          seen.take(event.event)
          return [event.event as StreamEvent]
        case "Error": {
          const received = seen.hasBegun ? seen.soFar : undefined
          const now = yield* Clock.currentTimeMillis
          return yield* fail(SdkErrors.fromEvent(event.data, received, fields, { now, secret }))
        }
        case "Malformed":
          return yield* fail(new MalformedResponse({ ...fields, status: 200, received: seen.soFar }))
        case "Ignored":
          continue
      }
    }
  })
  return Stream.fromPull(Effect.succeed(pull))
}
