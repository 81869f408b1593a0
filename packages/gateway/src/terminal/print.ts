/**
 * Prints to the terminal, as only this module and the painter do. Control characters are removed, except the colours of our own
 * tables, and lines break between words.
 */
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Stdio from "effect/Stdio"
import * as Terminal from "effect/Terminal"
import { printable, safeJson, wrap } from "./text.ts"

/** The room for lines: the width of the terminal, or unbounded in a file. */
export interface Room {
  readonly stdout: number
  readonly stderr: number
}

/** The room of this process. */
export const Room: Context.Reference<Room> = Context.Reference<Room>("floodgate/cli/Room", {
  defaultValue: () => ({ stdout: Infinity, stderr: Infinity })
})

/** Measures the terminal. */
export const measured = Effect.gen(function* () {
  const stdio = yield* Stdio.Stdio
  const columns = yield* (yield* Terminal.Terminal).columns
  const width = columns > 0 ? columns : 80
  return {
    stdout: (yield* stdio.stdoutIsTerminal) ? width : Infinity,
    stderr: (yield* stdio.stderrIsTerminal) ? width : Infinity
  }
})

/** Prints the result of a command on standard output. */
export const out = (text: string): Effect.Effect<void> =>
  Effect.flatMap(Room, ({ stdout }) => Console.log(wrap(printable(text), stdout)))

/** Prints a coloured table. It is printed as it is, so all of its text must be our own. */
export const painted = (table: string): Effect.Effect<void> => Console.log(table)

/** Prints a message on standard error. */
export const err = (text: string): Effect.Effect<void> =>
  Effect.flatMap(Room, ({ stderr }) => Console.error(wrap(printable(text), stderr)))

/** Prints a value as JSON. */
export const json = (value: unknown, indent?: number): Effect.Effect<void> => Console.log(safeJson(value, indent))
