/** The reservation that a caller gets for an admitted call. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Reading, Readings } from "../pacing/pacer.ts"
import { check, millisOf } from "../domain/input/checks.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import { chargeMore, excessOf, limited } from "./decision.ts"
import type { Entry, SettledAs } from "./entry.ts"
import {
  type FailOptions,
  type GovernedReservation,
  measured,
  type Observation,
  refused,
  type Verdict
} from "./models.ts"
import { failCheck } from "./options.ts"

/** All that is charged for a call. A dimension that the usage leaves out stays as it was charged. */
const usedOf = ({ charge, estimate, owed }: Entry, usage: Limits.Usage): Amounts.Whole => {
  if (owed === Amounts.nothing) return Amounts.wholeUsed(charge, usage, estimate)
  const { tokens } = estimate
  return Amounts.wholeUsed(Amounts.plus(charge, owed), usage, { tokens: tokens && tokens + owed.tokens })
}

/** Charges a running call now for what it has used beyond its charge. What it used less comes back at its end. */
const owe = (entry: Entry, soFar: Amounts.Whole): void => {
  const excess = entry.isOpen ? excessOf(entry, soFar) : undefined
  if (excess === undefined) return
  entry.owed = Amounts.plus(entry.owed, excess)
  entry.chargedPort!.transact((draft, now) => chargeMore(draft, entry, excess, now))
}

/** Learns from a response to a call. If it says what the call used, the reservation ends. */
export const observe = (entry: Entry, said: Observation): undefined => {
  if (said.soFar !== undefined) {
    entry.measured?.heard(said.soFar.outputTokens ?? 0)
    owe(entry, usedOf(entry, said.soFar))
  }
  if (said.usage !== undefined) return settle(entry, said.usage, "success", said)
  return entry.pool.observe(readingsOf(said), entry)
}

/** Replaces the estimate of a call by its usage, once the budget has learned what its response says. */
export const settle = (
  entry: Entry,
  usage: Limits.Usage,
  outcome: SettledAs = "success",
  said?: Limits.Signal
): undefined => {
  if (outcome === "success") {
    entry.watcher?.used(usage)
    entry.measured?.counted(usage.outputTokens ?? 0)
  }
  return entry.pool.settle(entry, usedOf(entry, usage), outcome, said && readingsOf(said))
}

/** Ends a call that was rejected or failed, and judges the failure. */
export const fail = (entry: Entry, failure: FailOptions): Verdict => {
  check("Reservation.fail", failCheck, failure)
  const { reason, retryAfter, signal, usage = Amounts.nothing } = failure
  return entry.pool.fail(entry, {
    reason,
    retryAfter: retryAfter === undefined ? undefined : pauseOf(retryAfter),
    readings: signal === undefined ? undefined : readingsOf(signal),
    used: usedOf(entry, usage),
    certain: entry.certain,
    canMove: entry.queueing.claim !== undefined
  })
}

/** Ends a reservation that no scope ends. If that throws because of the figures of a caller's accounting, it keeps its estimate. */
export const ending = <A>(entry: Entry, end: (entry: Entry) => A): A => {
  try {
    return end(entry)
  } catch (thrown) {
    entry.leave(Exit.die(thrown))
    throw thrown
  }
}

/** Hands an admitted call to its caller, as a plain object of functions that can be copied and decorated. */
export const handOut = (entry: Entry): GovernedReservation => {
  entry.begin()
  const { agent, binding, charge, estimate, pool, waitedMillis } = entry
  return {
    pool: pool.name,
    agent,
    estimate,
    charge: limited(pool.law, charge),
    waited: waitedMillis === 0 ? Duration.zero : Duration.millis(waitedMillis),
    binding,
    observe: (said) => Effect.sync(() => observe(entry, said)),
    settle: (usage, outcome) => Effect.sync(() => settle(entry, usage, outcome)),
    fail: (failure) => Effect.sync(() => fail(entry, failure)),
    refund: Effect.sync(() => entry.pool.settle(entry, Amounts.nothing, "failure")),
    [refused]: () => entry.rejection,
    [measured]: entry.measured
  }
}

/** After a longer retry-after, the provider is probed every hour. */
const maxPauseMillis = 3_600_000

/** The milliseconds of a pause. */
export const pauseOf = (duration: Duration.Input): number => Math.min(maxPauseMillis, millisOf(duration))

/** The figures of a signal, without those that no provider can mean. */
export const readingsOf = ({ dimensions }: Limits.Signal): Readings => {
  const readings: { [D in Limits.Dimension]?: Reading } = {}
  for (const dimension of Amounts.dimensions) {
    const signal = dimensions[dimension]
    if (signal === undefined) continue
    const { limit, remaining, roundedTo } = signal
    readings[dimension] = {
      limit: Amounts.isAmount(limit) && limit >= 1 ? limit / 60_000 : undefined,
      remaining: Amounts.isAmount(remaining) ? remaining : undefined,
      roundedTo: Amounts.isAmount(roundedTo) && roundedTo >= 1 ? roundedTo : 1
    }
  }
  return readings
}
