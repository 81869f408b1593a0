/** Runs a command line within the test's process. */
import * as Effect from "effect/Effect"
import * as TestConsole from "effect/testing/TestConsole"
import type * as Command from "effect/cli/Command"
import type * as CommandLine from "../../src/terminal/commandLine.ts"
import { runWith } from "../../src/command/index.ts"

type RunWith = (args: ReadonlyArray<string>) => Effect.Effect<void, CommandLine.ExitError, Command.Environment>

/** Runs a command line: the exit code of a call, and what it printed since the last one. */
export const called =
  (runWith: RunWith) =>
  (...args: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      const before = { out: (yield* TestConsole.logLines).length, err: (yield* TestConsole.errorLines).length }
      const code = yield* runWith(args).pipe(
        Effect.as(0),
        Effect.catchTag("ExitError", ({ code }) => Effect.succeed(code))
      )
      const out = (yield* TestConsole.logLines).slice(before.out).map(String).join("\n")
      const err = (yield* TestConsole.errorLines).slice(before.err).map(String).join("\n")
      return { code, err, out }
    })

/** `floodgate-gateway`. */
export const gateway = called(runWith)
