/**
 * The only way to the terminal, besides the painter: what is printed holds no character that a terminal obeys, and its lines
 * break between words.
 */
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Stdio from "effect/Stdio"
import * as Terminal from "effect/Terminal"
import { printable, safeJson, wrap } from "./text.ts"

/** How wide lines may be: as the terminal that shows them, or without a bound in a file. */
export interface Room {
  readonly stdout: number
  readonly stderr: number
}

/** The room of this process. */
export const Room: Context.Reference<Room> = Context.Reference<Room>("floodgate/cli/Room", {
  defaultValue: () => ({ stdout: Infinity, stderr: Infinity })
})

/** Looks how much room there is. */
export const measured = Effect.gen(function* () {
  const stdio = yield* Stdio.Stdio
  const columns = yield* (yield* Terminal.Terminal).columns
  const width = columns > 0 ? columns : 80
  return {
    stdout: (yield* stdio.stdoutIsTerminal) ? width : Infinity,
    stderr: (yield* stdio.stderrIsTerminal) ? width : Infinity
  }
})

/** Prints an answer. */
export const out = (text: string): Effect.Effect<void> =>
  Effect.flatMap(Room, ({ stdout }) => Console.log(wrap(printable(text), stdout)))

/** Prints what is not the answer: standard output belongs to that. */
export const err = (text: string): Effect.Effect<void> =>
  Effect.flatMap(Room, ({ stderr }) => Console.error(wrap(printable(text), stderr)))

/** Prints a value for a program. */
export const json = (value: unknown, indent?: number): Effect.Effect<void> => Console.log(safeJson(value, indent))
