import type { AiError } from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import * as Tool from "effect/ai/Tool"
import * as Toolkit from "effect/ai/Toolkit"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Sdk from "@anthropic-ai/sdk"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as FloodgateAi from "floodgate/ai"
import * as FloodgateAnthropic from "floodgate/anthropic"
import type { Governor } from "floodgate/Governor"
import * as Floodgate from "floodgate/promise"
import { describe, expect, it } from "tstyche"

declare const provider: Layer.Layer<LanguageModel.LanguageModel>
declare const model: Effect.Success<ReturnType<typeof FloodgateAi.make>>

const Words = Toolkit.make(
  Tool.make("Lookup", { parameters: Schema.Struct({ word: Schema.String }), success: Schema.Finite })
)

describe("floodgate/ai", () => {
  it("layer puts itself between a model and its users", () => {
    expect(FloodgateAi.layer({ model: "m" })).type.toBe<
      Layer.Layer<LanguageModel.LanguageModel, never, LanguageModel.LanguageModel | Governor>
    >()
    expect(FloodgateAi.layer().pipe(Layer.provide(provider))).type.toBe<
      Layer.Layer<LanguageModel.LanguageModel, never, Governor>
    >()
  })

  it("make gives a LanguageModel, with all that its types say", () => {
    expect(model).type.toBe<LanguageModel.LanguageModel>()
    expect(model.generateText({ prompt: "hi" })).type.toBe<
      Effect.Effect<LanguageModel.GenerateTextResponse<{}>, AiError>
    >()
    expect(
      model.generateObject({ prompt: "hi", schema: Schema.Struct({ n: Schema.FiniteFromString }) })
    ).type.toBeAssignableTo<Effect.Effect<{ readonly value: { readonly n: number } }, AiError>>()
    expect(model.streamText({ prompt: "hi" })).type.toBeAssignableTo<Stream.Stream<unknown, AiError>>()
    expect(model.generateText({ prompt: "hi", toolkit: Words })).type.not.toBeAssignableTo<
      Effect.Effect<unknown, unknown>
    >()
  })

  it("options are checked", () => {
    expect(FloodgateAi.layer).type.not.toBeCallableWith({ model: 1 })
    expect(FloodgateAi.layer).type.not.toBeCallableWith({ pool: "a" })
  })
})

describe("floodgate/anthropic", () => {
  it("make gives a middleware that lives as long as its scope", () => {
    expect(FloodgateAnthropic.make()).type.toBe<
      Effect.Effect<FloodgateAnthropic.Middleware, never, Governor | Scope.Scope>
    >()
  })

  it("floodgate/promise has one that needs no Effect", () => {
    expect(Floodgate.create().middleware).type.toBe<FloodgateAnthropic.Middleware>()
  })

  it("a middleware is one of the SDK's", () => {
    expect<FloodgateAnthropic.Middleware>().type.toBeAssignableTo<Sdk.Middleware>()
  })
})
