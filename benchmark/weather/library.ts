/**
 * The library as a client, by its public API: calls go through `LlmClient.layerProvider` over `Budget.layer`, as in an
 * application. Each call states its input; the library estimates its output.
 */
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import * as LlmError from "floodgate/LlmError"
import * as LlmProvider from "floodgate/LlmProvider"
import { dimensionsOf, type Readings } from "./amounts.ts"
import type { Answer, Attempt, Failed, MakeClient, Rejected } from "./clientEngine.ts"
import { type Failure, meanCall, type Scenario } from "./scenario.ts"
import { MapStore } from "../../test/support/store.ts"
import * as Workload from "./workload.ts"

export const makeClient: MakeClient = (scenario, attempt) => makeOne(scenario, attempt)

/** Four processes that share the agents and a store, which answers within a few milliseconds. */
export const makeFleet: MakeClient = Effect.fnUntraced(function* (scenario, attempt) {
  const store = new MapStore()
  store.latency = 2
  const clients = yield* Effect.replicateEffect(makeOne(scenario, attempt, BudgetStore.layer(store)), 4)
  const [first] = clients
  return {
    make: (call) => clients[call.agent % clients.length]!.make(call),
    restate: first!.restate
  }
})

/** The predicted and the real wait of a call, in milliseconds. */
export interface Look {
  readonly foreseen: number
  readonly waited: number
}

/** A client that asks `foresee` before each reservation. */
export const makeForeseeing =
  (looks: Array<Look>): MakeClient =>
  (scenario, attempt) =>
    makeOne(scenario, attempt, Layer.empty, foreseeing(looks))

const foreseeing = (looks: Array<Look>): Layer.Layer<Budget.TokenBudget, never, Budget.TokenBudget> =>
  Layer.effect(
    Budget.TokenBudget,
    Effect.map(Budget.TokenBudget, (budget) => ({
      ...budget,
      reserve: (estimate, options) =>
        Effect.flatMap(budget.foresee(estimate, options), ({ wait }) =>
          Effect.tap(budget.reserve(estimate, options), ({ waited }) =>
            Effect.sync(() => looks.push({ foreseen: Duration.toMillis(wait), waited: Duration.toMillis(waited) }))
          )
        )
    }))
  )

const makeOne = Effect.fnUntraced(function* (
  scenario: Scenario,
  attempt: Attempt,
  store: Layer.Layer<never> = Layer.empty,
  around: Layer.Layer<Budget.TokenBudget, never, Budget.TokenBudget> | undefined = undefined
) {
  const calls = new Map<string, Workload.Call>()
  let made = 0

  const none = () => Effect.die(new Error("the weather makes whole calls only"))
  const provider = LlmProvider.LlmProvider.of({
    name: "weather",
    create: (params) => {
      const call = calls.get(params.metadata!.user_id!)!
      return Effect.mapBoth(attempt(call), {
        onSuccess: (answer) => replyOf(call, answer, params),
        onFailure: (outcome) => errorOf(outcome)
      })
    },
    stream: none,
    countTokens: none
  })
  const context = yield* Layer.build(Layer.provide(layerOf(scenario, provider, around), store))
  const client = Context.get(context, LlmClient.LlmClient)
  const budget = Context.get(context, Budget.TokenBudget)

  return {
    make: (call: Workload.Call) =>
      Effect.suspend(() => {
        const id = String(made++)
        calls.set(id, call)
        return Effect.ensuring(
          client.create(paramsOf(id, scenario), optionsOf(call)),
          Effect.sync(() => calls.delete(id))
        )
      }),
    restate: (told: Scenario["told"]) => budget.resize({ limits: limitsOf(scenario, told) })
  }
})

const limitsOf = ({ limits, share }: Scenario, told: Scenario["told"]): Limits.Limits => {
  const result: { -readonly [D in keyof Limits.Limits]: Limits.Limit } = {}
  const shared = share === 1 ? {} : { share }
  for (const dimension of dimensionsOf(limits)) {
    const { burst, perMinute } = limits[dimension]!
    switch (told[dimension]) {
      case "bare":
      case "asCounted":
        result[dimension] = { perMinute, ...shared }
        break
      case "burst":
        result[dimension] = { perMinute, burst: burst * share, window: "bucket", ...shared }
        break
      default:
        if (share < 1) result[dimension] = shared
    }
  }
  return result
}

const layerOf = (
  scenario: Scenario,
  provider: LlmProvider.LlmProvider["Service"],
  around: Layer.Layer<Budget.TokenBudget, never, Budget.TokenBudget> | undefined
) => {
  const limits = limitsOf(scenario, scenario.told)
  const isTold = dimensionsOf(limits).length > 0
  const plain = Budget.layer(isTold ? { limits } : {})
  const budget = around === undefined ? plain : Layer.provide(around, plain)
  const accounting = { ...Accounting.anthropic, rejections: scenario.rejections }
  return LlmClient.layerProvider({ accounting }).pipe(
    Layer.provideMerge(budget),
    Layer.provide(Layer.succeed(LlmProvider.LlmProvider, provider))
  )
}

const model = "claude-sonnet-5"

const paramsOf = (id: string, scenario: Scenario): LlmProvider.Params => ({
  model,
  max_tokens: Math.ceil(Workload.largest * meanCall(scenario).outputTokens),
  messages: [{ role: "user", content: "What is the weather?" }],
  metadata: { user_id: id }
})

const optionsOf = (call: Workload.Call): LlmClient.CallOptions => ({
  agent: `agent ${call.agent}`,
  kind: "worker",
  inputTokens: call.input
})

// -----------------------------------------------------------------------------
// What the provider answers
// -----------------------------------------------------------------------------

const signalOf = (readings: Readings | undefined): Limits.Signal | undefined =>
  readings === undefined ? undefined : { dimensions: readings }

const replyOf = (call: Workload.Call, answer: Answer, params: LlmProvider.Params): LlmProvider.Reply<Message> => ({
  value: messageOf(call, params),
  signal: signalOf(answer.readings),
  requestId: undefined
})

const errorOf = (outcome: Rejected | Failed): LlmError.LlmError =>
  new LlmError.LlmError({
    reason: outcome.kind === "rejection" ? rejectionOf(outcome) : failureOf(outcome.failure, outcome.after)
  })

const rejectionOf = ({ code, readings, retryAfter }: Rejected): LlmError.LlmErrorReason => {
  const fields = {
    status: 429,
    signal: signalOf(readings),
    retryAfter: retryAfter === undefined ? undefined : Duration.millis(retryAfter)
  }
  return code === "ramp"
    ? new LlmError.RampLimited({ ...fields, code: "ramp_limit_exceeded" })
    : new LlmError.RateLimited({ ...fields, code: "rate_limit_error" })
}

const failureOf = (failure: Failure, after: number): LlmError.LlmErrorReason => {
  switch (failure) {
    case "500":
      return new LlmError.ServerFailed({ status: 500, code: "api_error" })
    case "529":
      return new LlmError.Overloaded({ status: 529, code: "overloaded_error" })
    case "refused":
      return new LlmError.ConnectionFailed({ sent: false, code: "ECONNREFUSED" })
    case "reset":
      return new LlmError.ConnectionFailed({ sent: true, code: "ECONNRESET" })
    case "timeout":
      return new LlmError.TimedOut({ after: Duration.millis(after) })
  }
}

const messageOf = (call: Workload.Call, params: LlmProvider.Params): Message => ({
  id: `msg_${params.metadata!.user_id}`,
  type: "message",
  role: "assistant",
  model,
  content: [],
  container: null,
  diagnostics: null,
  stop_details: null,
  stop_reason: "end_turn",
  stop_sequence: null,
  usage: {
    input_tokens: call.input,
    output_tokens: call.output,
    cache_creation: null,
    cache_creation_input_tokens: null,
    cache_read_input_tokens: null,
    inference_geo: null,
    output_tokens_details: null,
    server_tool_use: null,
    service_tier: null,
    speed: null
  }
})
