/** The results of storms as plain data, which workers can send and which can be summed. */
import type { LuaRedis } from "./luaRedis.ts"
import * as Storm from "./storm.ts"
import * as World from "./world.ts"

/** The storms of one mode and one kind of loss, and the worst of them. */
export interface Row {
  readonly storms: number
  /** Bursts, and calls in flight, beyond the limit. */
  readonly bursts: number
  readonly calls: number
}

export interface Tally {
  readonly storms: number
  /** Requests that reached the store, and calls that reached the provider. */
  readonly requests: number
  readonly calls: number
  readonly rows: Readonly<Record<string, Row>>
  readonly complaints: ReadonlyArray<string>
}

export const nothing: Tally = { storms: 0, requests: 0, calls: 0, rows: {}, complaints: [] }

const addRows = (one: Row = { storms: 0, bursts: 0, calls: 0 }, other: Row): Row => ({
  storms: one.storms + other.storms,
  bursts: Math.max(one.bursts, other.bursts),
  calls: Math.max(one.calls, other.calls)
})

export const add = (one: Tally, other: Tally): Tally => {
  const rows = { ...one.rows }
  for (const [name, row] of Object.entries(other.rows)) rows[name] = addRows(rows[name], row)
  return {
    storms: one.storms + other.storms,
    requests: one.requests + other.requests,
    calls: one.calls + other.calls,
    rows,
    complaints: [...one.complaints, ...other.complaints]
  }
}

/** The results of a seed: with a store that remembers, and with one that forgets if the seed has something to forget. */
export const of = (seed: number, redis: LuaRedis, code = World.library, plan = Storm.plan): Tally => {
  const tally = ofStorm(plan(seed), redis, code)
  const lossy = plan(seed, true)
  return Storm.losesOf(lossy) ? add(tally, ofStorm(lossy, redis, code)) : tally
}

/** A storm that breaks a law is reduced and reported. */
const ofStorm = (plan: Storm.Plan, redis: LuaRedis, code: World.Code): Tally => {
  let outcome: Storm.Outcome
  try {
    outcome = Storm.run(plan, redis, code)
  } catch (error) {
    const { cause, message } = error as Error
    const complaint = [`${message} throws ${String(cause)}`, Storm.commandOf(plan)].join("\n")
    return { ...nothing, storms: 1, complaints: [complaint] }
  }
  const { log, peak, requests } = outcome
  const row = { storms: 1, bursts: Storm.burstsOver(outcome), calls: Math.max(0, peak - plan.concurrency) }
  const complaint = Storm.broken(outcome).length === 0 ? undefined : Storm.complaint(plan, redis, code)
  return {
    storms: 1,
    requests,
    calls: log.length,
    rows: { [Storm.kindOf(plan)]: row },
    complaints: complaint === undefined ? [] : [complaint]
  }
}

/** The tally as a table. */
export const show = ({ rows }: Tally): string =>
  [
    "| mode | what was lost | storms | bursts over | calls over |",
    "| --- | --- | --- | --- | --- |",
    ...Object.entries(rows)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(
        ([kind, { bursts, calls, storms }]) =>
          `| ${kind} | ${storms.toLocaleString("en-US")} | ${bursts.toFixed(2)} | ${calls} |`
      )
  ].join("\n")
