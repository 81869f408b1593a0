/** Two runs as an animated SVG, which shows their end where motion is unwanted. Pure. */
import * as Words from "../../../../src/domain/words.ts"
import { escapeHtml } from "../../../lab/src/report/escape.ts"
import { colours } from "./draw.ts"
import { countsAt, type Timeline } from "./timeline.ts"

/** A run with its heading. */
export interface Lane {
  readonly title: string
  readonly timeline: Timeline
}

const themes = {
  light: { text: "#1f2328", quiet: "#59636e", back: "#f6f8fa" },
  dark: { text: "#f0f6fc", quiet: "#9198a1", back: "#151b23" }
} as const

const width = 840
const rowHeight = 9
const titleHeight = 24
const gap = 14
/** The runs take this long, and their end is shown for the rest of the period. */
const seconds = 9
const period = 13
/** How often the counts may change. */
const steps = 45

const fixed = (value: number): string => `${Words.round(value, 2)}`

const countsText = (timeline: Timeline, millis: number): string => {
  const { answered, lost, rejected } = countsAt(timeline, millis)
  const ended = millis < timeline.endMillis ? "" : `, after ${Words.seconds(timeline.endMillis / 1_000)}`
  return `${answered} of ${timeline.calls} answered, ${rejected} × 429, ${Math.round(lost)} lost${ended}`
}

/** The texts of the counts, each with its part of the period, from 0 to 1. */
const countsOf = (timeline: Timeline, end: number) => {
  const shown: Array<{ readonly text: string; readonly from: number; to: number }> = []
  for (let step = 0; step <= steps; step++) {
    const text = countsText(timeline, (end * step) / steps)
    const from = (step / steps) * (seconds / period)
    const last = shown.at(-1)
    if (last?.text === text) continue
    if (last !== undefined) last.to = from
    shown.push({ text, from, to: 1 })
  }
  return shown
}

/** A text that is visible during its part of the period. The last one is visible without animation, too. */
const countsSvg = (lane: number, timeline: Timeline, end: number, y: number): string =>
  countsOf(timeline, end)
    .map(({ from, text, to }, index) => {
      const name = `count${lane}-${index}`
      const percent = (part: number): string => `${fixed(part * 100)}%`
      const rest = to === 1 ? "" : `${percent(to)}{visibility:hidden}`
      const frames = `@keyframes ${name}{0%{visibility:hidden}${percent(from)}{visibility:visible}${rest}}`
      return `<style>${frames}</style><text class="${to === 1 ? "last" : "step"}" style="animation-name:${name}" x="${width}" y="${y}" text-anchor="end">${escapeHtml(text)}</text>`
    })
    .join("\n")

const barsSvg = ({ rows }: Timeline, end: number, top: number): string => {
  const x = (millis: number): number => (millis / end) * width
  return rows
    .flatMap(({ bars, lostAt }, row) => {
      const y = top + row * rowHeight
      const bar = (colour: string, from: number, to: number, min: number): string =>
        `<rect x="${fixed(x(from))}" y="${y}" width="${fixed(Math.max(min, x(to) - x(from)))}" height="${rowHeight - 1}" fill="${colour}"/>`
      return [
        ...bars.map(({ from, kind, to }) => bar(colours[kind], from, to, kind === "waiting" ? 0 : 2)),
        ...(lostAt === undefined ? [] : [bar(colours.lost, lostAt, end, 0)])
      ]
    })
    .join("\n")
}

/** The runs one above the other, on one scale of time. */
export const animationOf = (lanes: ReadonlyArray<Lane>, theme: keyof typeof themes): string => {
  const { back, quiet, text } = themes[theme]
  const end = Math.max(...lanes.map(({ timeline }) => timeline.endMillis))
  let y = 0
  const parts = lanes.map(({ timeline, title }, lane) => {
    const top = y + titleHeight
    const height = timeline.rows.length * rowHeight
    y = top + height + gap
    return [
      `<text x="0" y="${top - 8}" font-weight="600">${escapeHtml(title)}</text>`,
      countsSvg(lane, timeline, end, top - 8),
      `<rect x="0" y="${top}" width="${width}" height="${height}" fill="${back}"/>`,
      `<clipPath id="until${lane}"><rect class="sweep" x="0" y="${top}" width="${width}" height="${height}"/></clipPath>`,
      `<g clip-path="url(#until${lane})">\n${barsSvg(timeline, end, top)}\n</g>`
    ].join("\n")
  })
  const key = [
    ["waits", colours.waiting],
    ["answered", colours.answered],
    ["429", colours.rejected],
    ["work lost", colours.lost]
  ] as const
  const legend = key.map(
    ([name, colour], index) =>
      `<rect x="${index * 90}" y="${y + 1}" width="9" height="9" fill="${colour}"/><text x="${index * 90 + 14}" y="${y + 10}" fill="${quiet}">${name}</text>`
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y + 16}" width="${width}" height="${y + 16}" font-family="system-ui, sans-serif" font-size="13" fill="${text}">
<style>
.sweep{transform-origin:0 0;animation:sweep ${period}s linear infinite}
@keyframes sweep{0%{transform:scaleX(0)}${fixed((seconds / period) * 100)}%,100%{transform:scaleX(1)}}
.step{visibility:hidden}
.step,.last{animation-duration:${period}s;animation-timing-function:step-end;animation-iteration-count:infinite}
@media (prefers-reduced-motion:reduce){.sweep,.step,.last{animation:none}}
</style>
${parts.join("\n")}
${legend.join("\n")}
</svg>
`
}
