/**
 * A call is accepted, or ends: with a known usage, with an unknown one, or without having been sent.
 */
import { type Charge, get, nothing } from "../domain/amounts.ts"
import * as Caps from "../admission/caps.ts"
import type { Pushback } from "../domain/signal.ts"
import * as Gate from "./gate.ts"
import type { Readings } from "./headers.ts"
import * as Large from "./large.ts"
import * as Meter from "./meter.ts"
import { advance, meanWith } from "./rates.ts"
import { type Pacer, sumsOf, type Admission } from "./state.ts"
import * as Window from "./window.ts"

/** The failure of a call. */
export interface FailedCall {
  readonly reason: Pushback
  readonly retryAfter: number | undefined
  readonly readings: Readings | undefined
  /** The provider's charge for the call. */
  readonly used: Charge
  /** The certain part of its charge. @default its charge, less the error of an estimate */
  readonly certain?: Charge | undefined
  /** Whether the call can move to another place. */
  readonly canMove?: boolean
}

/** The reserve decays over about this many answers. */
const reserveCalls = 100

/** The answer to a call has begun, so the provider has accepted the call. */
export const accept = (pacer: Pacer, admission: Admission): void => {
  pacer.gate = Gate.open(pacer.gate, admission.at)
  // Whether calls that were refused meanwhile had been sent before this one is not known.
  const inFlight = pacer.refused === admission.refused ? admission.inFlight : undefined
  pacer.window = Window.accepted(pacer.window, inFlight, admission.at)
  const { window } = pacer
  // Most pools have no window, and every answer comes through here.
  if (window.size < Infinity && Window.refutes(window, admission, pacer.refused)) pacer.window = Window.lift(window)
  for (const meter of pacer.meters) {
    const min = Math.min(Meter.burst(meter) / 50, meter.mean / 4)
    meter.reserve += (min - meter.reserve) / reserveCalls
    if (meter.lacked !== undefined || meter.tooLarge !== undefined) Large.accepted(meter, admission)
  }
}

/** The answer to a call has used more than its charge. The end of the call replaces that charge by the rest of its usage. */
export const owe = (pacer: Pacer, admission: Admission, excess: Charge, now: number): void => {
  advance(pacer, now)
  pacer.meters.forEach((meter, i) => {
    if (isCharged(admission, i)) Meter.settle(meter, 0, get(excess, meter.dimension) ?? 0, true, true)
  })
  Caps.settle(pacer.caps, nothing, excess, now)
}

/** An accepted call has ended: replaces its charge by its usage. */
export const settle = (pacer: Pacer, admission: Admission, used: Charge, now: number): void => {
  pacer.answerMillis = meanWith(pacer.answerMillis, admission, now)
  end(pacer, admission, used, true, now)
}

/** A call has ended with an unknown usage, so its charge is kept. */
export const keep = (pacer: Pacer, admission: Admission): void => {
  pacer.inFlight--
  pacer.meters.forEach((meter, i) => {
    if (Meter.isLate(meter) && isCharged(admission, i)) Meter.spend(meter, get(admission.charge, meter.dimension))
  })
}

/** A call was never sent, or it is unknown whether the provider accepted it. Nothing is learned from it. */
export const release = (pacer: Pacer, admission: Admission, used: Charge, now: number): void => {
  end(pacer, admission, used, false, now)
  pacer.gate = Gate.returned(pacer.gate, admission.at)
}

/**
 * Takes over a call that was admitted in degraded mode, as if it were sent now. Its charge was taken there. The admission changes
 * with the pacer: whenever this is played again, the end of the call is played again after it, and reads the new admission.
 */
export const adopt = (pacer: Pacer, admission: Admission): void => {
  pacer.inFlight++
  pacer.sent++
  for (const meter of pacer.meters) {
    if (Meter.isLate(meter)) meter.held += get(admission.charge, meter.dimension)
  }
  admission.number = pacer.sent
  admission.safe = pacer.safe
  admission.refused = pacer.refused
  admission.crowded = pacer.window.crowded
  admission.earlier = pacer.block.before
  admission.sums = sumsOf(pacer)
}

/** Whether a call was charged to the meter with this index. It was not if the meter was added later. */
const isCharged = (admission: Admission, index: number): boolean => admission.sums[2 * index] !== undefined

/** Ends a call in all dimensions: replaces its charge by its usage. */
export const end = (pacer: Pacer, admission: Admission, used: Charge, isAccepted: boolean, now: number): void => {
  advance(pacer, now)
  pacer.inFlight--
  if (!isAccepted) pacer.refused++
  const { meters } = pacer
  for (let i = 0; i < meters.length; i++) {
    if (!isCharged(admission, i)) continue
    const meter = meters[i]!
    const charge = get(admission.charge, meter.dimension)
    const isGiven = admission.at > (isAccepted ? meter.loweredAt : Math.max(meter.loweredAt, meter.fence))
    Meter.settle(meter, charge, get(used, meter.dimension) ?? charge, isGiven, isAccepted)
  }
  Caps.settle(pacer.caps, admission.charge, used, admission.at)
}
