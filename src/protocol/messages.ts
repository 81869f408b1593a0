/** The events of the Messages API's streams, as the official SDK has them. Pure. */
import type { RawMessageStreamEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import { at, parseJson } from "./json.ts"

/** The longest wait for a whole answer, as in the SDK: longer ones should be streamed. */
export const longestWaitMillis = 600_000

/** The text that an event adds to an answer. */
export const textOfEvent = (event: RawMessageStreamEvent): string =>
  event.type === "content_block_delta" && event.delta.type === "text_delta" ? event.delta.text : ""

/** The meaning of one server-sent event. */
export type Step =
  | { readonly _tag: "Event"; readonly event: RawMessageStreamEvent }
  | { readonly _tag: "Error"; readonly data: unknown }
  | { readonly _tag: "Malformed" }
  | { readonly _tag: "Ignored" }

/** The property that a delta of a known type must have. */
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
 * Reads one server-sent event. Pings are ignored, and events of unknown types are passed on, as Anthropic asks of clients.
 */
export const readEvent = (sse: { readonly event: string | null; readonly data: string }): Step => {
  if (sse.event === "ping" || sse.data === "") return { _tag: "Ignored" }
  const data = parseJson(sse.data)
  const type = at(data, "type")
  if (sse.event === "error" || type === "error") return { _tag: "Error", data: data ?? sse.data }
  if (type === "ping") return { _tag: "Ignored" }
  if (typeof type !== "string" || isMalformed(data)) return { _tag: "Malformed" }
  // Its type is a text, and the parts of it that are read were checked.
  return { _tag: "Event", event: data as RawMessageStreamEvent }
}
