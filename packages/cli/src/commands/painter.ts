/** Draws lines in place on a terminal. */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Terminal from "effect/Terminal"
import { fit, oneLine } from "@floodgate/gateway/internal/text"

const hideCursor = "\u001b[?25l"
const showCursor = "\u001b[?25h"

/** Draws pictures, each over the one before. */
export interface Painter {
  readonly draw: (lines: ReadonlyArray<string>) => Effect.Effect<void>
  /** Shows the cursor again; the last picture stays. */
  readonly end: Effect.Effect<void>
}

/** Makes a painter. `coloured` adds colours to a line after its control characters have been removed. */
export const make = (terminal: Terminal.Terminal, coloured = (line: string): string => line): Painter => {
  let height = 0
  const write = (text: string) => Effect.ignore(terminal.display(text))
  return {
    draw: (lines) =>
      Effect.suspend(() => {
        const up = height === 0 ? "\r" : `\u001b[${height}A\r`
        height = lines.length
        return write(`${hideCursor}${up}\u001b[J${lines.map((line) => coloured(oneLine(line))).join("\n")}\n`)
      }),
    end: write(showCursor)
  }
}

/** The size of a terminal, with defaults. */
export const sizeOf = (
  terminal: Terminal.Terminal
): Effect.Effect<{ readonly columns: number; readonly rows: number }> =>
  Effect.zipWith(terminal.columns, terminal.rows, (columns, rows) => ({
    columns: columns > 0 ? columns : 80,
    rows: rows > 0 ? rows : 24
  }))

/**
 * Shows a status line on standard error if that is a terminal that can redraw it. The line is removed when the scope closes, so that
 * the shell's prompt does not follow it after an interruption.
 */
export const statusLine = Effect.gen(function* () {
  const stdio = yield* Stdio.Stdio
  const terminal = yield* Terminal.Terminal
  // `TerminalCapabilities` are those of standard output, which may be a file.
  const term = Option.getOrUndefined(yield* Effect.orElseSucceed(Config.option(Config.String("TERM")), Option.none))
  if (term === "dumb" || !(yield* stdio.stderrIsTerminal)) return (): Effect.Effect<void> => Effect.void
  const write = (text: string): Effect.Effect<void> =>
    Effect.flatMap(sizeOf(terminal), ({ columns }) =>
      Effect.ignore(
        Stream.run(Stream.succeed(`\r\u001b[2K${fit(oneLine(text), columns - 1)}`), stdio.stderr({ endOnDone: false }))
      )
    )
  yield* Effect.addFinalizer(() => write(""))
  return write
})
