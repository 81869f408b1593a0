/** Splits documents into one chunk per agent, as equal in bytes as their lines allow. Pure. */
import type { Stepwise } from "floodgate/internal"
import * as Words from "floodgate/internal/words"

/** A text file. */
export interface Document {
  readonly path: string
  readonly text: string
}

/** A part of a document, with the lines that it comes from, counted from 1. */
export interface Piece {
  readonly path: string
  readonly from: number
  readonly to: number
  readonly text: string
}

/** The part of the documents that one agent reads. */
export interface Chunk {
  readonly pieces: ReadonlyArray<Piece>
  readonly bytes: number
}

/** Longer lines are cut, so that a file with a single line can also be split. */
const maxLineLength = 4_000

/** A line, or a part of a long one, by its position in its document. */
interface TextLine {
  readonly number: number
  readonly from: number
  readonly to: number
}

/** The end of the line, or of the part of a long line, that begins at `from`. It never splits a surrogate pair. */
const endOf = (text: string, from: number, end: number): number => {
  const limit = from + maxLineLength
  if (end <= limit) return end
  return /[\uD800-\uDBFF]/.test(text[limit - 1]!) ? limit - 1 : limit
}

function* linesOf({ text }: Document): Generator<TextLine> {
  let number = 1
  for (let from = 0; from < text.length;) {
    const newline = text.indexOf("\n", from)
    const end = newline === -1 ? text.length : newline + 1
    while (from < end) {
      const to = endOf(text, from, end)
      yield { number, from, to }
      from = to
    }
    number++
  }
}

/** The number of lines in one step, which takes a millisecond or two. */
const atOnce = 10_000

/** A piece that grows line by line. */
interface Growing {
  readonly document: Document
  readonly first: TextLine
  last: TextLine
}

const pieceOf = ({ document, first, last }: Growing): Piece => ({
  path: document.path,
  from: first.number,
  to: last.number,
  text: document.text.slice(first.from, last.to)
})

/**
 * Splits documents, in their order, into `count` chunks of about equal size, or into one for each line if there are fewer lines. No
 * chunk is empty, and every line is in exactly one chunk. It works in steps, because large documents take seconds.
 */
export function* splitSteps(
  documents: ReadonlyArray<Document>,
  count: number
): Stepwise.Stepwise<ReadonlyArray<Chunk>> {
  let left = 0
  let total = 0
  for (const document of documents) {
    total += Buffer.byteLength(document.text)
    for (const _ of linesOf(document)) if (++left % atOnce === 0) yield
  }
  const chunks: Array<{ readonly pieces: Array<Growing>; bytes: number }> = []
  let before = 0
  for (const document of documents) {
    for (const line of linesOf(document)) {
      const bytes = Buffer.byteLength(document.text.slice(line.from, line.to))
      // The chunk that contains the middle of the line, except that no chunk is skipped and each later chunk keeps a line.
      const wanted = Math.floor(((before + bytes / 2) / total) * count)
      const isNext = wanted >= chunks.length || count - chunks.length >= left
      if (chunks.length === 0 || (isNext && chunks.length < count)) chunks.push({ pieces: [], bytes: 0 })
      const chunk = chunks.at(-1)!
      const piece = chunk.pieces.at(-1)
      if (piece?.document === document) piece.last = line
      else chunk.pieces.push({ document, first: line, last: line })
      chunk.bytes += bytes
      before += bytes
      if (--left % atOnce === 0) yield
    }
  }
  return chunks.map(({ bytes, pieces }) => ({ bytes, pieces: pieces.map(pieceOf) }))
}

/** The text of a chunk in a prompt: every piece under the name of its file. */
export const textOf = ({ pieces }: Chunk): string =>
  pieces
    .map(({ from, path, text, to }) => `<document path="${path}" lines="${from}-${to}">\n${text}\n</document>`)
    .join("\n\n")

/** The content of a chunk in a few words. */
export const describe = ({ bytes, pieces }: Chunk): string => {
  const files = new Set(pieces.map(({ path }) => path)).size
  const kilobytes = bytes < 10_240 ? (bytes / 1_024).toFixed(1) : Math.round(bytes / 1_024).toString()
  return `${Words.counted(files, "file")}, ${kilobytes} KB`
}
