/**
 * The command-line tool: its commands, its errors and its exit codes.
 */
import * as Cause from "effect/Cause"
import type * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Exit from "./exit.ts"
import * as Help from "./help.ts"
import * as Log from "./log.ts"
import * as Print from "./print.ts"
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
  gateway: async () => (await import("./gateway.ts")).gatewayCommand,
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
 * The tool has failed and printed the reason. The exit code names the kind of failure.
 */
export class ExitError extends Schema.TaggedError<ExitError>("floodgate/cli/ExitError")("ExitError", {
  code: Schema.Finite
}) {
  override readonly [Runtime.errorExitCode] = this.code
  override readonly [Runtime.errorReported] = false
}

const isHelp = (error: unknown): error is CliError.ShowHelp => Predicate.isTagged(error, "ShowHelp")

const codeOf = (error: unknown): number =>
  Predicate.hasProperty(error, "exitCode") && typeof error.exitCode === "number" ? error.exitCode : Exit.codes.failed

const ended = (cause: Cause.Cause<unknown>): Effect.Effect<void, ExitError> => {
  if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause as Cause.Cause<never>)
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  if (isHelp(error))
    return error.errors.length === 0 ? Effect.void : Effect.fail(new ExitError({ code: Exit.codes.usage }))
  if (error !== undefined) {
    const message = Predicate.hasProperty(error, "message") ? error.message : error
    return Effect.andThen(
      Print.err(`floodgate: ${String(message)}`),
      Effect.fail(new ExitError({ code: codeOf(error) }))
    )
  }
  return Effect.andThen(
    Print.err(`floodgate: a bug. Please report it with the following:\n${Cause.pretty(cause)}`),
    Effect.fail(new ExitError({ code: Exit.codes.bug }))
  )
}

/**
 * Runs the tool with these arguments, and prints errors on standard error.
 */
export const runWith = (given: ReadonlyArray<string>): Effect.Effect<void, ExitError, Command.Environment> => {
  // `help run` is `run --help`.
  const args = given[0] === "help" ? [...given.slice(1), "--help"] : given
  return Effect.flatMap(load(args), (loaded) =>
    Command.runWith(Command.withSubcommands(root, loaded), { version })(args)
  ).pipe(
    Effect.provideService(CliOutput.Presenter, Help.presenter),
    Effect.provideService(Provenance.Arguments, args),
    Effect.catchCause(ended),
    Effect.provide(Log.layer),
    Effect.provideServiceEffect(Print.Room, Print.measured)
  )
}

/**
 * Runs the tool with the arguments of the process.
 */
export const main: Effect.Effect<void, ExitError, Command.Environment> = Effect.flatMap(Stdio.Stdio, (stdio) =>
  Effect.flatMap(stdio.args, runWith)
)
