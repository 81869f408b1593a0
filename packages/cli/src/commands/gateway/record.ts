/** The trace that `--record` writes: CSV in the columns of the Azure LLM inference traces, and three more. No content, no key. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Gateway from "floodgate/gateway"
import type * as Exit from "../exit.ts"
import * as Output from "../output.ts"
import * as Print from "../print.ts"
import { oneLine } from "../text.ts"

const flag = "--record"
const header = "TIMESTAMP,ContextTokens,GeneratedTokens,Model,Agent,WaitSeconds\n"
/** Records are written to the disk within this time. */
const flushEvery = "1 second"
/** The most calls that wait to be written. Further ones are lost. */
const mostWaiting = 100_000

/** `2023-11-16 18:17:03.979`, in UTC. */
const timeOf = (millis: number): string => new Date(millis).toISOString().replace("T", " ").replace("Z", "")

/** A name as a cell that needs no quotes and is not a formula. */
const cellOf = (name: string): string => oneLine(name).replaceAll(/[",]|^[=+@-]/g, "_")

type Record = NonNullable<Gateway.Options["record"]>

/** A call as a line. */
const lineOf = ({ agent, at, inputTokens, model, outputTokens, waitedMillis }: Parameters<Record>[0]): string =>
  [
    timeOf(at),
    Math.round(inputTokens),
    Math.round(outputTokens),
    cellOf(model),
    cellOf(agent),
    (waitedMillis / 1_000).toFixed(3)
  ].join(",")

/** Opens a trace, to which calls are added until the scope closes. A file that is not such a trace is refused. */
export const open = Effect.fnUntraced(function* (
  path: string
): Effect.fn.Return<Record, Exit.Failed, FileSystem.FileSystem | Scope.Scope> {
  const fs = yield* FileSystem.FileSystem
  const writing = Output.writing(path, flag)
  const info = yield* Output.ownFile(path, flag)
  if (info === undefined || Number(info.size) === 0) yield* writing(fs.writeFileString(path, header))
  else {
    const file = yield* writing(fs.open(path))
    const first = Option.getOrUndefined(yield* writing(file.readAlloc(header.length)))
    if (new TextDecoder().decode(first) !== header)
      return yield* Output.unusable(`${oneLine(path)} is no trace of a gateway`, flag)
  }
  const file = yield* writing(fs.open(path, { flag: "a" }))
  let lines: Array<string> = []
  let lost = 0
  const flush = Effect.suspend(() => {
    if (lines.length === 0) return Effect.void
    const text = `${lines.join("\n")}\n`
    const count = lines.length
    lines = []
    return Effect.catch(file.writeAll(new TextEncoder().encode(text)), (error) => {
      lost += count
      return Print.err(`${Output.unwritten(path, error)}: ${lost} calls are missing in it`)
    })
  }).pipe(Effect.uninterruptible)
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(flushEvery), flush)))
  yield* Effect.addFinalizer(() => flush)
  return (call) => {
    if (lines.length < mostWaiting) lines.push(lineOf(call))
  }
})
