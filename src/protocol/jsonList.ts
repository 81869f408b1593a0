/**
 * Events that come as one JSON list of objects, or as objects on lines of their own, read from chunks of bytes as they arrive,
 * wherever the chunks are cut. Gemini streams a list to clients that do not request server-sent events, and Ollama streams lines.
 */
import { defaultMaxBytes, type SseEvent, type SseParser } from "./sse.ts"

const quote = 0x22
const backslash = 0x5c
const opening = { object: 0x7b, list: 0x5b }
const closing = { object: 0x7d, list: 0x5d }

/**
 * Makes a parser for one list. Each object in it is an event, with its text as the data; anything between them is skipped. An
 * object longer than `maxBytes` (16 MiB by default) stops it.
 */
export const makeJsonListParser = ({ maxBytes = defaultMaxBytes }: { readonly maxBytes?: number } = {}): SseParser => {
  // Objects begin and end with ASCII characters, so no character is split there.
  const decoder = new TextDecoder()
  let hasStopped = false
  /** The incomplete object, and the number of open objects and lists in it. */
  let text = ""
  let bytes = 0
  let depth = 0
  let isInString = false
  let isEscaped = false

  /** Takes in one byte. Returns whether it ends an object of the list. */
  const ends = (byte: number): boolean => {
    if (isInString) {
      if (isEscaped) isEscaped = false
      else if (byte === backslash) isEscaped = true
      else isInString = byte !== quote
      return false
    }
    if (byte === quote) isInString = true
    else if (byte === opening.object || (byte === opening.list && depth > 0)) depth++
    else if ((byte === closing.object || byte === closing.list) && depth > 0) return --depth === 0
    return false
  }

  /** Keeps the part of an object that has arrived. */
  const keep = (piece: Uint8Array): void => {
    bytes += piece.length
    if (bytes > maxBytes) hasStopped = true
    else text += decoder.decode(piece, { stream: true })
  }

  const complete = (end: number): SseEvent => {
    const event = { name: undefined, data: text, end }
    text = ""
    bytes = 0
    return event
  }

  return {
    feed: (chunk) => {
      const events: Array<SseEvent> = []
      if (hasStopped) return events
      let start = 0
      for (let index = 0; index < chunk.length; index++) {
        const wasOutside = depth === 0
        const isEnd = ends(chunk[index]!)
        if (wasOutside && depth > 0) start = index
        if (!isEnd) continue
        keep(chunk.subarray(start, index + 1))
        if (hasStopped) return events
        events.push(complete(index + 1))
      }
      if (depth > 0) keep(chunk.subarray(start))
      return events
    },
    // An incomplete object is not an event.
    end: () => [],
    hasStopped: () => hasStopped
  }
}
