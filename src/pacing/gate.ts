/**
 * The gate holds all calls during a pause. After the pause, it admits probes one at a time, which find out whether its cause is
 * over.
 *
 * A gate is a value: each of these functions returns a new one.
 */
import type { Pushback } from "../domain/signal.ts"

export const make = () => ({
  reason: "rateLimit" as Pushback,
  /** Exhaustions, or failed probes of an outage, since a call was last accepted. */
  misses: 0,
  /** No call is sent before this time. */
  until: -Infinity,
  /** How many probes may be sent together, how many were sent, and when the last one was. */
  allowed: 1,
  probes: 0,
  probedAt: -Infinity,
  /** The verdicts on calls that were sent up to this time say nothing new. */
  fence: -Infinity
})

export type Gate = Readonly<ReturnType<typeof make>>

/** Whether calls are only sent as probes. */
export const isProbing = ({ misses }: Gate): boolean => misses >= 2

/**
 * Milliseconds until a call may be sent, perhaps as a probe. A probe that has not failed after `silence` counts as accepted.
 */
export const wait = (gate: Gate, silence: number, now: number): number => {
  const { allowed, probedAt, probes, until } = gate
  if (now < until) return until - now
  if (!isProbing(gate) || probes < allowed) return 0
  return Math.max(0, probedAt + silence - now)
}

/** After an outage, calls are sent 1, 2 and 4 at a time. If none of them fails, the outage is over. */
const maxProbes = 8

/** The gate after its probes were accepted: it allows twice as many, or opens. */
export const widen = (gate: Gate): Gate => {
  const allowed = 2 * gate.allowed
  // A rejection comes soon, so one probe is enough. The failures of an outage take longer.
  const isOver = gate.reason !== "overload" || allowed >= maxProbes
  return { ...gate, allowed, probes: 0, misses: isOver ? 0 : gate.misses }
}

/** Counts a call that is sent. */
export const sent = (gate: Gate, now: number): Gate =>
  isProbing(gate) ? { ...gate, probes: gate.probes + 1, probedAt: now } : gate

/** An inconclusive probe frees its slot. */
export const returned = (gate: Gate, sentAt: number): Gate =>
  gate.probes > 0 && sentAt > gate.fence ? { ...gate, probes: gate.probes - 1 } : gate

/** A call was accepted, or was rejected by a provider that seemed to be down, so the cause of the pause is over. */
export const open = (gate: Gate, sentAt: number): Gate =>
  gate.misses > 0 && sentAt > gate.fence ? { ...gate, misses: 0 } : gate

/** Pauses until `until`, and never shortens a pause. Probes that are under way keep their reason. */
export const pause = (gate: Gate, reason: Gate["reason"], until: number): Gate => ({
  ...gate,
  reason: gate.misses === 0 ? reason : gate.reason,
  until: Math.max(gate.until, until)
})

/** Pauses until `until`, never shortens a pause, and then allows one probe. */
export const close = (gate: Gate, reason: Gate["reason"], until: number): Gate => ({
  ...gate,
  reason,
  until: Math.max(gate.until, until),
  allowed: 1,
  probes: 0
})
