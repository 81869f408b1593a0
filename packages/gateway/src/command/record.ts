/**
 * Writes the trace of `--record`: CSV with the columns of the Azure LLM inference traces, and more for the sessions of agents. It has
 * neither content nor keys, and instead of names the keyed hashes that the gateway makes of them.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Gateway from "../index.ts"
import type * as Exit from "../terminal/exit.ts"
import * as Output from "../terminal/output.ts"
import * as Print from "../terminal/print.ts"
import { oneLine } from "../terminal/text.ts"

const flag = "--record"
/** Calls are written to the file at this interval. */
const flushEvery = "1 second"
/** How many calls are kept in memory while the file cannot be written. Further ones are lost. */
const maxWaiting = 100_000

type RecordCall = NonNullable<Gateway.Options["record"]>
type RecordedCall = Parameters<RecordCall>[0]

/** `2023-11-16 18:17:03.979`, in UTC. */
const timeOf = (millis: number): string => new Date(millis).toISOString().replace("T", " ").replace("Z", "")

/** Names of models come from callers, so they are cut. */
const maxNameLength = 200

/** A name as a cell that needs no quotes and that no spreadsheet takes for a formula. */
const cellOf = (name: string): string => oneLine(name.slice(0, maxNameLength)).replaceAll(/[",]|^[=+@-]/g, "_")

const secondsOf = (millis: number): string => (millis / 1_000).toFixed(3)
const tokensOf = (tokens: number): string => String(Math.round(tokens))

interface TraceColumn {
  readonly name: string
  readonly cell: (call: RecordedCall) => string
}

/** The columns of version 0.4. A file that it began keeps them. */
const columnsOf04: ReadonlyArray<TraceColumn> = [
  { name: "TIMESTAMP", cell: ({ at }) => timeOf(at) },
  { name: "ContextTokens", cell: ({ inputTokens }) => tokensOf(inputTokens) },
  { name: "GeneratedTokens", cell: ({ outputTokens }) => tokensOf(outputTokens) },
  { name: "Model", cell: ({ model }) => cellOf(model) },
  { name: "Agent", cell: ({ agentId }) => agentId },
  { name: "WaitSeconds", cell: ({ waitedMillis }) => secondsOf(waitedMillis) }
]

/** All columns. Every line ends with seconds in three decimals, which shows that it is complete. */
const columns: ReadonlyArray<TraceColumn> = [
  ...columnsOf04,
  { name: "Session", cell: ({ sessionId }) => sessionId },
  { name: "Parent", cell: ({ parentId = "" }) => parentId },
  { name: "CachedTokens", cell: ({ cachedTokens }) => tokensOf(cachedTokens) },
  { name: "CacheWrittenTokens", cell: ({ cacheWrittenTokens }) => tokensOf(cacheWrittenTokens) },
  {
    name: "PauseSeconds",
    cell: ({ pauseMillis }) => (pauseMillis === undefined ? "" : secondsOf(pauseMillis))
  },
  { name: "AnswerSeconds", cell: ({ answeredMillis }) => secondsOf(answeredMillis) }
]

const headerOf = (of: ReadonlyArray<TraceColumn>): string => `${of.map(({ name }) => name).join(",")}\n`
const header = headerOf(columns)
const headerOf04 = headerOf(columnsOf04)

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** A call as a line. */
const lineOf = (of: ReadonlyArray<TraceColumn>, call: RecordedCall): string =>
  of.map(({ cell }) => cell(call)).join(",")

// -----------------------------------------------------------------------------
// The file
// -----------------------------------------------------------------------------

/** Longer than any line. */
const tailBytes = 64 * 1_024
const newline = 10
/** Whether a line has all of its cells, the last of them in full. */
const isWhole = (of: ReadonlyArray<TraceColumn>, line: string): boolean =>
  line.split(",").length === of.length && /,\d+\.\d{3}$/.test(line)

/** Completes or removes the last line if a killed process left it without its end. */
const mend = Effect.fnUntraced(function* (path: string, size: number, of: ReadonlyArray<TraceColumn>) {
  const fs = yield* FileSystem.FileSystem
  const writing = Output.writing(path, flag)
  const start = Math.max(0, size - tailBytes)
  const last = Effect.gen(function* () {
    const file = yield* fs.open(path)
    yield* file.seek(BigInt(start), "start")
    return yield* file.readAlloc(tailBytes)
  })
  const tail = Option.getOrElse(yield* writing(Effect.scoped(last)), () => new Uint8Array())
  const end = tail.lastIndexOf(newline) + 1
  if (end === tail.length) return
  if (end === 0) return yield* Output.unusable(`${oneLine(path)} is not a trace of a gateway`, flag)
  if (isWhole(of, decoder.decode(tail.subarray(end))))
    return yield* writing(fs.writeFileString(path, "\n", { flag: "a" }))
  yield* writing(fs.truncate(path, start + end))
  yield* Print.err(`${oneLine(path)} ended with an incomplete line, which was removed`)
})

/** Prepares a trace that ends with a complete line, and returns its columns. A file that is not a trace is refused. */
const prepare = Effect.fnUntraced(function* (path: string) {
  const fs = yield* FileSystem.FileSystem
  const writing = Output.writing(path, flag)
  const info = yield* Output.ownFile(path, flag)
  const size = Number(info?.size ?? 0)
  const head = Effect.scoped(Effect.flatMap(fs.open(path), (file) => file.readAlloc(header.length)))
  const begun = size === 0 ? "" : decoder.decode(Option.getOrUndefined(yield* writing(head)))
  const isEmpty = begun === headerOf04 || header.startsWith(begun)
  if (isEmpty && size < header.length) {
    yield* writing(fs.writeFileString(path, header, { mode: Output.ownerOnly }))
    return columns
  }
  const own = begun === header ? columns : columnsOf04
  if (!begun.startsWith(headerOf(own)))
    return yield* Output.unusable(`${oneLine(path)} is not a trace of a gateway`, flag)
  yield* mend(path, size, own)
  if (own === columnsOf04) {
    yield* Print.err(`${oneLine(path)} was begun by version 0.4, so its calls have no sessions: record to a new file`)
  }
  return own
})

/**
 * Opens a trace, to which calls are added until the scope closes. Only its owner may read it, also if it was there before: it says
 * who called which model, and when.
 */
export const open = Effect.fnUntraced(function* (
  path: string
): Effect.fn.Return<RecordCall, Exit.CommandError, FileSystem.FileSystem | Scope.Scope> {
  const fs = yield* FileSystem.FileSystem
  const own = yield* prepare(path)
  const file = yield* Output.writing(path, flag)(fs.open(path, { flag: "a", mode: Output.ownerOnly }))
  yield* Output.restrict(path)
  let lines: Array<string> = []
  /** Bytes that are not in the file yet. */
  let rest = new Uint8Array()
  /** The beginning of a line of which the rest is not in the file yet. */
  let begun = new Uint8Array()
  /** The number of lines in `rest`. */
  let unwritten = 0
  let lost = 0
  let isFailing = false

  const write = Effect.gen(function* () {
    if (lines.length > 0) {
      rest = Buffer.concat([rest, encoder.encode(`${lines.join("\n")}\n`)])
      unwritten += lines.length
      lines = []
    }
    while (rest.length > 0) {
      const count = Number(yield* file.write(rest))
      if (count === 0) return yield* Effect.fail("nothing was written")
      const written = rest.subarray(0, count)
      for (const byte of written) if (byte === newline) unwritten--
      const last = Buffer.concat([begun, written])
      begun = last.subarray(last.lastIndexOf(newline) + 1)
      rest = rest.subarray(count)
    }
    if (isFailing) yield* Print.err(`${oneLine(path)} can be written again; ${lost} calls are missing in it`)
    isFailing = false
  })
  /** Takes the beginning of a line out of the file, so that whoever reads or adds to it while the disk is full finds whole lines. */
  const untear = Effect.gen(function* () {
    if (begun.length === 0) return
    const { size } = yield* file.stat
    yield* file.truncate(Number(size) - begun.length)
    rest = Buffer.concat([begun, rest])
    begun = new Uint8Array()
  })
  const flush = Effect.catch(write, (error) =>
    Effect.gen(function* () {
      yield* Effect.ignore(untear)
      if (isFailing) return
      isFailing = true
      yield* Print.err(`${Output.unwritten(path, error)}: calls are kept in memory`)
    })
  ).pipe(Effect.uninterruptible)
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(flushEvery), flush)))
  yield* Effect.addFinalizer(() =>
    Effect.andThen(
      flush,
      Effect.suspend(() =>
        unwritten === 0 ? Effect.void : Print.err(`${oneLine(path)}: ${lost + unwritten} calls are missing in it`)
      )
    )
  )
  return (call) => {
    if (lines.length + unwritten < maxWaiting) lines.push(lineOf(own, call))
    else lost++
  }
})
