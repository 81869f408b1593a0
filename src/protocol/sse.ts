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

/** Whether a range of bytes begins with these bytes. */
const startsWith = (bytes: Uint8Array, from: number, to: number, start: ReadonlyArray<number>): boolean => {
  if (to - from < start.length) return false
  for (let index = 0; index < start.length; index++) if (bytes[from + index] !== start[index]) return false
  return true
}

/** Finds where the value of a field begins in a line; -1 if the line is a comment or another field. */
const valueStart = (bytes: Uint8Array, from: number, to: number, field: ReadonlyArray<number>): number => {
  if (!startsWith(bytes, from, to, field)) return -1
  const end = from + field.length
  if (end === to) return to
  if (bytes[end] !== colon) return -1
  return end + 1 < to && bytes[end + 1] === space ? end + 2 : end + 1
}

/** A line whose end has not arrived yet, in a buffer that grows by doubling. */
class PartialLine {
  length = 0
  private buffer = new Uint8Array(0)

  append(bytes: Uint8Array): void {
    const { buffer, length } = this
    const needed = length + bytes.length
    if (needed > buffer.length) {
      this.buffer = new Uint8Array(Math.max(256, 2 * buffer.length, needed))
      this.buffer.set(buffer.subarray(0, length))
    }
    this.buffer.set(bytes, length)
    this.length = needed
  }

  take(): Uint8Array {
    const line = this.buffer.subarray(0, this.length)
    this.buffer = new Uint8Array(0)
    this.length = 0
    return line
  }
}

/** Finds line ends in a chunk from left to right. Each byte is compared with LF and with CR once. */
class LineEnds {
  private readonly chunk: Uint8Array
  private lf = -1
  private cr = -1

  constructor(chunk: Uint8Array) {
    this.chunk = chunk
  }

  /** The next line end at or after an offset; the length of the chunk when there is none. */
  next(from: number): number {
    if (this.lf < from) this.lf = this.find(LF, from)
    if (this.cr < from) this.cr = this.find(CR, from)
    return Math.min(this.lf, this.cr)
  }

  private find(byte: number, from: number): number {
    const index = this.chunk.indexOf(byte, from)
    return index < 0 ? this.chunk.length : index
  }
}

class Parser implements SseParser {
  private readonly maxBytes: number
  private readonly pending = new PartialLine()
  private isStopped = false
  private isFirstLine = true
  /** Whether the last chunk ended with CR, so that an LF at the start of the next chunk belongs to it. */
  private endedWithCr = false
  /** The chunk that is read, decoded as a whole: one call of the decoder costs as much as reading an event. */
  private text: string | undefined = undefined
  /** Whether all characters so far had one byte, so that offsets in a chunk are those in its text. */
  private isPlain = true

  // The fields of an event whose blank line has not arrived yet.
  private name: string | undefined = undefined
  private data: string | undefined = undefined
  private dataBytes = 0

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes
  }

  readonly feed = (chunk: Uint8Array): ReadonlyArray<SseEvent> => {
    const events: Array<SseEvent> = []
    if (this.isStopped || chunk.length === 0) return events
    const ends = new LineEnds(chunk)
    let start = this.endedWithCr && chunk[0] === LF ? 1 : 0
    this.endedWithCr = false
    this.text = undefined
    while (start < chunk.length && !this.isStopped) {
      const from = start
      const end = ends.next(from)
      if (end === chunk.length) {
        this.keep(chunk.subarray(from))
        break
      }
      start = end + 1
      if (chunk[end] === CR && chunk[start] === LF) start++
      else this.endedWithCr = chunk[end] === CR && start === chunk.length
      if (this.endsEvent(chunk, from, end)) events.push(this.take(start))
    }
    return events
  }

  readonly end = (): ReadonlyArray<SseEvent> => {
    if (this.pending.length > 0 && !this.isStopped) this.readPending()
    return this.name === undefined && this.data === undefined ? [] : [this.take(0)]
  }

  readonly hasStopped = (): boolean => this.isStopped

  private stop(): void {
    this.isStopped = true
    this.pending.take()
    this.take(0)
  }

  private take(end: number): SseEvent {
    const event = { name: this.name, data: this.data ?? "", end }
    this.name = undefined
    this.data = undefined
    this.dataBytes = 0
    return event
  }

  /** Keeps the part of a line that has arrived. */
  private keep(piece: Uint8Array): void {
    // The byte order mark is not part of the first line.
    if (this.pending.length + piece.length > this.maxBytes + byteOrderMark.length) this.stop()
    else this.pending.append(piece)
  }

  /** Reads a line that has ended within a chunk. Returns whether it is blank. */
  private endsEvent(chunk: Uint8Array, from: number, to: number): boolean {
    if (this.pending.length === 0) return this.readLine(chunk, from, to, true)
    this.pending.append(chunk.subarray(from, to))
    return this.readPending()
  }

  private readPending(): boolean {
    const line = this.pending.take()
    return this.readLine(line, 0, line.length, false)
  }

  private readLine(bytes: Uint8Array, start: number, to: number, isInChunk: boolean): boolean {
    const from = this.isFirstLine && startsWith(bytes, start, to, byteOrderMark) ? start + byteOrderMark.length : start
    this.isFirstLine = false
    if (from === to) return true
    if (to - from > this.maxBytes) this.stop()
    else this.readField(bytes, from, to, isInChunk)
    return false
  }

  private readField(bytes: Uint8Array, from: number, to: number, isInChunk: boolean): void {
    const value = valueStart(bytes, from, to, fields.data)
    if (value < 0) {
      const name = valueStart(bytes, from, to, fields.event)
      if (name >= 0) this.name = this.decode(bytes, name, to, isInChunk)
      return
    }
    this.dataBytes += to - from
    if (this.dataBytes > this.maxBytes) return this.stop()
    const text = this.decode(bytes, value, to, isInChunk)
    this.data = this.data === undefined ? text : `${this.data}\n${text}`
  }

  private decode(bytes: Uint8Array, from: number, to: number, isInChunk: boolean): string {
    if (isInChunk && this.isPlain) {
      this.text ??= decoder.decode(bytes)
      this.isPlain = this.text.length === bytes.length
      if (this.isPlain) return this.text.slice(from, to)
    }
    return decoder.decode(bytes.subarray(from, to))
  }
}

/** Makes a parser for one stream. A line or an event longer than `maxBytes` (16 MiB by default) stops it. */
export const makeSseParser = ({ maxBytes = defaultMaxBytes }: { readonly maxBytes?: number } = {}): SseParser =>
  new Parser(maxBytes)

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
