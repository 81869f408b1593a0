/** Explains the strategies below a table. */
import * as Effect from "effect/Effect"
import { Strategies } from "@floodgate/lab/internal"
import * as Print from "@floodgate/gateway/internal/print"
import { hung } from "@floodgate/gateway/internal/text"

/** Prints a line for each strategy, wrapped below its beginning if there is little room. */
export const print = (names: ReadonlyArray<string>): Effect.Effect<void> =>
  Effect.flatMap(Print.Room, ({ stdout }) => {
    const width = Math.max(...names.map((name) => name.length))
    const lines = Strategies.all
      .filter(({ name }) => names.includes(name))
      .map(({ name, summary }) => `${name.padEnd(width)}  ${hung(summary, width + 2, stdout)}`)
    return Print.out(lines.join("\n"))
  })
