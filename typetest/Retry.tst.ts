import type { AiError } from "effect/ai/AiError"
import type * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import type * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Retry from "floodgate/Retry"
import { describe, expect, it } from "tstyche"

interface Model {
  readonly name: string
}

declare const call: Effect.Effect<string, AiError, Model>
declare const unjudged: Effect.Effect<string, AiError | Error, Model>
declare const infallible: Effect.Effect<number>

describe("Retry", () => {
  it("withPolicy keeps success, error and requirements", () => {
    expect(Retry.withPolicy(call, Retry.make())).type.toBe<Effect.Effect<string, AiError, Model>>()
    expect(pipe(call, Retry.withPolicy(Retry.make()))).type.toBe<Effect.Effect<string, AiError, Model>>()
    expect(Retry.withPolicy(infallible, Retry.make())).type.toBe<Effect.Effect<number>>()
  })

  it("an error that cannot be judged is refused, unless the policy judges it", () => {
    expect(Retry.withPolicy).type.not.toBeCallableWith(unjudged, Retry.make())
    const policy = Retry.make({ while: (error: AiError | Error) => error instanceof TypeError })
    expect(Retry.withPolicy(unjudged, policy)).type.toBe<Effect.Effect<string, AiError | Error, Model>>()
  })

  it("a schedule gives a policy its waits, and is none itself", () => {
    expect(Retry.make).type.toBeCallableWith({ backoff: Schedule.spaced("1 second"), attempts: 3 })
    expect(Retry.make).type.toBeCallableWith({ backoff: Schedule.exponential("1 second").pipe(Schedule.jittered) })
    expect(Retry.withPolicy).type.not.toBeCallableWith(call, Schedule.spaced("1 second"))
    expect<{ readonly schedule: Schedule.Schedule<number> }>().type.not.toBeAssignableTo<Retry.Policy>()
  })

  it("withDeadline keeps success, error and requirements", () => {
    expect(Retry.withDeadline(call, "1 minute")).type.toBe<Effect.Effect<string, AiError, Model>>()
    expect(pipe(call, Retry.withDeadline(1_000))).type.toBe<Effect.Effect<string, AiError, Model>>()
  })

  it("layers provide nothing that must be asked for", () => {
    expect(Retry.layerBudget()).type.toBe<Layer.Layer<never>>()
    expect(Retry.layerBudget({ minPerSecond: Infinity })).type.toBe<Layer.Layer<never>>()
  })

  it("AiError of effect/ai is retryable as it is", () => {
    expect<AiError>().type.toBeAssignableTo<Retry.Retryable>()
  })
})
