/**
 * Server-sent events, read from chunks of bytes as they arrive, wherever the chunks are cut.
 *
 * Only the lines of an event that is still incomplete are kept, and their length is bounded: the parser stops at a longer
 * one, and the bytes of the stream can still be passed on.
 *
 * Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
 */

/** A block of a stream that ended with a blank line. */
export interface SseEvent {
  /** The `event` field; undefined when the block has none. */
  readonly name: string | undefined
  /** The `data` fields, joined by line feeds; empty for a block without data, such as a comment. */
  readonly data: string
  /** Where the block ends in the chunk that completed it: the offset after its blank line. */
  readonly end: number
}

/** An incremental parser. It is mutable and belongs to one stream. */
export interface SseParser {
  /** The blocks that this chunk completes, in order. There are none after the parser has stopped. */
  readonly feed: (chunk: Uint8Array) => ReadonlyArray<SseEvent>
  /** The block that the end of the stream completes. The standard drops it, but clients read it. */
  readonly end: () => ReadonlyArray<SseEvent>
  /** Whether the parser has stopped, because a line or the data of an event was longer than it takes. */
  readonly hasStopped: () => boolean
}

/** Images are base64 in one line, and the last event of the Responses API repeats the whole answer. */
export const defaultMaxBytes = 16 * 1_024 * 1_024

const LF = 0x0a
const CR = 0x0d
const colon = 0x3a
const space = 0x20
const byteOrderMark = [0xef, 0xbb, 0xbf] as const

const bytesOf = (text: string): ReadonlyArray<number> => Array.from(text, (character) => character.charCodeAt(0))
const fields = { data: bytesOf("data"), event: bytesOf("event") }

const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

const startsWith = (line: Uint8Array, bytes: ReadonlyArray<number>): boolean =>
  line.length >= bytes.length && bytes.every((byte, index) => line[index] === byte)

/** The value of a field; undefined when the line is a comment or another field. */
const valueOf = (line: Uint8Array, field: ReadonlyArray<number>): string | undefined => {
  if (!startsWith(line, field)) return undefined
  if (line.length === field.length) return ""
  if (line[field.length] !== colon) return undefined
  const start = field.length + (line[field.length + 1] === space ? 2 : 1)
  return decoder.decode(line.subarray(start))
}

/** A line whose end has not arrived yet, in a buffer that grows by doubling. */
const makePending = () => {
  let buffer = new Uint8Array(0)
  let length = 0
  return {
    length: () => length,
    append: (bytes: Uint8Array): void => {
      if (length + bytes.length > buffer.length) {
        const larger = new Uint8Array(Math.max(256, 2 * buffer.length, length + bytes.length))
        larger.set(buffer.subarray(0, length))
        buffer = larger
      }
      buffer.set(bytes, length)
      length += bytes.length
    },
    take: (): Uint8Array => {
      const line = buffer.subarray(0, length)
      buffer = new Uint8Array(0)
      length = 0
      return line
    }
  }
}

/** Finds line ends in a chunk from left to right. Each byte is compared with LF and with CR once. */
const makeScanner = (chunk: Uint8Array) => {
  const find = (byte: number, from: number): number => {
    const index = chunk.indexOf(byte, from)
    return index < 0 ? chunk.length : index
  }
  let lf = -1
  let cr = -1
  /** The next line end at or after an offset; the length of the chunk when there is none. */
  return (from: number): number => {
    if (lf < from) lf = find(LF, from)
    if (cr < from) cr = find(CR, from)
    return Math.min(lf, cr)
  }
}

/** The fields of an event whose blank line has not arrived yet. */
const makeFields = (maxBytes: number) => {
  let name: string | undefined
  let data: string | undefined
  let dataBytes = 0
  const clear = (): void => {
    name = undefined
    data = undefined
    dataBytes = 0
  }
  return {
    clear,
    isEmpty: () => name === undefined && data === undefined,
    /** Takes in a line. Returns false if the data lines together are too long. */
    read: (line: Uint8Array): boolean => {
      const value = valueOf(line, fields.data)
      if (value === undefined) {
        name = valueOf(line, fields.event) ?? name
        return true
      }
      dataBytes += line.length
      if (dataBytes > maxBytes) return false
      data = data === undefined ? value : `${data}\n${value}`
      return true
    },
    take: (end: number): SseEvent => {
      const event = { name, data: data ?? "", end }
      clear()
      return event
    }
  }
}

/** Makes a parser for one stream. A line or an event longer than `maxBytes` (16 MiB by default) stops it. */
export const makeSseParser = ({ maxBytes = defaultMaxBytes }: { readonly maxBytes?: number } = {}): SseParser => {
  const pending = makePending()
  const event = makeFields(maxBytes)
  let hasStopped = false
  let isFirstLine = true
  /** Whether the last chunk ended with CR, so that an LF at the start of the next chunk belongs to it. */
  let endedWithCr = false

  const stop = (): "stopped" => {
    hasStopped = true
    pending.take()
    event.clear()
    return "stopped"
  }

  /** Reads a line that has ended. */
  const readLine = (bytes: Uint8Array): "blank" | "field" | "stopped" => {
    const line = isFirstLine && startsWith(bytes, byteOrderMark) ? bytes.subarray(byteOrderMark.length) : bytes
    isFirstLine = false
    if (line.length > maxBytes) return stop()
    if (line.length === 0) return "blank"
    return event.read(line) ? "field" : stop()
  }

  const lineOf = (piece: Uint8Array): Uint8Array => {
    if (pending.length() === 0) return piece
    pending.append(piece)
    return pending.take()
  }

  /** Keeps the part of a line that has arrived. */
  const keep = (piece: Uint8Array): void => {
    // The byte order mark is not part of the first line.
    if (pending.length() + piece.length > maxBytes + byteOrderMark.length) stop()
    else pending.append(piece)
  }

  const feed = (chunk: Uint8Array): ReadonlyArray<SseEvent> => {
    const events: Array<SseEvent> = []
    if (hasStopped || chunk.length === 0) return events
    const nextEnd = makeScanner(chunk)
    let start = endedWithCr && chunk[0] === LF ? 1 : 0
    endedWithCr = false
    while (start < chunk.length) {
      const end = nextEnd(start)
      const piece = chunk.subarray(start, end)
      if (end === chunk.length) {
        keep(piece)
        break
      }
      start = end + 1
      if (chunk[end] === CR && chunk[start] === LF) start++
      else endedWithCr = chunk[end] === CR && start === chunk.length
      const line = readLine(lineOf(piece))
      if (line === "stopped") break
      if (line === "blank") events.push(event.take(start))
    }
    return events
  }

  return {
    feed,
    end: () => {
      if (pending.length() > 0 && !hasStopped) readLine(pending.take())
      return event.isEmpty() ? [] : [event.take(0)]
    },
    hasStopped: () => hasStopped
  }
}

// -----------------------------------------------------------------------------
// Filters
// -----------------------------------------------------------------------------

/** Removes some events from the bytes of a stream. It is mutable and belongs to one stream. */
export interface SseFilter {
  /** The bytes to pass on after a chunk in which a parser found these events. They are views, not copies. */
  readonly push: (chunk: Uint8Array, events: ReadonlyArray<SseEvent>) => ReadonlyArray<Uint8Array>
  /** The bytes that are still held back at the end of the stream. */
  readonly end: () => ReadonlyArray<Uint8Array>
}

/** Events that are longer are passed on as they arrive. */
const defaultMaxHeldBytes = 64 * 1_024

/**
 * Makes a filter that drops the events for which `drops` holds, and passes on every other byte unchanged. An event is held
 * back until it is complete, but no more than `maxHeldBytes` (64 KiB by default) of it.
 */
export const makeSseFilter = (
  drops: (event: SseEvent) => boolean,
  { maxHeldBytes = defaultMaxHeldBytes }: { readonly maxHeldBytes?: number } = {}
): SseFilter => {
  let held: Array<Uint8Array> = []
  let heldBytes = 0
  /** Whether part of the current event was already passed on, so that the rest must follow. */
  let isOpen = false
  /** Whether an event that ended with CR at the end of its chunk was dropped: a following LF belongs to it. */
  let lastEvent: "passed" | "dropped" | undefined

  const hold = (piece: Uint8Array): void => {
    if (piece.length > 0) held.push(piece)
    heldBytes += piece.length
  }

  const release = (): Array<Uint8Array> => {
    const released = held
    held = []
    heldBytes = 0
    return released
  }

  /** The offset after an LF that still belongs to the last event. */
  const endOfLast = (chunk: Uint8Array): number => (lastEvent !== undefined && chunk[0] === LF ? 1 : 0)

  /** Whether a chunk consists of whole events, and nothing is left of an earlier one. Most chunks do. */
  const isOfWholeEvents = (chunk: Uint8Array, events: ReadonlyArray<SseEvent>): boolean =>
    !isOpen &&
    heldBytes === 0 &&
    lastEvent === undefined &&
    events.at(-1)?.end === chunk.length &&
    chunk[chunk.length - 1] === LF

  const push = (chunk: Uint8Array, events: ReadonlyArray<SseEvent>): ReadonlyArray<Uint8Array> => {
    if (chunk.length === 0) return []
    if (isOfWholeEvents(chunk, events) && !events.some(drops)) return [chunk]
    const passed: Array<Uint8Array> = []
    const pass = (start: number, end: number): void => {
      if (end > start) passed.push(chunk.subarray(start, end))
    }
    const passHeld = (): void => {
      for (const piece of release()) passed.push(piece)
    }
    /** The start of the current event, and of the bytes to be passed on. */
    let eventStart = endOfLast(chunk)
    let passFrom = lastEvent === "dropped" ? eventStart : 0
    lastEvent = undefined
    for (const event of events) {
      const dropped = !isOpen && drops(event)
      if (dropped) {
        release()
        pass(passFrom, eventStart)
        passFrom = event.end
      } else passHeld()
      if (event.end === chunk.length && chunk.at(-1) === CR) lastEvent = dropped ? "dropped" : "passed"
      eventStart = event.end
      isOpen = false
    }
    const rest = chunk.subarray(eventStart)
    isOpen ||= heldBytes + rest.length > maxHeldBytes
    if (isOpen) {
      passHeld()
      pass(passFrom, chunk.length)
    } else {
      pass(passFrom, eventStart)
      hold(rest)
    }
    return passed
  }

  return { push, end: release }
}
