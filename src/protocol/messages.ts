/** Calls of the Messages API as the governor knows them, and the events of their streams. Pure. */
import type { MessageCreateParams, RawMessageStreamEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Anthropic from "./anthropic.ts"
import type { HeaderReader } from "./headers.ts"
import { at, parseJson } from "./json.ts"
import { type Answer, type Description, usageOf } from "./protocol.ts"

export type Params = MessageCreateParams

/** The longest wait for a whole answer, as in the SDK: longer ones should be streamed. */
export const longestWaitMillis = 600_000

const route = { operation: "generate", path: "/v1/messages" } as const
const noHeaders: HeaderReader = () => undefined

/** What is known of a request before it is sent, and the agent that its headers or its body name. */
export const describe = (
  params: Params,
  known: { readonly kind?: string | undefined; readonly inputTokens?: number | undefined } = {},
  header: HeaderReader = noHeaders
) => {
  const {
    agents = [],
    bytes = 0,
    continues,
    maxTokens,
    stored = false,
    textBytes = 0,
    thinking = false
  }: Partial<Description> = Anthropic.describe(params, route, header) ?? {}
  const { inputTokens, kind } = known
  return {
    call: { model: params.model, kind, bytes, textBytes, inputTokens, maxTokens, thinking, continues, stored },
    agent: agents[0]
  }
}

/** The facts about an answer that its span records. */
export const infoOf = ({ continuation, finishReason, id, model }: Answer) => ({ id, model, finishReason, continuation })

/**
 * What had arrived of a stream that failed. Usage follows Anthropic's rules: cache writes count as input, cache reads do
 * not. Input that was never reported is left out, so that its estimate stays.
 */
export const receivedOf = (answer: Answer, text: string) => {
  const { cacheCreationTokens, inputTokens } = answer.counts
  const outputTokens = usageOf(answer)?.outputTokens ?? 0
  const usage =
    inputTokens === undefined
      ? { requests: 1, outputTokens }
      : { requests: 1, inputTokens: inputTokens + (cacheCreationTokens ?? 0), outputTokens }
  return { usage, text, started: answer.started }
}

/** The text that an event adds to an answer. */
export const textOfEvent = (event: RawMessageStreamEvent): string =>
  event.type === "content_block_delta" && event.delta.type === "text_delta" ? event.delta.text : ""

/** What one server-sent event means. */
export type Step =
  | { readonly _tag: "Event"; readonly event: RawMessageStreamEvent }
  | { readonly _tag: "Error"; readonly data: unknown }
  | { readonly _tag: "Malformed" }
  | { readonly _tag: "Ignored" }

/** What a delta must have for its type; of other types nothing is read. */
const deltaParts: Readonly<Record<string, string>> = {
  text_delta: "text",
  thinking_delta: "thinking",
  input_json_delta: "partial_json"
}

const isMalformed = (event: unknown): boolean => {
  if (at(event, "type") !== "content_block_delta") return false
  const type = at(event, "delta", "type")
  if (typeof type !== "string") return true
  const part = Object.hasOwn(deltaParts, type) ? deltaParts[type] : undefined
  return part !== undefined && typeof at(event, "delta", part) !== "string"
}

/**
 * Reads one server-sent event. Pings are ignored, and events of a type that is not known yet are passed on, as Anthropic
 * asks of clients.
 */
export const readEvent = (sse: { readonly event: string | null; readonly data: string }): Step => {
  if (sse.event === "ping" || sse.data === "") return { _tag: "Ignored" }
  const data = parseJson(sse.data)
  const type = at(data, "type")
  if (sse.event === "error" || type === "error") return { _tag: "Error", data: data ?? sse.data }
  if (type === "ping") return { _tag: "Ignored" }
  if (typeof type !== "string" || isMalformed(data)) return { _tag: "Malformed" }
  // Its type is a text, and the parts that are read of it were checked.
  return { _tag: "Event", event: data as RawMessageStreamEvent }
}
