import { escapeHtml } from "../../packages/lab/src/report/escape.ts"

/** A line chart as an SVG that fits light and dark pages. */
export interface Line {
  readonly name: string
  /** One value for each tick of the horizontal axis, drawn from 0 to 1. */
  readonly values: ReadonlyArray<number>
}

const size = { width: 760, height: 380 }
const frame = { left: 56, right: 600, top: 48, bottom: 320 }
const colours = 6

const style = `svg{--paper:#fff;--ink:#1c2330;--muted:#5b6677;--line:#d5dae2;--c0:#12805c;--c1:#3566c4;--c2:#b35c00;--c3:#7a4fbf;--c4:#c62f3a;--c5:#5b6677;background:var(--paper)}@media (prefers-color-scheme:dark){svg{--paper:#12161d;--ink:#e6eaf0;--muted:#9aa6b6;--line:#353e4c;--c0:#4cc79a;--c1:#7ea6f5;--c2:#f0a352;--c3:#bd9cf2;--c4:#ff7b7f;--c5:#9aa6b6}}text{font:12px system-ui,sans-serif;fill:var(--ink)}.muted{fill:var(--muted)}.grid{stroke:var(--line)}path{fill:none;stroke-width:2}`

export const draw = (options: {
  readonly title: string
  readonly across: string
  readonly ticks: ReadonlyArray<string>
  readonly lines: ReadonlyArray<Line>
}): string => {
  const { across, lines, ticks, title } = options
  const x = (index: number) => frame.left + ((frame.right - frame.left) * index) / (ticks.length - 1)
  const y = (value: number) => frame.bottom - (frame.bottom - frame.top) * Math.min(1, value)
  const text = (at: number, down: number, content: string, rest = "") =>
    `<text x="${at.toFixed(1)}" y="${down.toFixed(1)}" ${rest}>${escapeHtml(content)}</text>`

  const grid = [0, 0.25, 0.5, 0.75, 1].map(
    (value) =>
      `<line class="grid" x1="${frame.left}" x2="${frame.right}" y1="${y(value)}" y2="${y(value)}"/>` +
      text(frame.left - 8, y(value) + 4, `${value * 100} %`, 'class="muted" text-anchor="end"')
  )
  const labels = ticks.map((tick, index) =>
    text(x(index), frame.bottom + 20, tick, 'class="muted" text-anchor="middle"')
  )
  const names = apart(lines.map(({ values }) => y(values.at(-1) ?? 0)))
  const curves = lines.map(({ name, values }, index) => {
    const colour = `var(--c${index % colours})`
    const points = values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join("L")
    return (
      `<path d="M${points}" style="stroke:${colour}"/>` +
      text(frame.right + 10, names[index]! + 4, name, `style="fill:${colour}"`)
    )
  })
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="${escapeHtml(title)}" viewBox="0 0 ${size.width} ${size.height}" width="${size.width}" height="${size.height}">`,
    `<style>${style}</style>`,
    text(frame.left, 24, title),
    ...grid,
    ...labels,
    text((frame.left + frame.right) / 2, frame.bottom + 44, across, 'class="muted" text-anchor="middle"'),
    ...curves,
    "</svg>\n"
  ].join("\n")
}

/** Moves labels down until none covers another. */
const apart = (heights: ReadonlyArray<number>): ReadonlyArray<number> => {
  const result = [...heights]
  const order = heights.map((_, index) => index).toSorted((a, b) => heights[a]! - heights[b]!)
  let last = -Infinity
  for (const index of order) {
    result[index] = Math.max(result[index]!, last + 15)
    last = result[index]!
  }
  return result
}
