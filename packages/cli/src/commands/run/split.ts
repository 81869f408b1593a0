/** Documents into chunks: one per agent, as equal in bytes as the lines allow. Pure. */
import * as Words from "../../words.ts"

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

/** What one agent reads. */
export interface Chunk {
  readonly pieces: ReadonlyArray<Piece>
  readonly bytes: number
}

/** Longer lines are cut, so that a file of one line can be shared, too. */
const longestLine = 4_000

interface Line {
  readonly path: string
  readonly number: number
  readonly text: string
  readonly bytes: number
}

/** Cuts a line into parts of `longestLine` characters, never between the halves of one character. */
const cut = (text: string): ReadonlyArray<string> => {
  const parts: Array<string> = []
  for (let at = 0; at < text.length;) {
    let end = Math.min(text.length, at + longestLine)
    if (end < text.length && /[\uD800-\uDBFF]/.test(text[end - 1]!)) end--
    parts.push(text.slice(at, end))
    at = end
  }
  return parts
}

const linesOf = ({ path, text }: Document): Array<Line> =>
  text
    .split(/(?<=\n)/)
    .flatMap((line, index) =>
      cut(line).map((part) => ({ path, number: index + 1, text: part, bytes: Buffer.byteLength(part) }))
    )

const chunkOf = (lines: ReadonlyArray<Line>): Chunk => {
  const pieces: Array<{ path: string; from: number; to: number; text: string }> = []
  for (const { number, path, text } of lines) {
    const last = pieces.at(-1)
    if (last?.path === path) {
      last.text += text
      last.to = number
    } else {
      pieces.push({ path, from: number, to: number, text })
    }
  }
  return { pieces, bytes: lines.reduce((sum, { bytes }) => sum + bytes, 0) }
}

/**
 * Splits documents, in their order, into at most `count` chunks of about equal size. Fewer when there are fewer lines; a
 * chunk is never empty. Nothing is lost and nothing is repeated.
 */
export const split = (documents: ReadonlyArray<Document>, count: number): ReadonlyArray<Chunk> => {
  const lines = documents.flatMap(linesOf)
  const total = lines.reduce((sum, { bytes }) => sum + bytes, 0)
  const groups: Array<Array<Line>> = []
  let before = 0
  let current = -1
  for (const line of lines) {
    // The chunk in which the middle of the line falls.
    const wanted = Math.floor(((before + line.bytes / 2) / total) * count)
    if (wanted > current) groups.push([])
    current = Math.max(current, wanted)
    groups.at(-1)!.push(line)
    before += line.bytes
  }
  return groups.map(chunkOf)
}

/** A chunk as a prompt shows it: every piece under the name of its file. */
export const textOf = ({ pieces }: Chunk): string =>
  pieces
    .map(({ from, path, text, to }) => `<document path="${path}" lines="${from}-${to}">\n${text}\n</document>`)
    .join("\n\n")

/** What a chunk holds, in a few words. */
export const describe = ({ bytes, pieces }: Chunk): string => {
  const files = new Set(pieces.map(({ path }) => path)).size
  const kilobytes = bytes < 10_240 ? (bytes / 1_024).toFixed(1) : Math.round(bytes / 1_024).toString()
  return `${Words.counted(files, "file")}, ${kilobytes} KB`
}
