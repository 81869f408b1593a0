/** The settings of the command: from its configuration file, its variables and its flags, each of which overrides those before. */
import * as EffectConfig from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Record from "effect/Record"
import * as Result from "effect/Result"
import type * as Gateway from "../index.ts"
import { Config, everyRule, type Settings } from "../settings/index.ts"
import * as Problems from "../settings/problems.ts"
import * as Exit from "../terminal/exit.ts"
import * as Files from "../terminal/files.ts"
import * as LimitFlags from "../terminal/limits.ts"
import { oneLine } from "../terminal/text.ts"
import * as Credentials from "./credentials.ts"
import * as Flags from "./flags.ts"
import { parseJson } from "./json.ts"

/** All settings, with the credentials that the configuration names. */
export interface GivenSettings extends Omit<Settings, "credentials">, Pick<Gateway.Options, "credentials"> {}

/** The flags that a run of the command was given. */
interface GivenFlags extends LimitFlags.LimitFlagValues {
  readonly config: Option.Option<string>
  readonly settings: Readonly<Record<string, Option.Option<unknown>>>
}

const maxBytes = 1e6

const parse = Problems.decode(Config)

/** Decodes the values of a source, or fails with all that is wrong with them. */
const decoded = (given: unknown, nameOf: (place: string) => string, where = "") =>
  Effect.mapBoth(Effect.fromResult(parse(given)), {
    onFailure: (problems) => Exit.failure("usage", oneLine(where + Problems.sentence(problems, nameOf))),
    onSuccess: ({ $schema: _, ...settings }): Settings => settings
  })

/** The settings of a file. Its path is named once, before all that is wrong. */
const ofFile = Effect.fnUntraced(function* (path: string) {
  const json = parseJson(yield* Files.text(path, maxBytes))
  if ("error" in json) return yield* Exit.failure("usage", `${oneLine(path)}: ${json.error}`)
  return yield* decoded(json.value, (place) => place.slice(1) || "the whole file", `${path}: `)
})

/** The variable of each setting that has one. */
const variables = Record.filterMap(everyRule, ({ variable }) => Result.fromNullishOr(variable, () => undefined))

const ofVariables = EffectConfig.all(Record.map(variables, (name) => EffectConfig.option(EffectConfig.String(name))))

/** Reads and checks the settings of all sources. Returns how errors name what has set one of them, too. */
export const read = Effect.fnUntraced(function* (command: string, given: GivenFlags) {
  const path = Option.getOrUndefined(given.config)
  const file = path === undefined ? {} : yield* ofFile(path)
  const flags: Readonly<Record<string, unknown>> = Record.getSomes(given.settings)
  const secrets = Record.getSomes(yield* Effect.orDie(ofVariables))
  const limits = yield* LimitFlags.checked(command, given)
  const all: Settings = {
    ...file,
    ...(yield* decoded(secrets, (place) => variables[place.slice(1)]!)),
    ...(yield* decoded(flags, Flags.named)),
    ...(limits !== undefined && { limits })
  }
  const nameOf = (place: string): string => {
    const setting = place.slice(1)
    const name = setting.replace(/\W.*$/s, "")
    if (name in flags) return Flags.named(place)
    const variable = variables[name]
    const isInFile = variable === undefined || (name in file && !(name in secrets))
    if (isInFile) return path === undefined ? setting : `${oneLine(path)}: ${setting}`
    return name in secrets || path === undefined ? variable : `${variable}, or ${setting} in ${oneLine(path)}`
  }
  const { credentials, upstreams } = yield* Credentials.resolve(path ?? "--config", all)
  const settings: GivenSettings = { ...all, credentials, upstreams }
  return { settings, nameOf }
})
