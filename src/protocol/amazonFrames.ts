/**
 * Amazon's binary event stream (`application/vnd.amazon.eventstream`), read from chunks of bytes as they arrive, wherever the chunks
 * are cut. Bedrock streams it.
 *
 * A frame has the length of the whole, the length of its headers, a checksum of both, the headers, the payload, and a checksum of
 * the whole. The checksums are left to the client.
 *
 * Source: https://smithy.io/2.0/aws/amazon-eventstream.html
 */
import { at, textOf } from "./json.ts"
import { defaultMaxBytes, type SseEvent, type SseParser } from "./sse.ts"

const preludeBytes = 12
const checksumBytes = 4
/** A frame without headers and payload. */
const shortest = preludeBytes + checksumBytes

/** The bytes of the value of a header, by its type. The length of bytes (6) and of text (7) is written before them. */
const sizes: ReadonlyArray<number> = [0, 0, 1, 2, 4, 8, -1, -1, 8, 16]
const textType = 7

const decoder = new TextDecoder()

/** The headers of a frame that are texts; undefined if they are malformed. */
const headersOf = (bytes: Uint8Array): ReadonlyMap<string, string> | undefined => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const headers = new Map<string, string>()
  for (let at = 0; at < bytes.length;) {
    const nameEnd = at + 1 + bytes[at]!
    const size = sizes[bytes[nameEnd] ?? sizes.length]
    if (size === undefined || (size < 0 && nameEnd + 3 > bytes.length)) return undefined
    const start = size < 0 ? nameEnd + 3 : nameEnd + 1
    const end = start + (size < 0 ? view.getUint16(nameEnd + 1) : size)
    if (end > bytes.length) return undefined
    if (bytes[nameEnd] === textType) {
      headers.set(decoder.decode(bytes.subarray(at + 1, nameEnd)), decoder.decode(bytes.subarray(start, end)))
    }
    at = end
  }
  return headers
}

/**
 * A frame as an event: named by its type, or by that of its exception, with the payload as its data. An error without a payload has
 * its message in a header. Undefined if the frame is malformed.
 */
const eventOf = (frame: Uint8Array, headersEnd: number, end: number): SseEvent | undefined => {
  const headers = headersOf(frame.subarray(preludeBytes, headersEnd))
  if (headers === undefined) return undefined
  const code = headers.get(":error-code")
  const name = headers.get(":exception-type") ?? code ?? headers.get(":event-type")
  const payload = decoder.decode(frame.subarray(headersEnd, frame.length - checksumBytes))
  const data = code === undefined ? payload : JSON.stringify({ message: headers.get(":error-message") ?? payload })
  return { name, data, end }
}

/** The pieces of a frame that is still incomplete, which are joined once it is complete. */
class PartialFrame {
  private pieces: Array<Uint8Array> = []
  length = 0

  add(piece: Uint8Array): void {
    if (piece.length === 0) return
    this.pieces.push(piece)
    this.length += piece.length
  }

  take(): Uint8Array {
    const all = new Uint8Array(this.length)
    let at = 0
    for (const piece of this.pieces) {
      all.set(piece, at)
      at += piece.length
    }
    this.pieces = []
    this.length = 0
    return all
  }
}

/** Makes a parser for one stream. A malformed frame, or one longer than `maxBytes` (16 MiB by default), stops it. */
export const makeFrameParser = ({ maxBytes = defaultMaxBytes }: { readonly maxBytes?: number } = {}): SseParser => {
  const partial = new PartialFrame()
  /** The length of the incomplete frame; 0 until its prelude has arrived. */
  let length = 0
  let headersEnd = 0
  let hasStopped = false

  /** Reads the lengths in a prelude. */
  const begin = (prelude: Uint8Array): void => {
    const view = new DataView(prelude.buffer, prelude.byteOffset, prelude.byteLength)
    length = view.getUint32(0)
    headersEnd = preludeBytes + view.getUint32(4)
    hasStopped = length < shortest || length > maxBytes || headersEnd > length - checksumBytes
  }

  return {
    feed: (chunk) => {
      const events: Array<SseEvent> = []
      let at = 0
      while (!hasStopped && at < chunk.length) {
        const needed = (length === 0 ? preludeBytes : length) - partial.length
        partial.add(chunk.subarray(at, at + needed))
        at += Math.min(needed, chunk.length - at)
        if (partial.length < preludeBytes || partial.length < length) continue
        const bytes = partial.take()
        if (length === 0) {
          begin(bytes)
          partial.add(bytes)
          continue
        }
        const event = eventOf(bytes, headersEnd, at)
        length = 0
        if (event === undefined) hasStopped = true
        else events.push(event)
      }
      return events
    },
    // An incomplete frame is not an event.
    end: () => [],
    hasStopped: () => hasStopped
  }
}

/** Whether a frame reports that the stream has failed, by its name. */
export const isException = (name: string | undefined): boolean => /(?:Exception|Error)$/.test(name ?? "")

/** The body of an error that a frame reports. */
export const exceptionOf = (name: string | undefined, event: unknown): unknown => ({
  error: { type: name, message: textOf(at(event, "message")) }
})
