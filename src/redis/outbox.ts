/**
 * What a process has to say about a pool, in order, and the request in which the first of it is under way.
 */
import type { StoreUnavailable } from "../BudgetStore.ts"
import type { Operation } from "./wire.ts"

/** Something to say. */
export interface Job {
  /** Called each time that it is said; `undefined` when it is no longer worth saying. */
  readonly operation: () => Operation | undefined
  /** What became of it. */
  readonly replied: (reply: unknown, now: number) => void
  /**
   * Redis is away: `true` when somebody else has answered, and the job must not be said any more. A job that is under way
   * is told, too; then `replied` hears of it if it was executed after all.
   */
  readonly away: (error: StoreUnavailable, lapsed: boolean) => boolean
  /** It fails however often it is said, and is not said any more. */
  readonly dropped?: () => void
}

export interface Request {
  /** The script does what has one number once, however often it is sent. */
  seq: number
  readonly jobs: ReadonlyArray<Job>
  operations: ReadonlyArray<Operation>
  /** Whether it says who we are and what we hold. */
  introduces: boolean
  /** How often it was not heeded, because the state is not the one that is known here. */
  refused: number
  tries: number
}

const mostPerRequest = 256
const signOfLife: Operation = ["beat"]

export class Outbox {
  private jobs: Array<Job> = []
  private underWay: Request | undefined
  /** So many of the first jobs go alone. */
  private alone = 0
  private seq = 0

  get isEmpty(): boolean {
    return this.jobs.length === 0
  }

  add(job: Job): void {
    this.jobs.push(job)
  }

  addFirst(job: Job): void {
    this.jobs.unshift(job)
  }

  /**
   * The request that is under way, as it is to be said by now, else one of what waits; `undefined` when there is nothing to
   * say.
   */
  next(introduces: boolean): Request | undefined {
    if (this.underWay !== undefined) {
      // If it was executed, the script answers from memory, one reply for each job: so each keeps its place.
      this.underWay.operations = this.underWay.jobs.map((job) => job.operation() ?? signOfLife)
      return this.underWay
    }
    while (this.underWay === undefined && !this.isEmpty) {
      const jobs: Array<Job> = []
      const operations: Array<Operation> = []
      const most = this.alone > 0 ? 1 : mostPerRequest
      this.alone = Math.max(0, this.alone - most)
      for (const job of this.jobs.splice(0, most)) {
        const operation = job.operation()
        if (operation === undefined) continue
        jobs.push(job)
        operations.push(operation)
      }
      if (jobs.length > 0) this.underWay = { seq: ++this.seq, jobs, operations, introduces, refused: 0, tries: 0 }
    }
    return this.underWay
  }

  /** Another process that goes by our name has come so far. (A copy of this one, if its machine was copied while it ran.) */
  countFrom(last: number): void {
    if (this.underWay === undefined || last < this.underWay.seq) return
    this.seq = last + 1
    this.underWay.seq = this.seq
  }

  /** The request is through. */
  conclude(): void {
    this.underWay = undefined
  }

  /** The request fails however often it is said: its jobs are said one by one, to find the one that does. */
  giveUp(): void {
    const { jobs } = this.underWay!
    this.underWay = undefined
    if (jobs.length === 1) return jobs[0]!.dropped?.()
    this.jobs.unshift(...jobs)
    this.alone = jobs.length
  }

  /** Redis is away: jobs that have another answer leave. Hearing of it, they may have something new to say at once. */
  away(error: StoreUnavailable, lapsed: boolean): void {
    const jobs = this.jobs
    this.jobs = []
    const kept = jobs.filter((job) => !job.away(error, lapsed))
    this.jobs = [...kept, ...this.jobs]
  }
}
