/** `init`: a first configuration, with a key. */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import { newKey } from "../settings/newKeys.ts"
import * as Exit from "../terminal/exit.ts"
import * as FileSystem from "effect/FileSystem"
import * as Output from "../terminal/output.ts"
import * as Print from "../terminal/print.ts"
import { oneLine } from "../terminal/text.ts"

/** A gateway to one provider, for one team, whose spending in a day is bounded. */
const configOf = (entry: object): object => ({
  upstreams: { anthropic: "https://api.anthropic.com" },
  credentials: { anthropic: "env:ANTHROPIC_API_KEY" },
  keys: [entry],
  rules: [
    { key: "team", cap: { dollars: 20, per: "day" } },
    { name: "everybody", cap: { dollars: 100, per: "day" } }
  ]
})

/** How to start the command. In a clone, and where only npm has installed it, its name alone is none of the shell's. */
const started = (gateway: string): string => {
  if (gateway !== "floodgate gateway") return gateway
  return import.meta.url.endsWith(".ts") ? "npm run -s floodgate -- gateway" : `npx ${gateway}`
}

/** The command. */
export const initCommand = (gateway: string) =>
  Command.make(
    "init",
    {
      file: Argument.String("file").pipe(
        Argument.withDescription("The file to write"),
        Argument.withDefault("gateway.json")
      )
    },
    Effect.fnUntraced(function* ({ file }) {
      const fs = yield* FileSystem.FileSystem
      if (yield* Effect.orElseSucceed(fs.exists(file), () => false)) {
        return yield* Exit.failure("file", `${oneLine(file)} exists already: name another file, or remove it`)
      }
      const { entry, key } = newKey("team", undefined)
      yield* Output.write(file, `${JSON.stringify(configOf(entry), null, 2)}\n`, "file")
      yield* Print.out(
        [
          "It serves Anthropic to one key, within $20 a day. Start the gateway:\n",
          `  ANTHROPIC_API_KEY=... ${started(gateway)} --config ${oneLine(file)}\n`,
          "Give callers this key, which is shown only now, in place of the provider's:\n",
          `  ${key}`
        ].join("\n")
      )
    })
  ).pipe(
    Command.withDescription(
      "Writes a configuration to begin with: one provider, one key, and caps in dollars. It has only the hash of the key."
    ),
    Command.withExamples([{ command: `${gateway} init`, description: "Writes gateway.json here, and prints the key" }])
  )
