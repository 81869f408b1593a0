/**
 * A provider with a scripted answer for each attempt, without any limits.
 */
import type { Message, RawMessageStreamEvent, Usage } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import { LlmError, type LlmErrorReason } from "floodgate/LlmError"
import { LlmProvider, type Params } from "floodgate/LlmProvider"

export const params: Params = {
  model: "claude-sonnet-5",
  max_tokens: 500,
  messages: [{ role: "user", content: "Hello" }]
}

const usage = (input: number, output: number): Usage => ({
  input_tokens: input,
  cache_creation: null,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: 0,
  inference_geo: null,
  output_tokens: output,
  output_tokens_details: null,
  server_tool_use: null,
  service_tier: "standard",
  speed: null
})

export const message = (text: string, input = 900, output = 100): Message => ({
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "claude-sonnet-5-20260901",
  content: [{ type: "text", text, citations: null }],
  container: null,
  diagnostics: null,
  stop_details: null,
  stop_reason: "end_turn",
  stop_sequence: null,
  usage: usage(input, output)
})

export const start: RawMessageStreamEvent = {
  type: "message_start",
  message: { ...message("", 900, 1), content: [], stop_reason: null }
}
export const blockStart: RawMessageStreamEvent = {
  type: "content_block_start",
  index: 0,
  content_block: { type: "text", text: "", citations: null }
}
export const delta = (text: string): RawMessageStreamEvent => ({
  type: "content_block_delta",
  index: 0,
  delta: { type: "text_delta", text }
})
export const blockStop: RawMessageStreamEvent = { type: "content_block_stop", index: 0 }
export const messageDelta = (output: number): RawMessageStreamEvent => ({
  type: "message_delta",
  delta: { container: null, stop_details: null, stop_reason: "end_turn", stop_sequence: null },
  usage: {
    input_tokens: 900,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: 0,
    output_tokens: output,
    output_tokens_details: null,
    server_tool_use: null
  }
})
export const stop: RawMessageStreamEvent = { type: "message_stop" }

/** The events of a whole answer. */
export const whole = (text: string): ReadonlyArray<RawMessageStreamEvent> => [
  start,
  blockStart,
  delta(text),
  blockStop,
  messageDelta(100),
  stop
]

export const fail = (reason: LlmErrorReason) => Effect.fail(new LlmError({ reason }))

/** The text of some events. */
export const textOf = (events: Iterable<RawMessageStreamEvent>): string => Array.from(events, LlmClient.text).join("")

export interface Script {
  readonly create?: (attempt: number) => Effect.Effect<Message, LlmError>
  /** The events of an attempt, or its failure before the first event. */
  readonly stream?: (attempt: number) => Effect.Effect<Stream.Stream<RawMessageStreamEvent, LlmError>, LlmError>
  readonly countTokens?: (attempt: number) => Effect.Effect<number, LlmError>
  readonly signal?: Limits.Signal
}

interface Seen {
  attempts: number
  /** The number of open streams. */
  open: number
}

const unexpected = () => Effect.die(new Error("The script has no answer"))

/** The provider, and what it recorded. */
export const scripted = (script: Script) => {
  const seen: Seen = { attempts: 0, open: 0 }
  const reply = <A>(value: A) => ({ value, signal: script.signal, requestId: `req_${seen.attempts}` })
  const layer = Layer.succeed(
    LlmProvider,
    LlmProvider.of({
      name: "scripted",
      create: () => Effect.suspend(() => Effect.map((script.create ?? unexpected)(++seen.attempts), reply)),
      stream: () =>
        Effect.gen(function* () {
          yield* Effect.acquireRelease(
            Effect.sync(() => void seen.open++),
            () => Effect.sync(() => void seen.open--)
          )
          return reply(yield* (script.stream ?? unexpected)(++seen.attempts))
        }),
      countTokens: () => Effect.suspend(() => Effect.map((script.countTokens ?? unexpected)(++seen.attempts), reply))
    })
  )
  return { layer, seen }
}

/** Events in sequence, each as its own chunk. */
export const events = (...list: ReadonlyArray<RawMessageStreamEvent>): Stream.Stream<RawMessageStreamEvent> =>
  Stream.flatMap(Stream.fromIterable(list), Stream.succeed)
