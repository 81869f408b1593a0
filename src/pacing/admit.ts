/**
 * A call asks to be sent: decides whether it may be, and charges it.
 */
import { type Charge, get, type Whole } from "../domain/amounts.ts"
import type { Blocked } from "../admission/blocked.ts"
import * as Caps from "../admission/caps.ts"
import * as Gate from "./gate.ts"
import * as Meter from "./meter.ts"
import { advance, bound, isBelowShare, silenceMillis, verdictMillis } from "./rates.ts"
import { type Opening, type Pacer, sumsOf, type Admission } from "./state.ts"
import * as Window from "./window.ts"

/** The reason why a call with this charge cannot be sent now; undefined if it can. In that case meters and caps are up to date. */
export const decide = (pacer: Pacer, charge: Charge, now: number): Blocked | undefined => {
  const closed = passGate(pacer, now) || passWindow(pacer, now) || passOpening(pacer, now)
  if (closed > 0) return { by: pacer.inFlight >= pacer.window.size ? "concurrency" : "pause", millis: closed }
  return longer(passMeters(pacer, charge, now), Caps.wait(pacer.caps, charge, pacer.lag, now))
}

/** The longer of two waits; the first if they are equal. */
const longer = (one: Blocked | undefined, other: Blocked | undefined): Blocked | undefined =>
  other !== undefined && other.millis > (one?.millis ?? 0) ? other : one

/** Milliseconds until the gate admits a call. */
const passGate = (pacer: Pacer, now: number): number => {
  const { gate } = pacer
  const wait = Gate.wait(gate, gate.reason === "overload" ? silenceMillis(pacer) : verdictMillis(pacer), now)
  if (wait === 0 && Gate.isProbing(gate) && gate.probes >= gate.allowed) pacer.gate = Gate.widen(gate)
  return wait
}

const passWindow = (pacer: Pacer, now: number): number => {
  if (pacer.inFlight < pacer.window.size) return 0
  pacer.window = Window.grow(pacer.window, now, verdictMillis(pacer))
  return pacer.inFlight < pacer.window.size ? 0 : Window.growsAt(pacer.window) - now
}

/** Up to this many calls, a round of the opening has twice as many as the one before, and then a quarter more. */
const doubledCalls = 16

/** While no limit is known, each round of verdicts has more calls than the one before, evenly spaced. */
const passOpening = (pacer: Pacer, now: number): number => {
  const { opening } = pacer
  // Calls that are made one at a time are not held back.
  if (opening === undefined || pacer.inFlight === 0) return 0
  const round = verdictMillis(pacer)
  const current = now < opening.at + round ? opening : (pacer.opening = nextRound(pacer, opening, now))
  if (current === undefined) return 0
  const { allowed, at, since } = current
  // The round is full, so the call is sent at the start of the next one.
  const place = Math.min(1, (pacer.sent - since) / allowed)
  return Math.max(0, at + place * round - now)
}

const nextRound = (
  { gate, sent }: Pacer,
  { allowed, at, isNamed, since }: Opening,
  now: number
): Opening | undefined => {
  const last = Math.max(1, sent - since)
  const isFull = last >= Math.floor(allowed)
  // Named limits, or a lack of calls, hold back more than the rounds.
  if (isNamed === true && !isFull && gate.until <= at) return undefined
  return {
    at: now,
    since: sent,
    last,
    allowed: isFull ? allowed * (allowed < doubledCalls ? 2 : 1.25) : allowed,
    isNamed
  }
}

/** The meter that a charge waits for longest. Brings the meters up to date. */
const passMeters = (pacer: Pacer, charge: Charge, now: number): Blocked | undefined => {
  let blocked: Blocked | undefined
  for (const meter of pacer.meters) {
    const maxPhase = bound(pacer, meter, now)
    Meter.advance(meter, now, maxPhase)
    const millis = Meter.wait(meter, get(charge, meter.dimension) ?? 0, maxPhase, pacer.lag)
    if (millis > (blocked?.millis ?? 0)) blocked = { by: meter.dimension, millis }
  }
  return blocked
}

/** Charges all dimensions at once if the call may be sent now; otherwise returns why not. */
export const admit = (pacer: Pacer, charge: Whole, now: number): Admission | Blocked =>
  decide(pacer, charge, now) ?? takeNow(pacer, charge, now)

/** Charges all dimensions at once, whether or not the call may be sent now. */
export const take = (pacer: Pacer, charge: Whole, now: number): Admission => {
  advance(pacer, now)
  return takeNow(pacer, charge, now)
}

/** Charges meters and caps, which are up to date. */
const takeNow = (pacer: Pacer, charge: Whole, now: number): Admission => {
  const { block, caps, lag, meters } = pacer
  const sums = sumsOf(pacer)
  if (now - block.at > pacer.overloadMillis) pacer.block = { at: now, sent: pacer.sent, before: block.sent }
  pacer.sent++
  pacer.inFlight++
  for (const meter of meters) Meter.take(meter, get(charge, meter.dimension), pacer.sent)
  Caps.take(caps, charge, lag)
  pacer.window = Window.sent(pacer.window, pacer.inFlight)
  const isSafe = isBelowShare(pacer)
  if (isSafe) pacer.safe++
  const admission: Admission = {
    at: now,
    charge,
    number: pacer.sent,
    inFlight: pacer.inFlight,
    isSafe,
    safe: pacer.safe,
    refused: pacer.refused,
    crowded: pacer.window.crowded,
    earlier: pacer.block.before,
    sums
  }
  pacer.gate = Gate.sent(pacer.gate, now)
  return admission
}
