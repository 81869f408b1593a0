/**
 * A user's project with its own provider and without the SDK, which `npm run pack:check` compiles and runs against the packed
 * package. It prints an answer, the text of a stream, and how the layer over the SDK fails.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { Budget, LlmClient, LlmProvider, type Messages } from "floodgate"

const reply = <A>(value: A): LlmProvider.Reply<A> => ({ value, signal: undefined, requestId: undefined })

const answer = (model: string, text: string): Messages.MessageResponse => ({
  type: "message",
  role: "assistant",
  id: "msg_1",
  model,
  content: [{ type: "text", text }],
  stop_reason: "end_turn",
  usage: { input_tokens: 10, output_tokens: 2 }
})

const own = LlmProvider.make({
  name: "own",
  create: ({ messages, model }) => Effect.succeed(reply(answer(model, `${messages.length} heard`))),
  stream: ({ model }) =>
    Effect.succeed(
      reply(
        Stream.make<[Messages.MessageEvent, ...Array<Messages.MessageEvent>]>(
          { type: "message_start", message: answer(model, "") },
          { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "streamed" } },
          { type: "message_stop" }
        )
      )
    ),
  countTokens: () => Effect.succeed(reply(10))
})

const params: LlmProvider.Params = { model: "own-1", max_tokens: 10, messages: [{ role: "user", content: "Hello" }] }

// @ts-expect-error Types that cannot be found must not become `any`.
export const misspelt = () => LlmClient.create({ modle: "own-1", max_tokens: "200", messages: 3 })
// @ts-expect-error There is no such field.
export const unknownField = () => LlmClient.create({ ...params, temprature: 1 })
// @ts-expect-error An answer has content, and no text.
export const noText = Effect.map(LlmClient.create(params), (message) => message.text)
// @ts-expect-error A number is no reply.
export const noProvider = LlmProvider.make({ name: "own", create: () => Effect.succeed(3) })

const program = Effect.gen(function* () {
  const message: Messages.MessageResponse = yield* LlmClient.create(params)
  const text = yield* LlmClient.stream(params).pipe(Stream.map(LlmClient.text), Stream.mkString)
  return [LlmClient.text(message), text]
})

const live = LlmClient.layerProvider().pipe(Layer.provide(Layer.succeed(LlmProvider.LlmProvider, own)))
const overSdk = LlmClient.layer({ apiKey: Redacted.make("any") })

const heard = await Effect.runPromise(program.pipe(Effect.provide(live), Effect.provide(Budget.layer())))
const missing = await Effect.runPromise(
  program.pipe(
    Effect.provide(overSdk),
    Effect.provide(Budget.layer()),
    Effect.catchTag("SdkMissing", ({ message }) => Effect.succeed([message]))
  )
)
console.log([...heard, ...missing].join("; "))
