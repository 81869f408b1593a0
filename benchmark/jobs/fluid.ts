/**
 * What each way to share a limit can reach at best: every job's work flows like water, and is served as the limit refills. Nothing here is
 * shared with the library.
 */
import { type Job, provider, type Workload } from "./workload.ts"

/** One share of the service. */
interface Flow {
  readonly job: number
  left: number
}

/** By whom the limit is shared: agents, jobs, or the jobs in the order in which they would end if jobs shared it. */
export type Sharing = "agents" | "jobs" | "ends"

const flowsOf = (job: number, { agents, tokens }: Job, sharing: Sharing): Array<Flow> =>
  sharing === "agents"
    ? agents.map((calls) => ({ job, left: calls.reduce((one, other) => one + other, 0) }))
    : [{ job, left: tokens }]

/** When each job ends, in seconds after it has come. */
export const endsOf = ({ jobs }: Workload, sharing: Sharing): ReadonlyArray<number> => {
  const ends = jobs.map(() => 0)
  const places = new Map<number, number>()
  if (sharing === "ends") {
    const fair = endsOf({ jobs }, "jobs").map((end, job) => jobs[job]!.at + end)
    const order = fair.map((_, job) => job).sort((one, other) => fair[one]! - fair[other]!)
    order.forEach((job, place) => places.set(job, place))
  }
  let flows: Array<Flow> = []
  let now = 0
  let level = provider.burst
  let next = 0
  while (next < jobs.length || flows.length > 0) {
    const comes = jobs[next]?.at ?? Infinity
    if (flows.length === 0) {
      level = Math.min(provider.burst, level + (comes - now) * provider.rate)
      now = comes
    }
    if (comes <= now) {
      flows.push(...flowsOf(next, jobs[next]!, sharing))
      flows.sort((one, other) => (places.get(one.job) ?? 0) - (places.get(other.job) ?? 0))
      next++
      continue
    }
    const served = sharing === "ends" ? flows.slice(0, 1) : flows
    const least = Math.min(...served.map(({ left }) => left))
    // What the bucket holds flows at once, and then the refill.
    const most = level > 0 ? level : (comes - now) * provider.rate
    const work = Math.min(least * served.length, most)
    if (level > 0) level -= work
    else now += work / provider.rate
    for (const flow of served) {
      flow.left -= work / served.length
      if (flow.left > 1e-6) continue
      flow.left = 0
      ends[flow.job] = now - jobs[flow.job]!.at + provider.answer
    }
    flows = flows.filter(({ left }) => left > 0)
  }
  return ends
}
