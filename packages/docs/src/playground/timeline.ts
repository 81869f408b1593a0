/** A run in the form that the page draws: bars of each agent, and counts at any time. Pure. */
import type { RaceResult, RaceRun } from "../../../lab/src/race.ts"

/** An activity of an agent in a span of time, in simulated milliseconds. */
export interface Bar {
  readonly from: number
  readonly to: number
  /** Waiting for its turn or for a retry; a request that was answered, or rejected with 429, or that failed in another way. */
  readonly kind: "waiting" | "answered" | "rejected" | "failed"
}

/** One agent's bars in order of time, and when it lost its work, if it did. */
export interface Row {
  readonly agent: string
  readonly bars: ReadonlyArray<Bar>
  readonly lostAt: number | undefined
}

/** A whole run. */
export interface Timeline {
  readonly result: RaceResult
  readonly rows: ReadonlyArray<Row>
  /** The calls of all agents. */
  readonly calls: number
  /** When the last agent ended. */
  readonly endMillis: number
}

/** The counts of a run at a time. */
export interface Counts {
  readonly answered: number
  readonly rejected: number
  readonly lost: number
  readonly inFlight: number
}

const kinds = { ok: "answered", rejected: "rejected", failed: "failed", interrupted: "failed", open: "failed" } as const

const barsOf = (calls: RaceRun["calls"], end: number): ReadonlyArray<Bar> =>
  calls.flatMap(({ askedAt, attempts, endedAt = end }) => {
    const bars: Array<Bar> = []
    let at = askedAt
    const wait = (to: number): void => {
      if (to > at) bars.push({ from: at, to, kind: "waiting" })
      at = Math.max(at, to)
    }
    for (const { endedAt: to = end, outcome, startedAt } of attempts) {
      wait(startedAt)
      bars.push({ from: startedAt, to, kind: kinds[outcome] })
      at = to
    }
    wait(endedAt)
    return bars
  })

/** The timeline of a run of the lab. */
export const timelineOf = ({ agents, calls, result }: RaceRun): Timeline => {
  const endMillis = Math.round(result.makespanSeconds * 1_000)
  const byAgent = Map.groupBy(calls, ({ call }) => call.agent)
  const answered = calls.filter(({ outcome }) => outcome === "ok").length
  return {
    result,
    rows: agents.map(({ endedAt = endMillis, failed, name }) => ({
      agent: name,
      bars: barsOf(byAgent.get(name) ?? [], endMillis),
      lostAt: failed ? endedAt : undefined
    })),
    calls: answered + result.failedCalls,
    endMillis
  }
}

/** The counts at a time. Calls that an agent never made because an earlier one failed are lost when the agent ends. */
export const countsAt = ({ calls, rows }: Timeline, millis: number): Counts => {
  let answered = 0
  let rejected = 0
  let inFlight = 0
  let lost = 0
  const each = rows.length === 0 ? 0 : calls / rows.length
  for (const { bars, lostAt } of rows) {
    let own = 0
    for (const { from, kind, to } of bars) {
      if (kind === "waiting" || from > millis) continue
      if (to > millis) inFlight++
      else if (kind === "answered") own++
      else if (kind === "rejected") rejected++
    }
    answered += own
    if (lostAt !== undefined && lostAt <= millis) lost += each - own
  }
  return { answered, rejected, lost, inFlight }
}
