/**
 * How one call is let in: refused at once, admitted at once, or asleep in the queue; and what runs under its reservation.
 *
 * These functions take what they need as arguments and close over nothing else: a million callers may wait, and each keeps
 * alive what its functions refer to.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Ledger from "../internal/ledger.ts"
import * as Limits from "../Limits.ts"
import { type BudgetError, EstimateTooLarge, QueueFull } from "./errors.ts"
import type { Reservation } from "./models.ts"
import type { Patience, Queueing } from "./options.ts"
import { type Pool, type Prediction, Waiter } from "./poolModel.ts"
import { byStore, refuse, tooLong } from "./refuse.ts"
import { HeldReservation } from "./reservation.ts"

/** Makes an effect interruptible where it can be interrupted without harm. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * How an estimate was admitted: at once; or its caller waits, and has yet to go to sleep; or there is more to it, an
 * effect that must run where only its waits can be interrupted.
 */
export type Admission = HeldReservation | Waiter | Effect.Effect<HeldReservation, BudgetError>

// -----------------------------------------------------------------------------
// Letting in
// -----------------------------------------------------------------------------

export const admit = (pool: Pool, estimate: Limits.Estimate, how: Queueing, restore: Restore): Admission => {
  const rules = pool.rules()
  const charge = Limits.charge(estimate, rules)
  const tooLarge = Limits.neverFits(charge, rules)
  if (tooLarge !== undefined) return doubt(pool, estimate, how, tooLarge, restore)
  const held = pool.takeNow(charge)
  if (held !== undefined) return new HeldReservation(pool, how.agent, estimate, held)
  return how.patience !== undefined || Limits.hasQuota(rules)
    ? foreseeAndEnqueue(pool, estimate, charge, rules, how, restore)
    : enqueue(pool, estimate, charge, how, undefined, restore)
}

/** Refuses what can never fit, unless the limit is in doubt. */
const doubt = (
  pool: Pool,
  estimate: Limits.Estimate,
  how: Queueing,
  tooLarge: Limits.Misfit,
  restore: Restore
): Admission =>
  Effect.flatMap(restore(inTime(pool.doubt(estimate), pool.name, how.patience)), (doubted) =>
    doubted
      ? asEffect(admit(pool, estimate, how, restore), restore)
      : refuse(new EstimateTooLarge({ pool: pool.name, ...tooLarge }))
  )

/**
 * Refuses at once what would wait too long, or find a quota exhausted. Where the store is away nothing is foreseen, and the
 * wait itself is bounded. Where the rules have changed meanwhile, the charge says nothing: the call comes anew.
 */
const foreseeAndEnqueue = (
  pool: Pool,
  estimate: Limits.Estimate,
  charge: Limits.Charge,
  rules: Limits.Rules,
  how: Queueing,
  restore: Restore
): Admission =>
  Effect.flatMap(restore(inTime(foresee(pool, charge, how), pool.name, how.patience)), (foreseen) =>
    asEffect(
      pool.rules() === rules
        ? enqueue(pool, estimate, charge, how, foreseen, restore)
        : admit(pool, estimate, how, restore),
      restore
    )
  )

const foresee = (
  pool: Pool,
  charge: Limits.Charge,
  { patience, ...who }: Queueing
): Effect.Effect<Prediction | undefined, BudgetError> =>
  Effect.matchEffect(pool.snapshot, {
    onFailure: () => Effect.undefined,
    onSuccess: (snapshot) => {
      const decided = Ledger.decide(snapshot.ledger, charge, snapshot.now)
      if (decided._tag === "Exhausted") return byStore(pool.name, decided)
      if (patience === undefined) return Effect.undefined
      const foreseen = pool.predict(charge, who, snapshot)
      const inAll = { ...foreseen, millis: patience.waited() + foreseen.millis }
      return foreseen.millis > 0 && inAll.millis > Duration.toMillis(patience.maxWait)
        ? tooLong(pool.name, inAll, patience.maxWait)
        : Effect.succeed(inAll)
    }
  })

/** Stands in the queue. */
const enqueue = (
  pool: Pool,
  estimate: Limits.Estimate,
  charge: Limits.Charge,
  how: Queueing,
  foreseen: Prediction | undefined,
  restore: Restore
): Admission => {
  const waiter = pool.admit(estimate, charge, how)
  const rest = pool.drainNow()
  return rest === undefined
    ? placed(waiter, how.patience, foreseen, restore)
    : Effect.flatMap(rest, () => asEffect(placed(waiter, how.patience, foreseen, restore), restore))
}

/** What became of a waiter while the queue moved on. */
const placed = (
  waiter: Waiter,
  patience: Patience | undefined,
  foreseen: Prediction | undefined,
  restore: Restore
): Admission => {
  const { pool, reservation } = waiter
  if (reservation !== undefined) return reservation
  if (pool.queued() > pool.maxQueued + pool.unasked) {
    return stand(waiter, refuse(new QueueFull({ pool: pool.name, maxQueued: pool.maxQueued })), restore)
  }
  return patience === undefined
    ? waiter
    : stand(waiter, inTime(waitFor(waiter), pool.name, patience, foreseen), restore)
}

// -----------------------------------------------------------------------------
// Waiting
// -----------------------------------------------------------------------------

/** Until it is granted or refused. Interrupting it cancels nothing by itself. */
const waitFor = (waiter: Waiter): Effect.Effect<HeldReservation, BudgetError> =>
  Effect.callback((resume) => waiter.listen(resume))

/** Waits; whatever ends the wait but a grant gives everything back. */
const stand = (
  waiter: Waiter,
  wait: Effect.Effect<HeldReservation, BudgetError>,
  restore: Restore
): Effect.Effect<HeldReservation, BudgetError> =>
  Effect.onExitPrimitive(restore(wait), (exit) => {
    if (exit._tag !== "Success") return waiter.pool.cancel(waiter)
    waiter.reservation = undefined
    return undefined
  })

/** A step of an admission that may take time. With the steps before it, it takes no longer than the caller waits. */
export const inTime = <A, E>(
  step: Effect.Effect<A, E>,
  pool: string,
  patience: Patience | undefined,
  foreseen?: Prediction
): Effect.Effect<A, E | BudgetError> => {
  if (patience === undefined) return step
  const { maxWait, waited } = patience
  return Effect.timeoutOrElse(step, {
    duration: Math.max(0, Duration.toMillis(maxWait) - waited()),
    orElse: () => tooLong(pool, foreseen, maxWait)
  })
}

/** Whatever remains of an admission, the wait included. */
export const asEffect = (admission: Admission, restore: Restore): Effect.Effect<HeldReservation, BudgetError> => {
  if (admission instanceof HeldReservation) return Effect.succeed(admission)
  return admission instanceof Waiter ? stand(admission, waitFor(admission), restore) : admission
}

// -----------------------------------------------------------------------------
// Running under a reservation
// -----------------------------------------------------------------------------

type Use<A, E, R> = (reservation: Reservation) => Effect.Effect<A, E, R>

/** Runs a function under the reservation that comes of an admission. The reservation ends with it. */
export const around = <A, E, R>(
  admission: Admission,
  f: Use<A, E, R>,
  restore: Restore
): Effect.Effect<A, E | BudgetError, R> => {
  if (admission instanceof HeldReservation) return underHeld(admission, f, restore)
  if (admission instanceof Waiter) return standUnder(admission, f, restore)
  return Effect.flatMap(admission, (reservation) => underHeld(reservation, f, restore))
}

const underHeld = <A, E, R>(
  reservation: HeldReservation,
  f: Use<A, E, R>,
  restore: Restore
): Effect.Effect<A, E, R> => {
  const self = applied(f, reservation)
  // What is done already, as with `consume`, needs no guard.
  const done = Exit.isExit(self) ? self : undefined
  if (done === undefined) return Effect.onExitPrimitive(restore(self), (exit) => reservation.end(exit))
  const rest = reservation.end(done)
  return rest === undefined ? self : Effect.andThen(rest, self)
}

/** Stands in the queue and runs under the reservation: the two of them in one, because a waiter is asleep in it. */
const standUnder = <A, E, R>(
  waiter: Waiter,
  f: Use<A, E, R>,
  restore: Restore
): Effect.Effect<A, E | BudgetError, R> => {
  let reservation: HeldReservation | undefined
  const run = (granted: HeldReservation) => {
    reservation = granted
    return f(granted)
  }
  return Effect.onExitPrimitive(restore(Effect.flatMap(waitFor(waiter), run)), (exit) => {
    if (reservation === undefined) return waiter.pool.cancel(waiter)
    const ended = reservation
    // A waiter that has waited long is an old object to the garbage collector: what it refers to would stay in memory
    // with it, although nobody needs it any more.
    reservation = waiter.reservation = undefined
    return ended.end(exit)
  })
}

/** What a caller's function gives; what it throws is a defect, and the reservation ends all the same. */
const applied = <A, E, R>(f: Use<A, E, R>, reservation: Reservation): Effect.Effect<A, E, R> => {
  try {
    return f(reservation)
  } catch (defect) {
    return Effect.die(defect)
  }
}
