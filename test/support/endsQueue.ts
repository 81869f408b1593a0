/** A queue in the order of ends, calls of jobs with sizes, and checks of what the queue remembers. */
import { assert } from "@effect/vitest"
import type { Ends } from "../../src/admission/ends.ts"
import { type CallOwner, FairQueue, Queued } from "../../src/admission/fairQueue.ts"
import { countFlows } from "./queueFlows.ts"

/** A third of the service stays in fair order, unless told otherwise. */
export class EndsQueue<E extends Queued = JobCall> extends FairQueue<E> {
  constructor(fairPart = 1 / 3) {
    super(fairPart)
  }
}

export class JobCall extends Queued {
  private readonly rest: () => number | undefined

  constructor(owner: CallOwner, cost: number, rest: () => number | undefined) {
    super(owner, cost)
    this.rest = rest
  }
  override get left(): number | undefined {
    return this.rest()
  }
}

/** A call of a job's only agent. */
export const callOf = (job: string, cost: number, left?: number | (() => number), jobWeight = 1): JobCall => {
  const owner = { agent: "a", job, jobWeight, priority: 0, weight: 1 }
  return new JobCall(owner, cost, typeof left === "function" ? left : () => left)
}

/** The jobs of calls without a caller. */
const groupOf = (queue: EndsQueue): Ends<JobCall> | undefined =>
  queue["levels"].get(0)?.callers["named"].get(undefined)?.inner as Ends<JobCall> | undefined

/** How many jobs and agents are remembered, and how many jobs because they were served ahead. */
export const remembered = (queue: EndsQueue) => ({
  all: countFlows(queue["levels"].get(0)!),
  ahead: groupOf(queue)!["ahead"].length
})

/** Checks the sums and heaps of the jobs. */
export const checkEnds = (queue: EndsQueue): void => {
  const group = groupOf(queue)
  if (group === undefined) return
  const { heap, weight } = group
  const [ahead, aheadWeight, waiting] = [group["ahead"], group["aheadWeight"], group["waiting"]]
  const fair = (flow: (typeof heap)[number]): number => flow.start + flow.owed
  const next = heap.filter(({ isNext }) => isNext)
  if (heap.length > 0) {
    const first = next[0]?.start ?? Math.min(...heap.map(({ start }) => start))
    assert.strictEqual(heap[0]!.start, first)
    assert.strictEqual(heap[0]!.isNext, next.length > 0)
    assert.strictEqual(fair(waiting[0]!.flow), Math.min(...heap.map(fair)))
  }
  assert.isAtMost(next.length, 1)
  assert.strictEqual(waiting.length, heap.length)
  const sum = (flows: ReadonlyArray<{ readonly weight: number }>) => flows.reduce((sum, { weight }) => sum + weight, 0)
  assert.approximately(weight, sum(heap), 1e-6)
  assert.approximately(aheadWeight, sum(ahead.map(({ flow }) => flow)), 1e-6)
  for (const { flow } of ahead) assert.isBelow(flow.place, 0)
}
