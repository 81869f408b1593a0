/** A line that is written over while it changes. */
import * as Effect from "effect/Effect"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"

/** Writes the line on standard error, where that is a terminal; nothing elsewhere. An empty text takes it away. */
export const statusLine: Effect.Effect<(text: string) => Effect.Effect<void>, never, Stdio.Stdio> = Effect.gen(
  function* () {
    const stdio = yield* Stdio.Stdio
    if (!(yield* stdio.stderrIsTerminal)) return () => Effect.void
    return (text: string) =>
      Effect.ignore(Stream.run(Stream.succeed(`\r\u001b[2K${text}`), stdio.stderr({ endOnDone: false })))
  }
)
