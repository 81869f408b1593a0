/**
 * The view of a run on a terminal: a bar per agent, a bar per limit, and a summary line. Pure: it turns events and a status into lines.
 */
import type * as Budget from "floodgate/Budget"
import * as Words from "floodgate/internal/words"
import * as Limits from "floodgate/Limits"
import { fit } from "@floodgate/gateway/internal/text"
import type * as Eta from "./eta.ts"
import type { RunEvent } from "./pipeline.ts"
import * as Steps from "./steps.ts"
import * as Workload from "./workload.ts"

// -----------------------------------------------------------------------------
// State
// -----------------------------------------------------------------------------

/** The row of an agent. */
interface AgentRow {
  /** The bytes of its documents. */
  readonly bytes: number
  /** Its call in flight: since when, in seconds of the run, and its reservation. */
  readonly out: { readonly since: number; readonly charge: Limits.Usage } | undefined
  readonly done: number
  readonly step: string | undefined
  readonly tokens: number
  readonly failure: string | undefined
  readonly ended: "done" | "failed" | "stopped" | undefined
}

/** The state of the view, folded from events. */
export interface ViewState {
  /** Changed in place: a copy of thousands of rows for each event would take longer than the calls. */
  readonly rows: Map<string, AgentRow>
  readonly calls: number
  readonly answered: number
  readonly reused: number
  readonly tokens: number
  readonly learned: Workload.AnsweredCalls
  /** The last pause, and when it ends, in seconds of the run. */
  readonly pause: { readonly until: string; readonly ends: number } | undefined
}

const emptyRow: AgentRow = {
  bytes: 0,
  out: undefined,
  done: 0,
  step: undefined,
  tokens: 0,
  failure: undefined,
  ended: undefined
}

/** The state before the first event. `agents` has the bytes of their documents. */
export const start = (agents: ReadonlyMap<string, number>, calls: number): ViewState => ({
  rows: new Map(Array.from(agents, ([agent, bytes]) => [agent, { ...emptyRow, bytes }])),
  calls,
  answered: 0,
  reused: 0,
  tokens: 0,
  learned: Workload.nothing,
  pause: undefined
})

/** The state after an event; the state before must not be used again. `seconds` is the time since the start of the run. */
export const step = (state: ViewState, event: RunEvent, seconds: number): ViewState => {
  if (event.event === "paused") return { ...state, pause: { until: event.until, ends: seconds + event.seconds } }
  const { rows } = state
  const row = rows.get(event.agent) ?? emptyRow
  switch (event.event) {
    case "asked":
      return { ...state, rows: rows.set(event.agent, { ...row, step: event.step }) }
    case "admitted":
      return { ...state, rows: rows.set(event.agent, { ...row, out: { since: seconds, charge: event.charge } }) }
    case "failed":
      return { ...state, rows: rows.set(event.agent, { ...row, out: undefined }) }
    case "answered": {
      const tokens = event.reused ? 0 : event.inputTokens + event.outputTokens
      return {
        ...state,
        rows: rows.set(event.agent, {
          ...row,
          step: event.step,
          out: undefined,
          done: row.done + 1,
          tokens: row.tokens + tokens
        }),
        learned: row.out === undefined ? state.learned : Workload.learn(state.learned, event, seconds - row.out.since),
        answered: state.answered + 1,
        reused: state.reused + (event.reused ? 1 : 0),
        tokens: state.tokens + tokens
      }
    }
    case "ended":
      return {
        ...state,
        rows: rows.set(event.agent, { ...row, out: undefined, ended: event.how, failure: event.failure })
      }
  }
}

/** The agents that have not ended, for a forecast. */
export const ahead = ({ rows }: ViewState, seconds: number): ReadonlyArray<Eta.RemainingAgent> =>
  [...rows].flatMap(([name, { bytes, done, ended, out }]) =>
    ended === undefined
      ? [
          {
            name,
            bytes,
            done,
            out: out === undefined ? undefined : { charge: out.charge, seconds: seconds - out.since }
          }
        ]
      : []
  )

// -----------------------------------------------------------------------------
// Words and figures
// -----------------------------------------------------------------------------

/** 75 seconds as 1:15. */
export const clock = (seconds: number): string => {
  const whole = Math.max(0, Math.round(seconds))
  return `${Math.floor(whole / 60)}:${(whole % 60).toString().padStart(2, "0")}`
}

/** A part of 1 as a bar. */
export const bar = (part: number, width: number): string => {
  const full = Math.round(Math.min(1, Math.max(0, part)) * width)
  return "█".repeat(full) + "░".repeat(width - full)
}

/** Short names of the dimensions. */
export const names: Record<Limits.Dimension, string> = {
  requests: "requests",
  inputTokens: "input",
  outputTokens: "output",
  tokens: "tokens"
}

// -----------------------------------------------------------------------------
// Lines
// -----------------------------------------------------------------------------

/** The context of a picture, besides the events. */
export interface Surroundings {
  readonly columns: number
  readonly rows: number
  readonly seconds: number
  readonly status: Budget.BudgetStatus
  /** The predicted remaining seconds; undefined while they are unknown. */
  readonly left: number | undefined
}

const nameWidth = 12
const barWidth = 20
const minBarWidth = 4

/** Bars are shorter on a narrow terminal, to leave room for the text. */
const barWidthIn = (columns: number): number => Math.max(minBarWidth, Math.min(barWidth, columns - 60))

const agentLine = (
  agent: string,
  row: AgentRow,
  waiter: Budget.PoolStatus["waiting"][number] | undefined,
  width: number
): string => {
  const calls = agent === Steps.orchestrator ? 1 : Steps.steps.length
  const now = doing(row, waiter)
  return `${agent.padEnd(nameWidth)} ${bar(row.done / calls, width)} ${row.done}/${calls}  ${Words.compact(row.tokens).padStart(6)}  ${now}`
}

/** Describes what an agent is doing, or how it has ended. */
const doing = (
  { ended, failure, step }: AgentRow,
  waiter: Budget.PoolStatus["waiting"][number] | undefined
): string => {
  if (failure !== undefined) return `failed: ${failure}`
  if (ended !== undefined || step === undefined) return ended ?? ""
  if (waiter === undefined) return step
  const what = waiter.dimension === undefined ? "a place" : names[waiter.dimension]
  return `${step}, waits ${clock(waiter.waitedMillis / 1_000)} for ${what}`
}

/** The rate in use, and the limit if it is higher, because others spend the rest. */
const refill = ({ limitPerSecond, perSecond }: NonNullable<Budget.PoolStatus["dimensions"]["tokens"]>): string => {
  if (perSecond === 0) return ""
  const isLess = limitPerSecond < Infinity && perSecond < 0.99 * limitPerSecond
  return `, refills ${Words.compact(perSecond)}${isLess ? ` of ${Words.compact(limitPerSecond)}` : ""}/s`
}

/** A bar for each limit of a pool. */
export const levelLines = (
  dimensions: Budget.PoolStatus["dimensions"],
  width: number = barWidth
): ReadonlyArray<string> =>
  Limits.Dimension.literals.flatMap((dimension) => {
    const status = dimensions[dimension]
    if (status === undefined) return []
    const { capacity, level } = status
    const debt =
      level < 0
        ? `${Words.compact(Math.ceil(-level))} in debt`
        : `${Words.compact(Math.floor(level))} of ${Words.compact(capacity)} free`
    return [`${names[dimension].padEnd(nameWidth)} ${bar(level / capacity, width)} ${debt}${refill(status)}`]
  })

const sources: Readonly<Record<Budget.PoolStatus["known"][number]["from"], string>> = {
  stated: "stated",
  headers: "from headers",
  rejections: "from rejections"
}

/** Describes what is known of the provider's limits, a line for each figure. */
export const knownLines = ({
  dimensions,
  known
}: Pick<Budget.PoolStatus, "dimensions" | "known">): ReadonlyArray<string> =>
  known.map(({ ageMillis, dimension, from, value, what }) => {
    const name = dimension === undefined ? "calls" : names[dimension]
    // A quota does not refill.
    const unit = dimension !== undefined && dimensions[dimension]?.limitPerSecond === 0 ? " in all" : "/s"
    const figure =
      what === "inFlight" ? `at most ${Words.compact(value)} in flight` : `${what} ${Words.compact(value)}${unit}`
    const age = ageMillis === undefined ? "" : `, ${clock(ageMillis / 1_000)} ago`
    return `${name.padEnd(nameWidth)} ${figure}, ${sources[from]}${age}`
  })

const pauses: Readonly<Record<NonNullable<Budget.PoolStatus["pause"]>["reason"], string>> = {
  rateLimit: "paused by the provider for",
  ramp: "growing too fast for the provider, paused for",
  overload: "the provider fails, tried again in"
}

/** A pool's calls in flight, its waiting callers, and the reason and the rest of a pause. */
export const callsLine = (
  name: string,
  { allowed, inFlight, pause }: Pick<Budget.PoolStatus, "allowed" | "inFlight" | "pause">,
  waiting: string
): string => {
  const max = allowed < Infinity ? ` of ${Math.floor(allowed)}` : ""
  const paused = pause === undefined ? "" : `, ${pauses[pause.reason]} ${clock(pause.leftMillis / 1_000)}`
  return `${name.padEnd(nameWidth)} ${inFlight}${max} in flight, ${waiting} waiting${paused}`
}

const poolLines = (name: string, pool: Budget.PoolStatus, width: number): ReadonlyArray<string> => [
  ...levelLines(pool.dimensions, width),
  callsLine(name, pool, `${pool.queued}`)
]

/** Says how long a run still takes, or until when it pauses. */
const remaining = (pause: ViewState["pause"], seconds: number, left: number | undefined): string => {
  if (pause !== undefined && seconds < pause.ends) return `paused until ${pause.until}`
  return left === undefined ? "learning the time left" : `about ${clock(left)} left`
}

/** The summary line. On a narrow terminal it is shorter, but always has the progress and the remaining time. */
export const total = (state: ViewState, seconds: number, left: number | undefined, columns: number): string => {
  const { answered, calls, pause, reused, rows, tokens } = state
  const done = `${Words.thousands(answered)} of ${Words.counted(calls, "call")}`
  const eta = remaining(pause, seconds, left)
  // A stopped run has no remaining time.
  const isOver = answered === calls || [...rows.values()].some(({ ended }) => ended === "stopped")
  const about = isOver ? "" : `, ${eta}`
  const again = reused === 0 ? "" : ` (${Words.thousands(reused)} from before)`
  const used = `, ${Words.counted(tokens, "token")}`
  const lines = [`${done}${again}${used}`, `${done}${used}`, `${answered}/${calls}`].map(
    (what) => `${clock(seconds)}  ${what}${about}`
  )
  return lines.find((line) => line.length <= columns) ?? lines.at(-1)!
}

/** The whole picture, within the columns and rows of the terminal. */
export const draw = (state: ViewState, around: Surroundings): ReadonlyArray<string> => {
  const width = barWidthIn(around.columns)
  const pools = Object.entries(around.status.pools)
  const waiting = new Map(pools.flatMap(([, pool]) => pool.waiting.map((waiter) => [waiter.agent, waiter] as const)))
  const below = [
    ...pools.flatMap(([name, pool]) => poolLines(pools.length > 1 ? name : "calls", pool, width)),
    total(state, around.seconds, around.left, around.columns - 1)
  ]
  const rows = [...state.rows]
  const room = Math.max(1, around.rows - below.length - 2)
  // Agents that have ended are shown last.
  const shown =
    rows.length <= room
      ? rows
      : [...rows]
          .sort(([, one], [, other]) => Number(one.ended !== undefined) - Number(other.ended !== undefined))
          .slice(0, room - 1)
  const agents = shown.map(([agent, row]) => agentLine(agent, row, waiting.get(agent), width))
  if (shown.length < rows.length) agents.push(`and ${Words.counted(rows.length - shown.length, "more agent")}`)
  return [...agents, ...below].map((line) => fit(line, around.columns - 1))
}

/** An event as a line without a terminal; undefined for most events. */
export const plain = (state: ViewState, event: RunEvent, seconds: number): string | undefined => {
  switch (event.event) {
    case "asked":
    case "admitted":
    case "failed":
      return undefined
    case "answered": {
      const how = event.reused
        ? "from before"
        : `${Words.counted(event.inputTokens + event.outputTokens, "token")}, ${Words.seconds(event.seconds)}`
      return `${clock(seconds)}  ${state.answered}/${state.calls}  ${event.agent}  ${event.step}  ${how}`
    }
    case "paused":
      return `${clock(seconds)}  Paused until ${event.until}: ${event.reason}`
    case "ended":
      return event.failure === undefined ? undefined : `${clock(seconds)}  ${event.agent} failed: ${event.failure}`
  }
}
