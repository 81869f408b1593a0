/**
 * One pool at work: the queue of this process, its calls in flight, and its store.
 *
 * Nobody waits on the semaphore or on the store. A waiter stands in the queue; `drain` moves the head on whenever
 * something changed (an arrival, a settlement, a cancellation, a pause, the timer), takes a permit without waiting,
 * asks the store, and resumes the waiters that were granted. One timer sleeps for the head.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FiberHandle from "effect/FiberHandle"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import { type BudgetStore, type Held, type PoolOptions, type Snapshot, StoreUnavailable } from "../BudgetStore.ts"
import type { Drain, Refused } from "../budgetStore/drain.ts"
import * as Believed from "../internal/believed.ts"
import { FairQueue, type Turn } from "../internal/fairQueue.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Limits from "../Limits.ts"
import { EstimateTooLarge } from "./errors.ts"
import { Gate } from "./gate.ts"
import { countsOf } from "./metrics.ts"
import { costOf, type Pool, Waiter } from "./poolModel.ts"
import * as Predict from "./predict.ts"
import * as Refuse from "./refuse.ts"
import { HeldReservation } from "./reservation.ts"

/** Timers of the runtime reach no further than 24 days; the head looks again every day. */
const longestSleepMillis = 86_400_000

export const open = Effect.fnUntraced(function* (
  name: string,
  backend: BudgetStore,
  options: PoolOptions & { readonly maxQueued: number; readonly changed: () => void }
): Effect.fn.Return<Pool, StoreUnavailable, Scope.Scope> {
  const store = yield* backend.open(name, options)
  const runTimer = yield* FiberHandle.makeRuntime<never>()
  const queue = new FairQueue<Waiter>()
  let rules = store.rules()
  const isLimited = () => Object.keys(rules).length > 0
  const millis = monotonicMillis(yield* Clock.Clock)
  // With no limits known the first call goes alone; its headers set them.
  const gate = new Gate(options.concurrency, !isLimited(), millis)
  const counts = countsOf(name, yield* Effect.context<never>())
  let closed = false
  let wakeAt = Infinity

  const grant = (turn: Turn<Waiter>, held: Held, now: number): void => {
    const waiter = turn.entry
    gate.admitted(held.id)
    const waited = now - waiter.since
    counts.reservations++
    if (waiter.isAwaited) counts.waited(waited / 1_000)
    else queue.forget()
    const reservation = new HeldReservation(pool, waiter.agent, waiter.estimate, held, turn, waited)
    waiter.reservation = reservation
    waiter.end(Effect.succeed(reservation))
  }

  const refuse = (waiter: Waiter, refused: Refused): void => waiter.end(Refuse.byStore(name, refused))

  /** Sleeps for the head. A timer that is set for earlier stays: it looks again and sleeps on. */
  const wakeIn = (wait: number): void => {
    const sleep = Math.min(wait, longestSleepMillis)
    const at = millis() + sleep
    if (closed || at >= wakeAt) return
    wakeAt = at
    runTimer(Effect.andThen(Effect.sleep(sleep), timeIsUp))
  }

  /** A caller that waits for a silent probe looks again when the probe's time is up. */
  const idle = (): void => {
    if (queue.size > 0 && gate.patience > 0) wakeIn(gate.patience)
    options.changed()
  }

  /** What a waiter takes and costs by the rules as they are. */
  const price = (waiter: Waiter): void => {
    if (waiter.rules === rules) return
    waiter.rules = rules
    waiter.charge = Limits.charge(waiter.estimate, rules)
    queue.reprice(waiter, costOf(waiter.charge, rules))
  }

  const recharge = (waiter: Waiter): boolean => {
    price(waiter)
    const tooLarge = Limits.neverFits(waiter.charge, rules)
    if (tooLarge === undefined) return true
    queue.remove(waiter)
    waiter.end(Refuse.refuse(new EstimateTooLarge({ pool: name, ...tooLarge })))
    return false
  }

  const settle = (
    held: Held,
    used: Limits.Charge,
    succeeded: boolean,
    turn?: Turn<Waiter>
  ): Effect.Effect<void> | undefined => {
    counts.settled(held.charge, used)
    // Agents share what is used, not what is asked for; what is given back is not paid twice. But a probe that fails
    // has had its turn: another agent's call is the next, so that an outage does not use up the attempts of one agent.
    if (turn !== undefined && used !== held.charge && (succeeded || !gate.probesOverload)) {
      const share = Limits.dominantShare(used, rules)
      if (share !== Limits.dominantShare(held.charge, rules)) {
        queue.correct(turn, share === 0 ? 0 : costOf(used, rules) / costOf(held.charge, rules))
      }
    }
    return draining.settle(held, used, succeeded)
  }

  /** Hears the rules from the store; with no limits known the first call goes alone, with some all may go. */
  const learn = (): void => {
    const wasLimited = isLimited()
    const before = rules
    rules = store.rules()
    // What is foreseen is the sum of what others wait for. Only the most that a limit ever admits makes prices.
    if (Limits.dimensions.some((each) => rules[each]?.most !== before[each]?.most)) for (const one of queue) price(one)
    if (isLimited()) gate.known()
    else if (wasLimited) gate.unknown()
  }

  const unavailable = (cause: unknown) => new StoreUnavailable({ pool: name, cause })
  const desk = { queue, permits: gate, learn, recharge, grant, refuse, unavailable, wakeIn, idle }
  const draining: Drain = yield* store.drain(store, desk)
  const drain = Effect.uninterruptible(Effect.suspend(() => draining.now() ?? Effect.void))
  const timeIsUp = Effect.uninterruptible(
    Effect.suspend(() => {
      wakeAt = Infinity
      return draining.timeIsUp() ?? Effect.void
    })
  )

  /**
   * Tells the store what may change the rules, hears them, and moves the queue on. The rest is done for who is interrupted,
   * too: else everybody would go by the old rules.
   */
  const tell = (step: Effect.Effect<void, StoreUnavailable>, then: Effect.Effect<void> = Effect.void) =>
    Effect.ensuring(
      Effect.ignoreCause(step),
      Effect.suspend(() => {
        learn()
        return Effect.andThen(then, drain)
      })
    )

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
    queued: () => queue.size,
    isInstant: draining.isInstant,
    maxQueued: options.maxQueued,
    unasked: draining.unasked,
    inFlight: () => gate.inFlight,
    allowed: () => gate.allowed,
    takeNow: (charge) => {
      const held = closed ? undefined : draining.takeNow(charge)
      if (held === undefined) return undefined
      gate.admitted(held.id)
      counts.reservations++
      options.changed()
      return held
    },
    admit: (estimate, charge, who) => {
      const waiter = new Waiter(pool, estimate, charge, who, millis())
      if (closed) waiter.end(Effect.interrupt)
      else queue.push(waiter, who.first)
      return waiter
    },
    drainNow: draining.now,
    cancel: (waiter) => {
      const { reservation, state } = waiter
      if (state === "asking") waiter.state = "cancelled"
      if (state !== "queued") return reservation?.refund
      const wasHead = queue.peek() === waiter
      waiter.state = "done"
      queue.remove(waiter)
      if (wasHead) return drain
      options.changed()
      return undefined
    },
    settle,
    observe: (signal, answered) => tell(store.observe(signal, answered)),
    doubt: tell(Effect.suspend(() => store.unlearn(Believed.longestMillis))),
    together: (self) => Effect.uninterruptible(Effect.ensuring(gate.whileShut(self), drain)),
    pause: (pause, rejected) =>
      Effect.andThen(
        Effect.ignoreCause(store.pause({ ...pause, takenAt: rejected?.takenAt })),
        Effect.flatMap(Random.next, (random) => {
          counts.cooldowns[pause.reason]++
          gate.pause(pause.reason, rejected?.id, random)
          return drain
        })
      ),
    resize: (change) =>
      tell(store.resize(change), change.concurrency === undefined ? Effect.void : gate.resize(change.concurrency)),
    snapshot: Effect.map(store.snapshot, resting),
    predict: (charge, who, snapshot) => Predict.forNewcomer(queue, charge, who, snapshot),
    waiting: (count, snapshot) => Predict.first(queue, count, snapshot, millis())
  }

  counts.open.add(pool)
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      closed = true
      counts.open.delete(pool)
      for (let out = queue.shift(); out !== undefined; out = queue.shift()) out.entry.end(Effect.interrupt)
    })
  )
  return pool
})
