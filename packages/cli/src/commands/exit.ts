/** How a command ends: one code for one kind of mistake. */

/** The code of each kind, and what it means. */
export const codes = {
  failed: 1,
  usage: 2,
  file: 3,
  network: 4,
  bug: 70
} as const

/** The codes as the help and the guide list them. */
export const meanings: ReadonlyArray<readonly [code: string, meaning: string]> = [
  ["0", "done"],
  [`${codes.failed}`, "some of the work failed, or you declined; the output says what is missing"],
  [`${codes.usage}`, "an invalid flag, argument or environment variable"],
  [`${codes.file}`, "a file or folder cannot be read or written, or another run uses it"],
  [`${codes.network}`, "a server cannot be reached, or an address cannot be listened on"],
  [`${codes.bug}`, "a bug"],
  ["130, 143", "stopped by Ctrl-C, by SIGTERM"]
]
