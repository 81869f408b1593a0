/**
 * The gate: what nothing passes. A pause, and after it the probes, which go out one at a time and find out whether the
 * reason is over.
 */

/** After an outage calls go out 1, 2, 4 at a time; when those did not fail it is over. */
const mostProbes = 8

/** What nothing passes: a pause, and the probes after it. */
export interface Gate {
  reason: "rateLimit" | "ramp" | "overload"
  /** Exhaustions, or failed probes of an outage, in a row with nothing accepted between them. */
  misses: number
  /** Nothing goes out before this time. */
  until: number
  /** The probes: how many may go out together, how many have, and when the last one did. */
  allowed: number
  probes: number
  probedAt: number
  /** What was sent up to this time says nothing new. */
  fence: number
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

/** Milliseconds until the gate opens, for a probe or for all. A probe that did not fail in `silence` was accepted. */
export const pass = (gate: Gate, silence: number, now: number): number => {
  if (now < gate.until) return gate.until - now
  if (gate.misses < 2 || gate.probes < gate.allowed) return 0
  const left = gate.probedAt + silence - now
  if (left > 0) return left
  gate.allowed *= 2
  gate.probes = 0
  // A rejection comes soon, so one probe tells; failures of an outage are not as punctual.
  if (gate.reason !== "overload" || gate.allowed >= mostProbes) open(gate)
  return 0
}

/** A probe was accepted. */
export const open = (gate: Gate): void => {
  gate.misses = 0
}

/** Nothing goes out before a time. Probes that are under way keep their reason. */
export const pause = (gate: Gate, reason: Gate["reason"], until: number): void => {
  if (gate.misses === 0) gate.reason = reason
  gate.until = Math.max(gate.until, until)
}

/** Nothing goes out before a time, nor before the end of a pause that lasts longer, and then one probe. */
export const close = (gate: Gate, reason: Gate["reason"], until: number): void => {
  gate.reason = reason
  gate.until = Math.max(gate.until, until)
  gate.allowed = 1
  gate.probes = 0
}
