import type {
  Message as SdkMessage,
  MessageCountTokensParams,
  MessageCreateParams,
  MessageCreateParamsNonStreaming,
  RawMessageStreamEvent
} from "@anthropic-ai/sdk/resources/messages/messages"
import type * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Stream from "effect/Stream"
import type * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import type { LlmError } from "floodgate/LlmError"
import * as LlmProvider from "floodgate/LlmProvider"
import type * as Messages from "floodgate/Messages"
import { describe, expect, it } from "tstyche"

type Failure = LlmError | Budget.BudgetError

declare const params: MessageCreateParamsNonStreaming
declare const either: MessageCreateParams
declare const counted: MessageCountTokensParams
declare const apiKey: Redacted.Redacted

// `npm run pack:check` has what holds where the SDK is not installed.
describe("LlmClient beside the SDK", () => {
  it("takes and gives exactly the types of the SDK", () => {
    expect<LlmProvider.Params>().type.toBe<MessageCreateParamsNonStreaming>()
    expect<LlmProvider.StreamParams>().type.toBe<MessageCreateParams>()
    expect<LlmProvider.CountParams>().type.toBe<MessageCountTokensParams>()
    expect(LlmClient.create(params)).type.toBe<Effect.Effect<SdkMessage, Failure, LlmClient.LlmClient>>()
    expect(LlmClient.stream(either)).type.toBe<Stream.Stream<RawMessageStreamEvent, Failure, LlmClient.LlmClient>>()
    expect(LlmClient.countTokens(counted)).type.toBe<Effect.Effect<number, Failure, LlmClient.LlmClient>>()
  })

  it("its layers over the SDK say that it may be missing", () => {
    expect(LlmClient.layer({ apiKey })).type.toBe<
      Layer.Layer<LlmClient.LlmClient, LlmClient.SdkMissing, Budget.TokenBudget>
    >()
    expect(LlmClient.layerConfig()).type.toBe<
      Layer.Layer<LlmClient.LlmClient, LlmClient.SdkMissing | Config.ConfigError, Budget.TokenBudget>
    >()
    expect(LlmClient.layerProvider()).type.toBe<
      Layer.Layer<LlmClient.LlmClient, never, Budget.TokenBudget | LlmProvider.LlmProvider>
    >()
  })

  it("refuses what the SDK refuses", () => {
    expect(LlmClient.create).type.not.toBeCallableWith({ modle: "m", max_tokens: "200", messages: 3 })
    expect(LlmClient.create).type.not.toBeCallableWith({ model: "m", max_tokens: "200", messages: [] })
  })
})

describe("Messages", () => {
  it("the types of the SDK are assignable to them", () => {
    expect<MessageCreateParams>().type.toBeAssignableTo<Messages.MessageRequest>()
    expect<MessageCountTokensParams>().type.toBeAssignableTo<Messages.CountRequest>()
    expect<SdkMessage>().type.toBeAssignableTo<Messages.MessageResponse>()
    expect<RawMessageStreamEvent>().type.toBeAssignableTo<Messages.MessageEvent>()
  })

  it("they are not any, and say what is missing", () => {
    expect<{
      modle: string
      max_tokens: string
      messages: number
    }>().type.not.toBeAssignableTo<Messages.MessageRequest>()
    expect<{ model: string; messages: [] }>().type.not.toBeAssignableTo<Messages.MessageRequest>()
    expect<{ content: [] }>().type.not.toBeAssignableTo<Messages.MessageResponse>()
  })

  it("a provider of one's own needs no more than they ask for", () => {
    const value: Messages.MessageResponse = {
      type: "message",
      role: "assistant",
      id: "1",
      model: "m",
      content: [{ type: "text", text: "Hello" }],
      stop_reason: "end_turn",
      usage: { input_tokens: 1, output_tokens: 1 }
    }
    const reply = { value, signal: undefined, requestId: undefined }
    expect(LlmProvider.make).type.toBeCallableWith({
      name: "mine",
      create: (_: Messages.MessageRequest) => Effect.succeed(reply),
      stream: () => Effect.never,
      countTokens: () => Effect.never
    })
    expect(LlmClient.text).type.toBeCallableWith(value)
  })
})
