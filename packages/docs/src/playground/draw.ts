/** Draws a run up to a time: one row for each agent, and one colour for each kind of bar. */
import type { Timeline } from "./timeline.ts"

/** The used part of a canvas, so that drawing needs no types of the DOM. */
export interface Surface {
  width: number
  height: number
  readonly clientWidth: number
  readonly style: { height: string }
  getContext(kind: "2d"): Pen | null
}

interface Pen {
  fillStyle: unknown
  clearRect(x: number, y: number, width: number, height: number): void
  fillRect(x: number, y: number, width: number, height: number): void
  setTransform(a: number, b: number, c: number, d: number, e: number, f: number): void
}

/** The same colours in both themes: each has enough contrast on white and on black. */
export const colours = {
  waiting: "#9aa4b280",
  answered: "#1a9e63",
  rejected: "#e5484d",
  failed: "#d97706",
  lost: "#e5484d40"
} as const

/** Rows are as high as fits: 100 agents are 300 pixels. */
const rowHeight = (rows: number): number => Math.max(3, Math.min(14, Math.floor(300 / Math.max(1, rows))))

/** Draws what has happened up to `now`, when the width stands for `end` milliseconds. */
export const draw = (canvas: Surface, { rows }: Timeline, now: number, end: number): void => {
  const pen = canvas.getContext("2d")
  if (pen === null) return
  const ratio = (globalThis as { readonly devicePixelRatio?: number }).devicePixelRatio ?? 1
  const height = rowHeight(rows.length)
  const width = canvas.clientWidth
  const total = rows.length * height
  const pixels = [Math.round(width * ratio), Math.round(total * ratio)] as const
  if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) {
    ;[canvas.width, canvas.height] = pixels
    canvas.style.height = `${total}px`
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0)
  pen.clearRect(0, 0, width, total)
  const x = (millis: number): number => (Math.min(millis, now) / end) * width
  const gap = height > 4 ? 1 : 0
  rows.forEach(({ bars, lostAt }, row) => {
    const y = row * height
    const fill = (colour: string, from: number, to: number, min: number): void => {
      pen.fillStyle = colour
      pen.fillRect(x(from), y, Math.max(min, x(to) - x(from)), height - gap)
    }
    for (const { from, kind, to } of bars) if (from <= now) fill(colours[kind], from, to, kind === "waiting" ? 0 : 1.5)
    if (lostAt !== undefined && lostAt <= now) fill(colours.lost, lostAt, end, 0)
  })
}
