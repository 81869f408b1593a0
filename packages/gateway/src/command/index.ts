/** The command line of `floodgate-gateway`. */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Stdio from "effect/Stdio"
import * as CommandLine from "../terminal/commandLine.ts"
import { gatewayCommand } from "./gateway.ts"
import { version } from "./version.ts"

/** Runs the gateway with these arguments, and prints errors on standard error. */
export const runWith = (args: ReadonlyArray<string>): Effect.Effect<void, CommandLine.ExitError, Command.Environment> =>
  CommandLine.reported(
    Command.runWith(gatewayCommand("floodgate-gateway"), { version })(CommandLine.withoutHelp(args)),
    "floodgate-gateway"
  )

/** Runs the gateway with the arguments of the process. */
export const main: Effect.Effect<void, CommandLine.ExitError, Command.Environment> = Effect.flatMap(
  Stdio.Stdio,
  (stdio) => Effect.flatMap(stdio.args, runWith)
)
