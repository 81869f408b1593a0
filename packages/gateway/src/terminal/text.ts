/** Removes control characters from texts for terminals and files, and wraps them. Pure. */
import { displayWidth } from "effect/cli/CliOutput"

/** Control characters except tabs and line ends, and characters that change the direction of text. */
const unsafe = /[^\P{Cc}\n\t]|[\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069]/gu

/** Cleans a text from outside, such as a name or an answer, for a file. */
export const clean = (text: string): string => text.replaceAll("\r\n", "\n").replaceAll(unsafe, "\uFFFD")

/** Joins the lines of a text. */
export const unwrapped = (text: string): string => text.replaceAll(/\s*\n\s*/g, " ")

/** Cleans a text from outside, and makes it one line. */
export const oneLine = (text: string): string => clean(text).replaceAll(/[\n\t]/g, "\uFFFD")

/** Cleans a text for a terminal. The tool has one budget, so "the budget" replaces the name of its pool. */
export const printable = (text: string): string => clean(text).replaceAll('pool "default"', "the budget")

const escaped = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`

/** A value as JSON, in which unsafe characters are escaped. */
export const safeJson = (value: unknown, indent?: number): string =>
  JSON.stringify(value, undefined, indent).replaceAll(unsafe, escaped)

/** Cuts a line to a width, because a line that wraps cannot be redrawn in place. */
export const fit = (line: string, columns: number): string => {
  if (displayWidth(line) <= columns) return line
  let cut = ""
  for (const { segment } of new Intl.Segmenter().segment(line)) {
    if (displayWidth(cut + segment) >= columns) break
    cut += segment
  }
  return columns > 0 ? `${cut}…` : ""
}

/** Breaks a line between words. Lines after the first begin with the indent. A word longer than a line stays whole. */
export const wrapLine = (line: string, columns: number, indent: string): ReadonlyArray<string> => {
  if (displayWidth(line) <= columns) return [line]
  const lines: Array<string> = []
  let current = ""
  // Spaces within a line are kept, because they align the columns of a table.
  for (const [, space = "", word = ""] of line.matchAll(/(\s*)(\S+)/g)) {
    if (current !== "" && displayWidth(current + space + word) > columns) {
      lines.push(current)
      current = indent + word
    } else current += space + word
  }
  return [...lines, current]
}

/** The least room for a text beside the name that it explains. */
const minRoom = 20

/** Breaks a text that begins at a column into lines that begin at that column, or below it if there is too little room. */
export const hung = (text: string, start: number, columns: number): string => {
  const isBelow = columns - start < minRoom
  const margin = `\n${" ".repeat(isBelow ? 4 : start)}`
  return (isBelow ? margin : "") + wrapLine(text, columns - (isBelow ? 4 : start), "").join(margin)
}

/** Breaks the lines of a text that are longer than a terminal is wide. */
export const wrap = (text: string, columns: number): string =>
  columns === Infinity
    ? text
    : text
        .split("\n")
        .flatMap((line) => wrapLine(line, columns, /^\s*/.exec(line)![0]))
        .join("\n")

/** Rows as lines, every column as wide as its widest cell. */
export const aligned = (rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join("  ")
      .trimEnd()
  )
}
