/** The calls of a queue that are decided on next. */
import type { FairQueue } from "../admission/fairQueue.ts"
import * as Pacer from "../pacing/pacer.ts"
import type { Entry } from "./entry.ts"

export class Heads {
  private readonly queue: FairQueue<Entry>
  /** The waiting call for which room is kept, because it, or one about as large, was rejected. It goes before all others. */
  private large: Entry | undefined = undefined

  constructor(queue: FairQueue<Entry>) {
    this.queue = queue
  }

  /** Notes a call that is about to be put into the queue. */
  queued(entry: Entry, law: Pacer.Pacer, now: number): void {
    if (this.largeOf(law, now) === undefined && Pacer.isKeptFor(law, entry.charge, now)) this.large = entry
  }

  /** The first calls in the order of service. */
  of(max: number, law: Pacer.Pacer, now: number): Iterable<Entry> {
    const large = this.largeOf(law, now)
    if (large !== undefined) return [large]
    let head = this.queue.peek()
    // Its call was admitted elsewhere, and leaves this queue in the next task.
    for (; head?.queueing.claim?.isTaken === true; head = this.queue.peek()) {
      head.phase = "ended"
      this.queue.remove(head)
    }
    if (max > 1) return this.queue.inOrder()
    return head === undefined ? [] : [head]
  }

  /** The large call, while it waits and the room is kept. */
  private largeOf(law: Pacer.Pacer, now: number): Entry | undefined {
    const { large } = this
    if (large === undefined) return undefined
    const waits = large.flow !== undefined && large.queueing.claim?.isTaken !== true
    if (!waits || !Pacer.isKeptFor(law, large.charge, now)) this.large = undefined
    return this.large
  }
}
