/**
 * The command-line tool: its commands, its errors and its exit codes.
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Stdio from "effect/Stdio"
import * as CommandLine from "@floodgate/gateway/internal/commandLine"
import * as Provenance from "./provenance.ts"
import { version } from "./version.ts"

export { version }

/** The commands. Each is loaded when it is called, so that a long-running gateway does not have the lab in memory. */
const commands = {
  start: async () => (await import("./start.ts")).startCommand,
  storm: async () => (await import("./storm.ts")).stormCommand,
  forecast: async () => (await import("./forecast.ts")).forecastCommand,
  run: async () => (await import("./run.ts")).runCommand,
  status: async () => (await import("./status.ts")).statusCommand,
  provider: async () => (await import("./provider.ts")).providerCommand,
  advise: async () => (await import("./advise.ts")).adviseCommand,
  mcp: async () => (await import("./mcp.ts")).mcpCommand,
  gateway: async () => (await import("@floodgate/gateway/internal/command")).gatewayCommand("floodgate gateway"),
  caps: async () => (await import("./caps.ts")).capsCommand,
  doctor: async () => (await import("./doctor.ts")).doctorCommand,
  lab: async () => (await import("./lab.ts")).labCommand
}

/** Loads the command that the arguments name, or else all commands, for the help and for suggestions. */
const load = ([name = ""]: ReadonlyArray<string>) =>
  Effect.promise(() =>
    Promise.all(
      Object.hasOwn(commands, name)
        ? [commands[name as keyof typeof commands]()]
        : Object.values(commands).map((load) => load())
    )
  )

/**
 * The root of all commands.
 */
const root = Command.make("floodgate").pipe(
  Command.withDescription(
    "Runs many LLM calls in parallel without 429s: each call is queued until the provider has room. Begin with `start`."
  ),
  Command.withExamples([
    { command: "floodgate start", description: "A tour in about half a minute" },
    { command: "floodgate storm", description: "The incident in simulated time, strategy by strategy" },
    {
      command: "floodgate forecast docs --agents 12 --input-tokens-per-minute 400000",
      description: "How long a job over your documents will take"
    },
    { command: 'floodgate run docs --prompt "What must an operator know?"', description: "Agents over your documents" },
    {
      command: "floodgate provider --port 8787 --input-tokens-per-minute 400000",
      description: "A simulated provider, to test clients against"
    },
    { command: "floodgate doctor", description: "Checks the key, the address, the limits and Redis" },
    { command: 'eval "$(floodgate --completions bash)"', description: "Completions for this shell" }
  ])
)

/**
 * Runs the tool with these arguments, and prints errors on standard error.
 */
export const runWith = (
  given: ReadonlyArray<string>
): Effect.Effect<void, CommandLine.ExitError, Command.Environment> => {
  const args = CommandLine.withoutHelp(given)
  return Effect.flatMap(load(args), (loaded) =>
    Command.runWith(Command.withSubcommands(root, loaded), { version })(args)
  ).pipe(Effect.provideService(Provenance.Arguments, args), CommandLine.reported)
}

/**
 * Runs the tool with the arguments of the process.
 */
export const main: Effect.Effect<void, CommandLine.ExitError, Command.Environment> = Effect.flatMap(
  Stdio.Stdio,
  (stdio) => Effect.flatMap(stdio.args, runWith)
)
