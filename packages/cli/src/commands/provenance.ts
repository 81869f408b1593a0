/** The facts that a report states about itself: when, by which version and with which command it was made. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import { oneLine } from "@floodgate/gateway/internal/text"
import { version } from "./version.ts"

/** The arguments of the command. */
export const Arguments: Context.Reference<ReadonlyArray<string>> = Context.Reference<ReadonlyArray<string>>(
  "floodgate/cli/Arguments",
  { defaultValue: () => [] }
)

/** Removes user and password from an address, because reports are passed on. */
const withoutPassword = (argument: string): string => argument.replace(/([a-z][a-z0-9+.-]*:\/\/)[^\s/@]*@/i, "$1")

/** An argument quoted for a shell. */
const quoted = (argument: string): string =>
  /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", `'\\''`)}'`

/** Longer arguments are cut; a run's own files have the whole prompt. */
const maxCharacters = 200

const short = (argument: string): string =>
  argument.length <= maxCharacters ? argument : `${argument.slice(0, maxCharacters)}…`

/** The facts in every report, and those of the command. */
export const of = Effect.fnUntraced(function* (facts: ReadonlyArray<readonly [name: string, value: string]> = []) {
  const millis = yield* Clock.currentTimeMillis
  const args = yield* Arguments
  const date = DateTime.formatIso(DateTime.makeUnsafe(millis)).slice(0, 16).replace("T", " ")
  const command = ["floodgate", ...args.map((argument) => quoted(short(oneLine(withoutPassword(argument)))))].join(" ")
  return [["made", `${date} UTC`], ["by", `floodgate ${version}`], ["command", command], ...facts] as ReadonlyArray<
    readonly [name: string, value: string]
  >
})
