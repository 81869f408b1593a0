/** Law 8 for the queue alone: how many entries each operation reads. */
import { assert } from "@effect/vitest"
import { type FairQueue, type Newcomer, Queued } from "../../src/admission/fairQueue.ts"

let reads = 0

/** An entry that counts how often its weight and its cost are read. */
const counted = (agent: string): Queued =>
  new Proxy(new Queued({ agent, priority: 0, weight: 1 }, 1), {
    get: (entry, key: keyof Queued) => {
      if (key === "weight" || key === "cost") reads++
      return entry[key]
    }
  })

const lookAt = <E extends Queued>(queue: FairQueue<E>, count: number, newcomer?: Newcomer): void => {
  const order = queue.inOrder(newcomer)
  for (let i = 0; i < count; i++) order.next()
}

/** How often each operation of a queue with this many entries reads one. */
const readsOf = (Queue: typeof FairQueue, entries: number, agents: number): ReadonlyArray<number> => {
  const queue = new Queue<Queued>()
  const all = Array.from({ length: entries }, (_, i) => counted(`${i % agents}`))
  for (const entry of all) queue.push(entry)
  let served: Queued | undefined
  const operations: ReadonlyArray<() => unknown> = [
    () => queue.push(counted("1")),
    () => queue.push(counted("2"), true),
    () => queue.peek(),
    () => {
      served = queue.peek()!
      queue.serve(served)
    },
    () => queue.correct(served!, 0.5),
    () => queue.remove(all[Math.floor(entries / 2)]!),
    () => lookAt(queue, 10),
    () => lookAt(queue, 10, { agent: "new", priority: 0, first: false, weight: 1, cost: 1 })
  ]
  return operations.map((operation) => {
    const before = reads
    operation()
    return reads - before
  })
}

/** No operation reads more entries of a long queue than of a short one, whether they are in one flow or each in its own. */
export const isLogarithmic = (Queue: typeof FairQueue): void => {
  for (const inFlows of [() => 1, (entries: number) => entries]) {
    const few = readsOf(Queue, 100, inFlows(100))
    const many = readsOf(Queue, 20_000, inFlows(20_000))
    assert.deepStrictEqual(many, few)
  }
}
