/** Ends every command line of Floodgate: prints help and errors, and exits with a code. */
import * as Cause from "effect/Cause"
import type * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import type * as Stdio from "effect/Stdio"
import type * as Terminal from "effect/Terminal"
import * as Exit from "./exit.ts"
import * as Help from "./help.ts"
import * as Log from "./log.ts"
import * as Print from "./print.ts"

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

const ended = (program: string, cause: Cause.Cause<unknown>): Effect.Effect<void, ExitError> => {
  if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause as Cause.Cause<never>)
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  if (isHelp(error))
    return error.errors.length === 0 ? Effect.void : Effect.fail(new ExitError({ code: Exit.codes.usage }))
  // Another process has printed the reason.
  if (error instanceof ExitError) return Effect.fail(error)
  if (error !== undefined) {
    const message = Predicate.hasProperty(error, "message") ? error.message : error
    return Effect.andThen(
      Print.err(`${program}: ${String(message)}`),
      Effect.fail(new ExitError({ code: codeOf(error) }))
    )
  }
  return Effect.andThen(
    Print.err(`${program}: a bug. Please report it with the following:\n${Cause.pretty(cause)}`),
    Effect.fail(new ExitError({ code: Exit.codes.bug }))
  )
}

/** Runs a command line, and prints its help, its log and its errors, which begin with the name of the program. */
export const reported = <E, R>(
  commandLine: Effect.Effect<void, E, R>,
  program = "floodgate"
): Effect.Effect<void, ExitError, R | Stdio.Stdio | Terminal.Terminal> =>
  commandLine.pipe(
    Effect.provideService(CliOutput.Presenter, Help.presenter),
    Effect.catchCause((cause) => ended(program, cause)),
    Effect.provide(Log.layer),
    Effect.provideServiceEffect(Print.Room, Print.measured)
  )

/** `help run` is `run --help`. */
export const withoutHelp = (args: ReadonlyArray<string>): ReadonlyArray<string> =>
  args[0] === "help" ? [...args.slice(1), "--help"] : args
