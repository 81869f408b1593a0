/** The bars of the chart of agents: what each did when. Pure. */
import * as Words from "floodgate/internal/words"
import type { CallRecord, SimulatedAttempt } from "../runs.ts"

/**
 * A bar of the Gantt chart: an agent waits, its call runs, or a request is rejected or fails. A session also pauses for its tools. For a
 * call of an earlier run, only the times of its request and its answer are known. Times are in seconds.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface Bar {
  readonly agent: string
  readonly from: number
  readonly to: number
  readonly what: "waits" | "runs" | "rejected" | "failed" | "earlier" | "pauses"
}

const secondsOf = (millis: number): number => Words.round(millis / 1_000)

/** Rejections of an agent that are closer than this share of the run become one mark. */
const markShare = 1 / 150

/**
 * The bars of agents. `end` is the end of the run, in milliseconds.
 *
 * @stability experimental
 * @category constructors
 * @since 0.1.0
 */
export const barsOf = (
  calls: ReadonlyArray<
    Pick<CallRecord, "askedAt" | "endedAt"> & {
      readonly call: { readonly agent: string }
      readonly attempts: ReadonlyArray<SimulatedAttempt>
    }
  >,
  end: number
): ReadonlyArray<Bar> => {
  const bars: Array<Bar> = []
  const marked = new Map<string, number>()
  const add = (agent: string, what: Bar["what"], from: number, to: number) =>
    bars.push({ agent, what, from: secondsOf(from), to: secondsOf(to) })
  for (const { askedAt, attempts, call, endedAt } of calls) {
    let free = askedAt
    for (const { endedAt: done = end, outcome, startedAt } of attempts) {
      if (outcome === "rejected") {
        const key = `${call.agent}/rejected`
        if (startedAt - (marked.get(key) ?? -Infinity) < end * markShare) continue
        marked.set(key, startedAt)
        add(call.agent, "rejected", startedAt, startedAt)
        continue
      }
      if (startedAt > free) add(call.agent, "waits", free, startedAt)
      add(call.agent, outcome === "failed" ? "failed" : "runs", startedAt, done)
      free = done
    }
    const last = endedAt ?? end
    if (last > free) add(call.agent, "waits", free, last)
  }
  return bars
}

// -----------------------------------------------------------------------------
// Sessions
// -----------------------------------------------------------------------------

/** The order of precedence where several bars of a lane overlap. */
const order: ReadonlyArray<Bar["what"]> = ["failed", "runs", "waits"]

/** The beginning or the end of a bar. */
interface Edge {
  readonly at: number
  readonly what: Bar["what"]
  readonly change: 1 | -1
}

/** The lane of one session: it runs while any of its calls runs, waits while all of them wait, and pauses in between. */
const laneOf = (agent: string, bars: ReadonlyArray<Bar>): ReadonlyArray<Bar> => {
  const edges = bars
    .flatMap(({ from, to, what }): ReadonlyArray<Edge> => [
      { at: from, what, change: 1 },
      { at: to, what, change: -1 }
    ])
    .sort((a, b) => a.at - b.at)
  const open = new Map<Bar["what"], number>()
  const lane: Array<Bar> = []
  for (const [index, { at, change, what }] of edges.entries()) {
    open.set(what, (open.get(what) ?? 0) + change)
    const to = edges[index + 1]?.at ?? at
    if (to === at) continue
    const shown = order.find((each) => (open.get(each) ?? 0) > 0) ?? "pauses"
    const last = lane.at(-1)
    if (last?.what === shown) lane[lane.length - 1] = { ...last, to }
    else lane.push({ agent, from: at, to, what: shown })
  }
  return lane
}

/** One lane for each agent of the bars. Rejections are marks, and stay as they are. */
export const lanesOf = (bars: ReadonlyArray<Bar>): ReadonlyArray<Bar> =>
  [...Map.groupBy(bars, ({ agent }) => agent)].flatMap(([agent, own]) => [
    ...laneOf(
      agent,
      own.filter(({ what }) => what !== "rejected")
    ),
    ...own.filter(({ what }) => what === "rejected")
  ])
