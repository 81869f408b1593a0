/** Reads the events of a Messages API stream, and folds them to what was received and used so far. Pure. */
import type { RawContentBlockDelta, RawMessageStreamEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Predicate from "effect/Predicate"
import type * as Limits from "../Limits.ts"
import type { Received } from "../LlmError.ts"
import { isAmount } from "./believed.ts"
import { parseJson } from "../protocol/json.ts"
import { bytesPerToken } from "./requestSize.ts"

/** What was seen of a stream. Counts are undefined until the provider has named them. */
export interface Observed {
  readonly input: number | undefined
  readonly cacheWrite: number | undefined
  readonly cacheRead: number | undefined
  readonly output: number | undefined
  /** Characters of output since the provider last counted. */
  readonly uncounted: number
  readonly text: string
  /** What the response says of itself. */
  readonly response: {
    readonly id?: string | undefined
    readonly model?: string | undefined
    readonly finishReason?: string | undefined
  }
  /** Whether content has begun. */
  readonly started: boolean
  /** Whether `message_stop` came: the only sign of a complete stream. */
  readonly complete: boolean
}

export const empty: Observed = {
  input: undefined,
  cacheWrite: undefined,
  cacheRead: undefined,
  output: undefined,
  uncounted: 0,
  text: "",
  response: {},
  started: false,
  complete: false
}

/** A provider's count, where it is one that is believed. */
export const count = (value: unknown): number | undefined => (isAmount(value) ? value : undefined)

interface Usage {
  readonly input_tokens?: number | null
  readonly cache_creation_input_tokens?: number | null
  readonly cache_read_input_tokens?: number | null
  readonly output_tokens?: number | null
}

/** The steps behind a response, in a beta that lets the provider shorten a long conversation on the way. */
interface Iterations {
  readonly iterations?: ReadonlyArray<Usage & { readonly type?: string }> | null
}

/**
 * Counts are cumulative: they overwrite, and null leaves what was known. What the provider's summaries took counts towards
 * the limits, too, and is left out of its own counts.
 */
export const counted = (observed: Observed, usage: (Usage & Iterations) | null | undefined): Observed => {
  const steps = Array.isArray(usage?.iterations) ? usage.iterations : []
  const read = (name: keyof Usage, before: number | undefined): number | undefined => {
    let sum = count(usage?.[name])
    if (sum === undefined) return before
    for (const step of steps) if (step?.type === "compaction") sum += count(step[name]) ?? 0
    return sum
  }
  return {
    ...observed,
    input: read("input_tokens", observed.input),
    cacheWrite: read("cache_creation_input_tokens", observed.cacheWrite),
    cacheRead: read("cache_read_input_tokens", observed.cacheRead),
    output: read("output_tokens", observed.output)
  }
}

/** The characters of output in a delta. */
const lengthOf = (delta: RawContentBlockDelta): number => {
  switch (delta.type) {
    case "text_delta":
      return delta.text.length
    case "thinking_delta":
      return delta.thinking.length
    case "input_json_delta":
      return delta.partial_json.length
    default:
      return 0
  }
}

/** Takes in one event; unknown ones change nothing. */
export const step = (observed: Observed, event: RawMessageStreamEvent): Observed => {
  switch (event.type) {
    case "message_start":
      return {
        ...counted(observed, event.message?.usage),
        response: { id: event.message?.id, model: event.message?.model }
      }
    case "content_block_start":
      return observed.started ? observed : { ...observed, started: true }
    case "content_block_delta": {
      const { delta } = event
      const text = delta.type === "text_delta" ? delta.text : ""
      const uncounted = observed.uncounted + lengthOf(delta)
      return { ...observed, started: true, text: observed.text + text, uncounted }
    }
    case "message_delta": {
      const finishReason = event.delta?.stop_reason ?? undefined
      return {
        ...counted(observed, event.usage),
        // Some gateways count nothing here, or say that it is 0.
        uncounted: count(event.usage?.output_tokens) ? 0 : observed.uncounted,
        response: finishReason === undefined ? observed.response : { ...observed.response, finishReason }
      }
    }
    case "message_stop":
      return { ...observed, complete: true }
    default:
      return observed
  }
}

/**
 * The usage by Anthropic's rules: cache writes count as input, cache reads do not. Output that the provider has not
 * counted is estimated from its length. Input that was never named is left out, so that its estimate stays.
 */
export const usage = (observed: Observed): Limits.Usage => {
  const outputTokens = (observed.output ?? 0) + Math.ceil(observed.uncounted / bytesPerToken)
  return observed.input === undefined
    ? { requests: 1, outputTokens }
    : { requests: 1, inputTokens: observed.input + (observed.cacheWrite ?? 0), outputTokens }
}

/** What an error of the stream keeps. */
export const received = (observed: Observed): Received => ({
  usage: usage(observed),
  text: observed.text,
  started: observed.started
})

/** What one server-sent event means. */
export type Step =
  | { readonly _tag: "Event"; readonly event: RawMessageStreamEvent; readonly observed: Observed }
  | { readonly _tag: "Error"; readonly data: unknown }
  | { readonly _tag: "Malformed" }
  | { readonly _tag: "Ignored" }

/**
 * Reads one server-sent event. Pings are ignored, and events of a type that is not known yet are passed on, as Anthropic
 * asks of clients.
 */
export const read = (observed: Observed, sse: { readonly event: string | null; readonly data: string }): Step => {
  if (sse.event === "ping" || sse.data === "") return { _tag: "Ignored" }
  const data = parseJson(sse.data)
  const type = Predicate.hasProperty(data, "type") ? data.type : undefined
  if (sse.event === "error" || type === "error") return { _tag: "Error", data: data ?? sse.data }
  if (type === "ping") return { _tag: "Ignored" }
  if (typeof type !== "string") return { _tag: "Malformed" }
  const event = data as RawMessageStreamEvent
  try {
    return { _tag: "Event", event, observed: step(observed, event) }
  } catch {
    // An event of a known type without the parts that its type promises.
    return { _tag: "Malformed" }
  }
}
