/**
 * The gate: what nothing passes. A pause, and after it the probes, which go out one at a time and find out whether the
 * reason is over.
 *
 * A gate is a value: each of these functions returns another one.
 */

export interface Gate {
  readonly reason: "rateLimit" | "ramp" | "overload"
  /** Exhaustions, or failed probes of an outage, in a row with nothing accepted between them. */
  readonly misses: number
  /** Nothing goes out before this time. */
  readonly until: number
  /** The probes: how many may go out together, how many have, and when the last one did. */
  readonly allowed: number
  readonly probes: number
  readonly probedAt: number
  /** Calls sent up to this time say nothing new. */
  readonly fence: number
}

export const make = (): Gate => ({
  reason: "rateLimit",
  misses: 0,
  until: -Infinity,
  allowed: 1,
  probes: 0,
  probedAt: -Infinity,
  fence: -Infinity
})

/** Whether calls go out as probes. */
export const isProbing = ({ misses }: Gate): boolean => misses >= 2

/** Milliseconds until calls go out, or the next probe. A probe that has not failed after `silence` was accepted. */
export const wait = (gate: Gate, silence: number, now: number): number => {
  const { allowed, probedAt, probes, until } = gate
  if (now < until) return until - now
  if (!isProbing(gate) || probes < allowed) return 0
  return Math.max(0, probedAt + silence - now)
}

/** After an outage calls go out 1, 2, 4 at a time. If none of those failed, the outage is over. */
const maxProbes = 8

/** The gate after its probes were accepted: twice as many, or it opens. */
export const widen = (gate: Gate): Gate => {
  const allowed = 2 * gate.allowed
  // A rejection comes soon, so one probe is enough; failures of an outage are not as punctual.
  const isOver = gate.reason !== "overload" || allowed >= maxProbes
  return { ...gate, allowed, probes: 0, misses: isOver ? 0 : gate.misses }
}

/** Counts a call that goes out. */
export const sent = (gate: Gate, now: number): Gate =>
  isProbing(gate) ? { ...gate, probes: gate.probes + 1, probedAt: now } : gate

/** An inconclusive probe frees its slot. */
export const returned = (gate: Gate, sentAt: number): Gate =>
  gate.probes > 0 && sentAt > gate.fence ? { ...gate, probes: gate.probes - 1 } : gate

/** A call was accepted, or rejected where overloads were feared: what the gate was closed for is over. */
export const open = (gate: Gate, sentAt: number): Gate =>
  gate.misses > 0 && sentAt > gate.fence ? { ...gate, misses: 0 } : gate

/** Pauses until `until`, and never shortens a pause. Probes that are under way keep their reason. */
export const pause = (gate: Gate, reason: Gate["reason"], until: number): Gate => ({
  ...gate,
  reason: gate.misses === 0 ? reason : gate.reason,
  until: Math.max(gate.until, until)
})

/** Pauses until `until`, and never shortens a pause; then allows one probe. */
export const close = (gate: Gate, reason: Gate["reason"], until: number): Gate => ({
  ...gate,
  reason,
  until: Math.max(gate.until, until),
  allowed: 1,
  probes: 0
})
