/**
 * One pool at work: the queue of this process, its calls in flight, and its store.
 *
 * Nobody waits on the semaphore or on the store. A waiter stands in the queue; `drain` moves the head on whenever
 * something changed (an arrival, a settlement, a cancellation, a pause, the timer), takes a permit without waiting, asks
 * the store, and resumes who was granted. One timer sleeps for the head.
 *
 * Where the store takes no time, asking and granting are one synchronous block: the head is asked for where it stands,
 * and leaves the queue only when it is admitted. Otherwise it is taken out, and put back where it was when it must wait.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FiberHandle from "effect/FiberHandle"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type {
  Blocked,
  BudgetStore,
  Held,
  Immediate,
  PoolOptions,
  PoolStore,
  Snapshot,
  StoreUnavailable
} from "../BudgetStore.ts"
import { FairQueue, type Turn } from "../internal/fairQueue.ts"
import * as Ledger from "../internal/ledger.ts"
import * as Limits from "../Limits.ts"
import type { BudgetError } from "./errors.ts"
import { Gate } from "./gate.ts"
import { Counts, register as registerMetrics } from "./metrics.ts"
import { type Answer, type Pool, type Refused, type TooLarge, Waiter } from "./poolModel.ts"
import * as Predict from "./predict.ts"
import * as Refuse from "./refuse.ts"
import { HeldReservation } from "./reservation.ts"

/** Timers of the runtime reach no further than 24 days; the head looks again every day. */
const longestSleepMillis = 86_400_000
/** As long as a retry-after is believed at most, so is a learned limit that refuses a call. */
const believedMillis = 3_600_000

export const open = Effect.fnUntraced(function* (
  name: string,
  backend: BudgetStore,
  options: PoolOptions & { readonly changed: () => void }
): Effect.fn.Return<Pool, StoreUnavailable, Scope.Scope> {
  const clock = yield* Clock.Clock
  const store: PoolStore = yield* backend.open(name, options)
  const { immediate } = store
  const runTimer = yield* FiberHandle.makeRuntime<never>()
  const scope = yield* Effect.scope
  const queue = new FairQueue<Waiter>()
  let rules = store.rules()
  let hasQuota = Limits.hasQuota(rules)
  const millis = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  // With no limits known the first call goes alone; its headers set them.
  const gate = new Gate(options.concurrency, Object.keys(rules).length === 0, millis)
  /** Waiters that a store is being asked about. */
  let asking: ReadonlyArray<Waiter> = []
  const counts = new Counts()
  let draining = false
  let again = false
  let closed = false
  let wakeAt = Infinity
  /** The head that waits at a store that takes time, where others may stand behind it, and until when. */
  let standing: Waiter | undefined
  let standsUntil = 0
  /** Whether its time has come. Till then the store need not be asked for it again. */
  let due = false

  /** The limits that were given, and when a response last spoke of limits. */
  let given = options.limits
  let heardAt = millis()

  const answer = (waiter: Waiter, effect: Answer): void => {
    waiter.state = "done"
    if (waiter.resume !== undefined) waiter.resume(effect)
    else waiter.answer = effect
  }

  const grant = (turn: Turn<Waiter>, held: Held): void => {
    const waiter = turn.entry
    gate.admitted(held.id)
    const waited = millis() - waiter.since
    counts.reservations++
    // Who is admitted by the drain that its own arrival caused has not waited.
    if (waiter.resume !== undefined) counts.waited(waited / 1_000)
    const reservation = new HeldReservation(pool, waiter.agent, held, turn, waited)
    waiter.reservation = reservation
    answer(waiter, Effect.succeed(reservation))
  }

  const refuse = (waiter: Waiter, refused: Refused): void => answer(waiter, Refuse.byStore(name, refused))

  /** Sleeps for the head. A timer that is set for earlier stays: it looks again and sleeps on. */
  const wakeIn = (wait: number): void => {
    const sleep = Math.min(wait, longestSleepMillis)
    const at = millis() + sleep
    if (closed || at >= wakeAt) return
    wakeAt = at
    runTimer(
      Effect.andThen(
        Effect.sleep(sleep),
        Effect.suspend(() => {
          wakeAt = Infinity
          const left = standing === undefined ? 0 : standsUntil - millis()
          if (left >= 1) {
            wakeIn(left)
            return Effect.void
          }
          due = true
          return drain
        })
      )
    )
  }

  /** Nobody can go now. Who waits for a probe that stays silent looks again when its time is up. */
  const idle = (): undefined => {
    draining = false
    if (queue.size > 0 && gate.patience > 0) wakeIn(gate.patience)
    options.changed()
  }

  /** Brings a waiter's charge up to the rules as they are; gives why it fits no more. */
  const recharge = (waiter: Waiter): TooLarge | undefined => {
    if (waiter.rules === rules) return undefined
    waiter.rules = rules
    waiter.charge = Limits.charge(waiter.estimate, rules)
    const tooLarge = Limits.neverFits(waiter.charge, rules)
    return tooLarge === undefined ? undefined : { _tag: "TooLarge", ...tooLarge }
  }

  // ---------------------------------------------------------------------------
  // A store that takes no time
  // ---------------------------------------------------------------------------

  const ask = (store: Immediate, waiter: Waiter): Held | Blocked | TooLarge =>
    recharge(waiter) ?? store.take(waiter.charge)

  /** Lets the head in, and gives whether it did; sends away who can never be let in. */
  const admitHead = (store: Immediate): boolean => {
    for (let waiter = queue.peek(); waiter !== undefined; waiter = queue.peek()) {
      const answered = ask(store, waiter)
      if (!("_tag" in answered)) {
        const turn = queue.shift()!
        gate.enter()
        grant(turn, answered)
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
  const admitHeads = (store: Immediate): boolean => {
    while (queue.size > 0 && gate.hasRoom) {
      if (!gate.hasPermit) return !gate.isFull
      if (!admitHead(store)) return false
    }
    return false
  }

  /** All rounds that can be made without the semaphore, at once; gives what remains to be done with it. */
  const rounds = (store: Immediate): Effect.Effect<void> | undefined => {
    draining = true
    do {
      again = false
      if (admitHeads(store)) {
        return Effect.flatMap(gate.takePermit, (taken) => (taken ? rounds(store) : finish(store)) ?? Effect.void)
      }
    } while (again)
    return finish(store)
  }

  const finish = (store: Immediate): Effect.Effect<void> | undefined => {
    const returned = gate.returnPermits()
    if (returned !== undefined) return Effect.flatMap(returned, () => (again ? rounds(store) : idle()) ?? Effect.void)
    return again ? rounds(store) : idle()
  }

  // ---------------------------------------------------------------------------
  // A store that takes time
  // ---------------------------------------------------------------------------

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
        if (held !== undefined) after.push(giveBack(held))
      } else if (held !== undefined) {
        grant(turn, held)
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

  const remoteRound: Effect.Effect<void> = Effect.suspend(() => {
    again = false
    if (standing !== undefined && !due && queue.peek() === standing) return remoteFinish
    due = false
    return Effect.flatMap(shiftBatch([]), (batch) => {
      if (batch.length === 0) return Effect.andThen(withdraw, remoteFinish)
      asking = batch.map(({ entry }) => entry)
      return Effect.matchEffect(store.take(asking), {
        onFailure: (error) => {
          asking = []
          standing = undefined
          fail(batch, error)
          return remoteRound
        },
        onSuccess: ({ blocked, granted }) => {
          asking = []
          learn()
          standing = blocked?._tag === "Wait" ? batch[granted.length]?.entry : undefined
          if (blocked?._tag === "Wait") standsUntil = millis() + blocked.millis
          const headLeft = standing?.state === "cancelled"
          return Effect.flatMap(conclude(batch, granted, blocked), () => {
            if (blocked?._tag !== "Wait" || headLeft) return remoteRound
            if (queue.size === 0) return Effect.andThen(withdraw, remoteFinish)
            wakeIn(blocked.millis)
            return remoteFinish
          })
        }
      })
    })
  })

  /** Nobody of this process waits any more, or nobody may go: the heads of other processes move up. */
  const withdraw: Effect.Effect<void> = Effect.suspend(() => {
    if (standing === undefined) return Effect.void
    standing = undefined
    return forgive(store.take([]))
  })

  const remoteFinish: Effect.Effect<void> = Effect.suspend(() => {
    if (again) return remoteRound
    const returned = gate.returnPermits()
    return returned === undefined ? Effect.sync(idle) : Effect.andThen(returned, remoteFinish)
  })

  // ---------------------------------------------------------------------------
  // Draining
  // ---------------------------------------------------------------------------

  /** Moves the queue on; gives what remains to be done. To be called where nothing interrupts. */
  const drainNow = (): Effect.Effect<void> | undefined => {
    if (draining) {
      again = true
      return undefined
    }
    if (immediate !== undefined) return rounds(immediate)
    if (queue.size === 0 && standing === undefined) return remoteFinish
    draining = true
    return Effect.asVoid(Effect.forkIn(remoteRound, scope, { startImmediately: true }))
  }
  const drain: Effect.Effect<void> = Effect.uninterruptible(Effect.suspend(() => drainNow() ?? Effect.void))

  /** A settlement that the store missed is on the cautious side: the estimate stays taken. */
  const forgive = <A>(effect: Effect.Effect<A, StoreUnavailable>): Effect.Effect<void> => Effect.ignore(effect)

  const settle = (
    held: Held,
    used: Limits.Charge,
    succeeded: boolean,
    turn?: Turn<Waiter>
  ): Effect.Effect<void> | undefined => {
    counts.settled(held.charge, used)
    // Agents share what is used, not what is asked for; what is given back is not paid twice. But a probe that fails has
    // had its turn: another agent's call is the next, so that an outage does not spend the attempts of one.
    if (turn !== undefined && used !== held.charge && (succeeded || !gate.probesOverload)) {
      const asked = Limits.dominantShare(held.charge, rules)
      if (asked > 0) queue.correct(turn, Limits.dominantShare(used, rules) / asked)
    }
    if (immediate === undefined) {
      // What comes back may let our own head in: it asks along, in the same request.
      if (standing !== undefined && (!gate.isUnbounded || !Ledger.isAsEstimated(held.charge, used))) due = true
      return Effect.flatMap(forgive(store.settle(held, used, succeeded)), () => {
        gate.leave(held.id, succeeded)
        return drain
      })
    }
    immediate.settle(held, used)
    gate.leave(held.id, succeeded)
    return drainNow()
  }

  const giveBack = (held: Held): Effect.Effect<void> =>
    Effect.suspend(() => settle(held, Limits.used(held.charge, Limits.nothing), false) ?? Effect.void)

  /** Hears the rules from the store; with no limits known the first call went alone, now all may go. */
  const learn = (): void => {
    rules = store.rules()
    hasQuota = Limits.hasQuota(rules)
    if (Object.keys(rules).length > 0) gate.known()
  }

  /** While this process rests after a failed probe, nobody is admitted: as in a cooldown of the pool. */
  const resting = (snapshot: Snapshot): Snapshot => {
    const until = snapshot.now + gate.rest
    return gate.rest === 0 || until <= (snapshot.ledger.cooldown?.until ?? 0)
      ? snapshot
      : { ...snapshot, ledger: { ...snapshot.ledger, cooldown: { until, reason: "overload" } } }
  }

  const pool: Pool = {
    name,
    rules: () => rules,
    hasQuota: () => hasQuota,
    queued: () => queue.size,
    isInstant: () => immediate !== undefined && gate.isUnbounded,
    unasked: immediate === undefined ? store.batch : 0,
    inFlight: () => gate.inFlight,
    allowed: () => gate.allowed,
    takeNow: (charge) => {
      if (immediate === undefined || draining || queue.size > 0 || !gate.isUnbounded || !gate.hasRoom || closed) {
        return undefined
      }
      const answered = immediate.take(charge)
      if ("_tag" in answered) return undefined
      queue.forget()
      gate.enter()
      gate.admitted(answered.id)
      counts.reservations++
      options.changed()
      return answered
    },
    admit: (estimate, charge, who) => {
      const waiter = new Waiter(pool, estimate, charge, who, millis())
      if (closed) answer(waiter, Effect.interrupt)
      else queue.push(waiter, who.first)
      return waiter
    },
    drainNow,
    wait: (waiter) =>
      waiter.answer ??
      Effect.callback<HeldReservation, BudgetError>((resume) => {
        if (waiter.answer !== undefined) resume(waiter.answer)
        else waiter.resume = resume
      }),
    cancel: (waiter) => {
      switch (waiter.state) {
        case "queued": {
          const wasHead = queue.peek() === waiter
          waiter.state = "done"
          queue.remove(waiter)
          return wasHead ? drain : undefined
        }
        case "asking":
          waiter.state = "cancelled"
          return undefined
        default:
          return waiter.reservation?.refund
      }
    },
    settle,
    observe: (signal, answered) =>
      Effect.flatMap(forgive(store.observe(signal, answered)), () => {
        heardAt = millis()
        learn()
        return drain
      }),
    doubt: (estimate) =>
      Effect.suspend(() => {
        const before = Limits.resolve(given)
        if (millis() - heardAt < believedMillis || Limits.neverFits(Limits.charge(estimate, before), before)) {
          return Effect.succeed(false)
        }
        heardAt = millis()
        return Effect.as(pool.resize({ limits: given, concurrency: undefined }), true)
      }),
    together: (self) => Effect.uninterruptible(Effect.ensuring(gate.whileShut(self), drain)),
    pause: (pause, rejected) =>
      Effect.andThen(
        forgive(store.pause(pause)),
        Effect.suspend(() => {
          counts.cooldowns[pause.reason]++
          return Effect.flatMap(Random.next, (random) => {
            gate.pause(pause.reason, rejected?.id, random)
            return drain
          })
        })
      ),
    resize: (change) =>
      Effect.flatMap(forgive(store.resize(change)), () => {
        given = change.limits ?? given
        learn()
        return Effect.andThen(change.concurrency === undefined ? Effect.void : gate.resize(change.concurrency), drain)
      }),
    snapshot: Effect.map(store.snapshot, resting),
    predict: (charge, who, snapshot) => Predict.forNewcomer(queue, charge, who, snapshot),
    waiting: (count, snapshot) => Predict.first(queue, count, snapshot, millis())
  }

  const unregister = registerMetrics(
    name,
    { counts, queued: pool.queued, inFlight: pool.inFlight },
    yield* Effect.context<never>()
  )
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      closed = true
      unregister()
      for (const waiter of asking) if (waiter.state === "asking") answer(waiter, Effect.interrupt)
      for (let out = queue.shift(); out !== undefined; out = queue.shift()) answer(out.entry, Effect.interrupt)
    })
  )
  yield* Effect.forkIn(
    Stream.runForEach(store.wakes, () => {
      learn()
      due = true
      return drain
    }),
    scope
  )
  return pool
})
