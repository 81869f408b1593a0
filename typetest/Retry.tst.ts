import type { AiError } from "effect/ai/AiError"
import * as Effect from "effect/Effect"
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
interface Log {
  readonly lines: ReadonlyArray<string>
}
declare const logged: (error: AiError) => Effect.Effect<AiError, never, Log>
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

  it("what a policy reports to may need services of its own, and sees the error", () => {
    const onRetry = ({ error }: { readonly error: AiError }): Effect.Effect<AiError, never, Log> => logged(error)
    expect(Retry.withPolicy(call, Retry.make(), { onRetry })).type.toBe<Effect.Effect<string, AiError, Model | Log>>()
    expect(pipe(call, Retry.withPolicy(Retry.make<AiError>(), { onRetry }))).type.toBe<
      Effect.Effect<string, AiError, Model | Log>
    >()
  })

  it("a policy is a schedule of failed attempts, and what Schedule makes of one is a policy", () => {
    expect<Retry.Policy>().type.toBeAssignableTo<Schedule.Schedule<Retry.Decision, Retry.Failed<Retry.Retryable>>>()
    expect(Retry.withPolicy).type.toBeCallableWith(call, Schedule.upTo(Retry.make<AiError>(), { times: 2 }))
    expect(Retry.withPolicy).type.not.toBeCallableWith(call, Schedule.exponential("1 second"))
    expect(Retry.withPolicy).type.not.toBeCallableWith(call, Schedule.forever)
  })

  it("an effect is retried by a schedule only where its error can be judged", () => {
    expect(Effect.retry(call, Retry.schedule<AiError>())).type.toBe<Effect.Effect<string, AiError, Model>>()
    expect(Effect.retry<string, AiError | Error, Model, Retry.Decision, never, never>).type.not.toBeCallableWith(
      unjudged,
      Retry.schedule()
    )
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
