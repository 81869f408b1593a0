import type {
  Message,
  MessageCreateParamsStreaming,
  RawMessageStreamEvent
} from "@anthropic-ai/sdk/resources/messages/messages"
import type * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as Breaker from "floodgate/breaker"
import type * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import type { LlmError } from "floodgate/LlmError"
import type { LlmProvider, Params } from "floodgate/LlmProvider"
import { describe, expect, it } from "tstyche"

interface Model {
  readonly name: string
}
interface MyError {
  readonly _tag: "MyError"
}

declare const governor: Governor.Governor["Service"]
declare const call: Governor.Call
declare const attempt: (ticket: Governor.Ticket) => Effect.Effect<Governor.Outcome<string>, MyError, Model>
declare const opening: (ticket: Governor.Ticket) => Effect.Effect<number, MyError, Model | Scope.Scope>
declare const params: Params
declare const streaming: MessageCreateParamsStreaming

describe("Governor", () => {
  it("run keeps what the attempt gives, fails and needs, and adds its own failures", () => {
    expect(governor.run(call, attempt)).type.toBe<
      Effect.Effect<string, MyError | LlmError | Budget.BudgetError, Model>
    >()
  })

  it("run gives each attempt a scope of its own, and needs none", () => {
    const scoped = (ticket: Governor.Ticket) => Effect.tap(attempt(ticket), Effect.scope)
    expect(governor.run(call, scoped)).type.toBe<
      Effect.Effect<string, MyError | LlmError | Budget.BudgetError, Model>
    >()
  })

  it("open needs a scope besides", () => {
    expect(governor.open(call, opening)).type.toBe<
      Effect.Effect<number, MyError | LlmError | Budget.BudgetError, Model | Scope.Scope>
    >()
  })

  it("admit can only be refused by the budget, or the deadline", () => {
    expect(governor.admit(call)).type.toBe<Effect.Effect<Governor.Ticket, Budget.BudgetError | LlmError, Scope.Scope>>()
  })

  it("options do not name what the governor decides itself", () => {
    expect<"pool" | "first">().type.not.toBeAssignableTo<keyof Governor.CallOptions>()
    expect<"agent" | "priority" | "maxWait" | "retry" | "timeout" | "cacheKey">().type.toBeAssignableTo<
      keyof Governor.CallOptions
    >()
  })

  it("a layer needs the budget and nothing else", () => {
    expect(Governor.layer()).type.toBe<Layer.Layer<Governor.Governor, never, Budget.TokenBudget>>()
  })

  it("a breaker is nothing that must be asked for", () => {
    expect(Breaker.layer()).type.toBe<Layer.Layer<never>>()
  })
})

describe("LlmClient", () => {
  it("stream takes the SDK's requests of a stream, and create does not", () => {
    expect(LlmClient.stream).type.toBeCallableWith(streaming)
    expect(LlmClient.create).type.not.toBeCallableWith(streaming)
  })

  it("create and stream fail with LlmError or BudgetError", () => {
    expect(LlmClient.create(params)).type.toBe<
      Effect.Effect<Message, LlmError | Budget.BudgetError, LlmClient.LlmClient>
    >()
    expect(LlmClient.stream(params)).type.toBe<
      Stream.Stream<RawMessageStreamEvent, LlmError | Budget.BudgetError, LlmClient.LlmClient>
    >()
  })

  it("layers say what they need, and what can fail", () => {
    expect(LlmClient.layerNoDeps).type.toBe<Layer.Layer<LlmClient.LlmClient, never, Governor.Governor | LlmProvider>>()
    expect(LlmClient.layerProvider()).type.toBe<
      Layer.Layer<LlmClient.LlmClient, never, LlmProvider | Budget.TokenBudget>
    >()
    expect(LlmClient.layerConfig()).type.toBe<
      Layer.Layer<LlmClient.LlmClient, Config.ConfigError | LlmClient.SdkMissing, Budget.TokenBudget>
    >()
  })

  it("whether a call streams is not a parameter", () => {
    expect(LlmClient.create).type.not.toBeCallableWith({ ...params, stream: true })
  })
})
