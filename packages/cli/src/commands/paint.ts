/** The colours of tables. */
import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import * as Effect from "effect/Effect"
import type { Matrix } from "@floodgate/lab/internal"

const styles: Readonly<Record<Matrix.Tone, number>> = { lost: 31, quiet: 2, ours: 1 }

/** The colours of a table, if the terminal shows colours and `NO_COLOR` is not set. */
export const painting: Effect.Effect<Matrix.Paint> = Effect.map(
  TerminalCapabilities.TerminalCapabilities,
  ({ canColor }): Matrix.Paint =>
    (text, tone) =>
      canColor ? `\u001b[${styles[tone]}m${text}\u001b[0m` : text
)
