// Another provider when the first is down: an `ExecutionPlan` over two clients, each with a budget and a breaker.
//     npm run -s example examples/fallback.ts
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as ExecutionPlan from "effect/ExecutionPlan"
import * as Layer from "effect/Layer"
import * as Breaker from "floodgate/breaker"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import type { LlmError } from "floodgate/LlmError"
import type { LlmProvider } from "floodgate/LlmProvider"
import * as Retry from "floodgate/Retry"
import { ProviderSim } from "floodgate/testing"

/** The model of the step that runs. */
export class Model extends Context.Service<Model, string>()("examples/fallback/Model") {}

/** The client of one step. It retries only for a short time, because another provider can answer. */
export const client = (model: string, provider: Layer.Layer<LlmProvider>) =>
  LlmClient.layerProvider({ retry: Retry.make({ maxElapsed: "5 seconds" }) }).pipe(
    Layer.provide(Breaker.layer({ failures: 5 })),
    Layer.provide(Budget.layer({ limits: { requests: { perMinute: 1_000 }, inputTokens: { perMinute: 2_000_000 } } })),
    Layer.provide(provider),
    Layer.merge(Layer.succeed(Model, model))
  )

/** Whether another provider may succeed. A request that is wrong for one is wrong for all. */
export const mayFallBack = (error: LlmError | Budget.BudgetError): boolean =>
  error.isRetryable || (error._tag === "LlmError" && error.reason._tag === "SpendLimited")

/**
 * Builds the layers once and gives the steps their services. A plan with layers would build them for each call, and a budget that starts
 * again with each call limits nothing.
 */
export const planOf = <E, R>(
  first: Layer.Layer<LlmClient.LlmClient | Model, E, R>,
  second: Layer.Layer<LlmClient.LlmClient | Model, E, R>
) =>
  Effect.gen(function* () {
    return ExecutionPlan.make(
      { provide: yield* Layer.build(first) },
      // The predicate of a step sees the failure of the step before it.
      { provide: yield* Layer.build(second), attempts: 1, while: mayFallBack }
    )
  })

export const ask = (question: string) =>
  Effect.gen(function* () {
    const model = yield* Model
    const messages = [{ role: "user" as const, content: question }]
    // During an outage, one call at a time probes the provider. The others need not wait for it here.
    return yield* LlmClient.create({ model, max_tokens: 100, messages }, { maxWait: "2 seconds" })
  })

const down = ProviderSim.layer({ faults: [ProviderSim.outage(0, 3_600_000)] })
const up = ProviderSim.layer({ latency: { baseMillis: 50 } })

const models = ["claude-opus-5", "claude-sonnet-5"] as const

const program = Effect.gen(function* () {
  const plan = yield* planOf(client(models[0], down), client(models[1], up))
  const questions = Array.from({ length: 8 }, (_, n) => `What is ${n} + ${n}?`)
  const answers = yield* Effect.forEach(questions, (question) => Effect.withExecutionPlan(ask(question), plan), {
    concurrency: "unbounded"
  })
  for (const { model } of answers) console.log(`${models[0]} is down: answered by ${model}`)
})

if (import.meta.main) await Effect.runPromise(Effect.scoped(program))
