/** What the command does in steps, done at once. */
import { drained } from "floodgate/internal"
import { type Loaded, parseSteps } from "../../src/commands/run/results.ts"
import { type Chunk, type Document, splitSteps } from "../../src/commands/run/split.ts"

export const split = (documents: ReadonlyArray<Document>, count: number): ReadonlyArray<Chunk> =>
  drained(splitSteps(documents, count))

export const parse = (text: string): Loaded => drained(parseSteps(text))
