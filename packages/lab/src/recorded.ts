/**
 * Sessions that a gateway has recorded.
 *
 * @stability experimental
 * @since 0.5.0
 */
import type { Stepwise } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import type { Sessions } from "floodgate/testing"
import type { Unreadable } from "./traces.ts"

/**
 * Sessions that were recorded, and how long they took.
 *
 * @stability experimental
 * @category models
 * @since 0.5.0
 */
export interface RecordedSessions {
  readonly sessions: ReadonlyArray<Sessions.Session>
  /** The lines that were skipped. */
  readonly unreadable: ReadonlyArray<Unreadable>
  /** From the first arrival to the end of the last answer; undefined for a table without times. */
  readonly seconds: number | undefined
  /** The mean time from the first arrival of all to the end of a session. */
  readonly meanEndSeconds: number | undefined
  /** The models, the most used first. */
  readonly models: ReadonlyArray<string>
  /** How long the provider takes, fitted to the answers; undefined for a table without times. */
  readonly latency: { readonly baseMillis: number; readonly perOutputTokenMillis: number } | undefined
}

// -----------------------------------------------------------------------------
// Lines
// -----------------------------------------------------------------------------

const columns = [
  "TIMESTAMP",
  "ContextTokens",
  "GeneratedTokens",
  "Model",
  "Agent",
  "WaitSeconds",
  "Session",
  "Parent",
  "CachedTokens",
  "CacheWrittenTokens",
  "AnswerSeconds"
] as const

type RecordedColumn = (typeof columns)[number]

/** A line. Times are in milliseconds. */
interface SessionCall {
  readonly session: string
  readonly agent: string
  readonly parent: string
  readonly model: string
  readonly at: number
  readonly end: number
  readonly answerMillis: number
  readonly inputTokens: number
  readonly cachedTokens: number
  readonly writtenTokens: number
  readonly outputTokens: number
}

const maxTokens = 100_000_000
/** A call takes at most a day. */
const maxSeconds = 86_400

const timeOf = (text: string): number => {
  const isTime = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$/.test(text)
  return isTime ? Date.parse(`${text.replace(" ", "T")}Z`) : Number.NaN
}

const shown = (text: string): string => (text === "" ? "nothing" : text.slice(0, 80))

/** The call of a line, or the problem with it. */
const callOf = (cellOf: (column: RecordedColumn) => string): SessionCall | string => {
  const number = (column: RecordedColumn, max: number): number => {
    const text = cellOf(column)
    const value = text === "" ? Number.NaN : Number(text)
    return value >= 0 && value <= max ? value : Number.NaN
  }
  const at = timeOf(cellOf("TIMESTAMP"))
  if (Number.isNaN(at))
    return `TIMESTAMP: expected a time such as 2026-12-01 14:37:32.526, got ${shown(cellOf("TIMESTAMP"))}`
  for (const column of ["ContextTokens", "GeneratedTokens", "CachedTokens", "CacheWrittenTokens"] as const) {
    if (!Number.isInteger(number(column, maxTokens))) {
      return `${column}: expected a whole number of tokens from 0 to ${Words.thousands(maxTokens)}, got ${shown(cellOf(column))}`
    }
  }
  for (const column of ["WaitSeconds", "AnswerSeconds"] as const) {
    if (Number.isNaN(number(column, maxSeconds))) {
      return `${column}: expected a number of seconds from 0 to ${Words.thousands(maxSeconds)}, got ${shown(cellOf(column))}`
    }
  }
  for (const column of ["Session", "Agent"] as const) {
    if (cellOf(column) === "") return `${column}: expected a name, got nothing`
  }
  const inputTokens = number("ContextTokens", maxTokens)
  const cachedTokens = number("CachedTokens", maxTokens)
  if (inputTokens === 0) return "ContextTokens: expected at least one token, got 0"
  if (cachedTokens > inputTokens) {
    return `CachedTokens: expected at most the ${inputTokens} of the prompt, got ${cachedTokens}`
  }
  const answerMillis = 1_000 * number("AnswerSeconds", maxSeconds)
  return {
    session: cellOf("Session"),
    agent: cellOf("Agent"),
    parent: cellOf("Parent"),
    model: cellOf("Model"),
    at,
    end: at + 1_000 * number("WaitSeconds", maxSeconds) + answerMillis,
    answerMillis,
    inputTokens,
    cachedTokens,
    writtenTokens: number("CacheWrittenTokens", maxTokens),
    outputTokens: number("GeneratedTokens", maxTokens)
  }
}

// -----------------------------------------------------------------------------
// Agents
// -----------------------------------------------------------------------------

const endOf = (calls: ReadonlyArray<SessionCall>): number => calls.reduce((last, { end }) => Math.max(last, end), 0)

/** Calls of an agent, one after the other. */
interface Lane {
  readonly agent: string
  readonly parent: string
  readonly calls: Array<SessionCall>
}

/**
 * The lanes of a session, by their first calls. An agent has one for each model, because the small model that Claude Code asks for titles
 * knows nothing of the conversation, and more if its calls overlap.
 */
const lanesOf = (calls: ReadonlyArray<SessionCall>): ReadonlyArray<Lane> => {
  const lanes: Array<Lane> = []
  for (const group of Map.groupBy(calls, ({ agent, model }) => `${agent} ${model}`).values()) {
    const own: Array<Lane> = []
    for (const call of group) {
      const free = own.find(({ calls }) => calls.at(-1)!.end <= call.at)
      if (free !== undefined) {
        free.calls.push(call)
        continue
      }
      const lane = { agent: call.agent, parent: call.parent, calls: [call] }
      own.push(lane)
      lanes.push(lane)
    }
  }
  return lanes.sort((a, b) => a.calls[0]!.at - b.calls[0]!.at)
}

/**
 * A pause after which a prefix is no longer in a provider's cache, in milliseconds: Anthropic's lifetime of five minutes.
 *
 * @stability experimental
 * @category models
 * @since 0.5.0
 */
export const lifetimeMillis = 300_000

/**
 * The part of a prompt that the agent's last prompt has, too. What was read from the cache says so, unless the pause was so long that
 * nothing was left of it: then a prompt that is not shorter continues the conversation.
 */
const prefixOf = (call: SessionCall, before: SessionCall, isCached: boolean): number => {
  const { at, cachedTokens, inputTokens } = call
  const expired = isCached && at - before.end >= lifetimeMillis && inputTokens >= before.inputTokens
  return expired ? Math.max(cachedTokens, before.inputTokens) : cachedTokens
}

/** An agent goes on at once when its sub-agents have ended. If its next turn comes later than this, it was waiting for something else. */
const reactionMillis = 5_000

type RecordedTurn = Sessions.SessionAgent["turns"][number] & { readonly subAgents: Array<Sessions.SessionAgent> }

/** A lane under the turn that started it. */
interface StartedLane {
  readonly lane: Lane
  readonly turn: number
  readonly turnsMeanwhile: number
  readonly end: number
}

const startedBy = (parent: Lane, lane: Lane): StartedLane => {
  const { at } = lane.calls[0]!
  const end = endOf(lane.calls)
  const turn = Math.max(
    0,
    parent.calls.findLastIndex((call) => call.at <= at)
  )
  // A turn of the parent that came after the end of a sub-agent has waited for it.
  const waiting = lane.agent === parent.agent ? -1 : parent.calls.findIndex((call) => call.at >= end)
  return { lane, turn, turnsMeanwhile: waiting < 0 ? Infinity : waiting - turn - 1, end }
}

/** The agent of a lane, with those that it started. `from` is when it was started, or when its last turn ended. */
const agentOf = (
  lane: Lane,
  path: string,
  from: number,
  children: ReadonlyMap<Lane, ReadonlyArray<Lane>>
): Sessions.SessionAgent => {
  const started = (children.get(lane) ?? []).map((child) => startedBy(lane, child))
  /** The sub-agents that each turn waits for. */
  const waiting = Map.groupBy(started, ({ turn, turnsMeanwhile }) => turn + turnsMeanwhile + 1)
  const isCached = lane.calls.some(({ cachedTokens, writtenTokens }) => cachedTokens + writtenTokens > 0)
  const turns = lane.calls.map((call, index): RecordedTurn => {
    const before = lane.calls[index - 1]
    const ended = (waiting.get(index) ?? []).filter(({ end }) => call.at - end < reactionMillis)
    const free = ended.reduce((last, { end }) => Math.max(last, end), before?.end ?? from)
    return {
      inputTokens: call.inputTokens,
      cachedTokens: before === undefined ? 0 : prefixOf(call, before, isCached),
      outputTokens: call.outputTokens,
      pauseMillis: Math.max(0, call.at - free),
      subAgents: []
    }
  })
  for (const [number, { lane: child, turn, turnsMeanwhile }] of started.entries()) {
    const agent = agentOf(child, `${path}/${number + 1}`, lane.calls[turn]!.end, children)
    turns[turn]!.subAgents.push(turnsMeanwhile === 0 ? agent : { ...agent, turnsMeanwhile })
  }
  return { path, turns }
}

/** Sub-agents of sub-agents were seen five levels deep. Deeper ones than this are put under the lead, so that nothing overflows. */
const maxDepth = 50

/** A session of its calls in the order of their arrival. `from` is the first arrival of all sessions. */
const sessionOf = (name: string, calls: ReadonlyArray<SessionCall>, from: number): Sessions.Session => {
  const [lead, ...others] = lanesOf(calls)
  /** The first lane of each agent. Only earlier ones are known, so there are no circles. */
  const known = new Map([[lead!.agent, lead!]])
  const children = new Map<Lane, Array<Lane>>()
  const depths = new Map([[lead!, 0]])
  for (const lane of others) {
    const named = known.get(lane.agent) ?? known.get(lane.parent) ?? lead!
    const parent = depths.get(named)! < maxDepth ? named : lead!
    depths.set(lane, depths.get(parent)! + 1)
    const siblings = children.get(parent)
    if (siblings === undefined) children.set(parent, [lane])
    else siblings.push(lane)
    if (!known.has(lane.agent)) known.set(lane.agent, lane)
  }
  return { name, lead: agentOf(lead!, "0", from, children) }
}

// -----------------------------------------------------------------------------
// Latency
// -----------------------------------------------------------------------------

/** The line through times and output tokens with the least squares. Neither part is below zero. */
const latencyOf = (calls: ReadonlyArray<SessionCall>): NonNullable<RecordedSessions["latency"]> => {
  const mean = (of: (call: SessionCall) => number) => calls.reduce((sum, call) => sum + of(call), 0) / calls.length
  const output = mean(({ outputTokens }) => outputTokens)
  const millis = mean(({ answerMillis }) => answerMillis)
  const variance = mean(({ outputTokens }) => (outputTokens - output) ** 2)
  const together = mean((call) => (call.outputTokens - output) * (call.answerMillis - millis))
  const slope = variance === 0 ? 0 : Math.max(0, together / variance)
  const perOutputTokenMillis = output === 0 ? 0 : Math.min(slope, millis / output)
  return { baseMillis: millis - perOutputTokenMillis * output, perOutputTokenMillis }
}

// -----------------------------------------------------------------------------
// Files
// -----------------------------------------------------------------------------

const headOf = (text: string): ReadonlyArray<string> =>
  (/^\uFEFF?(.*)/.exec(text)?.[1] ?? "").split(",").map((cell) => cell.trim())

const tracesHave = ["TIMESTAMP", "Timestamp"]

/**
 * The kind of a text by its first line: a recording with sessions, a trace of calls without them, such as 0.4 recorded, or something else.
 *
 * @stability experimental
 * @category sessions
 * @since 0.5.0
 */
export const kindOf = (text: string): "recording" | "trace" | "other" => {
  const heads = headOf(text)
  if (columns.every((column) => heads.includes(column))) return "recording"
  return tracesHave.some((column) => heads.includes(column)) ? "trace" : "other"
}

/**
 * The sessions of a table, which has no times.
 *
 * @stability experimental
 * @category sessions
 * @since 0.5.0
 */
export const ofTable = ({ sessions, unreadable }: ReturnType<typeof Sessions.parse>): RecordedSessions => ({
  sessions,
  unreadable,
  models: [],
  seconds: undefined,
  meanEndSeconds: undefined,
  latency: undefined
})

/** Lines in one step, which takes a millisecond or two. */
const atOnce = 2_000

/**
 * Reads what a gateway has recorded, in steps.
 *
 * **Details**
 *
 * - A session is a tree of agents. A sub-agent is under the turn of its parent that came last before it, and the parent's first turn
 *   after its end waits for it
 * - Calls of one agent that overlap are played as sub-agents for which nobody waits
 * - The first pause of a session is the time from the first call of the file to its own
 * - What a conversation shares with its last prompt is what was read from the cache. After five minutes, when caches have
 *   forgotten it, it is the whole last prompt, if the new one is at least as long
 * - A damaged line is skipped and named
 *
 * @stability experimental
 * @category sessions
 * @since 0.5.0
 */
export function* parseSteps(text: string): Stepwise.Stepwise<RecordedSessions> {
  const lines = text.split(/\r?\n/)
  const heads = headOf(text)
  const places = new Map(columns.map((column) => [column, heads.indexOf(column)]))
  const unreadable: Array<Unreadable> = []
  const calls: Array<SessionCall> = []
  for (let index = 1; index < lines.length; index++) {
    if (index % atOnce === 0) yield
    const line = lines[index]!
    if (line.trim() === "") continue
    const cells = line.split(",")
    const call =
      cells.length === heads.length
        ? callOf((column) => cells[places.get(column)!]!.trim())
        : `expected ${heads.length} cells, got ${cells.length}`
    if (typeof call === "string") unreadable.push({ line: index + 1, problem: call })
    else calls.push(call)
  }
  if (calls.length === 0) {
    return ofTable({ sessions: [], unreadable })
  }
  calls.sort((a, b) => a.at - b.at)
  yield
  const from = calls[0]!.at
  const bySession = [...Map.groupBy(calls, ({ session }) => session).values()]
  const width = String(bySession.length).length
  const sessions: Array<Sessions.Session> = []
  for (const [index, own] of bySession.entries()) {
    sessions.push(sessionOf(`session-${String(index + 1).padStart(width, "0")}`, own, from))
    yield
  }
  const ends = bySession.map((own) => endOf(own) - from)
  const uses = Map.groupBy(calls, ({ model }) => model)
  return {
    sessions,
    unreadable,
    seconds: ends.reduce((last, end) => Math.max(last, end), 0) / 1_000,
    meanEndSeconds: ends.reduce((sum, end) => sum + end, 0) / ends.length / 1_000,
    models: [...uses].toSorted(([, a], [, b]) => b.length - a.length).map(([model]) => model),
    latency: latencyOf(calls)
  }
}
