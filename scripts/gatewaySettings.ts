/**
 * Writes what a reader sees of the gateway's settings: the table in docs/gateway.md, and the comments that editors show beside an option.
 * Both come from the rules in packages/gateway/src/settings/index.ts. `npm run docs:settings` writes them; test/docs.lint.test.ts
 * compares them.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Words } from "floodgate/internal"
import { named } from "../packages/gateway/src/command/flags.ts"
import type { SettingRules } from "../packages/gateway/src/settings/annotations.ts"
import * as Settings from "../packages/gateway/src/settings/index.ts"
import { root } from "../test/support/modules.ts"

const settings = Object.entries(Settings.rules as Readonly<Record<string, SettingRules>>)

const mebibyte = 2 ** 20
const large = 10_000

const defaultOf = (name: string, { default: value, otherwise }: SettingRules): string => {
  if (otherwise !== undefined) return otherwise
  if (typeof value !== "number" || value < large) return String(value)
  return name.endsWith("Bytes") ? `${value / mebibyte} MiB` : Words.thousands(value)
}

const setBy = (name: string, { flag, variable }: SettingRules): string => {
  if (variable !== undefined) return `\`${variable}\``
  if (flag === "limits") return "`--input-tokens-per-minute`..."
  return flag === "none" ? "" : `\`${named(`.${name}`)}\``
}

/** The table, in Markdown. */
const table = (): string =>
  [
    "| setting | default | flag or variable | a change needs | what it is |",
    "| --- | --- | --- | --- | --- |",
    ...settings.map(([name, rules]) =>
      ["", `\`${name}\``, defaultOf(name, rules), setBy(name, rules), `a ${rules.change}`, rules.text, ""]
        .join(" | ")
        .trim()
    )
  ].join("\n")

const width = 128

/** A comment in lines of bounded width. */
const commentOf = (name: string, rules: SettingRules): string => {
  const text = `${rules.text.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1")}. @default ${defaultOf(name, rules)}`
  if (text.length + "  /**  */".length <= width) return `  /** ${text} */\n`
  const lines = text.replaceAll(new RegExp(`(.{1,${width - "   * ".length}})(?: |$)`, "g"), "   * $1\n")
  return `  /**\n${lines}   */\n`
}

const page = "docs/gateway.md"
const source = "packages/gateway/src/settings/index.ts"
const markers = /(?<=<!-- settings -->\n\n)[^]*?(?=\n\n<!-- \/settings -->)/

/** The files as they must be. */
export const render = (): Readonly<Record<string, string>> => {
  const read = (file: string): string => readFileSync(join(root, file), "utf8")
  const commented = settings.reduce(
    (text, [name, rules]) =>
      text.replace(new RegExp(`(?:  /\\*\\*(?:(?!\\*/)[^])*\\*/\\n)?(?=  ${name}: setting\\()`), () =>
        commentOf(name, rules)
      ),
    read(source)
  )
  return { [page]: read(page).replace(markers, () => table()), [source]: commented }
}

if (import.meta.main) for (const [file, text] of Object.entries(render())) writeFileSync(join(root, file), text)
