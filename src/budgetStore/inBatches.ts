/**
 * How the budget asks a store that takes time to answer. Those in front are taken out of the queue and asked for
 * together, one request at a time; a waiter that must wait is put back where it stood. The head then waits at the
 * store, among the heads of other processes, until it is asked for again.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Blocked, Held, PoolStore, StoreUnavailable } from "../BudgetStore.ts"
import type { Turn } from "../internal/fairQueue.ts"
import * as Ledger from "../internal/ledger.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Limits from "../Limits.ts"
import type { Asker, Desk, Drain, MakeDrain } from "./drain.ts"

const firstBatch = 8
const leastBatch = 2
const mostBatch = 64

/**
 * The drain of a store that takes time. `wakes` emits when a head may come sooner than it was told, or under other limits:
 * because of another process, and because of what this one said by `observe`, `resize` or `unlearn`. After settlements of
 * its own the pool asks anyway.
 *
 * **Example** (the store in memory, as if it were a millisecond away)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Queue from "effect/Queue"
 * import * as Stream from "effect/Stream"
 * import * as Budget from "floodgate/Budget"
 * import * as BudgetStore from "floodgate/BudgetStore"
 *
 * const distant = Layer.succeed(BudgetStore.BudgetStore, {
 *   open: Effect.fnUntraced(function* (pool, options) {
 *     const store = yield* BudgetStore.memory.open(pool, options)
 *     const bell = yield* Queue.sliding<void>(1)
 *     const ringing = Effect.tap(() => Queue.offer(bell, undefined))
 *     const distant: BudgetStore.PoolStore = {
 *       ...store,
 *       take: (asks) => Effect.delay(store.take(asks), "1 milli"),
 *       observe: (signal, answered) => ringing(store.observe(signal, answered)),
 *       resize: (change) => ringing(store.resize(change)),
 *       unlearn: (untoldMillis) => ringing(store.unlearn(untoldMillis)),
 *       drain: BudgetStore.inBatches(Stream.fromQueue(bell))
 *     }
 *     return distant
 *   })
 * })
 *
 * const call = Budget.withReservation({ tokens: 500 }, () => Effect.succeed("admitted"))
 * const budget = Layer.provide(Budget.layer({ limits: { tokens: { perMinute: 100_000 } } }), distant)
 *
 * await Effect.runPromise(Effect.provide(call, budget)) // => "admitted"
 * ```
 *
 * @category drains
 * @since 0.1.0
 */
export const inBatches =
  (wakes: Stream.Stream<void>): MakeDrain =>
  (store, desk) =>
    drainOf(store, wakes, desk)

const drainOf = Effect.fnUntraced(function* <W extends Asker>(
  store: PoolStore,
  wakes: Stream.Stream<void>,
  { grant, idle, learn, permits, queue, recharge, refuse, unavailable, wakeIn }: Desk<W>
) {
  const scope = yield* Effect.scope
  const millis = monotonicMillis(yield* Clock.Clock)
  let running = false
  let again = false
  /**
   * How many are asked for at once: twice as many as the last time, or, if not all of them were granted, as many as
   * were.
   */
  let size = firstBatch
  /** Waiters that were taken out of the queue and have no answer from the store yet. */
  let asking: ReadonlyArray<W> = []
  /** The head that waits at the store, where others may stand behind it, and until when. */
  let standing: W | undefined
  let standsUntil = 0
  /** Whether somebody had to wait for more than the store's answer since all were let in the last time. */
  let isScarce = false
  /** Whether its time has come. Till then the store need not be asked for it again. */
  let due = false

  /** Takes waiters off the queue's front, each with a permit. */
  const shiftBatch = (batch: Array<Turn<W>>): Effect.Effect<Array<Turn<W>>> =>
    Effect.suspend(() => {
      while (batch.length < size && permits.hasRoom) {
        const waiter = queue.peek()
        if (waiter === undefined || permits.isFull) break
        if (!permits.hasPermit) {
          return Effect.flatMap(permits.takePermit, (taken) => (taken ? shiftBatch(batch) : Effect.succeed(batch)))
        }
        if (!recharge(waiter)) continue
        batch.push(queue.shift()!)
        permits.enter()
        waiter.state = "asking"
      }
      return Effect.succeed(batch)
    })

  /** Whether all that is limited was asked for: what became so meanwhile was not. Then it is given back, and asked anew. */
  const isWhole = ({ charge }: W): boolean => {
    const rules = store.rules()
    return Limits.dimensions.every((each) => rules[each] === undefined || charge[each] !== undefined)
  }

  /** Answers a batch that the store has decided on; gives what remains to be done. */
  const conclude = (
    batch: ReadonlyArray<Turn<W>>,
    granted: ReadonlyArray<Held>,
    blocked: Blocked | undefined
  ): Effect.Effect<unknown> => {
    const after: Array<Effect.Effect<unknown>> = []
    for (let i = batch.length - 1; i >= 0; i--) {
      const turn = batch[i]!
      const waiter = turn.entry
      const held = granted[i]
      const goes = held !== undefined && waiter.state !== "cancelled" && isWhole(waiter)
      if (held === undefined) permits.leave(undefined, false)
      else if (!goes) after.push(settle(held, Limits.used(held.charge, Limits.nothing), false))
      if (waiter.state === "cancelled") {
        queue.correct(turn, 0)
      } else if (goes) {
        grant(turn, held, millis())
      } else if (i === granted.length && blocked !== undefined && blocked._tag !== "Wait") {
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

  const fail = (batch: ReadonlyArray<Turn<W>>, error: StoreUnavailable): void => {
    for (const turn of batch) {
      permits.leave(undefined, false)
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
      const taken = Effect.suspend(() => store.take(asking))
      return Effect.matchCauseEffect(taken, {
        onFailure: (cause) => {
          asking = []
          standing = undefined
          fail(
            batch,
            Option.getOrElse(Cause.findErrorOption(cause), () => unavailable(Cause.squash(cause)))
          )
          return round
        },
        onSuccess: ({ blocked, granted }) => {
          asking = []
          learn()
          size = blocked === undefined ? Math.min(mostBatch, size * 2) : Math.max(leastBatch, 2 * granted.length)
          standing = blocked?._tag === "Wait" ? batch[granted.length]?.entry : undefined
          if (blocked?._tag === "Wait") standsUntil = millis() + blocked.millis
          const headLeft = standing?.state === "cancelled"
          return Effect.flatMap(conclude(batch, granted, blocked), () => {
            if (blocked === undefined && queue.size === 0) {
              if (!isScarce) queue.forget()
              isScarce = false
            }
            // Who was let in may come again at once: those that do so through promises, too, go with the next request.
            if (blocked === undefined && granted.length > 1) return Effect.andThen(Effect.yieldNow, round)
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
    return Effect.ignoreCause(Effect.suspend(() => store.take([])))
  })

  const finish: Effect.Effect<void> = Effect.suspend(() => {
    if (again) return round
    const returned = permits.returnPermits()
    if (returned !== undefined) return Effect.andThen(returned, finish)
    running = false
    if (queue.size > 0) isScarce = true
    idle()
    return Effect.void
  })

  const now = (): Effect.Effect<void> | undefined => {
    if (running) {
      again = true
      return undefined
    }
    running = true
    return Effect.asVoid(Effect.forkIn(round, scope, { startImmediately: true }))
  }

  /** A settlement that the store missed is on the cautious side: the estimate stays taken. */
  const settle = (held: Held, used: Limits.Charge, succeeded: boolean): Effect.Effect<void> => {
    // What comes back may let our own head in: it asks along, in the same request.
    if (!permits.isUnbounded || !Ledger.isAsEstimated(held.charge, used)) due = true
    const settled = Effect.suspend(() => store.settle(held, used, succeeded))
    return Effect.flatMap(Effect.ignoreCause(settled), () => {
      permits.leave(held.id, succeeded)
      return now() ?? Effect.void
    })
  }

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const waiter of asking) if (waiter.state === "asking") waiter.end(Effect.interrupt)
    })
  )
  const woken = Effect.suspend(() => {
    learn()
    due = true
    return now() ?? Effect.void
  })
  yield* Effect.forkIn(
    Stream.runForEach(wakes, () => Effect.uninterruptible(woken)),
    scope
  )

  const drain: Drain = {
    takeNow: () => undefined,
    now,
    timeIsUp: () => {
      const left = standsUntil - millis()
      if (standing !== undefined && left >= 1) {
        wakeIn(left)
        return undefined
      }
      due = true
      return now()
    },
    settle,
    isInstant: () => false,
    unasked: firstBatch
  }
  return drain
})
