/** `key new`: a new key for callers of a gateway. */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Input } from "floodgate/internal"
import { newKey } from "../settings/newKeys.ts"
import * as Flags from "../terminal/flags.ts"
import * as Print from "../terminal/print.ts"

const flags = {
  name: Argument.String("name").pipe(
    Argument.filter(
      (text) => Input.shownName(text) === undefined,
      () => "a name of 1 to 64 characters"
    ),
    Argument.withDescription("The holder of the key, such as a team; two keys may have the same name")
  ),
  expires: Flag.String("expires").pipe(
    Flag.withMetavar("<date>"),
    Flag.filter(Input.isDay, () => "a date such as 2027-01-01"),
    Flags.optional("The day from which the key is refused, in UTC (default: never)")
  ),
  json: Flags.toggle("json", "Print the key and the entry as one JSON object")
}

const newCommand = (gateway: string) =>
  Command.make(
    "new",
    flags,
    Effect.fnUntraced(function* ({ expires, json, name }) {
      const { entry, key } = newKey(name, Option.getOrUndefined(expires))
      if (json) return yield* Print.json({ key, entry })
      yield* Print.out(`The key, which is shown only now. Give it to ${name} in place of the provider's key:\n`)
      yield* Print.out(`  ${key}\n`)
      yield* Print.out('The entry for "keys" in the configuration of the gateway; then reload it (SIGHUP):\n')
      yield* Print.json(entry)
    })
  ).pipe(
    Command.withDescription(
      "Prints a new key once, and the entry with its hash for the configuration. The key itself is stored nowhere."
    ),
    Command.withExamples([
      { command: `${gateway} key new search`, description: "A key for the team search" },
      { command: `${gateway} key new search --expires 2027-01-01`, description: "One that expires" }
    ])
  )

/** The commands for keys. */
export const keyCommand = (gateway: string) =>
  Command.make("key").pipe(
    Command.withDescription("Keys with which callers use the gateway, instead of the provider's"),
    Command.withSubcommands([newCommand(gateway)])
  )
