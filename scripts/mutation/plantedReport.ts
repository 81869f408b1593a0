/** The report about planted bugs: which tier notices each. */
import { readFileSync, writeFileSync } from "node:fs"
import type { Bug } from "./planted.ts"

/** A bug, and the first tier that notices it: `""` if none has yet. */
export interface Result extends Pick<Bug, "id" | "part" | "kind" | "file" | "line" | "from" | "to"> {
  tier: string
  /** The test that failed. */
  by: string
}

export const resultOf = ({ file, from, id, kind, line, part, to }: Bug): Result => ({
  id,
  part,
  kind,
  file,
  line,
  from,
  to,
  tier: "",
  by: ""
})

export const nameOf = ({ file, from, kind, line, to }: Omit<Result, "tier" | "by">): string =>
  `${file}:${line}  ${kind}: ${from}  ->  ${to}`

/** How many bugs each tier notices, and which no tier does. */
export const summary = (results: ReadonlyArray<Result>): ReadonlyArray<string> => [
  `${results.length} bugs`,
  ...Array.from(
    Map.groupBy(results, ({ tier }) => tier),
    ([tier, of]) => `${tier || "not noticed"}: ${of.length}`
  ),
  ...results.filter(({ tier }) => tier === "").map((result) => `not noticed: ${nameOf(result)}`)
]

const short = (text: string): string => {
  const cut = text.length > 60 ? `${text.slice(0, 57)}...` : text
  return `\`${cut.replaceAll("`", "'").replaceAll("|", "\\|")}\``
}

const [begin, end] = ["<!-- bugs: npm run bugs -- --log FILE --docs -->", "<!-- /bugs -->"]

/** Writes the table into a page, between its two markers. */
export const publish = (path: string, results: ReadonlyArray<Result>): void => {
  const [before, rest] = readFileSync(path, "utf8").split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) throw new Error(`${path} has no markers for the table`)
  const rows = results.map(({ by, file, from, line, tier, to }) => {
    const [test = ""] = by.split(": ")
    const found = test.includes("/") ? `\`${test}\`` : by
    return `| \`${file}:${line}\` | ${short(from)} → ${short(to)} | ${tier || "none"} | ${found} |`
  })
  const tiers = Array.from(
    Map.groupBy(results, ({ tier }) => tier),
    ([tier, of]) => `${tier || "none"} ${of.length}`
  )
  const table = ["| where | bug | noticed by | in |", "| --- | --- | --- | --- |", ...rows].join("\n")
  writeFileSync(path, `${before}${begin}\n\nOf ${results.length}: ${tiers.join(", ")}.\n\n${table}\n\n${end}${after}`)
}
