/** Runs the command within the test's process. */
import * as Effect from "effect/Effect"
import * as TestConsole from "effect/testing/TestConsole"
import * as Cli from "../../src/commands/index.ts"

/** The exit code of a call, and what it printed since the last one. */
export const floodgate = (...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const before = { out: (yield* TestConsole.logLines).length, err: (yield* TestConsole.errorLines).length }
    const code = yield* Cli.runWith(args).pipe(
      Effect.as(0),
      Effect.catchTag("ExitError", ({ code }) => Effect.succeed(code))
    )
    const out = (yield* TestConsole.logLines).slice(before.out).map(String).join("\n")
    const err = (yield* TestConsole.errorLines).slice(before.err).map(String).join("\n")
    return { code, err, out }
  })
