// Another model when the wait would be too long: an `ExecutionPlan`, for `LlmClient` and for a `LanguageModel`.
//     npm run -s example examples/elsewhere-effect.ts
import * as AiError from "effect/ai/AiError"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as ExecutionPlan from "effect/ExecutionPlan"
import * as Layer from "effect/Layer"
import * as FloodgateAi from "floodgate/ai"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import { ProviderSim } from "floodgate/testing"
import { layerOf } from "./effect-ai.ts"

const models = ["claude-opus-5", "claude-sonnet-5"] as const

// The large model allows one call a minute, and the other one has no such limit. Both share one budget.
const limits = {
  pools: { "opus-5": { requests: { perMinute: 1, window: "bucket" } }, "sonnet-5": { requests: { perMinute: 1_000 } } }
} as const
const governor = Layer.provideMerge(Governor.layer(), Budget.layer({ limits }))

// A call that is predicted to wait longer is refused at once.
const maxWait = "2 seconds"

const questions = ["One?", "Two?", "Three?"]
const all = <E, R>(ask: (question: string) => Effect.Effect<string, E, R>) =>
  Effect.map(Effect.forEach(questions, ask, { concurrency: "unbounded" }), (models) => models.join(", "))

// -----------------------------------------------------------------------------
// LlmClient
// -----------------------------------------------------------------------------

/** The model of the step that runs. */
class Model extends Context.Service<Model, string>()("examples/elsewhere/Model") {}

const byClient = Effect.gen(function* () {
  const plan = ExecutionPlan.make(
    { provide: Context.make(Model, models[0]) },
    // Only for a call that would wait: other failures may happen with this model as well.
    {
      provide: Context.make(Model, models[1]),
      while: (error: unknown) => error instanceof Budget.BudgetError && error.reason._tag === "WaitTooLong"
    }
  )
  const ask = Effect.fnUntraced(function* (content: string) {
    const model = yield* Model
    const params = { model, max_tokens: 100, messages: [{ role: "user" as const, content }] }
    return (yield* LlmClient.create(params, { maxWait })).model
  })
  return yield* all((question) => Effect.withExecutionPlan(ask(question), plan))
}).pipe(Effect.provide(LlmClient.layerNoDeps.pipe(Layer.provide(governor))))

// -----------------------------------------------------------------------------
// effect/ai
// -----------------------------------------------------------------------------

const byLanguageModel = Effect.gen(function* () {
  // Built once, because a plan with layers builds them for each call.
  const [first, second] = yield* Effect.forEach(models, (model) =>
    Layer.build(FloodgateAi.layer({ model, maxTokens: 100, maxWait }).pipe(Layer.provide(layerOf(model))))
  )
  const plan = ExecutionPlan.make(
    { provide: first! },
    { provide: second!, while: (error: unknown) => AiError.isAiError(error) && error.reason._tag === "RateLimitError" }
  )
  const ask = (prompt: string) =>
    Effect.map(LanguageModel.generateText({ prompt }), ({ content }) =>
      content.map((part) => (part.type === "response-metadata" ? part.modelId : "")).join("")
    )
  return yield* all((question) => Effect.withExecutionPlan(ask(question), plan))
}).pipe(Effect.scoped, Effect.provide(governor))

const program = Effect.gen(function* () {
  console.log(`LlmClient: ${yield* byClient}`)
  console.log(`LanguageModel: ${yield* byLanguageModel}`)
})

await Effect.runPromise(Effect.provide(program, ProviderSim.layer({ latency: { baseMillis: 50 } })))
