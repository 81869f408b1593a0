import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Events from "floodgate/Events"
import * as Fetch from "floodgate/fetch"
import type { Governor } from "floodgate/Governor"
import * as Floodgate from "floodgate/promise"
import type Anthropic from "@anthropic-ai/sdk"
import type OpenAI from "openai"
import { describe, expect, it } from "tstyche"

describe("floodgate/fetch", () => {
  it("make gives a fetch that lives as long as its scope", () => {
    expect(Fetch.make()).type.toBe<Effect.Effect<typeof globalThis.fetch, never, Governor | Scope.Scope>>()
  })

  it("is what clients take", () => {
    expect<NonNullable<ConstructorParameters<typeof OpenAI>[0]>["fetch"]>().type.toBeAssignableFrom<
      typeof globalThis.fetch
    >()
    expect<NonNullable<ConstructorParameters<typeof Anthropic>[0]>["fetch"]>().type.toBeAssignableFrom<
      typeof globalThis.fetch
    >()
  })
})

describe("floodgate/promise", () => {
  it("gives what an attempt gives", () => {
    const floodgate = Floodgate.create()
    expect(floodgate.run({ model: "m" }, async () => 1)).type.toBe<Promise<number>>()
    expect(floodgate.fetch).type.toBe<typeof globalThis.fetch>()
    expect(floodgate[Symbol.asyncDispose]).type.toBe<() => Promise<void>>()
  })

  it("has its options checked", () => {
    expect(Floodgate.create).type.not.toBeCallableWith({ limit: {} })
    expect(Floodgate.create).type.not.toBeCallableWith({ retry: { base: "1 second" } })
    expect(Floodgate.create().run).type.not.toBeCallableWith({}, async () => 1)
  })

  it("tells events by their type", () => {
    expect<Extract<Events.Event, { readonly type: "wait" }>["until"]>().type.toBe<number>()
    expect<Events.Event["type"]>().type.toBe<
      "wait" | "rejection" | "retry" | "retryDelayed" | "pause" | "place" | "cap"
    >()
  })
})
