/**
 * How the queue of a pool moves on, where the store takes time. Those in front are taken out and asked for together, one
 * request at a time; who must wait is put back where he stood. The head then waits at the store, among the heads of other
 * processes, until it is asked for again.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Blocked, Held, PoolStore, StoreUnavailable } from "../BudgetStore.ts"
import type { Turn } from "../internal/fairQueue.ts"
import type { Desk, Drain } from "./drain.ts"
import type { Waiter } from "./poolModel.ts"

export const elsewhere = (
  store: PoolStore,
  { gate, grant, idle, queue, recharge, refuse, wakeIn }: Desk,
  options: {
    /** What runs here ends with it. */
    readonly scope: Scope.Scope
    readonly millis: () => number
    /** Hears the rules from the store. */
    readonly learn: () => void
    /** Gives back what was granted to one who has left. */
    readonly giveBack: (held: Held) => Effect.Effect<void>
  }
): Drain => {
  let running = false
  let again = false
  let asking: ReadonlyArray<Waiter> = []
  /** The head that waits at the store, where others may stand behind it, and until when. */
  let standing: Waiter | undefined
  let standsUntil = 0
  /** Whether its time has come. Till then the store need not be asked for it again. */
  let due = false

  /** Takes waiters off the queue's front, each with a permit. */
  const shiftBatch = (batch: Array<Turn<Waiter>>): Effect.Effect<Array<Turn<Waiter>>> =>
    Effect.suspend(() => {
      while (batch.length < store.batch && gate.hasRoom) {
        const waiter = queue.peek()
        if (waiter === undefined || gate.isFull) break
        if (!gate.hasPermit) {
          return Effect.flatMap(gate.takePermit, (taken) => (taken ? shiftBatch(batch) : Effect.succeed(batch)))
        }
        const tooLarge = recharge(waiter)
        if (tooLarge !== undefined) {
          queue.remove(waiter)
          refuse(waiter, tooLarge)
          continue
        }
        batch.push(queue.shift()!)
        gate.enter()
        waiter.state = "asking"
      }
      return Effect.succeed(batch)
    })

  /** Answers a batch that the store has decided on; gives what remains to be done. */
  const conclude = (
    batch: ReadonlyArray<Turn<Waiter>>,
    granted: ReadonlyArray<Held>,
    blocked: Blocked | undefined
  ): Effect.Effect<unknown> => {
    const after: Array<Effect.Effect<unknown>> = []
    for (let i = batch.length - 1; i >= 0; i--) {
      const turn = batch[i]!
      const waiter = turn.entry
      const held = granted[i]
      if (held === undefined) gate.leave(undefined, false)
      if (waiter.state === "cancelled") {
        queue.correct(turn, 0)
        if (held !== undefined) after.push(options.giveBack(held))
      } else if (held !== undefined) {
        grant(turn, held, options.millis())
      } else if (i === granted.length && blocked?._tag === "Exhausted") {
        queue.correct(turn, 0)
        refuse(waiter, blocked)
      } else {
        waiter.state = "queued"
        waiter.binding = blocked?._tag === "Wait" ? (blocked.dimension ?? waiter.binding) : waiter.binding
        queue.putBack(turn)
      }
    }
    return Effect.all(after, { discard: true })
  }

  const fail = (batch: ReadonlyArray<Turn<Waiter>>, error: StoreUnavailable): void => {
    for (const turn of batch) {
      gate.leave(undefined, false)
      queue.correct(turn, 0)
      if (turn.entry.state !== "cancelled") refuse(turn.entry, error)
    }
  }

  const round: Effect.Effect<void> = Effect.suspend(() => {
    again = false
    if (standing !== undefined && !due && queue.peek() === standing) return finish
    due = false
    return Effect.flatMap(shiftBatch([]), (batch) => {
      if (batch.length === 0) return Effect.andThen(withdraw, finish)
      asking = batch.map(({ entry }) => entry)
      return Effect.matchEffect(store.take(asking), {
        onFailure: (error) => {
          asking = []
          standing = undefined
          fail(batch, error)
          return round
        },
        onSuccess: ({ blocked, granted }) => {
          asking = []
          options.learn()
          standing = blocked?._tag === "Wait" ? batch[granted.length]?.entry : undefined
          if (blocked?._tag === "Wait") standsUntil = options.millis() + blocked.millis
          const headLeft = standing?.state === "cancelled"
          return Effect.flatMap(conclude(batch, granted, blocked), () => {
            if (blocked?._tag !== "Wait" || headLeft) return round
            if (queue.size === 0) return Effect.andThen(withdraw, finish)
            wakeIn(blocked.millis)
            return finish
          })
        }
      })
    })
  })

  /** Nobody of this process waits any more, or nobody may go: the heads of other processes move up. */
  const withdraw: Effect.Effect<void> = Effect.suspend(() => {
    if (standing === undefined) return Effect.void
    standing = undefined
    return Effect.ignore(store.take([]))
  })

  const finish: Effect.Effect<void> = Effect.suspend(() => {
    if (again) return round
    const returned = gate.returnPermits()
    if (returned !== undefined) return Effect.andThen(returned, finish)
    running = false
    idle()
    return Effect.void
  })

  return {
    now: () => {
      if (running) {
        again = true
        return undefined
      }
      if (queue.size === 0 && standing === undefined) return finish
      running = true
      return Effect.asVoid(Effect.forkIn(round, options.scope, { startImmediately: true }))
    },
    isRunning: () => running,
    isTime: () => {
      if (standing !== undefined && standsUntil - options.millis() >= 1) {
        wakeIn(standsUntil - options.millis())
        return false
      }
      due = true
      return true
    },
    hurry: () => {
      due = true
    },
    asking: () => asking
  }
}
