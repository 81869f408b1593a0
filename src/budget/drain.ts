/**
 * How the queue of a pool moves on, where the store takes no time: asking and granting are one synchronous block. The head
 * is asked for where it stands, and leaves the queue only when it is admitted.
 */
import * as Effect from "effect/Effect"
import type { Blocked, Held, Immediate } from "../BudgetStore.ts"
import type { FairQueue, Turn } from "../internal/fairQueue.ts"
import type { Gate } from "./gate.ts"
import type { Refused, TooLarge, Waiter } from "./poolModel.ts"

/** What moves the queue of a pool on. */
export interface Drain {
  /** Moves it on as far as it goes; gives what remains to be done. To be called where nothing interrupts. */
  readonly now: () => Effect.Effect<void> | undefined
  /** Whether it is at work: then it sees by itself what has changed. */
  readonly isRunning: () => boolean
  /** Whether the time has come that the head waited for; else it sleeps on. */
  readonly isTime: () => boolean
  /** Something came back to the store: the head may fit before its time. */
  readonly hurry: () => void
  /** Who is out of the queue, and the store has not answered yet. */
  readonly asking: () => ReadonlyArray<Waiter>
}

/** What a drain has to work with. */
export interface Desk {
  readonly queue: FairQueue<Waiter>
  readonly gate: Gate
  /** Brings a waiter's charge up to the rules as they are; gives why it fits no more. */
  readonly recharge: (waiter: Waiter) => TooLarge | undefined
  readonly grant: (turn: Turn<Waiter>, held: Held, now: number) => void
  readonly refuse: (waiter: Waiter, refused: Refused) => void
  /** Looks again after so many milliseconds. */
  readonly wakeIn: (millis: number) => void
  /** Nobody can go now. */
  readonly idle: () => void
}

export const atOnce = (store: Immediate, { gate, grant, idle, queue, recharge, refuse, wakeIn }: Desk): Drain => {
  let running = false
  let again = false

  const ask = (waiter: Waiter): Held | Blocked | TooLarge => recharge(waiter) ?? store.take(waiter.charge)

  /** Lets the head in, and gives whether it did; sends away who can never be let in. */
  const admitHead = (): boolean => {
    for (let waiter = queue.peek(); waiter !== undefined; waiter = queue.peek()) {
      const answered = ask(waiter)
      if (!("_tag" in answered)) {
        const turn = queue.shift()!
        gate.enter()
        grant(turn, answered, answered.takenAt)
        return true
      }
      if (answered._tag === "Wait") {
        waiter.binding = answered.dimension ?? waiter.binding
        wakeIn(answered.millis)
        return false
      }
      queue.remove(waiter)
      refuse(waiter, answered)
    }
    return false
  }

  /** Lets the heads in as long as they fit and a permit is in hand. Gives whether one more permit is wanted. */
  const admitHeads = (): boolean => {
    while (queue.size > 0 && gate.hasRoom) {
      if (!gate.hasPermit) return !gate.isFull
      if (!admitHead()) return false
    }
    return false
  }

  /** All rounds that can be made without the semaphore, at once; gives what remains to be done with it. */
  const rounds = (): Effect.Effect<void> | undefined => {
    running = true
    do {
      again = false
      if (admitHeads()) {
        return Effect.flatMap(gate.takePermit, (taken) => (taken ? rounds() : finish()) ?? Effect.void)
      }
    } while (again)
    return finish()
  }

  const finish = (): Effect.Effect<void> | undefined => {
    const returned = gate.returnPermits()
    if (returned !== undefined) return Effect.flatMap(returned, () => (again ? rounds() : rest()) ?? Effect.void)
    return again ? rounds() : rest()
  }

  const rest = (): undefined => {
    running = false
    idle()
  }

  return {
    now: () => {
      if (!running) return rounds()
      again = true
      return undefined
    },
    isRunning: () => running,
    isTime: () => true,
    hurry: () => {},
    asking: () => []
  }
}
