/**
 * Engine B: the library itself in a weather, through its public door. The provider model is an `LlmProvider`, and the calls
 * go through `LlmClient.layerProvider` over `Budget.layer`, as an application would make them.
 *
 * It differs from engine A in what belongs to the library: queue, retries, deadlines and estimates are its own. Input is
 * given with each call, output is estimated by the library. Time is virtual and passes in whole milliseconds.
 */
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import * as LlmError from "floodgate/LlmError"
import * as LlmProvider from "floodgate/LlmProvider"
import { dimensionsOf, type Readings } from "./amounts.ts"
import * as Provider from "./provider.ts"
import { type Failure, meanCall, type Scenario } from "./scenario.ts"
import * as Score from "./score.ts"
import * as VirtualTime from "./virtualTime.ts"
import * as Workload from "./workload.ts"

/** More fibers than this take gigabytes. */
const mostWorkers = 20_000

export const run = (scenario: Scenario, seed: number): Score.Result => {
  const limited = withFewerWorkers(scenario)
  const time = VirtualTime.make()
  const provider = Provider.make(limited, seed)
  const tally = Score.tally(limited)
  const work = Workload.make(limited, seed)
  const calls = new Map<string, Workload.Call>()
  let made = 0

  const attempt = (params: LlmProvider.Params): Effect.Effect<LlmProvider.Reply<Message>, LlmError.LlmError> =>
    Effect.suspend(() => {
      const call = calls.get(params.metadata!.user_id!)!
      const now = time.now()
      const outcome = provider.arrive(call, now)
      tally.sent(call, outcome, now)
      return Effect.delay(replyOf(call, outcome, params), Duration.millis(outcome.after))
    })

  /** One call, and then the worker's next one. */
  const worker = (first: Workload.Call): Effect.Effect<void, never, LlmClient.LlmClient> =>
    Effect.gen(function* () {
      for (let call: Workload.Call | undefined = first; call !== undefined;) {
        const id = String(made++)
        calls.set(id, call)
        const exit = yield* Effect.exit(LlmClient.create(paramsOf(id, scenario), optionsOf(call)))
        calls.delete(id)
        const now = time.now()
        tally.ended(call, now, Exit.isFailure(exit))
        call = work.next(call, now, Exit.isFailure(exit))
      }
    })

  const retold = Effect.forEach(
    scenario.retold,
    ({ at, told }) =>
      Budget.TokenBudget.pipe(
        Effect.flatMap((budget) => budget.resize({ limits: limitsOf(scenario, told) })),
        Effect.delay(Duration.millis(at))
      ),
    { concurrency: "unbounded", discard: true }
  )
  const workers = Effect.forEach(work.start(), worker, { concurrency: "unbounded", discard: true })
  const program = Effect.raceFirst(
    Effect.all([workers, retold], { concurrency: "unbounded" }),
    Effect.sleep(Duration.millis(scenario.millis))
  ).pipe(Effect.provide(layerOf(scenario, attempt)), Random.withSeed(seed))

  const exit = time.run(program)
  if (Exit.isFailure(exit)) throw new Error(`the library died in "${scenario.name}"`, { cause: exit.cause })
  const isExpired = (call: Workload.Call) => call.createdAt + deadlineMillis < scenario.millis
  return tally.result(provider.account(scenario.millis), [...calls.values()].filter(isExpired))
}

const deadlineMillis = 600_000

const withFewerWorkers = (scenario: Scenario): Scenario => {
  const { work } = scenario
  return work.kind === "loop"
    ? { ...scenario, work: { ...work, workers: Math.min(mostWorkers, work.workers) } }
    : scenario
}

// -----------------------------------------------------------------------------
// The client
// -----------------------------------------------------------------------------

const limitsOf = ({ limits }: Scenario, told: Scenario["told"]): Limits.Limits => {
  const result: { -readonly [D in keyof Limits.Limits]: Limits.Limit } = {}
  for (const dimension of dimensionsOf(limits)) {
    const { burst, perMinute } = limits[dimension]!
    switch (told[dimension]) {
      case "bare":
      case "asCounted":
        result[dimension] = { perMinute }
        break
      case "burst":
        result[dimension] = { perMinute, burst, window: "bucket" }
    }
  }
  return result
}

const layerOf = (
  scenario: Scenario,
  attempt: (params: LlmProvider.Params) => Effect.Effect<LlmProvider.Reply<Message>, LlmError.LlmError>
) => {
  const none = () => Effect.die(new Error("the weather makes whole calls only"))
  const provider = Layer.succeed(
    LlmProvider.LlmProvider,
    LlmProvider.LlmProvider.of({ name: "weather", create: attempt, stream: none, countTokens: none })
  )
  const limits = limitsOf(scenario, scenario.told)
  const isTold = dimensionsOf(limits).length > 0
  const shared = scenario.share === 1 ? {} : { share: scenario.share }
  const budget = Budget.layer({ ...(isTold ? { limits } : {}), ...shared })
  const accounting = { ...Accounting.anthropic, rejections: scenario.rejections }
  return LlmClient.layerProvider({ accounting }).pipe(Layer.provideMerge(budget), Layer.provide(provider))
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

const replyOf = (
  call: Workload.Call,
  outcome: Provider.Outcome,
  params: LlmProvider.Params
): Effect.Effect<LlmProvider.Reply<Message>, LlmError.LlmError> => {
  switch (outcome.kind) {
    case "answer":
      return Effect.succeed({
        value: messageOf(call, params),
        signal: signalOf(outcome.readings),
        requestId: undefined
      })
    case "rejection":
      return fail(rejectionOf(outcome))
    case "failure":
      return fail(failureOf(outcome.failure, outcome.after))
  }
}

const fail = (reason: LlmError.LlmErrorReason) => Effect.fail(new LlmError.LlmError({ reason }))

const rejectionOf = ({
  code,
  readings,
  retryAfter
}: Provider.Outcome & { readonly kind: "rejection" }): LlmError.LlmErrorReason => {
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
