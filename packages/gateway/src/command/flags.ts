/** The flags that set settings, from the rules of the settings. */
import * as Flag from "effect/cli/Flag"
import * as Option from "effect/Option"
import * as Record from "effect/Record"
import * as Result from "effect/Result"
import type { FlagRule } from "../settings/annotations.ts"
import { docOf } from "../settings/docs.ts"
import { everyRule } from "../settings/index.ts"
import { kebab } from "../terminal/errors.ts"
import * as Flags from "../terminal/flags.ts"

/** The rule of each setting that has a flag of its own. */
const own = Record.filterMap(everyRule, ({ flag }) =>
  typeof flag === "object" ? Result.succeed(flag) : Result.failVoid
)

const nameOf = (setting: string, { name }: FlagRule): string => name ?? kebab(setting)

const pair = (text: string) =>
  Option.map(Option.fromNullishOr(/^([^=]+)=(.+)$/.exec(text)), ([, name, url]) => [name!, url!] as const)

/** A text that is a number stands for the number, as in a file. */
const numberOr = (text: string): number | string =>
  text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text)

/** Flags by what they take. Their values are those that a file would have, and the schema of the setting checks them. */
const taking: Readonly<Record<FlagRule["takes"], (flag: Flag.Flag<string>) => Flag.Flag<unknown>>> = {
  number: (flag) => flag.pipe(Flag.withMetavar("<n>"), Flag.map(numberOr)),
  seconds: (flag) => flag.pipe(Flag.withMetavar("<seconds>"), Flag.map(numberOr)),
  text: (flag) => flag,
  names: (flag) => flag.pipe(Flag.withMetavar("<name>"), Flag.atLeast(1)),
  addresses: (flag) =>
    flag.pipe(
      Flag.filterMap(pair, () => "a name and an address, such as groq=https://api.groq.com/openai"),
      Flag.withMetavar("<name=url>"),
      Flag.atLeast(1),
      Flag.map(Object.fromEntries<string>)
    )
}

/** The flag of each setting that has one. Its help is the first sentence of the comment. */
export const flags = Record.map(own, (rule, setting) => {
  const { standard, text } = docOf(setting)
  const again = rule.takes === "names" || rule.takes === "addresses" ? "; may be repeated" : ""
  const help = `${text.split(/\.(?: |$)/)[0]}${again} (default: ${standard})`
  return taking[rule.takes](Flag.String(nameOf(setting, rule))).pipe(Flags.optional(help))
})

/** The name of a flag with the part of its value at a place such as `.upstreams.own`, for errors. */
export const named = (place: string): string => {
  const [, setting = "", part = ""] = /^\.(\w+)(.*)$/s.exec(place) ?? []
  const rule = own[setting]!
  return `--${nameOf(setting, rule)}${rule.takes === "addresses" ? part.replace(".", " ") : ""}`
}
