/** The flags that set settings, from the rules of the settings. */
import * as Flag from "effect/cli/Flag"
import * as Option from "effect/Option"
import * as Record from "effect/Record"
import * as Result from "effect/Result"
import { type FlagRule, plain, type SettingRules } from "../settings/annotations.ts"
import { rules } from "../settings/index.ts"
import { kebab } from "../terminal/errors.ts"
import * as Flags from "../terminal/flags.ts"

/** The rule of each setting that has a flag of its own. */
const own = Record.filterMap(rules as Readonly<Record<string, SettingRules>>, ({ flag }) =>
  typeof flag === "object" ? Result.succeed(flag) : Result.failVoid
)

const nameOf = (setting: string, { name }: FlagRule): string => name ?? kebab(setting)

const pair = (text: string) =>
  Option.map(Option.fromNullishOr(/^([^=]+)=(.+)$/.exec(text)), ([, name, url]) => [name!, url!] as const)

/** A text that is a number stands for the number, as in a file. */
const numberOr = (text: string): number | string =>
  text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text)

/** A flag whose value is what a file would have. The schema of the setting checks it. */
const valueOf = (name: string, takes: FlagRule["takes"]): Flag.Flag<unknown> => {
  const flag = Flag.String(name)
  switch (takes) {
    case "number":
      return flag.pipe(Flag.withMetavar("<n>"), Flag.map(numberOr))
    case "seconds":
      return flag.pipe(Flag.withMetavar("<seconds>"), Flag.map(numberOr))
    case "text":
      return flag
    case "names":
      return flag.pipe(Flag.withMetavar("<name>"), Flag.atLeast(1))
    case "addresses":
      return flag.pipe(
        Flag.filterMap(pair, () => "a name and an address, such as groq=https://api.groq.com/openai"),
        Flag.withMetavar("<name=url>"),
        Flag.atLeast(1),
        Flag.map(Object.fromEntries<string>)
      )
  }
}

/** The flag of each setting that has one. */
export const flags = Record.map(own, (rule, setting) => {
  const { default: standard, otherwise, text } = (rules as Readonly<Record<string, SettingRules>>)[setting]!
  const again = rule.takes === "names" || rule.takes === "addresses" ? "; may be repeated" : ""
  const [summary] = plain(text).split(/\. (?=[A-Z])/)
  return valueOf(nameOf(setting, rule), rule.takes).pipe(
    Flags.optional(`${summary}${again} (default: ${otherwise ?? String(standard)})`)
  )
})

/** The name of a flag with the part of its value at a place such as `.upstreams.own`, for errors. */
export const named = (place: string): string => {
  const [, setting = "", part = ""] = /^\.(\w+)(.*)$/s.exec(place) ?? []
  const rule = own[setting]!
  return `--${nameOf(setting, rule)}${rule.takes === "addresses" ? part.replace(".", " ") : ""}`
}
