/** What the command does in steps, done at once. */
import { Stepwise } from "floodgate/internal"
import { type Loaded, parseSteps } from "../../src/commands/run/results.ts"
import { type Chunk, type Document, splitSteps } from "../../src/commands/run/split.ts"

export const split = (documents: ReadonlyArray<Document>, count: number): ReadonlyArray<Chunk> =>
  Stepwise.drained(splitSteps(documents, count))

export const parse = (text: string): Loaded => Stepwise.drained(parseSteps(text))
