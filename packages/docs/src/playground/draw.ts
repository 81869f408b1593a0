/** Draws a run as one path for each kind of bar, with a row for each agent. Pure, so that the first picture is in the page. */
import { round } from "../../../../src/domain/words.ts"
import type { Timeline } from "./timeline.ts"

/** The same colours in both themes: each has enough contrast on white and on black. */
export const colours = {
  waiting: "#9aa4b280",
  answered: "#1a9e63",
  rejected: "#e5484d",
  failed: "#d97706",
  lost: "#e5484d40"
} as const

/** The drawing is this wide, and stretched to the width of the page. */
export const width = 1_000

/** The height of a row in the drawing, a tenth of which stays free below its bars. */
const rowHeight = 10

/** A run as a drawing, whose full width stands for `end` milliseconds. */
export interface Drawing {
  readonly viewBox: string
  /** The height on the page, in pixels. 12 agents take 168 and 100 agents take 300. */
  readonly pixels: number
  readonly paths: ReadonlyArray<{ readonly kind: keyof typeof colours; readonly d: string }>
}

/** Draws a run. Requests that take no time are drawn at a width that can be seen. */
export const drawingOf = ({ rows }: Timeline, end: number): Drawing => {
  const paths: Record<keyof typeof colours, string> = { waiting: "", lost: "", answered: "", rejected: "", failed: "" }
  rows.forEach(({ bars, lostAt }, row) => {
    const add = (kind: keyof typeof colours, from: number, to: number, min: number): void => {
      const x = round((from / end) * width, 1)
      const length = round(Math.max(min, (to / end) * width - x), 1)
      if (length > 0) paths[kind] += `M${x} ${row * rowHeight}h${length}v${rowHeight - 1}h${-length}z`
    }
    for (const { from, kind, to } of bars) add(kind, from, to, kind === "waiting" ? 0 : 2)
    if (lostAt !== undefined) add("lost", lostAt, end, 0)
  })
  return {
    viewBox: `0 0 ${width} ${Math.max(1, rows.length) * rowHeight}`,
    pixels: rows.length * Math.max(3, Math.min(14, Math.floor(300 / Math.max(1, rows.length)))),
    paths: (Object.keys(paths) as Array<keyof typeof colours>).map((kind) => ({ kind, d: paths[kind] }))
  }
}
