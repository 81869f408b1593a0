/**
 * A call asks to go out: whether it may, and what it is charged.
 */
import { type Charge, type Dimension, dimensions, get, type Whole } from "../limits/amounts.ts"
import * as Cap from "../admission/cap.ts"
import * as Gate from "./gate.ts"
import * as Meter from "./meter.ts"
import { advance, bound, isBelowShare, silenceMillis, verdictMillis } from "./rates.ts"
import type { Opening, Pool, Ticket } from "./pacer.ts"
import * as Window from "./window.ts"

/** Why a charge cannot go now, and for how long; `Infinity` if it depends on another event. */
export interface Blocked {
  readonly millis: number
  readonly dimension: Dimension | undefined
}

/** Why a charge cannot go now. Undefined if it can; then meters and caps are up to date. */
export const decide = (pool: Pool, charge: Charge, now: number): Blocked | undefined => {
  const closed = passGate(pool, now) || passWindow(pool, now) || passOpening(pool, now)
  if (closed > 0) return { millis: closed, dimension: undefined }
  let millis = 0
  let dimension: Dimension | undefined
  for (const meter of pool.meters) {
    const amount = get(charge, meter.dimension) ?? 0
    const maxPhase = bound(pool, meter, now)
    Meter.advance(meter, now, maxPhase)
    const wait = Meter.wait(meter, amount, maxPhase, pool.lag)
    if (wait > millis) {
      millis = wait
      dimension = meter.dimension
    }
  }
  for (const each of dimensions) {
    const cap = get(pool.caps, each)
    if (cap === undefined) continue
    Cap.advance(cap, now)
    const wait = Cap.wait(cap, get(charge, each) ?? 0, pool.lag)
    if (wait > millis) {
      millis = wait
      dimension = each
    }
  }
  return millis === 0 ? undefined : { millis, dimension }
}

/** Milliseconds until the gate lets a call out. */
const passGate = (pool: Pool, now: number): number => {
  const { gate } = pool
  const wait = Gate.wait(gate, gate.reason === "overload" ? silenceMillis(pool) : verdictMillis(pool), now)
  if (wait === 0 && Gate.isProbing(gate) && gate.probes >= gate.allowed) pool.gate = Gate.widen(gate)
  return wait
}

const passWindow = (pool: Pool, now: number): number => {
  if (pool.inFlight < pool.window.size) return 0
  pool.window = Window.grow(pool.window, now, verdictMillis(pool))
  return pool.inFlight < pool.window.size ? 0 : Window.growsAt(pool.window) - now
}

/** While nothing is known, each round of verdicts has twice as many calls as the last, evenly spaced. */
const passOpening = (pool: Pool, now: number): number => {
  const { opening } = pool
  // A caller with one call at a time is limited by the answers.
  if (opening === undefined || pool.inFlight === 0) return 0
  const round = verdictMillis(pool)
  const { allowed, at, since } =
    now < opening.at + round ? opening : (pool.opening = nextRound(opening, pool.sent, now))
  // Calls beyond those of this round go with the next one.
  const place = Math.min(1, (pool.sent - since) / allowed)
  return Math.max(0, at + place * round - now)
}

const nextRound = ({ allowed, since }: Opening, sent: number, now: number): Opening => {
  const last = Math.max(1, sent - since)
  return { at: now, since: sent, last, allowed: last >= allowed ? 2 * allowed : allowed }
}

/** Charges every dimension at one instant if the call may go now; otherwise says why not. */
export const admit = (pool: Pool, charge: Whole, now: number): Ticket | Blocked =>
  decide(pool, charge, now) ?? takeNow(pool, charge, now)

/** Charges every dimension at one instant, whether the call may go or not. */
export const take = (pool: Pool, charge: Whole, now: number): Ticket => {
  advance(pool, now)
  return takeNow(pool, charge, now)
}

/** Charges meters and caps that are up to date. */
const takeNow = (pool: Pool, charge: Whole, now: number): Ticket => {
  const { block, caps, meters } = pool
  const sums: Array<number> = []
  if (now - block.at > pool.overloadMillis) pool.block = { at: now, sent: pool.sent, before: block.sent }
  pool.sent++
  pool.inFlight++
  for (const meter of meters) {
    sums.push(meter.sum, meter.rejected)
    Meter.take(meter, get(charge, meter.dimension), pool.sent)
  }
  for (const dimension of dimensions) {
    const cap = get(caps, dimension)
    if (cap !== undefined) Cap.take(cap, get(charge, dimension))
  }
  pool.window = Window.sent(pool.window, pool.inFlight)
  const isSafe = isBelowShare(pool)
  if (isSafe) pool.safe++
  const ticket: Ticket = {
    at: now,
    charge,
    number: pool.sent,
    inFlight: pool.inFlight,
    isSafe,
    safe: pool.safe,
    crowded: pool.window.crowded,
    earlier: pool.block.before,
    sums
  }
  pool.gate = Gate.sent(pool.gate, now)
  return ticket
}
