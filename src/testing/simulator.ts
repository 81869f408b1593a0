/**
 * A simulated Messages API without I/O: the engine, and the requests and answers around it.
 *
 * `ProviderSim` runs it as a layer, and the provider server over HTTP; both give the same answers.
 */
import type {
  Message,
  RawMessageStreamEvent,
  TextBlock,
  ToolUseBlock,
  Usage
} from "@anthropic-ai/sdk/resources/messages/messages"
import * as Predicate from "effect/Predicate"
import { invalid } from "../domain/input/checks.ts"
import type { CountParams, Params } from "../LlmProvider.ts"
import * as Engine from "./engine.ts"
import type { Options, ToolUse } from "./models.ts"
import * as Prefixes from "./prefixes.ts"
import * as PromptCache from "./promptCache.ts"
import * as Seeded from "./seeded.ts"
import * as Replies from "./replies.ts"

/** A simulated provider. It is mutable. */
export interface Simulator {
  readonly options: Options
  readonly engine: Engine.ProviderState
  readonly charsPerToken: number
  /** How often each request was admitted, so that repeated requests get different answers. */
  readonly twins: Map<number, number>
}

/** How many requests are remembered. The oldest are forgotten, so that a server may run for days. */
const maxTwins = 100_000

/** A new simulated provider. Throws a `RangeError` for invalid options. */
export const make = (options: Options): Simulator => {
  const engine = Engine.make(options)
  return { options, engine, charsPerToken: options.charsPerToken ?? 4, twins: new Map() }
}

/** The decision on a request, and its answer. */
export interface SimulatedAnswer {
  readonly decision: Engine.RequestDecision
  readonly requestId: string
  readonly params: Params
  readonly inputTokens: number
  readonly cachedTokens: number
  readonly cache: PromptCache.CacheUse | undefined
  readonly outputTokens: number
  readonly random: number
  /** The content of the answer, if its length decided the number of tokens. */
  readonly content: ReadonlyArray<string | ToolUse> | undefined
}

const lanes = { answer: 11, cache: 12 }

/** The value of an option for a request. A function must return a number. */
const valueOf = (
  name: "outputTokens" | "cachedShare",
  { options }: Simulator,
  params: Params,
  random: number
): number | undefined => {
  const option = options[name]
  if (typeof option !== "function") return option
  return finite(name, option(params, random))
}

/** The result of an option that is a function. */
const finite = (name: string, value: unknown): number =>
  Predicate.isNumber(value) && Number.isFinite(value)
    ? value
    : invalid(`ProviderSim.layer: ${name}`, "a function that gives a finite number", value)

const isPart = (part: unknown): boolean =>
  typeof part === "string" ||
  (Predicate.hasProperty(part, "type") &&
    part.type === "tool_use" &&
    Predicate.hasProperty(part, "name") &&
    typeof part.name === "string")

const replyOf = (self: Simulator, params: Params, random: number): ReadonlyArray<string | ToolUse> => {
  const reply = (self.options.reply ?? Replies.extract)(params, random)
  const parts = typeof reply === "string" ? [reply] : reply
  if (!Array.isArray(parts) || !parts.every(isPart)) {
    return invalid(
      "ProviderSim.layer: reply",
      "a function that gives a string, or a list of strings and tool calls",
      reply
    )
  }
  const content = parts.filter((part) => part !== "")
  return content.length === 0 ? ["."] : content
}

/** The text of a part of an answer. */
const written = (part: string | ToolUse): string => (typeof part === "string" ? part : JSON.stringify(part.input ?? {}))

const lengthOf = (content: ReadonlyArray<string | ToolUse>): number =>
  content.reduce((sum, part) => sum + written(part).length, 0)

/** The input tokens of a request as the provider counts them. */
export const countTokens = (
  { charsPerToken, options: { inputTokens } }: Simulator,
  params: CountParams | Params
): number => {
  if (inputTokens === undefined) return Replies.inputTokens(params, (text) => text.length / charsPerToken)
  return Math.max(1, Math.round(finite("inputTokens", inputTokens(params))))
}

/** The use of the cache by a request at `now`; undefined without a cache. */
const cacheUse = (self: Simulator, now: number, params: Params, tokens: number): PromptCache.CacheUse | undefined => {
  const { cache } = self.engine
  if (cache === undefined) return undefined
  // An answer may have begun since the last request.
  Engine.advance(self.engine, now)
  return PromptCache.look(cache, now, params, tokens, (parts) => countTokens(self, Prefixes.upTo(params, parts)))
}

/** The tokens of a request that would be read from the cache at `now`. */
export const cachedTokens = (self: Simulator, now: number, params: Params): number =>
  cacheUse(self, now, params, countTokens(self, params))?.readTokens ?? 0

/**
 * Decides on a request that arrives at `now`, in milliseconds since the provider started. `agent` is the agent of a caller in
 * this process; an agent named in the request takes precedence.
 */
export const ask = (self: Simulator, now: number, params: Params, agent?: string): SimulatedAnswer => {
  const { charsPerToken, engine } = self
  const { seed } = engine
  const key = Replies.keyOf(params)
  const twin = self.twins.get(key) ?? 0
  const number = Seeded.unit(seed, lanes.answer, key, twin)
  const input = countTokens(self, params)
  const share = valueOf("cachedShare", self, params, Seeded.unit(seed, lanes.cache, key, twin)) ?? 0
  const cache = cacheUse(self, now, params, input)
  const cachedTokens = cache?.readTokens ?? Math.floor(input * Math.min(1, Math.max(0, share)))
  const planned = valueOf("outputTokens", self, params, number)
  const content = planned === undefined ? replyOf(self, params, number) : undefined
  const wanted = planned ?? Math.ceil(lengthOf(content!) / charsPerToken)
  const outputTokens = Math.max(0, Math.min(params.max_tokens, Math.round(wanted)))
  const decision = Engine.request(engine, now, {
    model: params.model,
    agent: params.metadata?.user_id ?? agent,
    inputTokens: input - cachedTokens,
    cachedTokens,
    cache,
    outputTokens,
    // In other protocols the output of a request need not be limited.
    maxTokens: Number.isFinite(params.max_tokens) ? params.max_tokens : undefined,
    key: Seeded.hash(key, twin)
  })
  if (decision._tag === "Accepted") {
    self.twins.set(key, twin + 1)
    if (self.twins.size > maxTwins) self.twins.delete(self.twins.keys().next().value!)
  }
  const call = decision._tag === "Accepted" ? decision.call.entry.call : decision.entry.call
  return {
    decision,
    requestId: `req_sim_${call.toString().padStart(8, "0")}`,
    params,
    inputTokens: input - cachedTokens,
    cachedTokens,
    cache,
    outputTokens,
    random: number,
    content
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/** The input of an answer, as its usage states it. */
const inputUsage = ({ cache, cachedTokens, inputTokens }: SimulatedAnswer) => ({
  input_tokens: inputTokens - (cache?.writtenTokens ?? 0),
  cache_creation_input_tokens: cache?.writtenTokens ?? 0,
  cache_read_input_tokens: cachedTokens
})

const usage = (answer: SimulatedAnswer, outputTokens: number): Usage => ({
  ...inputUsage(answer),
  cache_creation:
    answer.cache === undefined
      ? null
      : {
          ephemeral_5m_input_tokens: answer.cache.writtenTokens - answer.cache.writtenLongTokens,
          ephemeral_1h_input_tokens: answer.cache.writtenLongTokens
        },
  inference_geo: null,
  output_tokens: outputTokens,
  output_tokens_details: null,
  server_tool_use: null,
  service_tier: "standard",
  speed: null
})

const textBlock = (text: string): TextBlock => ({ type: "text", text, citations: null })

const toolBlock = (id: string, { input, name }: ToolUse): ToolUseBlock => ({
  type: "tool_use",
  id,
  name,
  input: input ?? {},
  caller: { type: "direct" }
})

/** The blocks of an answer, up to its number of tokens. A tool call that `max_tokens` cuts off is left out. */
const contentOf = (self: Simulator, answer: SimulatedAnswer, cut: boolean): Array<TextBlock | ToolUseBlock> => {
  const content = answer.content ?? replyOf(self, answer.params, answer.random)
  let room = Math.floor(answer.outputTokens * self.charsPerToken)
  const blocks: Array<TextBlock | ToolUseBlock> = []
  for (const [index, part] of content.entries()) {
    const { length } = written(part)
    if (typeof part === "string") blocks.push(textBlock(part.slice(0, Math.max(0, room))))
    else if (length <= room || !cut)
      blocks.push(toolBlock(`${answer.requestId.replace("req_", "toolu_")}_${index}`, part))
    room -= length
    if (cut && room <= 0) break
  }
  return blocks
}

/** The message that answers an admitted request. */
export const message = (self: Simulator, answer: SimulatedAnswer): Message => {
  const cut = answer.outputTokens >= answer.params.max_tokens
  const content = contentOf(self, answer, cut)
  const ended = content.some(({ type }) => type === "tool_use") ? "tool_use" : "end_turn"
  return {
    id: answer.requestId.replace("req_", "msg_"),
    type: "message",
    role: "assistant",
    model: answer.params.model,
    content,
    container: null,
    diagnostics: null,
    stop_details: null,
    stop_reason: cut ? "max_tokens" : ended,
    stop_sequence: null,
    usage: usage(answer, answer.outputTokens)
  }
}

/** One event of a stream and when it is sent. */
export interface TimedEvent {
  /** Milliseconds since the provider started. In a batch it is not known before. */
  readonly at: number
  /** The tokens of output that it follows. */
  readonly tokens: number
  readonly event: RawMessageStreamEvent
}

/** The approximate length of a delta, and the longest silence between two: longer ones would look like a stall to clients. */
const deltaCharacters = 24
const deltaMillis = 2_000
const maxDeltas = 1_000

const deltasOf = (characters: number, millis: number): number =>
  Math.max(
    1,
    Math.min(characters, maxDeltas, Math.max(Math.ceil(characters / deltaCharacters), Math.ceil(millis / deltaMillis)))
  )

/**
 * The events of a streamed answer: deltas spread evenly over the time that the output takes. If there is a fault, only those
 * before it.
 */
export const events = (
  self: Simulator,
  answer: SimulatedAnswer,
  call: Engine.AcceptedCall
): ReadonlyArray<TimedEvent> => {
  const whole = message(self, answer)
  const texts = (whole.content as ReadonlyArray<TextBlock | ToolUseBlock>).map((block) => ({
    block,
    text: block.type === "text" ? block.text : JSON.stringify(block.input)
  }))
  const length = texts.reduce((sum, { text }) => sum + text.length, 0)
  const { finishesAt, firstTokenAt, sequence } = call
  const millis = finishesAt - firstTokenAt
  const { outputTokens } = answer
  const piecesOf = (characters: number): number => {
    const share = length === 0 ? 0 : characters / length
    return sequence === undefined
      ? deltasOf(characters, millis * share)
      : // A server sends each token as it is made.
        Math.max(1, Math.min(characters, maxDeltas, Math.round(outputTokens * share)))
  }
  const blocks = texts.map(({ block, text }) => ({ block, text, pieces: piecesOf(text.length) }))
  const count = blocks.reduce((sum, { pieces }) => sum + pieces, 0)
  const result: Array<TimedEvent> = []
  let tokens = 0
  const send = (at: number, event: RawMessageStreamEvent) => {
    const isSent = sequence === undefined ? at < call.outputEndsAt : tokens < sequence.target
    if (call.fault === undefined || isSent) result.push({ at, tokens, event })
  }
  send(firstTokenAt, {
    type: "message_start",
    // The provider does not know the output yet, and reports 1.
    message: { ...whole, content: [], stop_reason: null, usage: usage(answer, 1) }
  })
  let sent = 0
  let at = firstTokenAt
  for (const [index, { block, pieces, text }] of blocks.entries()) {
    const empty = block.type === "text" ? textBlock("") : { ...block, input: {} }
    send(at, { type: "content_block_start", index, content_block: empty })
    for (let piece = 0; piece < pieces; piece++) {
      const from = Math.floor((text.length * piece) / pieces)
      const part = text.slice(from, Math.floor((text.length * (piece + 1)) / pieces))
      at = Math.round(firstTokenAt + (millis * ++sent) / count)
      tokens = Math.ceil((outputTokens * sent) / count - 1e-6)
      const delta =
        block.type === "text"
          ? { type: "text_delta" as const, text: part }
          : { type: "input_json_delta" as const, partial_json: part }
      send(at, { type: "content_block_delta", index, delta })
    }
    if (index === blocks.length - 1) at = finishesAt
    send(at, { type: "content_block_stop", index })
  }
  send(finishesAt, {
    type: "message_delta",
    delta: { container: null, stop_details: null, stop_reason: whole.stop_reason, stop_sequence: null },
    usage: {
      ...inputUsage(answer),
      output_tokens: answer.outputTokens,
      output_tokens_details: null,
      server_tool_use: null
    }
  })
  send(finishesAt, { type: "message_stop" })
  return result
}
