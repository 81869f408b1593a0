/** Law 8 for the queue alone: how many entries each operation reads. */
import { assert } from "@effect/vitest"
import { type FairQueue, type Flow, type Newcomer, type Queued } from "../../src/admission/fairQueue.ts"

let reads = 0

/** An entry that counts how often it is read. */
class Counted implements Queued {
  readonly agent: string
  readonly priority = 0
  flow: Flow<this> | undefined = undefined
  previous: this | undefined = undefined
  next: this | undefined = undefined
  rank = -1
  moved = 0
  among = 0
  constructor(agent: string) {
    this.agent = agent
  }
  get weight(): number {
    reads++
    return 1
  }
  get cost(): number {
    reads++
    return 1
  }
  set cost(_: number) {}
}

const lookAt = <E extends Queued>(queue: FairQueue<E>, count: number, newcomer?: Newcomer): void => {
  const order = queue.inOrder(newcomer)
  for (let i = 0; i < count; i++) order.next()
}

/** How often each operation of a queue with this many entries reads one. */
const readsOf = (Queue: typeof FairQueue, entries: number, agents: number): ReadonlyArray<number> => {
  const queue = new Queue<Counted>()
  const all = Array.from({ length: entries }, (_, i) => new Counted(`${i % agents}`))
  for (const entry of all) queue.push(entry)
  let served: Counted | undefined
  const operations: ReadonlyArray<() => unknown> = [
    () => queue.push(new Counted("1")),
    () => queue.push(new Counted("2"), true),
    () => queue.peek(),
    () => {
      served = queue.peek()!
      queue.serve(served)
    },
    () => queue.correct(served!, 0.5),
    () => queue.remove(all[Math.floor(entries / 2)]!),
    () => lookAt(queue, 10),
    () => lookAt(queue, 10, { agent: "new", priority: 0, first: false })
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
