/** Reads streams as the governed fetch does: from bytes to events to an answer. */
import type { Answer, Protocol } from "floodgate/protocol"
import { makeSseParser, type SseEvent } from "../../src/protocol/sse.ts"
import { emptyAnswer } from "../../src/protocol/protocol.ts"

const encoder = new TextEncoder()

export const bytesOf = (text: string): Uint8Array => encoder.encode(text)

/** The bytes in pieces that end at these offsets, and the rest. */
export const piecesOf = (bytes: Uint8Array, cuts: ReadonlyArray<number>): ReadonlyArray<Uint8Array> => {
  const ends = [...cuts, bytes.length]
  return ends.map((end, index) => bytes.subarray(index === 0 ? 0 : ends[index - 1], end))
}

/** Pieces of one byte each. */
export const singly = (bytes: Uint8Array): ReadonlyArray<Uint8Array> =>
  Array.from(bytes, (_, index) => bytes.subarray(index, index + 1))

/** Pieces of random lengths, from random numbers in [0, 1). */
export const randomPieces = (bytes: Uint8Array, random: () => number): ReadonlyArray<Uint8Array> => {
  const pieces: Array<Uint8Array> = []
  for (let start = 0; start < bytes.length;) {
    const end = start + Math.floor(random() ** 3 * 200)
    pieces.push(bytes.subarray(start, end))
    start = end
  }
  return pieces
}

export const eventsOf = (
  pieces: ReadonlyArray<Uint8Array>,
  options?: { readonly maxBytes?: number }
): ReadonlyArray<Omit<SseEvent, "end">> => {
  const parser = makeSseParser(options)
  return [...pieces.flatMap((piece) => parser.feed(piece)), ...parser.end()].map(({ data, name }) => ({ name, data }))
}

export const answerOf = (protocol: Protocol, pieces: ReadonlyArray<Uint8Array>): Answer =>
  eventsOf(pieces).reduce(protocol.observe, emptyAnswer)

export const answerOfText = (protocol: Protocol, text: string): Answer => answerOf(protocol, [bytesOf(text)])
