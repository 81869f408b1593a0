/**
 * One pool at work: the queue of this process, its calls in flight, and its store.
 *
 * Nobody waits on the semaphore or on the store. A waiter stands in the queue; `drain` moves the head on whenever
 * something changed (an arrival, a settlement, a cancellation, a pause, the timer), takes a permit without waiting, asks
 * the store, and resumes who was granted. One timer sleeps for the head.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FiberHandle from "effect/FiberHandle"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { Blocked, BudgetStore, Held, Pause, PoolOptions, PoolStore, Snapshot, StoreUnavailable } from "../BudgetStore.ts"
import * as Bucket from "../internal/bucket.ts"
import { type Entry, FairQueue, type Flow } from "../internal/fairQueue.ts"
import * as Limits from "../Limits.ts"

/** Who waits, for what. */
export interface Waiter extends Entry {
  readonly charge: Limits.Charge
  readonly since: number
  state: "queued" | "asking" | "cancelled" | "done"
  /** Set when granted. */
  held: Held | undefined
  waitedMillis: number
  /** What it waited for last. */
  binding: Limits.Dimension | undefined
  resume: ((effect: Effect.Effect<Held, Refused>) => void) | undefined
  answer: Effect.Effect<Held, Refused> | undefined
}

/** Why a waiter was sent away by the store. */
export type Refused = StoreUnavailable | (Blocked & { readonly _tag: "Exhausted" })

export interface WaiterOptions {
  readonly agent: string
  readonly priority: number
  readonly weight: number
  readonly first: boolean
}

/** What a waiter that would come now must expect. */
export interface Prediction {
  readonly millis: number
  readonly dimension: Limits.Dimension | undefined
}

export interface Waiting extends Prediction {
  readonly waiter: Waiter
  readonly waitedMillis: number
}

export interface Pool {
  readonly name: string
  readonly rules: () => Limits.Rules
  readonly queued: () => number
  readonly inFlight: () => number
  /** Calls that may be in flight now: the concurrency, less while a cooldown is probed. */
  readonly allowed: () => number
  readonly admit: (charge: Limits.Charge, options: WaiterOptions) => Waiter
  readonly drain: Effect.Effect<void>
  /** Waits until the waiter is granted or refused. Interrupting it cancels nothing by itself, see `cancel`. */
  readonly wait: (waiter: Waiter) => Effect.Effect<Held, Refused>
  readonly cancel: (waiter: Waiter) => Effect.Effect<void>
  readonly settle: (held: Held, used: Limits.Charge, succeeded: boolean) => Effect.Effect<void>
  readonly observe: (signal: Limits.Signal, answered: Held | undefined) => Effect.Effect<void>
  readonly pause: (pause: Pause) => Effect.Effect<void>
  readonly resize: (options: { limits: Limits.Limits | undefined; concurrency: number | undefined }) => Effect.Effect<void>
  readonly snapshot: Effect.Effect<Snapshot, StoreUnavailable>
  readonly predict: (
    charge: Limits.Charge,
    options: { readonly agent: string; readonly priority: number },
    snapshot: Snapshot
  ) => Prediction
  /** The first waiters in the order of service, at most `count`. */
  readonly waiting: (count: number, snapshot: Snapshot) => ReadonlyArray<Waiting>
}

/** Timers of the runtime reach no further than 24 days; the head looks again every day. */
const longestSleepMillis = 86_400_000

export const open = Effect.fnUntraced(function* (
  name: string,
  backend: BudgetStore,
  options: PoolOptions & { readonly changed: () => void }
): Effect.fn.Return<Pool, StoreUnavailable, Scope.Scope> {
  const clock = yield* Clock.Clock
  const store: PoolStore = yield* backend.open(name, options)
  const runTimer = yield* FiberHandle.makeRuntime<never>()
  const scope = yield* Effect.scope
  const queue = new FairQueue<Waiter>()
  let rules = store.rules()
  let concurrency = options.concurrency
  // With no limits known the first call goes alone; its headers set them.
  let allowed = Object.keys(rules).length === 0 ? 1 : concurrency
  const semaphore = Semaphore.makeUnsafe(allowed)
  let inFlight = 0
  let draining = false
  let again = false
  let wakeAt = Infinity
  /** Whether the head waits at the store, where others may stand behind it. */
  let stands = false

  const millis = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

  const answer = (waiter: Waiter, effect: Effect.Effect<Held, Refused>): void => {
    waiter.state = "done"
    waiter.waitedMillis = millis() - waiter.since
    if (waiter.resume !== undefined) waiter.resume(effect)
    else waiter.answer = effect
  }

  const release = (permits: number): Effect.Effect<unknown> =>
    permits === 0
      ? Effect.void
      : Effect.suspend(() => {
          inFlight -= permits
          return semaphore.release(permits)
        })

  /** Sleeps for the head. A timer that is set for earlier stays: it looks again and sleeps on. */
  const wakeIn = (wait: number): void => {
    const sleep = Math.min(wait, longestSleepMillis)
    const at = millis() + sleep
    if (at >= wakeAt) return
    wakeAt = at
    runTimer(
      Effect.andThen(
        Effect.sleep(sleep),
        Effect.suspend(() => {
          wakeAt = Infinity
          return drain
        })
      )
    )
  }

  /** Takes waiters off the queue's front, each with a permit. */
  const shiftBatch = (batch: Array<Waiter>): Effect.Effect<Array<Waiter>> =>
    Effect.suspend(() => {
      if (batch.length === store.batch || queue.size === 0) return Effect.succeed(batch)
      return Effect.flatMap(semaphore.takeIfAvailable(1), (taken) => {
        if (!taken) return Effect.succeed(batch)
        inFlight++
        const waiter = queue.shift()
        if (waiter === undefined) return Effect.as(release(1), batch)
        waiter.state = "asking"
        batch.push(waiter)
        return batch.length === store.batch ? Effect.succeed(batch) : shiftBatch(batch)
      })
    })

  /** Answers a batch that the store has decided on; gives whether to go on. */
  const conclude = (batch: ReadonlyArray<Waiter>, granted: ReadonlyArray<Held>, blocked: Blocked | undefined) => {
    const refunds: Array<Effect.Effect<void>> = []
    for (let i = batch.length - 1; i >= 0; i--) {
      const waiter = batch[i]!
      const held = granted[i]
      if (held !== undefined) {
        waiter.held = held
        if (waiter.state === "cancelled") refunds.push(giveBack(held))
        else answer(waiter, Effect.succeed(held))
      } else if (waiter.state !== "cancelled") {
        if (i === granted.length && blocked?._tag === "Exhausted") {
          answer(waiter, Effect.fail(blocked))
        } else {
          waiter.state = "queued"
          waiter.binding = blocked?._tag === "Wait" ? blocked.dimension : waiter.binding
          queue.putBack(waiter)
        }
      }
    }
    const unused = release(batch.length - granted.length)
    return refunds.length === 0 ? unused : Effect.andThen(unused, Effect.all(refunds, { discard: true }))
  }

  const giveBack = (held: Held): Effect.Effect<void> =>
    Effect.andThen(forgive(store.settle(held, zeros(held.charge), false)), release(1))

  const round: Effect.Effect<void> = Effect.suspend(() => {
    again = false
    return Effect.flatMap(shiftBatch([]), (batch) => {
      if (batch.length === 0) return Effect.andThen(withdraw, finish)
      return Effect.matchEffect(store.take(batch), {
        onFailure: (error) => {
          for (const waiter of batch) if (waiter.state !== "cancelled") answer(waiter, Effect.fail(error))
          return Effect.andThen(release(batch.length), round)
        },
        onSuccess: ({ blocked, granted }) =>
          Effect.flatMap(Effect.andThen(learn, conclude(batch, granted, blocked)), () => {
            stands = blocked?._tag === "Wait"
            if (blocked?._tag !== "Wait" || batch[granted.length]!.state === "cancelled") return round
            if (queue.size === 0) return Effect.andThen(withdraw, finish)
            wakeIn(blocked.millis)
            return finish
          })
      })
    })
  })

  /** Nobody of this process waits any more, or nobody may go: the heads of other processes move up. */
  const withdraw: Effect.Effect<void> = Effect.suspend(() => {
    if (store.local || !stands) return Effect.void
    stands = false
    return forgive(store.take([]))
  })

  /** With no limits known the first call went alone; whoever learned them, now all may go. */
  const learn: Effect.Effect<void> = Effect.suspend(() => {
    const learned = store.rules()
    if (learned === rules) return Effect.void
    const first = Object.keys(rules).length === 0 && Object.keys(learned).length > 0
    rules = learned
    return first ? setAllowed(concurrency) : Effect.void
  })

  const finish: Effect.Effect<void> = Effect.suspend(() => {
    if (again) return round
    draining = false
    options.changed()
    return Effect.void
  })

  const drain: Effect.Effect<void> = Effect.uninterruptible(
    Effect.suspend(() => {
      if (draining) {
        again = true
        return Effect.void
      }
      if (queue.size === 0 && (store.local || !stands)) {
        options.changed()
        return Effect.void
      }
      draining = true
      return store.local ? round : Effect.asVoid(Effect.forkIn(round, scope))
    })
  )

  const setAllowed = (permits: number): Effect.Effect<void> => {
    if (permits === allowed) return Effect.void
    allowed = permits
    return semaphore.resize(permits)
  }

  /** A settlement that the store missed is on the cautious side: the estimate stays taken. */
  const forgive = <A>(effect: Effect.Effect<A, StoreUnavailable>): Effect.Effect<void> => Effect.ignore(effect)

  const pool: Pool = {
    name,
    rules: () => rules,
    queued: () => queue.size,
    inFlight: () => inFlight,
    allowed: () => allowed,
    admit: (charge, { agent, first, priority, weight }) => {
      const waiter: Waiter = {
        agent,
        priority,
        weight,
        cost: Limits.dominantShare(charge, rules),
        charge,
        since: millis(),
        state: "queued",
        held: undefined,
        waitedMillis: 0,
        binding: undefined,
        resume: undefined,
        answer: undefined,
        flow: undefined,
        previous: undefined,
        next: undefined,
        start: 0,
        turn: 0
      }
      queue.push(waiter, first)
      return waiter
    },
    drain,
    wait: (waiter) =>
      Effect.suspend(
        () =>
          waiter.answer ??
          Effect.callback<Held, Refused>((resume) => {
            waiter.resume = resume
          })
      ),
    cancel: (waiter) =>
      Effect.suspend(() => {
        switch (waiter.state) {
          case "queued":
            waiter.state = "done"
            queue.remove(waiter)
            return drain
          case "asking":
            waiter.state = "cancelled"
            return Effect.void
          default:
            return waiter.held === undefined ? Effect.void : Effect.andThen(giveBack(waiter.held), drain)
        }
      }),
    settle: (held, used, succeeded) =>
      Effect.suspend(() => {
        const grow = succeeded && allowed < concurrency ? setAllowed(allowed + 1) : Effect.void
        return Effect.andThen(Effect.andThen(forgive(store.settle(held, used, succeeded)), release(1)), Effect.andThen(grow, drain))
      }),
    observe: (signal, answered) =>
      Effect.andThen(Effect.andThen(forgive(store.observe(signal, answered)), learn), drain),
    pause: (pause) =>
      Effect.andThen(
        forgive(store.pause(pause)),
        Effect.suspend(() => {
          const next = pause.reason === "overload" ? Math.max(1, Math.floor(Math.min(allowed, inFlight + 1) / 2)) : 1
          return Effect.andThen(setAllowed(Math.min(allowed, next)), drain)
        })
      ),
    resize: ({ concurrency: permits, limits }) =>
      Effect.suspend(() => {
        const grown = permits === undefined ? Effect.void : setAllowed(allowed < concurrency ? Math.min(allowed, permits) : permits)
        concurrency = permits ?? concurrency
        const resized = forgive(store.resize({ limits, concurrency: permits }))
        return Effect.andThen(Effect.andThen(grown, resized), Effect.andThen(learn, drain))
      }),
    snapshot: store.snapshot,
    predict: (charge, who, snapshot) => {
      const sums: { [D in Limits.Dimension]?: number } = { ...charge }
      queue.ahead(who, (flow, part) => addBacklog(sums, flow, part))
      return predictFor(sums, snapshot)
    },
    waiting: (count, snapshot) => {
      const shifted: Array<Waiter> = []
      while (shifted.length < count && queue.size > 0) shifted.push(queue.shift()!)
      const sums: { [D in Limits.Dimension]?: number } = {}
      const result = shifted.map((waiter) => {
        addCharge(sums, waiter.charge, 1)
        return { waiter, waitedMillis: millis() - waiter.since, ...predictFor(sums, snapshot) }
      })
      for (const waiter of shifted.reverse()) queue.putBack(waiter)
      return result
    }
  }

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (let waiter = queue.shift(); waiter !== undefined; waiter = queue.shift()) answer(waiter, Effect.interrupt)
    })
  )
  yield* Effect.forkIn(Stream.runForEach(store.wakes, () => Effect.andThen(learn, drain)), scope)
  return pool
})

const zeros = (charge: Limits.Charge): Limits.Charge => Limits.used(charge, Limits.nothing)

const addCharge = (sums: { [D in Limits.Dimension]?: number }, charge: Limits.Charge, part: number): void => {
  for (const dimension of Limits.dimensions) {
    const value = charge[dimension]
    if (value !== undefined) sums[dimension] = (sums[dimension] ?? 0) + value * part
  }
}

const addBacklog = (sums: { [D in Limits.Dimension]?: number }, flow: Flow<Waiter>, part: number): void => {
  let left = part * flow.backlog
  for (let waiter = flow.head; waiter !== undefined && left > 0; waiter = waiter.next) {
    addCharge(sums, waiter.charge, 1)
    left -= waiter.cost / waiter.weight
  }
}

/** How long until the buckets have refilled `sums` and the cooldown is over. */
const predictFor = (sums: Limits.Charge, { ledger, now }: Snapshot): Prediction => {
  let millis = Math.max(0, (ledger.cooldown?.until ?? 0) - now)
  let binding: Limits.Dimension | undefined
  for (const dimension of Limits.dimensions) {
    const bucket = ledger.buckets[dimension]
    const asked = sums[dimension]
    if (bucket === undefined || asked === undefined) continue
    const wait = Math.max(Bucket.waitForAll(bucket, asked), asked <= bucket.rule.most ? Bucket.waitFor(bucket, asked, now) : 0)
    if (wait > millis) {
      millis = wait
      binding = dimension
    }
  }
  return { millis, dimension: binding }
}
