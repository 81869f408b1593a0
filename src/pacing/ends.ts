/**
 * A call ends: it was accepted, it is over, or nobody knows what became of it.
 */
import { type Charge, get } from "../domain/amounts.ts"
import * as Caps from "../admission/caps.ts"
import * as Gate from "./gate.ts"
import * as Meter from "./meter.ts"
import { advance, meanWith } from "./rates.ts"
import type { Pacer, Ticket } from "./pacer.ts"
import * as Window from "./window.ts"

/** The reserve decays over this many answers. */
const reserveCalls = 100

/** The answer to a call has begun: the provider accepted it. */
export const accept = (pacer: Pacer, ticket: Ticket): void => {
  pacer.gate = Gate.open(pacer.gate, ticket.at)
  pacer.window = Window.accepted(pacer.window, ticket.inFlight)
  for (const meter of pacer.meters) {
    const min = Math.min(Meter.burst(meter) / 50, meter.mean / 4)
    meter.reserve += (min - meter.reserve) / reserveCalls
  }
}

/** An accepted call is over: replaces what it reserved by what it used. */
export const settle = (pacer: Pacer, ticket: Ticket, used: Charge, now: number): void => {
  pacer.answerMillis = meanWith(pacer.answerMillis, ticket, now)
  end(pacer, ticket, used, true, now)
}

/** A call is over, and what it used is unknown: what it reserved stays taken. */
export const keep = (pacer: Pacer, ticket: Ticket): void => {
  pacer.inFlight--
  pacer.meters.forEach((meter, i) => {
    if (Meter.isLate(meter) && isCharged(ticket, i)) Meter.spend(meter, get(ticket.charge, meter.dimension))
  })
}

/** A call was never sent, or its fate is unknown: it teaches nothing. */
export const release = (pacer: Pacer, ticket: Ticket, used: Charge, now: number): void => {
  end(pacer, ticket, used, false, now)
  pacer.gate = Gate.returned(pacer.gate, ticket.at)
}

/** Takes over a call that was admitted in degraded mode, as if it were sent now; it was paid for there. */
export const adopt = (pacer: Pacer, ticket: Ticket): void => {
  pacer.inFlight++
  pacer.sent++
  const sums: Array<number> = []
  for (const meter of pacer.meters) {
    if (Meter.isLate(meter)) meter.held += get(ticket.charge, meter.dimension)
    sums.push(meter.sum, meter.rejected)
  }
  const { crowded } = pacer.window
  const { block, safe } = pacer
  Object.assign(ticket, { sums, crowded, safe, number: pacer.sent, earlier: block.before })
}

/** Whether a call was charged to the meter with this index. It was not if the meter is younger. */
const isCharged = (ticket: Ticket, index: number): boolean => ticket.sums[2 * index] !== undefined

/** Ends a call in every dimension: it was charged, and used less or more. */
export const end = (pacer: Pacer, ticket: Ticket, used: Charge, isAccepted: boolean, now: number): void => {
  advance(pacer, now)
  pacer.inFlight--
  for (const [i, meter] of pacer.meters.entries()) {
    if (!isCharged(ticket, i)) continue
    const charge = get(ticket.charge, meter.dimension)
    const isGiven = ticket.at > (isAccepted ? meter.loweredAt : Math.max(meter.loweredAt, meter.fence))
    Meter.settle(meter, charge, get(used, meter.dimension) ?? charge, isGiven, isAccepted)
  }
  Caps.settle(pacer.caps, ticket.charge, used, ticket.at)
}
