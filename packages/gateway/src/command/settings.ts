/** The settings of the command: from its configuration file, its variables and its flags, each of which overrides those before. */
import * as EffectConfig from "effect/Config"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Record from "effect/Record"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type * as Gateway from "../index.ts"
import type { SettingRules } from "../settings/annotations.ts"
import { Config, rules, type Settings } from "../settings/index.ts"
import * as Problems from "../settings/problems.ts"
import * as Exit from "../terminal/exit.ts"
import * as Files from "../terminal/files.ts"
import { oneLine } from "../terminal/text.ts"
import * as Credentials from "./credentials.ts"
import * as Flags from "./flags.ts"
import { parseJson } from "./json.ts"

/** All settings, with the credentials that the configuration names. */
export interface GivenSettings extends Omit<Settings, "credentials">, Pick<Gateway.Options, "credentials"> {}

type Values = Readonly<Record<string, unknown>>

const maxBytes = 1e6

const parse = Problems.decode(Config)

/** Decodes the values of a source, or fails with all that is wrong with them. */
const decoded = (given: unknown, nameOf: (place: string) => string): Effect.Effect<Settings, Exit.CommandError> => {
  const result = parse(given)
  if (Result.isFailure(result)) {
    return Effect.fail(Exit.failure("usage", oneLine(Problems.sentence(result.failure, nameOf))))
  }
  const { $schema: _, ...settings } = result.success
  return Effect.succeed(settings)
}

/** The settings of a file. Its path is named once, before all that is wrong. */
const ofFile = Effect.fnUntraced(function* (path: string) {
  const text = yield* Files.text(path, maxBytes)
  const wrong = (why: string) => Exit.failure("usage", `${oneLine(path)}: ${why}`)
  const json = parseJson(text)
  if ("error" in json) return yield* wrong(json.error)
  const nameOf = (place: string) => (place === "" ? "the whole file" : place.slice(1))
  return yield* Effect.mapError(decoded(json.value, nameOf), ({ message }) => wrong(message))
})

/** The variable of each setting that has one. */
const variables = Record.filterMap(rules as Readonly<Record<string, SettingRules>>, ({ variable }) =>
  Result.fromNullishOr(variable, () => undefined)
)

const variableOf = (place: string): string => variables[place.slice(1)]!

const ofVariables = Effect.gen(function* () {
  const given: Record<string, string> = {}
  for (const [name, variable] of Object.entries(variables)) {
    const secret = yield* EffectConfig.option(EffectConfig.Redacted(variable))
    if (Option.isSome(secret)) given[name] = Redacted.value(secret.value)
  }
  return given
}).pipe(Effect.mapError(({ message }) => Exit.failure("usage", message)))

/** What a run of the command was given. */
export interface SettingSources {
  readonly config: Option.Option<string>
  readonly flags: Readonly<Record<string, Option.Option<unknown>>>
  readonly limits: Settings["limits"]
}

/** The settings, and how errors name what has set one of them. */
export interface ReadSettings {
  readonly settings: GivenSettings
  readonly nameOf: (place: string) => string
}

/** Reads and checks the settings of all sources. */
export const read = Effect.fnUntraced(function* ({
  config,
  flags,
  limits
}: SettingSources): Effect.fn.Return<ReadSettings, Exit.CommandError, FileSystem.FileSystem> {
  const path = Option.getOrUndefined(config)
  const file = path === undefined ? {} : yield* ofFile(path)
  const given: Values = Record.getSomes(flags)
  const secrets = yield* ofVariables
  const all: Settings = {
    ...file,
    ...(yield* decoded(secrets, variableOf)),
    ...(yield* decoded(given, Flags.named)),
    ...(limits !== undefined && { limits })
  }
  const nameOf = (place: string): string => {
    const setting = place.slice(1)
    const [name = ""] = /^\w+/.exec(setting) ?? []
    if (name in given) return Flags.named(place)
    const variable = variables[name]
    const isInFile = variable === undefined || (name in file && !(name in secrets))
    if (isInFile) return path === undefined ? setting : `${oneLine(path)}: ${setting}`
    return name in secrets || path === undefined ? variable : `${variable}, or ${setting} in ${oneLine(path)}`
  }
  const { credentials, upstreams } = yield* Credentials.resolve(path ?? "--config", all)
  return { settings: { ...all, credentials, upstreams }, nameOf }
})
