/** The events of the Messages API's streams, as the official SDK has them. Pure. */
import type { MessageEvent } from "../Messages.ts"
import { at, isRecord, parseJson, textOf } from "./json.ts"

/** The longest wait for a whole answer, as in the SDK: longer ones should be streamed. */
export const longestWaitMillis = 600_000

/** The text that an event adds to an answer. */
export const textOfEvent = (event: MessageEvent): string =>
  event.type === "content_block_delta" && event.delta?.type === "text_delta" ? (event.delta.text ?? "") : ""

/** A field that is read before the request is sent. */
interface CheckedField {
  readonly name: string
  readonly expected: string
  readonly isValid: (value: unknown) => boolean
}

const countFields: ReadonlyArray<CheckedField> = [
  { name: "model", expected: "the name of a model", isValid: (value) => textOf(value) !== undefined },
  { name: "messages", expected: "a list", isValid: Array.isArray },
  {
    name: "system",
    expected: "a string or a list",
    isValid: (value) => value == null || typeof value === "string" || Array.isArray(value)
  },
  { name: "tools", expected: "a list", isValid: (value) => value == null || Array.isArray(value) }
]

const fields: ReadonlyArray<CheckedField> = [
  ...countFields,
  {
    name: "max_tokens",
    expected: "a whole number >= 0",
    isValid: (value) => Number.isInteger(value) && Number(value) >= 0
  }
]

/** Names a value without showing what it holds, which may be a prompt. */
const kindOf = (value: unknown): string => {
  if (value == null || typeof value === "number" || value === "") return value === "" ? '""' : String(value)
  if (Array.isArray(value)) return "a list"
  return typeof value === "object" ? "an object" : `a ${typeof value}`
}

/** The problem with the first field that cannot be read; undefined if all can be read. The provider judges the rest. */
export const problemOf = (params: unknown, { counts }: { readonly counts: boolean }): string | undefined => {
  if (!isRecord(params)) return `expected an object, got ${kindOf(params)}`
  for (const { expected, isValid, name } of counts ? countFields : fields) {
    if (!isValid(params[name])) return `${name}: expected ${expected}, got ${kindOf(params[name])}`
  }
  return undefined
}

/** The fields that a request to count tokens may have. Others are refused. */
const countedFields = [
  "model",
  "messages",
  "system",
  "tools",
  "tool_choice",
  "thinking",
  "cache_control",
  "output_config"
] as const

/** The request that counts the prompt of another. */
export const countRequestOf = <A extends object>(params: A): Pick<A, keyof A & (typeof countedFields)[number]> => {
  const fields = Object.entries(params).filter(([name]) => (countedFields as ReadonlyArray<string>).includes(name))
  return Object.fromEntries(fields) as Pick<A, keyof A & (typeof countedFields)[number]>
}

/** The meaning of one server-sent event. */
export type EventMeaning =
  | { readonly _tag: "Event"; readonly event: MessageEvent }
  | { readonly _tag: "Error"; readonly data: unknown }
  | { readonly _tag: "Malformed" }
  | { readonly _tag: "Ignored" }

/** The property that a delta of a known type must have. */
const deltaFields: Readonly<Record<string, string>> = {
  text_delta: "text",
  thinking_delta: "thinking",
  input_json_delta: "partial_json"
}

const isMalformed = (event: unknown): boolean => {
  if (at(event, "type") !== "content_block_delta") return false
  const type = at(event, "delta", "type")
  if (typeof type !== "string") return true
  const part = Object.hasOwn(deltaFields, type) ? deltaFields[type] : undefined
  return part !== undefined && typeof at(event, "delta", part) !== "string"
}

/**
 * Reads one server-sent event. Pings are ignored, and events of unknown types are passed on, as Anthropic asks of clients.
 */
export const readEvent = (sse: { readonly event: string | null; readonly data: string }): EventMeaning => {
  if (sse.event === "ping" || sse.data === "") return { _tag: "Ignored" }
  const data = parseJson(sse.data)
  const type = at(data, "type")
  if (sse.event === "error" || type === "error") return { _tag: "Error", data: data ?? sse.data }
  if (type === "ping") return { _tag: "Ignored" }
  if (typeof type !== "string" || isMalformed(data)) return { _tag: "Malformed" }
  // The type and the fields that are read were checked.
  return { _tag: "Event", event: data as MessageEvent }
}
