/** Reads the sessions of `--sessions`: a recording of the gateway, or a table. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Stepwise } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import { Sessions } from "floodgate/testing"
import { Recorded } from "@floodgate/lab/internal"
import { invalidFlag } from "@floodgate/gateway/internal/errors"
import { text, unreadable } from "@floodgate/gateway/internal/files"
import * as Print from "@floodgate/gateway/internal/print"
import { statusLine } from "./painter.ts"
import { oneLine } from "@floodgate/gateway/internal/text"

/** A month of a busy team. */
const maxBytes = 256e6

const how = "record some with floodgate gateway --record FILE"

/** More skipped lines than this are counted. */
const maxNamed = 5

/** Parses the lines of a file. */
const parsed = Effect.fnUntraced(function* (path: string) {
  const content = yield* text(path, maxBytes)
  const kind = Recorded.kindOf(content)
  if (kind === "recording") return yield* Stepwise.yielding(Recorded.parseSteps(content))
  if (kind === "trace") {
    const what = "it has calls but no sessions, as a trace or a file that version 0.4 recorded"
    return yield* unreadable(path, `${what}: ${how}, or play its calls with --trace`)
  }
  const table = Sessions.parse(content)
  const [first] = table.unreadable
  if (first?.problem.startsWith("expected the columns") === true) {
    const found = first.problem.replace(/^.*, got /, "")
    const tables = "a table with the columns session,path,pause,input,cached,output"
    return yield* unreadable(path, `expected a recording of a gateway or ${tables}, got ${found}: ${how}`)
  }
  return Recorded.ofTable(table)
})

/** Reads sessions, at least one. Names the lines that it skips on standard error. */
export const read = Effect.fnUntraced(function* (path: string) {
  const status = yield* statusLine
  yield* status(`reading ${path}`)
  const recorded = yield* parsed(path)
  const { sessions, unreadable: skipped } = recorded
  if (sessions.length === 0) {
    const [first] = skipped
    const why = first === undefined ? "it has no calls" : `line ${first.line}: ${first.problem}`
    return yield* unreadable(path, `${why}; ${how}`)
  }
  yield* status("")
  for (const { line, problem } of skipped.slice(0, maxNamed)) {
    yield* Print.err(`${oneLine(path)}: skipped line ${line}: ${oneLine(problem)}`)
  }
  if (skipped.length > maxNamed) {
    yield* Print.err(`${oneLine(path)}: skipped ${Words.counted(skipped.length - maxNamed, "more line")}`)
  }
  return recorded
}, Effect.scoped)

const callsOf = ({ turns }: Sessions.SessionAgent): number =>
  turns.reduce((sum, { subAgents }) => subAgents.reduce((all, agent) => all + callsOf(agent), sum + 1), 0)

/** The number of calls of sessions and their sub-agents. */
const callsIn = (sessions: ReadonlyArray<Sessions.Session>): number =>
  sessions.reduce((sum, { lead }) => sum + callsOf(lead), 0)

/**
 * As many sessions as asked for: the first of the file, or all of them again and again. They are counted before they are made, because a
 * number of agents may ask for more than the memory holds.
 */
export const chosen = Effect.fnUntraced(function* (
  { sessions }: Recorded.RecordedSessions,
  agents: Option.Option<number>,
  max: { readonly command: string; readonly calls: number; readonly otherwise?: string }
) {
  const count = Option.getOrElse(agents, () => sessions.length)
  const rest = count % sessions.length
  const calls = ((count - rest) / sessions.length) * callsIn(sessions) + callsIn(sessions.slice(0, rest))
  if (calls > max.calls) {
    const expected = `at most ${Words.thousands(max.calls)} calls of all sessions${max.otherwise ?? ""}`
    const option = Option.isSome(agents) ? "agents" : "sessions"
    return yield* invalidFlag(max.command)(option, expected, `${Words.thousands(calls)} calls`)
  }
  return Array.from({ length: count }, (_, index): Sessions.Session => {
    const session = sessions[index % sessions.length]!
    const copy = Math.floor(index / sessions.length)
    return copy === 0 ? session : { ...session, name: `${session.name}+${copy}` }
  })
})

/** Whether what is read from the cache counts against the limits: everywhere but at Anthropic. A table is of Claude Code. */
export const countsCached = ({ models: [model] }: Recorded.RecordedSessions): boolean =>
  model !== undefined && !model.includes("claude")
