/** Elements of the page. Texts come from callers, so all of them are set as text, never as HTML. */
import { compact } from "floodgate/internal/words"
import type { markup } from "../src/page/markup.ts"

type IdsIn<Html extends string, Found = never> = Html extends `${string} id="${infer Id}"${infer Rest}`
  ? IdsIn<Rest, Found | Id>
  : Found

/** An id of the markup. */
export type Id = IdsIn<typeof markup>

/** The element of the markup that has an id. */
export const at = (id: Id): HTMLElement => document.getElementById(id)!

export const make = (
  name: string,
  attributes: Readonly<Record<string, string>> = {},
  ...children: ReadonlyArray<Node | string>
): HTMLElement => {
  const element = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  element.append(...children)
  return element
}

const none = (text: string): HTMLElement => make("p", { class: "none" }, text)

// -----------------------------------------------------------------------------
// Tables
// -----------------------------------------------------------------------------

/** A column, with the text that it shows of each entry below its head. */
interface Column<A> {
  readonly head: string
  readonly kind: "name" | "number"
  readonly cell: (entry: A) => string
}

/** A column of texts. */
export const words = <A>(head: string, cell: (entry: A) => string): Column<A> => ({ head, kind: "name", cell })

/** A column of figures, which end below each other. Numbers are shortened. */
export const figures = <A>(head: string, cell: (entry: A) => string | number): Column<A> => ({
  head,
  kind: "number",
  cell: (entry) => {
    const figure = cell(entry)
    return typeof figure === "number" ? compact(figure) : figure
  }
})

/** Makes a row for each entry, or shows the text `empty` if the list has no entries. */
export const table = <A>(entries: ReadonlyArray<A>, columns: ReadonlyArray<Column<A>>, empty = ""): HTMLElement => {
  if (entries.length === 0) return none(empty)
  const row = (tag: "th" | "td", textOf: (column: Column<A>) => string) =>
    make("tr", {}, ...columns.map((column) => make(tag, { class: column.kind }, textOf(column))))
  return make(
    "table",
    {},
    make(
      "thead",
      {},
      row("th", ({ head }) => head)
    ),
    make("tbody", {}, ...entries.map((entry) => row("td", ({ cell }) => cell(entry))))
  )
}

// -----------------------------------------------------------------------------
// Bars
// -----------------------------------------------------------------------------

const within = (part: number): number => Math.max(0, Math.min(1, part))

interface Bar {
  readonly name: string
  /** Names the bar for screen readers. */
  readonly label: string
  /** The filled part, from 0 to 1. */
  readonly part: number
  /** A further part, which is filled more lightly. */
  readonly held?: number
  /** The place of a mark, from 0 to 1. */
  readonly mark?: number | undefined
  readonly isLow: boolean
  readonly text: string
}

/** A line with a bar. */
export const level = (nameClass: string, { held = 0, isLow, label, mark, name, part, text }: Bar): HTMLElement => {
  const fill = (width: number, attributes = {}): HTMLElement => {
    const element = make("i", attributes)
    element.style.width = `${(100 * within(width)).toFixed(1)}%`
    return element
  }
  const fills = held > 0 ? [fill(part), fill(Math.min(held, 1 - part), { class: "held" })] : [fill(part)]
  if (mark !== undefined && mark < 1) {
    const line = make("i", { class: "mark" })
    line.style.left = `${(100 * within(mark)).toFixed(1)}%`
    fills.push(line)
  }
  const meter = {
    class: isLow ? "bar low" : "bar",
    role: "meter",
    "aria-valuemin": "0",
    "aria-valuemax": "100",
    "aria-valuenow": `${Math.round(100 * within(part + held))}`,
    "aria-label": label
  }
  return make(
    "div",
    { class: "level" },
    make("span", { class: nameClass }, name),
    make("div", meter, ...fills),
    make("span", { class: "text" }, text)
  )
}

/** A bar for each minute of the last hour. */
export const hourBars = <A extends { readonly at: number }>(
  minutes: ReadonlyArray<A>,
  now: number,
  of: (minute: A) => number,
  label: string
): SVGElement => {
  const draw = (name: "svg" | "rect", attributes: Readonly<Record<string, string | number>>): SVGElement => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name)
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, `${value}`)
    return element
  }
  const max = Math.max(0, ...minutes.map(of))
  const svg = draw("svg", { viewBox: "0 0 60 100", preserveAspectRatio: "none", role: "img", "aria-label": label })
  for (const minute of minutes) {
    if (of(minute) === 0) continue
    const height = Math.max(3, (100 * of(minute)) / max)
    const x = 59 - Math.floor((now - minute.at) / 60_000) + 0.1
    svg.append(draw("rect", { x, y: 100 - height, width: 0.8, height }))
  }
  return svg
}
