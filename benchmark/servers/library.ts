/** The library as a client, by its public API. Its calls are not retried, like those of the others. */
import type { Message, RawMessageStreamEvent, Usage } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as LlmClient from "floodgate/LlmClient"
import { LlmError, TimedOut } from "floodgate/LlmError"
import * as LlmProvider from "floodgate/LlmProvider"
import * as Retry from "floodgate/Retry"
import { MapStore } from "../../test/support/store.ts"
import type { MakeClient } from "./play.ts"
import type { Job, Scenario } from "./scenarios.ts"
import type { SentCall, Server } from "./server.ts"

/** A client with these options of its budget. */
export const library =
  (options: Budget.Options): MakeClient =>
  (server, _, scenario, stores) =>
    Effect.gen(function* () {
      const jobs = new Map<string, Job>()
      const store = scenario.store === true ? BudgetStore.layer(stores.shared(makeStore)) : Layer.empty
      const live = LlmClient.layerProvider({ retry: Retry.make<LlmError>({ attempts: 1 }) }).pipe(
        Layer.provide(Layer.provide(Budget.layer(options), store)),
        Layer.provide(Layer.succeed(LlmProvider.LlmProvider, providerOf(server, jobs, scenario)))
      )
      const made = Context.get(yield* Layer.build(Layer.fresh(live)), LlmClient.LlmClient)
      let calls = 0
      return (job, agent) =>
        Effect.suspend(() => {
          const id = `call ${calls++}`
          jobs.set(id, job)
          const params = { ...request, metadata: { user_id: id } }
          const stated = { agent, inputTokens: job.input }
          const call = scenario.streams ? Stream.runDrain(made.stream(params, stated)) : made.create(params, stated)
          return Effect.match(call, { onSuccess: () => "answered" as const, onFailure: () => "lost" as const }).pipe(
            Effect.ensuring(Effect.sync(() => jobs.delete(id)))
          )
        })
    })

/** A store that answers within a few milliseconds. */
const makeStore = (): MapStore => {
  const store = new MapStore()
  store.latency = 2
  return store
}

const model = "llama"

const request: LlmProvider.Params = {
  model,
  max_tokens: 4_096,
  messages: [{ role: "user", content: "Hello" }]
}

const providerOf = (
  server: Server,
  jobs: ReadonlyMap<string, Job>,
  { timeout = 0 }: Scenario
): LlmProvider.LlmProvider["Service"] => {
  const lost = new LlmError({ reason: new TimedOut({ after: Duration.seconds(timeout) }) })
  const sent = ({ metadata }: LlmProvider.Params) =>
    Effect.acquireRelease(
      Effect.sync(() => server.send(jobs.get(metadata!.user_id!)!)),
      ({ cancel }) => Effect.sync(cancel)
    )
  /** Waits until the call has begun, or only until it has ended. */
  const until = (call: SentCall, holds: () => boolean) =>
    Effect.callback<void, LlmError>((resume) => {
      const look = (): void => {
        if (call.outcome === "lost") resume(Effect.fail(lost))
        else if (holds()) resume(Effect.void)
      }
      call.onChange = look
      look()
    })
  const ended = (call: SentCall) => until(call, () => call.outcome !== undefined)
  const reply = <A>(value: A): LlmProvider.Reply<A> => ({ value, signal: undefined, requestId: undefined })
  return {
    name: "server",
    create: (params) =>
      Effect.scoped(
        Effect.flatMap(sent(params), (call) =>
          Effect.map(ended(call), () => reply(messageOf(call.job, call.job.output)))
        )
      ),
    stream: (params) =>
      Effect.gen(function* () {
        const call = yield* sent(params)
        yield* until(call, () => call.hasBegun)
        const rest = Stream.fromIterableEffect(Effect.map(ended(call), () => restOf(call.job)))
        return reply(Stream.concat(Stream.fromIterable(beginningOf(call.job)), rest))
      }),
    countTokens: () => Effect.die(new Error("the input is stated"))
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

const usageOf = (job: Job, outputTokens: number): Usage => ({
  input_tokens: job.input,
  cache_creation: null,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: 0,
  inference_geo: null,
  output_tokens: outputTokens,
  output_tokens_details: null,
  server_tool_use: null,
  service_tier: null,
  speed: null
})

const messageOf = (job: Job, outputTokens: number): Message => ({
  id: "msg",
  type: "message",
  role: "assistant",
  model,
  content: [],
  container: null,
  diagnostics: null,
  stop_details: null,
  stop_reason: "end_turn",
  stop_sequence: null,
  usage: usageOf(job, outputTokens)
})

const delta = (text: string): RawMessageStreamEvent => ({
  type: "content_block_delta",
  index: 0,
  delta: { type: "text_delta", text }
})

/** The events that come with the first token. */
const beginningOf = (job: Job): ReadonlyArray<RawMessageStreamEvent> => [
  { type: "message_start", message: { ...messageOf(job, 1), stop_reason: null } },
  { type: "content_block_start", index: 0, content_block: { type: "text", text: "", citations: null } },
  delta("word")
]

/** The events that come with the last one. */
const restOf = (job: Job): ReadonlyArray<RawMessageStreamEvent> => [
  delta(" and so on"),
  { type: "content_block_stop", index: 0 },
  {
    type: "message_delta",
    delta: { container: null, stop_details: null, stop_reason: "end_turn", stop_sequence: null },
    usage: {
      input_tokens: job.input,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: 0,
      output_tokens: job.output,
      output_tokens_details: null,
      server_tool_use: null
    }
  },
  { type: "message_stop" }
]
