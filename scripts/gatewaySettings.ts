/**
 * Hands the comments of the gateway's settings to those who cannot read them in the source: the table in docs/figures/settings.md, and the
 * texts of flags and of the JSON Schema. `npm run docs:settings` writes both; test/docs.lint.test.ts compares them.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Words from "floodgate/internal/words"
import type { SettingRules } from "../packages/gateway/src/settings/annotations.ts"
import { Config, rules } from "../packages/gateway/src/settings/index.ts"
import { kebab } from "../packages/gateway/src/terminal/errors.ts"
import { root, textOfDoc } from "../test/support/modules.ts"

const settings = "packages/gateway/src/settings"
const generated = `${settings}/docs.ts`
const page = "docs/figures/settings.md"
const read = (file: string): string => readFileSync(join(root, file), "utf8")

/** The links of the texts on the page. */
const links: Readonly<Record<string, string>> = {
  "raise and reset caps": "../gateway.md#raise-or-reset-a-cap",
  "list of the last 500 requests": "../gateway.md#the-last-requests",
  "header fields `RateLimit-Policy` and `RateLimit`": "../gateway.md#what-is-left-in-each-answer",
  "without a token": "../gateway.md#who-may-call-without-a-token",
  "Keys of the gateway": "../gateway.md#keys-of-its-own",
  "caps of callers": "../gateway.md#dollars-a-budget-per-team-key-or-agent",
  "places where each model": "../gateway.md#places-of-a-model",
  "shares of a subscription's windows": "../dollars.md#subscriptions"
}

/** The comment of each setting in one line. */
const docs = (): Readonly<Record<string, string>> => {
  const source = read(`${settings}/index.ts`)
  const docOf = (name: string): string => {
    const [, doc] = new RegExp(`(/\\*\\*(?:(?!\\*/)[^])*\\*/)\\n  ${name.replace("$", "\\$")}: `).exec(source) ?? []
    if (doc === undefined)
      throw new Error(`${settings}/index.ts: ${name} has no comment: say what it is, and its @default`)
    return textOfDoc(doc).replaceAll(/\s+/g, " ")
  }
  return Object.fromEntries(Object.keys(Config.fields).map((name) => [name, docOf(name)]))
}

const mebibyte = 2 ** 20
const large = 10_000

/** A default as a comment must state it; undefined if words state it. */
const standardOf = (name: string, value: unknown): string | undefined => {
  if (value === undefined || typeof value === "object") return undefined
  if (typeof value !== "number" || value < large) return String(value)
  return name.endsWith("Bytes") ? `${value / mebibyte} MiB` : Words.thousands(value)
}

const setBy = (name: string, { flag, variable }: SettingRules): string => {
  if (variable !== undefined) return `\`${variable}\``
  if (flag === "limits") return "`--input-tokens-per-minute`..."
  return flag === "none" ? "" : `\`--${flag.name ?? kebab(name)}\``
}

const row = (doc: string, [name, rule]: readonly [name: string, rule: SettingRules]): string => {
  const [text = "", standard = ""] = doc.split(" @default ")
  const expected = standardOf(name, rule.default) ?? standard
  if (standard === "" || standard !== expected)
    throw new Error(`${settings}/index.ts: ${name}: write @default ${expected}`)
  const linked = Object.entries(links).reduce((all, [words, to]) => all.replace(words, `[${words}](${to})`), text)
  return ["", `\`${name}\``, standard, setBy(name, rule), `a ${rule.change}`, linked.replace(/\.$/, ""), ""]
    .join(" | ")
    .trim()
}

const markers = /(?<=<!-- settings -->\n\n)[^]*?(?=\n\n<!-- \/settings -->)/

/** The files as they must be. */
export const render = (): Readonly<Record<string, string>> => {
  const texts = docs()
  const table = [
    "| setting | default | flag or variable | a change needs | what it is |",
    "| --- | --- | --- | --- | --- |",
    ...Object.entries<SettingRules>(rules).map((entry) => row(texts[entry[0]]!, entry))
  ]
  const lines = Object.entries(texts).map(([name, doc]) => `${name}: ${doc.replaceAll("`", "")}`)
  return {
    [page]: read(page).replace(markers, () => table.join("\n")),
    [generated]: read(generated).replace(/(?<=docs = )`[^]*`/, () => `\`\n${lines.join("\n")}\n\``)
  }
}

if (import.meta.main) for (const [file, text] of Object.entries(render())) writeFileSync(join(root, file), text)
