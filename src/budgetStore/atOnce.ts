/**
 * How the budget asks a store whose steps take no time: asking and granting are one synchronous block. The head is
 * asked for where it stands, and leaves the queue only when it is admitted.
 */
import * as Effect from "effect/Effect"
import type { Blocked, Held, Immediate, PoolStore } from "../BudgetStore.ts"
import type * as Limits from "../Limits.ts"
import type { Asker, Desk, Drain } from "./drain.ts"

/**
 * How a pool asks a store whose steps take no time: they run in the fiber that causes them.
 *
 * **Gotchas**
 *
 * The drain goes by these steps: a `take` or `settle` that is put in the place of the store's is never asked. Wrap the
 * steps instead, or give the store {@link inBatches} as its drain, too.
 *
 * **Example** (a store that admits two calls, ever)
 *
 * ```ts doctest
 * import * as Clock from "effect/Clock"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as BudgetStore from "floodgate/BudgetStore"
 *
 * const twoCalls = Layer.succeed(BudgetStore.BudgetStore, {
 *   open: Effect.fnUntraced(function* (pool, options) {
 *     const store = yield* BudgetStore.memory.open(pool, options)
 *     const clock = yield* Clock.Clock
 *     let id = 0
 *     const steps: BudgetStore.Immediate = {
 *       take: (charge) =>
 *         id < 2
 *           ? { id: ++id, charge, takenAt: Number(clock.monotonicTimeNanosUnsafe()) / 1e6 }
 *           : { _tag: "Exhausted", dimension: "requests", asked: 1, left: 0 },
 *       settle: () => {}
 *     }
 *     return { ...store, ...BudgetStore.atOnce(steps) }
 *   })
 * })
 *
 * const calls = Effect.forEach([1, 2, 3], () => Effect.isSuccess(Budget.consume(1)))
 * const budget = Layer.provide(Budget.layer({ concurrency: 3, limits: { requests: { perMinute: 60 } } }), twoCalls)
 *
 * await Effect.runPromise(Effect.provide(calls, budget)) // => [true, true, false]
 * ```
 *
 * @category drains
 * @since 0.1.0
 */
export const atOnce = (steps: Immediate): Pick<PoolStore, "take" | "settle" | "drain"> => ({
  take: (asks) =>
    Effect.sync(() => {
      const granted: Array<Held> = []
      for (const { charge } of asks) {
        const answer = steps.take(charge)
        if ("_tag" in answer) return { granted, blocked: answer }
        granted.push(answer)
      }
      return { granted, blocked: undefined }
    }),
  settle: (held, used) => Effect.sync(() => steps.settle(held, used)),
  drain: (_, desk) => Effect.sync(() => drainOf(steps, desk))
})

const drainOf = <W extends Asker>(
  store: Immediate,
  { grant, idle, permits, queue, recharge, refuse, unavailable, wakeIn }: Desk<W>
): Drain => {
  let running = false
  let again = false

  const ask = (charge: Limits.Charge): Held | Blocked => {
    try {
      return store.take(charge)
    } catch (defect) {
      return unavailable(defect)
    }
  }

  /** Lets the head in, and says whether it did; sends away a waiter that can never be let in. */
  const admitHead = (): boolean => {
    for (let waiter = queue.peek(); waiter !== undefined; waiter = queue.peek()) {
      if (!recharge(waiter)) continue
      const answered = ask(waiter.charge)
      if (!("_tag" in answered)) {
        const turn = queue.shift()!
        permits.enter()
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
    while (queue.size > 0 && permits.hasRoom) {
      if (!permits.hasPermit) return !permits.isFull
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
        return Effect.flatMap(permits.takePermit, (taken) => (taken ? rounds() : finish()) ?? Effect.void)
      }
    } while (again)
    return finish()
  }

  const finish = (): Effect.Effect<void> | undefined => {
    const returned = permits.returnPermits()
    return returned === undefined ? rest() : Effect.flatMap(returned, () => rest() ?? Effect.void)
  }

  const rest = (): Effect.Effect<void> | undefined => {
    if (again) return rounds()
    running = false
    idle()
    return undefined
  }

  const now = (): Effect.Effect<void> | undefined => {
    if (!running) return rounds()
    again = true
    return undefined
  }

  return {
    takeNow: (charge) => {
      if (running || queue.size > 0 || !permits.isUnbounded || !permits.hasRoom) return undefined
      // Unguarded, because it is the hottest path and nothing has changed yet: a store that breaks here is a defect of the
      // caller's.
      const answered = store.take(charge)
      if ("_tag" in answered) return undefined
      queue.forget()
      permits.enter()
      return answered
    },
    now,
    timeIsUp: now,
    settle: (held, used, succeeded) => {
      try {
        store.settle(held, used)
      } catch {
        // As where a store is away: what it missed is on the cautious side, and the estimate stays taken.
      }
      permits.leave(held.id, succeeded)
      return now()
    },
    isInstant: () => permits.isUnbounded,
    unasked: 0
  }
}
