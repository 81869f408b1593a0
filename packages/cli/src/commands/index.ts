/**
 * The command-line tool: its commands, its errors and its exit codes.
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Stdio from "effect/Stdio"
import * as CommandLine from "@floodgate/gateway/internal/commandLine"
import * as Print from "@floodgate/gateway/internal/print"
import * as Provenance from "./provenance.ts"
import { version } from "./version.ts"
import { withLab } from "./withLab.ts"

export { version }

/** A command as the help lists it, and how it is loaded. */
const listed = <const Name extends string, Input, ContextInput, E, R>(
  summary: string,
  load: () => Promise<Command.Command<Name, Input, ContextInput, E, R>>
) => ({ load: async () => Command.withShortDescription(await load(), summary), summary })

/** The commands. Only the one that is called is loaded, because all of them take a second of processor time. */
const commands = {
  try: listed(
    "Shows what Floodgate does, in 20 seconds: start here",
    async () => (await import("./try.ts")).tryCommand
  ),
  storm: listed(
    "Compares common strategies with Floodgate, in simulated time; `storm all` in every scenario",
    async () => (await import("./storm.ts")).stormCommand
  ),
  forecast: listed(
    "Predicts how long a workload takes, what limits it, and what it costs",
    async () => (await import("./forecast.ts")).forecastCommand
  ),
  run: listed(
    "Runs agents over your own documents, under one budget",
    async () => (await import("./run.ts")).runCommand
  ),
  status: listed(
    "Shows the limits, calls and caps of a gateway, or of a budget in Redis",
    async () => (await import("./status.ts")).statusCommand
  ),
  provider: listed(
    "Serves a simulated provider over HTTP, with limits of your choice",
    async () => (await import("./provider.ts")).providerCommand
  ),
  advise: listed("How many more agents help now", async () => (await import("./advise.ts")).adviseCommand),
  mcp: listed(
    "Tools with which a model asks before it starts agents",
    async () => (await import("./mcp.ts")).mcpCommand
  ),
  gateway: listed("A reverse proxy through which clients in any language share a provider's limits", async () =>
    (await import("@floodgate/gateway/internal/command")).gatewayCommand("floodgate gateway")
  ),
  caps: listed("Shows, raises and resets caps of a gateway", async () => (await import("./caps.ts")).capsCommand),
  jobs: listed(
    "Shows who started whom in jobs of a gateway, and stops a job",
    async () => (await import("./jobs.ts")).jobsCommand
  ),
  tickets: listed(
    "Shows and cancels calls that wait for a reset at a gateway",
    async () => (await import("./tickets.ts")).ticketsCommand
  ),
  doctor: listed(
    "Checks the key, the address, the limits and Redis",
    async () => (await import("./doctor.ts")).doctorCommand
  )
}

type CommandName = keyof typeof commands

/** Names of earlier versions: the command that does the same now, and what else to know. */
const oldNames: Readonly<Record<string, { readonly now: readonly [CommandName, "all"?]; readonly also?: string }>> = {
  start: { now: ["try"], also: "; its table is printed by `storm all --table`" },
  lab: { now: ["storm", "all"] }
}

/** The commands by what a user wants to do, in the order in which most users need them. */
const purposes: ReadonlyArray<readonly [purpose: string, names: ReadonlyArray<CommandName>]> = [
  ["TRY", ["try", "provider", "run"]],
  ["OPERATE", ["gateway", "status", "caps", "jobs", "tickets", "doctor"]],
  ["PLAN", ["forecast", "advise", "mcp"]],
  ["RESEARCH", ["storm"]]
]

const names = purposes.flatMap(([, names]) => names)

const loaded = (name: CommandName) => withLab(`floodgate ${name}`, async () => commands[name].load())

/** A command that is not called: its name and its summary, for the help and for suggestions. */
const unloaded = (name: CommandName) => Command.make(name).pipe(Command.withShortDescription(commands[name].summary))

/**
 * The commands by purpose, of which those are loaded that the arguments need: the first that they name, or all for completions.
 * Completions do without the commands of a lab that is not installed.
 */
const commandsFor = (args: ReadonlyArray<string>) => {
  const called = names.find((name) => name === args.find((argument) => Object.hasOwn(commands, argument)))
  const completes = args.some((argument) => argument.startsWith("--completions"))
  const command = (name: CommandName) => {
    if (name === called) return loaded(name)
    return completes ? Effect.orElseSucceed(loaded(name), () => unloaded(name)) : Effect.succeed(unloaded(name))
  }
  return Effect.forEach(purposes, ([group, names]) =>
    Effect.map(Effect.forEach(names, command), (commands) => ({ group, commands }))
  )
}

/**
 * The root of all commands.
 */
const root = Command.make("floodgate").pipe(
  Command.withDescription(
    "Runs many LLM calls in parallel without 429s: each call is queued until the provider has room. Begin with `try`."
  ),
  Command.withExamples([
    { command: "floodgate try", description: "40 agents, with and without Floodgate, in 20 seconds" },
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
  const called = CommandLine.withoutHelp(given)
  const [name = "", ...more] = called
  const old = Object.hasOwn(oldNames, name) ? oldNames[name] : undefined
  const args = old === undefined ? called : [...old.now.map(String), ...more]
  const told =
    old === undefined
      ? Effect.void
      : Print.err(`floodgate: \`${name}\` is called \`${old.now.join(" ")}\` now${old.also ?? ""}`)
  return Effect.andThen(
    told,
    Effect.flatMap(commandsFor(args), (all) => Command.runWith(Command.withSubcommands(root, all), { version })(args))
  ).pipe(Effect.provideService(Provenance.Arguments, args), CommandLine.reported)
}

/**
 * Runs the tool with the arguments of the process.
 */
export const main: Effect.Effect<void, CommandLine.ExitError, Command.Environment> = Effect.flatMap(
  Stdio.Stdio,
  (stdio) => Effect.flatMap(stdio.args, runWith)
)
