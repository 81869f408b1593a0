/** Sessions as a table: one line a turn, in CSV. Pure. */
import type { Session, SessionAgent, SessionTurn } from "./models.ts"

const columns = ["session", "path", "pause", "input", "cached", "output"] as const

type ColumnName = (typeof columns)[number]

/** Other names of columns, as in the sessions of callanjfox/kv-cache-tester. */
const otherNames: Partial<Record<ColumnName, string>> = { pause: "think_seconds" }

/** More tokens than any model reads; JavaScript has no texts that are much longer. */
const maxTokens = 100_000_000

/** A pause of a month: simulations last no longer. */
const maxPauseSeconds = 2_592_000

const lead = "0"

/** An agent whose turns are still being read. */
interface OpenAgent extends SessionAgent {
  readonly turns: Array<OpenTurn>
}

interface OpenTurn extends SessionTurn {
  readonly subAgents: Array<OpenAgent>
}

/** A session that is still being read: its agents by path. */
type OpenSession = Map<string, OpenAgent>

const shown = (text: string): string => (text === "" ? "nothing" : text.slice(0, 80))

/** A number from 0, `empty` for an empty cell, or undefined if it is not a number in this range. */
const numberOf = (cell: string, max: number, empty?: number): number | undefined => {
  const text = cell.trim()
  if (text === "") return empty
  const value = Number(text)
  return value >= 0 && value <= max ? value : undefined
}

const tokensOf = (cell: string): number | undefined => {
  const tokens = numberOf(cell, maxTokens)
  return Number.isInteger(tokens) ? tokens : undefined
}

/** The numbers of a line, or the problem with it. */
const turnOf = (cellOf: (column: ColumnName) => string): OpenTurn | string => {
  const [input, cached, output] = (["input", "cached", "output"] as const).map((column) => tokensOf(cellOf(column)))
  const sizes = ["input", "cached", "output"] as const
  const stray = sizes.find((_, index) => [input, cached, output][index] === undefined)
  if (stray !== undefined) {
    return `${stray}: expected a whole number of tokens from 0 to ${maxTokens}, got ${shown(cellOf(stray))}`
  }
  if (input === 0) return "input: expected at least one token, got 0"
  if (cached! > input!) return `cached: expected at most the input of ${input}, got ${cached}`
  const pause = numberOf(cellOf("pause"), maxPauseSeconds, 0)
  if (pause === undefined) {
    return `pause: expected a number of seconds from 0 to ${maxPauseSeconds}, got ${shown(cellOf("pause"))}`
  }
  return {
    inputTokens: input!,
    cachedTokens: cached!,
    outputTokens: output!,
    pauseMillis: Math.round(pause * 1_000),
    subAgents: []
  }
}

/** The agent of a path, new or known, or the problem with the path. */
const agentOf = (session: OpenSession, path: string): OpenAgent | string => {
  const known = session.get(path)
  if (known !== undefined) return known
  if (!/^0(\/\d+){0,32}$/.test(path)) {
    return `path: expected 0 for the lead, or 0/6 for a sub-agent, at most 32 levels deep, got ${shown(path)}`
  }
  const agent: OpenAgent = { path, turns: [] }
  if (path !== lead) {
    const parent = path.slice(0, path.lastIndexOf("/"))
    const started = session.get(parent)?.turns.at(-1)
    if (started === undefined) return `path: expected a line of ${parent} above the first one of ${path}`
    started.subAgents.push(agent)
  }
  session.set(path, agent)
  return agent
}

/**
 * Reads sessions from a table in CSV, with a line for each turn, in the order in which the turns began.
 *
 * **Details**
 *
 * The first line names the columns, in any order; others are ignored. Lines that begin with `#` are comments.
 *
 * | column | |
 * | --- | --- |
 * | `session` | The name of the session. Empty: that of the line above |
 * | `path` | `0` for the lead, `0/6` for a sub-agent: the path of the agent that starts it, and a number of its own. The turn of that agent on the nearest line above its first one has started it. Empty: that of the line above, or `0` where the session changes |
 * | `pause` | Seconds from the end of the agent's last call to this one, fractions allowed; empty if unknown. Or `think_seconds`, as in the public sessions of callanjfox/kv-cache-tester |
 * | `input` | Tokens of the whole prompt |
 * | `cached` | The first tokens of the prompt, which the agent's last prompt has, too |
 * | `output` | Tokens of the answer |
 *
 * A damaged line is skipped and named in `unreadable`, and so are the lines of sub-agents that no line has started.
 *
 * **Example** (A lead that starts two sub-agents at once)
 *
 * ```ts doctest
 * import { Sessions } from "floodgate/testing"
 *
 * const { sessions, unreadable } = Sessions.parse(`session,path,pause,input,cached,output
 * review,0,0,15818,0,154
 * ,0/1,0,9000,0,300
 * ,0/2,0,9100,0,x
 * ,0/2,0,9200,0,280
 * ,0,3,16003,15808,99
 * `)
 *
 * sessions[0]?.lead.turns.map((turn) => turn.subAgents.length) // => [2, 0]
 * unreadable // => [{ line: 4, problem: "output: expected a whole number of tokens from 0 to 100000000, got x" }]
 * ```
 *
 * @stability unstable
 * @category tables
 * @since 0.5.0
 */
export const parse = (
  text: string
): {
  readonly sessions: ReadonlyArray<Session>
  /** The lines that are left out: their numbers in the file, counted from 1, and what was expected. */
  readonly unreadable: ReadonlyArray<{ readonly line: number; readonly problem: string }>
} => {
  const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/)
  const isTurn = (line: string) => line.trim() !== "" && !line.startsWith("#")
  const first = Math.max(0, lines.findIndex(isTurn))
  const heads = lines[first]!.split(",").map((cell) => cell.trim())
  const placeOf = (column: ColumnName): number => {
    const place = heads.indexOf(column)
    return place < 0 && otherNames[column] !== undefined ? heads.indexOf(otherNames[column]) : place
  }
  const places = Object.fromEntries(columns.map((column) => [column, placeOf(column)])) as Record<ColumnName, number>
  if (columns.some((column) => places[column] < 0)) {
    const problem = `expected the columns ${columns.join(",")}, got ${shown(lines[first]!)}`
    return { sessions: [], unreadable: [{ line: first + 1, problem }] }
  }
  const unreadable: Array<ReturnType<typeof parse>["unreadable"][number]> = []
  const sessions = new Map<string, OpenSession>()
  let name = ""
  let path = lead
  for (let index = first + 1; index < lines.length; index++) {
    const line = lines[index]!
    if (!isTurn(line)) continue
    const cells = line.split(",")
    const cellOf = (column: ColumnName): string => cells[places[column]]?.trim() ?? ""
    const given = cellOf("session")
    if (given !== "" && given !== name) {
      name = given
      path = lead
    }
    path = cellOf("path") || path
    const session: OpenSession = sessions.get(name) ?? new Map<string, OpenAgent>()
    const turn = name === "" ? "session: expected a name, got nothing" : turnOf(cellOf)
    const agent = typeof turn === "string" ? turn : agentOf(session, path)
    if (typeof agent === "string") unreadable.push({ line: index + 1, problem: agent })
    else {
      agent.turns.push(turn as OpenTurn)
      sessions.set(name, session)
    }
  }
  return { sessions: [...sessions].map(([name, agents]) => ({ name, lead: agents.get(lead)! })), unreadable }
}

const linesOf = function* ({ path, turns }: SessionAgent): Generator<readonly [path: string, turn: SessionTurn]> {
  for (const turn of turns) {
    yield [path, turn]
    for (const agent of turn.subAgents) yield* linesOf(agent)
  }
}

/**
 * Writes sessions as a table that {@link parse} reads. Names must have neither commas nor line breaks.
 *
 * @stability unstable
 * @category tables
 * @since 0.5.0
 */
export const format = (sessions: ReadonlyArray<Session>): string => {
  const lines: Array<string> = [columns.join(",")]
  for (const session of sessions) {
    let name = session.name
    let last = lead
    for (const [path, turn] of linesOf(session.lead)) {
      const { cachedTokens, inputTokens, outputTokens, pauseMillis } = turn
      const shownPath = name === "" && path === last ? "" : path
      lines.push([name, shownPath, pauseMillis / 1_000, inputTokens, cachedTokens, outputTokens].join(","))
      name = ""
      last = path
    }
  }
  return `${lines.join("\n")}\n`
}
