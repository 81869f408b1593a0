/**
 * Writes what the last run of the storm measured into the table of docs/figures/clients.md: `node test/clients/table.ts --write`.
 * Without `--write` it prints the table.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Result, Row } from "./storm.ts"

const root = join(import.meta.dirname, "../..")
const page = join(root, "docs/figures/clients.md")
const marks = ["<!-- storm -->", "<!-- /storm -->"] as const

const rows = JSON.parse(readFileSync(join(root, ".vitest/clients.json"), "utf8")) as ReadonlyArray<Row>

const cells = ({ ok, rejected, seconds }: Result): string => `${ok}, ${rejected}, ${seconds.toFixed(1)} s`

const table = [
  "| client | through | alone: calls done of 60, 429s, time | governed |",
  "| --- | --- | --- | --- |",
  ...rows.map(({ bare, governed, name, through }) => `| ${name} | ${through} | ${cells(bare)} | ${cells(governed)} |`)
].join("\n")

const versions = [...new Set(rows.flatMap(({ versions }) => versions))].sort().join(", ")

const text = existsSync(page) ? readFileSync(page, "utf8") : ""
const [start, end] = marks.map((mark) => text.indexOf(mark))
if (start === undefined || end === undefined || start < 0 || end < start) {
  console.log(`${table}\n\n${versions}`)
  console.error(`docs/figures/clients.md has no ${marks.join(" ... ")}: the table was only printed`)
} else if (process.argv.includes("--write")) {
  const section = `${marks[0]}\n\n${table}\n\nVersions: ${versions}.\n\n`
  writeFileSync(page, text.slice(0, start) + section + text.slice(end))
} else {
  console.log(table)
}
