/**
 * Requests usage in streams of Chat Completions for callers that did not, and recognises the chunk that is hidden from them.
 *
 * Only `stream_options` is changed: a body that went through a JSON parser would lose large integers and the notation of its
 * numbers. Source: https://developers.openai.com/api/reference/resources/chat, `stream_options.include_usage`.
 */
import { at, insertInto, isRecord, parseJson } from "./json.ts"
import type { SseEvent } from "./sse.ts"

const isSpace = (code: number): boolean => code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09
const quote = 0x22
const backslash = 0x5c

/** The offset after the string that begins at `start`. */
const afterString = (text: string, start: number): number => {
  let index = start + 1
  while (index < text.length && text.charCodeAt(index) !== quote) {
    index += text.charCodeAt(index) === backslash ? 2 : 1
  }
  return index + 1
}

const skipSpace = (text: string, start: number): number => {
  let index = start
  while (isSpace(text.charCodeAt(index))) index++
  return index
}

/** The offset after the value that begins at `start`, in JSON that is known to be valid. */
const afterValue = (text: string, start: number): number => {
  let depth = 0
  let index = start
  while (index < text.length) {
    const character = text[index]
    if (character === '"') {
      index = afterString(text, index)
      if (depth === 0) return index
      continue
    }
    if (depth === 0 && (character === "," || character === "}")) return index
    if (character === "{" || character === "[") depth++
    if ((character === "}" || character === "]") && --depth === 0) return index + 1
    index++
  }
  return index
}

/** The position of a property's value in the text of a JSON object. If it is repeated, the last value counts, as in every parser. */
const valueSpan = (text: string, name: string): readonly [start: number, end: number] | undefined => {
  let found: readonly [number, number] | undefined
  let index = skipSpace(text, text.indexOf("{") + 1)
  while (text[index] === '"') {
    const keyEnd = afterString(text, index)
    const start = skipSpace(text, skipSpace(text, keyEnd) + 1)
    const end = afterValue(text, start)
    if (parseJson(text.slice(index, keyEnd)) === name) found = [start, start + text.slice(start, end).trimEnd().length]
    const next = skipSpace(text, end)
    index = text[next] === "," ? skipSpace(text, next + 1) : text.length
  }
  return found
}

/** The text that requests usage after the first brace of a body; undefined if the body has its own `stream_options`. */
export const usageInsertion = (parsed: object): string | undefined => {
  if (Object.hasOwn(parsed, "stream_options")) return undefined
  return `"stream_options":{"include_usage":true}${Object.keys(parsed).length === 0 ? "" : ","}`
}

/**
 * Adds `stream_options.include_usage` to the body of a request, which otherwise keeps its bytes. A body that is not a JSON object
 * is returned unchanged.
 */
export const injectUsageRequest = (body: string): string => {
  const parsed = parseJson(body)
  if (!isRecord(parsed)) return body
  const insertion = usageInsertion(parsed)
  if (insertion !== undefined) return insertInto(body, insertion)
  const options = parsed["stream_options"]
  const requested = JSON.stringify({ ...(isRecord(options) ? options : {}), include_usage: true })
  const [start, end] = valueSpan(body, "stream_options")!
  return body.slice(0, start) + requested + body.slice(end)
}

/** Whether an event is the additional chunk, which has usage and no choices. Azure's first chunk has no choices either. */
export const isUsageChunk = ({ data }: Pick<SseEvent, "data">): boolean => {
  // Every chunk has a `usage`, which is null in all others. Most chunks are excluded without parsing them.
  if (!/"choices"\s*:\s*\[\s*\]/.test(data)) return false
  const chunk = parseJson(data)
  const choices = at(chunk, "choices")
  return Array.isArray(choices) && choices.length === 0 && isRecord(at(chunk, "usage"))
}
