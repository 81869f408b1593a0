/** The exit codes of the command, one for each kind of failure. */
import * as Schema from "effect/Schema"

/** The code of each kind of failure. */
export const codes = {
  failed: 1,
  usage: 2,
  file: 3,
  network: 4,
  bug: 70
} as const

/** The codes and their meanings, as the help lists them. */
export const meanings: ReadonlyArray<readonly [code: string, meaning: string]> = [
  ["0", "done"],
  [`${codes.failed}`, "some of the work failed, or you declined; the output says what is missing"],
  [`${codes.usage}`, "an invalid flag, argument or environment variable, or a package that is not installed"],
  [`${codes.file}`, "a file or folder cannot be read or written, or another run uses it"],
  [`${codes.network}`, "a server cannot be reached, or an address cannot be listened on"],
  [`${codes.bug}`, "a bug"],
  ["130, 143", "stopped by Ctrl-C, by SIGTERM"]
]

/** Ends the command. The message says what is wrong and what to do. */
export class CommandError extends Schema.TaggedError<CommandError>("floodgate/cli/CommandError")("CommandError", {
  message: Schema.String,
  exitCode: Schema.Finite
}) {}

/** A failure of one of the kinds. */
export const failure = (kind: keyof typeof codes, message: string): CommandError =>
  new CommandError({ message, exitCode: codes[kind] })
