/**
 * What a process holds in Redis, to settle it there and to say it again when the state is lost. Redis gives
 * whole numbers that count up. What the process admits itself goes on from the last of them at halves, so that no name is
 * given twice, and all are in the order of admission.
 *
 * What its local share admitted while Redis was away gets a name there only when Redis is back: till then it is on its
 * way, and what is settled of it waits.
 */
import type * as Limits from "../Limits.ts"
import type { Job } from "./outbox.ts"

/** A call that goes from a share to Redis. */
export interface Moving {
  readonly id: number
  readonly charge: Limits.Charge
  readonly at: number
}

export class Holdings {
  private readonly held = new Map<number, { readonly charge: Limits.Charge; readonly at: number }>()
  /** Those on their way, and what was settled of them meanwhile. */
  private readonly moving = new Map<number, Job | undefined>()
  /** What those that have arrived are called in Redis. */
  private readonly names = new Map<number, number>()
  private lastId = 0

  get size(): number {
    return this.held.size
  }

  add(id: number, charge: Limits.Charge, at: number): void {
    this.lastId = Math.max(this.lastId, id)
    this.held.set(id, { charge, at })
  }

  /** What a call is called that Redis does not know yet. */
  nextLocal(): number {
    return (this.lastId = Math.floor(this.lastId) + 1.5)
  }

  nameOf(id: number): number {
    return this.names.get(id) ?? id
  }

  release(id: number): void {
    this.held.delete(this.nameOf(id))
    this.names.delete(id)
  }

  /** All that has a name in Redis, and for how long it has been held. */
  list(now: number): ReadonlyArray<readonly [id: number, age: number, charge: Limits.Charge]> {
    return [...this.held].map(([id, { at, charge }]) => [id, now - at, charge])
  }

  depart(calls: ReadonlyArray<Moving>): void {
    for (const { id } of calls) this.moving.set(id, undefined)
  }

  /** Whether a call is on its way: then its settlement waits for its name. */
  settlesLater(id: number, job: Job): boolean {
    if (!this.moving.has(id)) return false
    this.moving.set(id, job)
    return true
  }

  /** They have arrived, under these names; gives the settlements that waited for them. */
  arrive(calls: ReadonlyArray<Moving>, names: ReadonlyArray<number>): ReadonlyArray<Job> {
    return calls.flatMap(({ at, charge, id }, i) => {
      const name = names[i]!
      const settlement = this.moving.get(id)
      this.moving.delete(id)
      this.names.set(id, name)
      this.add(name, charge, at)
      return settlement === undefined ? [] : [settlement]
    })
  }
}
