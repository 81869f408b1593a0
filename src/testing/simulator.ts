/**
 * A simulated Messages API without I/O: the engine, and the requests and answers around it.
 *
 * `ProviderSim` runs it as a layer, and the provider server over HTTP; both give the same answers.
 *
 * @since 0.1.0
 */
import type { Message, RawMessageStreamEvent, TextBlock, Usage } from "@anthropic-ai/sdk/resources/messages/messages"
import type { CountParams, Params } from "../LlmProvider.ts"
import * as engine from "./engine.ts"
import type * as model from "./model.ts"
import * as random from "./random.ts"
import * as replies from "./replies.ts"

/**
 * The simulated provider, and how it reads and writes. Without options it limits nothing.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends model.Options {
  /**
   * Characters per input token.
   *
   * @default 4
   */
  readonly charsPerToken?: number | undefined
  /**
   * Output tokens of an answer, never above the request's `max_tokens`: a number, or a function of the request and a
   * random number in [0, 1) that is the same whenever the same request is made. By default as many as its text has.
   */
  readonly outputTokens?: number | ((params: Params, random: number) => number) | undefined
  /**
   * The share of the input that is read from a cache, from 0 to 1: it does not count against a limit on `inputTokens`.
   *
   * @default 0
   */
  readonly cachedShare?: number | ((params: Params, random: number) => number) | undefined
  /** The text of an answer; by default an extract of the longest text that the user sent. */
  readonly reply?: ((params: Params, random: number) => string) | undefined
}

/**
 * A simulated provider in its present state. Changed in place.
 *
 * @category models
 * @since 0.1.0
 */
export interface Simulator {
  readonly options: Options
  readonly engine: engine.State
  /** How often each request was admitted, so that twins differ. */
  readonly twins: Map<number, number>
}

/**
 * A simulated provider that has seen nothing yet. Throws a `RangeError` for options that make no sense.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Simulator => {
  const { charsPerToken = 4 } = options
  if (!(charsPerToken > 0)) {
    throw new RangeError(`ProviderSim.charsPerToken: expected a number > 0, got ${charsPerToken}`)
  }
  return { options, engine: engine.make(options), twins: new Map() }
}

/**
 * What became of a request, and the answer it gets.
 *
 * @category models
 * @since 0.1.0
 */
export interface Answer {
  readonly decision: engine.Decision
  readonly requestId: string
  readonly params: Params
  readonly inputTokens: number
  readonly cachedTokens: number
  readonly outputTokens: number
  readonly random: number
  /** The answer's text where its length decided the number of tokens. */
  readonly text: string | undefined
}

const lanes = { answer: 11, cache: 12 }

const valueOf = (
  option: number | ((params: Params, random: number) => number) | undefined,
  params: Params,
  random: number
): number | undefined => (typeof option === "function" ? option(params, random) : option)

const replyOf = (self: Simulator, params: Params, random: number): string =>
  (self.options.reply ?? replies.extract)(params, random) || "."

/**
 * The input tokens of a request as the provider counts them.
 *
 * @category getters
 * @since 0.1.0
 */
export const countTokens = (self: Simulator, params: CountParams | Params): number =>
  replies.inputTokens(params, self.options.charsPerToken ?? 4)

/**
 * Decides about a request that arrives at `now`, in milliseconds since the provider started.
 *
 * @category transitions
 * @since 0.1.0
 */
export const ask = (self: Simulator, now: number, params: Params): Answer => {
  const { charsPerToken = 4, seed = 1 } = self.options
  const key = replies.keyOf(params)
  const twin = self.twins.get(key) ?? 0
  const number = random.unit(seed, lanes.answer, key, twin)
  const input = countTokens(self, params)
  const share = valueOf(self.options.cachedShare, params, random.unit(seed, lanes.cache, key, twin)) ?? 0
  const cachedTokens = Math.floor(input * Math.min(1, Math.max(0, share)))
  const planned = valueOf(self.options.outputTokens, params, number)
  const text = planned === undefined ? replyOf(self, params, number) : undefined
  const wanted = planned ?? Math.ceil(text!.length / charsPerToken)
  const outputTokens = Math.max(0, Math.min(params.max_tokens, Math.round(wanted)))
  const decision = engine.request(self.engine, now, {
    model: params.model,
    agent: params.metadata?.user_id ?? undefined,
    inputTokens: input - cachedTokens,
    cachedTokens,
    outputTokens,
    maxTokens: params.max_tokens,
    key: random.hash(key, twin)
  })
  if (decision._tag === "Accepted") self.twins.set(key, twin + 1)
  const call = decision._tag === "Accepted" ? decision.call.entry.call : decision.entry.call
  return {
    decision,
    requestId: `req_sim_${call.toString().padStart(8, "0")}`,
    params,
    inputTokens: input - cachedTokens,
    cachedTokens,
    outputTokens,
    random: number,
    text
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

const usage = (answer: Answer, outputTokens: number): Usage => ({
  input_tokens: answer.inputTokens,
  cache_creation: null,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: answer.cachedTokens,
  inference_geo: null,
  output_tokens: outputTokens,
  output_tokens_details: null,
  server_tool_use: null,
  service_tier: "standard",
  speed: null
})

const textBlock = (text: string): TextBlock => ({ type: "text", text, citations: null })

const contentOf = (self: Simulator, answer: Answer): { readonly text: string; readonly cut: boolean } => {
  const text = answer.text ?? replyOf(self, answer.params, answer.random)
  const room = Math.floor(answer.outputTokens * (self.options.charsPerToken ?? 4))
  return {
    text: text.slice(0, room),
    cut: answer.outputTokens >= answer.params.max_tokens
  }
}

/**
 * The message that answers an admitted request.
 *
 * @category getters
 * @since 0.1.0
 */
export const message = (self: Simulator, answer: Answer): Message => {
  const { cut, text } = contentOf(self, answer)
  return {
    id: answer.requestId.replace("req_", "msg_"),
    type: "message",
    role: "assistant",
    model: answer.params.model,
    content: [textBlock(text)],
    container: null,
    diagnostics: null,
    stop_details: null,
    stop_reason: cut ? "max_tokens" : "end_turn",
    stop_sequence: null,
    usage: usage(answer, answer.outputTokens)
  }
}

/**
 * One event of a stream and when it is sent, in milliseconds since the provider started.
 *
 * @category models
 * @since 0.1.0
 */
export interface Timed {
  readonly at: number
  readonly event: RawMessageStreamEvent
}

/** About this many characters a delta, and no silence longer than this between two, so that nobody takes it for a stall. */
const deltaCharacters = 24
const deltaMillis = 2_000
const mostDeltas = 1_000

/**
 * The events of a streamed answer: deltas spread evenly over the time that the output takes, those that come before a
 * fault where there is one.
 *
 * @category getters
 * @since 0.1.0
 */
export const events = (self: Simulator, answer: Answer, call: engine.Call): ReadonlyArray<Timed> => {
  const whole = message(self, answer)
  const text = (whole.content[0] as TextBlock).text
  const { finishesAt, firstTokenAt } = call
  const millis = finishesAt - firstTokenAt
  const count = Math.max(
    1,
    Math.min(
      text.length,
      mostDeltas,
      Math.max(Math.ceil(text.length / deltaCharacters), Math.ceil(millis / deltaMillis))
    )
  )
  const result: Array<Timed> = []
  const send = (at: number, event: RawMessageStreamEvent) => {
    if (call.fault === undefined || at < call.outputEndsAt) result.push({ at, event })
  }
  send(firstTokenAt, {
    type: "message_start",
    // The provider does not know the output yet, and says 1.
    message: { ...whole, content: [], stop_reason: null, usage: usage(answer, 1) }
  })
  send(firstTokenAt, { type: "content_block_start", index: 0, content_block: textBlock("") })
  for (let index = 0; index < count; index++) {
    const piece = text.slice(Math.floor((text.length * index) / count), Math.floor((text.length * (index + 1)) / count))
    const at = Math.round(firstTokenAt + (millis * (index + 1)) / count)
    send(at, { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: piece } })
  }
  send(finishesAt, { type: "content_block_stop", index: 0 })
  send(finishesAt, {
    type: "message_delta",
    delta: { container: null, stop_details: null, stop_reason: whole.stop_reason, stop_sequence: null },
    usage: {
      input_tokens: answer.inputTokens,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: answer.cachedTokens,
      output_tokens: answer.outputTokens,
      output_tokens_details: null,
      server_tool_use: null
    }
  })
  send(finishesAt, { type: "message_stop" })
  return result
}
