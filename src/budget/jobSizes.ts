/** The stated sizes of jobs, for the order of ends: how many tokens are left of each. */
import type * as Amounts from "../domain/amounts.ts"
import * as Lru from "../domain/input/lru.ts"

/** The callers whose jobs are remembered, and the jobs of each: one that names many forgets its own. */
const maxCallers = 1_000
const maxJobs = 1_000

/** Tokens of a job. */
export interface JobSize {
  stated: number
  /** The tokens that its calls have used, or are expected to use. */
  used: number
}

export class JobSizes {
  private readonly callers = new Map<string | undefined, Map<string, JobSize>>()

  /** The size of a caller's job; undefined if none of its calls has stated it. */
  of(caller: string | undefined, job: string, stated: number | undefined): JobSize | undefined {
    const jobs = this.callers.get(caller) ?? new Map<string, JobSize>()
    const size = jobs.get(job) ?? (stated === undefined ? undefined : { stated, used: 0 })
    if (size === undefined) return undefined
    size.stated = stated ?? size.stated
    Lru.put(jobs, job, size, maxJobs)
    Lru.put(this.callers, caller, jobs, maxCallers)
    return size
  }
}

/** The cost of the rest of a job, if that is like one of its calls. */
export const leftOf = (size: JobSize | undefined, { tokens }: Amounts.Whole, cost: number): number | undefined =>
  size && (Math.max(0, size.stated - size.used) * cost) / Math.max(1, tokens)
