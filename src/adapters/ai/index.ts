/**
 * Adapts any `LanguageModel` of `effect/ai` to the governor, so that its text, objects, tools and streams share the budget.
 *
 * **Details**
 *
 * Every round trip to the provider is admitted by the {@link Governor}, settled by the usage of its finish part, and
 * retried by the governor's policy.
 *
 * - The HTTP response in the `AiError` decides what a failure means, or its reason if there is no response.
 * - Tools run between round trips, when no reservation is held. So a tool may call the model itself, and a retry never runs a
 *   tool twice.
 * - A stream holds its reservation until it ends, and is retried until it has content. If it is interrupted, it settles to the
 *   observed usage.
 * - The budget reads the headers that the provider's adapter passes on with the finish part.
 *
 * A `LanguageModel` can fail only with an `AiError`, so refusals of the budget and timeouts of the governor become one with
 * `metadata.floodgate`: a `RateLimitError` for a full queue or a wait that is too long, an `InvalidRequestError` for a call that
 * can never fit, and a `QuotaExhaustedError` for a quota or cap that is used up.
 *
 * **Gotchas**
 *
 * An answer that cannot be decoded (`InvalidOutputError`, `StructuredOutputError`) has been paid for, so it is not requested
 * again although its error is retryable. Turn off the retries of the provider's HTTP client, because Floodgate does them.
 *
 * Effect marks `effect/ai` unstable: this module is made for `effect` `~4.1`.
 *
 * **Example** (A model under the budget)
 *
 * ```ts doctest
 * import * as LanguageModel from "effect/ai/LanguageModel"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Stream from "effect/Stream"
 * import * as FloodgateAi from "floodgate/ai"
 * import * as Budget from "floodgate/Budget"
 * import * as Governor from "floodgate/Governor"
 *
 * const provider = Layer.effect(
 *   LanguageModel.LanguageModel,
 *   LanguageModel.make({
 *     generateText: () => Effect.succeed([{ type: "text", text: "Hello" }]),
 *     streamText: () => Stream.empty
 *   })
 * )
 *
 * const live = FloodgateAi.layer({ model: "claude-sonnet-5" }).pipe(
 *   Layer.provide(provider),
 *   Layer.provide(Governor.layer()),
 *   Layer.provide(Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } }))
 * )
 *
 * const program = Effect.map(LanguageModel.generateText({ prompt: "Hi" }), (response) => response.text)
 *
 * await Effect.runPromise(Effect.provide(program, live)) // => "Hello"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
import * as AiError from "effect/ai/AiError"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import * as Response from "effect/ai/Response"
import type * as Tool from "effect/ai/Tool"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Governor from "../../Governor.ts"
import * as Called from "../../call/models.ts"
import * as Input from "../../domain/input/checks.ts"
import * as RoundTrip from "./roundTrip.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * The description of a model's calls for the budget. `effect/ai` keeps a model's name and limits in the provider's
 * configuration and does not expose them.
 */
type Options = Governor.CallOptions & {
  /** The model, which decides the pool of limits. @default the `ModelName` of the context, which `Model.make` provides */
  readonly model?: string | undefined
  /** Groups calls that are similar: estimates are learned per kind. @default the agent */
  readonly kind?: string | undefined
  /** The most output that the provider's configuration allows. @default unknown: output is learned */
  readonly maxTokens?: number | undefined
  /** Whether the model thinks before it answers, so that its output varies more. @default false */
  readonly thinking?: boolean | undefined
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

const optionsCheck = Input.options<Options>({
  ...Called.callOptionsChecks,
  kind: Input.text,
  maxTokens: Input.notNegative,
  thinking: Input.flag
})

type TextOptions = LanguageModel.GenerateTextOptions<RoundTrip.Tools>
type ObjectSchema = Schema.Codec<unknown, Record<string, unknown>>

/** The methods of a model, without the types that depend on the toolkit. */
interface Untyped {
  readonly generateText: (
    options: TextOptions
  ) => Effect.Effect<LanguageModel.GenerateTextResponse<RoundTrip.Tools, Response.ToolParametersMode>, AiError.AiError>
  readonly generateObject: (
    options: LanguageModel.GenerateObjectOptions<RoundTrip.Tools, ObjectSchema>
  ) => Effect.Effect<
    LanguageModel.GenerateObjectResponse<RoundTrip.Tools, unknown, Response.ToolParametersMode>,
    AiError.AiError
  >
  readonly streamText: (
    options: TextOptions
  ) => Stream.Stream<Response.StreamPart<RoundTrip.Tools, Response.ToolParametersMode>, AiError.AiError>
}

const toolsOf = ({ toolkit }: TextOptions): ReadonlyArray<Tool.Any> =>
  toolkit !== undefined && "tools" in toolkit ? Object.values(toolkit.tools as RoundTrip.Tools) : []

/** Whether the model resolves tool calls itself, so that one call takes several round trips. */
const resolvesTools = ({ disableToolCallResolution, toolkit }: TextOptions): boolean =>
  toolkit !== undefined && disableToolCallResolution !== true

/** The options of a round trip that returns tool calls unresolved. */
const unresolved = (options: LanguageModel.ProviderOptions): TextOptions => ({
  prompt: options.prompt,
  toolChoice: options.toolChoice,
  toolkit: {
    tools: Object.fromEntries(options.tools.map((tool) => [tool.name, tool])),
    handle: () => Effect.die(new Error("Floodgate: tool calls are not resolved in the round trip"))
  },
  disableToolCallResolution: true,
  toolCallValidation: "deferred"
})

const encodeParts = Schema.encodeEffect(Schema.Array(Response.Part()))
const encodeStreamParts = Schema.encodeEffect(Schema.NonEmptyArray(Response.StreamPart()))

/** Keeps a tool's result as the provider encoded it, because only the provider has its schema. */
const raw = <P extends { readonly type: string }>(part: P): P =>
  part.type === "tool-result" && "encodedResult" in part ? { ...part, result: part.encodedResult } : part

const undecodable = (method: string) => (error: Schema.SchemaError) =>
  AiError.make({ module: "Floodgate", method, reason: AiError.InvalidOutputError.fromSchemaError(error) })

/**
 * Encodes a decoded object again, because the provider of a `LanguageModel` must return text. A schema that only decodes keeps the
 * provider's text.
 */
const object = Effect.fnUntraced(function* (
  model: Untyped,
  trip: TextOptions,
  format: { readonly objectName: string; readonly schema: Schema.Top }
) {
  const schema = format.schema as ObjectSchema
  const { content, value } = yield* model.generateObject({ ...trip, objectName: format.objectName, schema })
  const rest = content.filter((part) => part.type !== "text")
  const parts = yield* Effect.match(Schema.encodeEffect(Schema.fromJsonString(schema))(value), {
    onSuccess: (text) => [Response.makePart("text", { text }), ...rest],
    onFailure: () => content
  })
  return new LanguageModel.GenerateTextResponse<RoundTrip.Tools>(parts)
})

/**
 * Adapts the model of the context to the governor of the context.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when there is neither the option `model` nor a `ModelName` in the context.
 *
 * **Example** (In an effect that has a model)
 *
 * ```ts doctest
 * import * as LanguageModel from "effect/ai/LanguageModel"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Stream from "effect/Stream"
 * import * as FloodgateAi from "floodgate/ai"
 * import * as Budget from "floodgate/Budget"
 * import * as Governor from "floodgate/Governor"
 *
 * const provider = LanguageModel.make({
 *   generateText: () => Effect.succeed([{ type: "text", text: "Hello" }]),
 *   streamText: () => Stream.empty
 * })
 *
 * const program = Effect.gen(function* () {
 *   const model = yield* FloodgateAi.make({ model: "claude-sonnet-5", kind: "greeting" })
 *   return (yield* model.generateText({ prompt: "Hi" })).text
 * }).pipe(Effect.provideServiceEffect(LanguageModel.LanguageModel, provider))
 *
 * const live = Governor.layer().pipe(Layer.provide(Budget.layer()))
 *
 * await Effect.runPromise(Effect.provide(program, live)) // => "Hello"
 * ```
 *
 * @stability unstable
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<LanguageModel.LanguageModel, never, LanguageModel.LanguageModel | Governor.Governor> {
  Input.check("FloodgateAi.make", optionsCheck, options)
  const inner = yield* LanguageModel.LanguageModel
  const governor = yield* Governor.Governor
  const { kind, maxTokens, model: given, thinking, ...callOptions } = options
  const model = given ?? Option.getOrUndefined(yield* Effect.serviceOption(Model.ModelName))
  if (model === undefined) {
    return Input.invalid("FloodgateAi.make: model", "a name, as an option or as the context's ModelName", model)
  }
  const provider = Option.getOrUndefined(yield* Effect.serviceOption(Model.ProviderName))
  const trips: RoundTrip.Trips = { governor, callOptions, call: { model, provider, kind, maxTokens, thinking } }
  const untyped: Untyped = inner

  /** Resolves tool calls itself, and has the adapted model as its provider. */
  const resolving = yield* LanguageModel.make({
    supportsSystemMessagesInHistory: inner.supportsSystemMessagesInHistory,
    generateText: (options) => {
      const trip = unresolved(options)
      const { responseFormat } = options
      const format = responseFormat.type === "json" ? responseFormat : undefined
      const ask = format === undefined ? untyped.generateText(trip) : object(untyped, trip, format)
      const request = { prompt: options.prompt, tools: options.tools, schema: format?.schema }
      return RoundTrip.whole(trips, "generateText", request, ask).pipe(
        Effect.flatMap(({ content }) => encodeParts(content.map(raw))),
        Effect.map((parts) => [...parts]),
        Effect.catchTag("SchemaError", (error) => Effect.fail(undecodable("generateText")(error)))
      )
    },
    streamText: (options) =>
      RoundTrip.streamed(trips, options, untyped.streamText(unresolved(options))).pipe(
        Stream.mapArrayEffect((parts) =>
          Effect.mapError(encodeStreamParts(Arr.map(parts, raw)), undecodable("streamText"))
        )
      )
  })
  const resolver: Untyped = resolving

  const requestOf = (options: TextOptions) => ({ prompt: options.prompt, tools: toolsOf(options) })
  const wrapped: Untyped = {
    generateText: (options) =>
      resolvesTools(options)
        ? resolver.generateText(options)
        : RoundTrip.whole(trips, "generateText", requestOf(options), untyped.generateText(options)),
    generateObject: (options) =>
      resolvesTools(options)
        ? resolver.generateObject(options)
        : RoundTrip.whole(
            trips,
            "generateObject",
            { ...requestOf(options), schema: options.schema },
            untyped.generateObject(options)
          ),
    streamText: (options) =>
      resolvesTools(options)
        ? resolver.streamText(options)
        : RoundTrip.streamed(trips, requestOf(options), untyped.streamText(options))
  }
  // Each method returns what the adapted model returns, so the types that depend on the toolkit are right.
  return { ...inner, ...wrapped } as LanguageModel.LanguageModel
})

/**
 * Adapts the model of its context to the governor. Provide the provider's layer to it, and use it in place of that layer.
 *
 * @stability unstable
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<LanguageModel.LanguageModel, never, LanguageModel.LanguageModel | Governor.Governor> => {
  Input.check("FloodgateAi.layer", optionsCheck, options)
  return Layer.effect(LanguageModel.LanguageModel, make(options))
}
