/**
 * The user's limits of a pool: a call is admitted by all of them at once, or by none.
 */
import { type Charge, type Dimension, dimensions, get, type Whole } from "../domain/amounts.ts"
import type { Rule } from "../domain/rules.ts"
import type { Blocked } from "./blocked.ts"
import * as Cap from "./cap.ts"

/** The cap of each dimension that the user limits. It is changed in place. */
export type Caps = { [D in Dimension]?: Cap.Cap }

/** A copy, for events to change, of caps that nobody needs any longer, if there are any. */
export const copy = ({ inputTokens, outputTokens, requests, tokens }: Caps, old: Caps = {}): Caps => {
  const copies: Caps = {}
  if (requests !== undefined) copies.requests = Cap.copy(requests, old.requests)
  if (inputTokens !== undefined) copies.inputTokens = Cap.copy(inputTokens, old.inputTokens)
  if (outputTokens !== undefined) copies.outputTokens = Cap.copy(outputTokens, old.outputTokens)
  if (tokens !== undefined) copies.tokens = Cap.copy(tokens, old.tokens)
  return copies
}

/** Brings all caps up to a time. */
export const advance = (caps: Caps, now: number): void => {
  for (const dimension of dimensions) {
    const cap = get(caps, dimension)
    if (cap !== undefined) Cap.advance(cap, now)
  }
}

/** The cap that a charge waits for longest; undefined if all of them hold it. Brings the caps up to date. */
export const wait = (caps: Caps, charge: Charge, lag: number, now: number): Blocked | undefined => {
  let blocked: Blocked | undefined
  for (const by of dimensions) {
    const cap = get(caps, by)
    if (cap === undefined) continue
    Cap.advance(cap, now)
    const millis = Cap.wait(cap, get(charge, by) ?? 0, lag)
    if (millis > (blocked?.millis ?? 0)) blocked = { by, millis }
  }
  return blocked
}

/** Takes a charge from all caps, which are up to date. */
export const take = (caps: Caps, charge: Whole, lag: number): void => {
  for (const dimension of dimensions) {
    const cap = get(caps, dimension)
    if (cap !== undefined) Cap.take(cap, get(charge, dimension), lag)
  }
}

/** Replaces a charge that was taken at a time by the actual usage; a dimension without usage keeps its charge. */
export const settle = (caps: Caps, charge: Whole, used: Charge, takenAt: number): void => {
  for (const dimension of dimensions) {
    const cap = get(caps, dimension)
    const taken = get(charge, dimension)
    if (cap !== undefined) Cap.settle(cap, taken, get(used, dimension) ?? taken, takenAt)
  }
}

/** Sets or removes the limit of a dimension. A bucket that nothing was taken from starts full under its new limit. */
export const limit = (
  caps: Caps,
  dimension: Dimension,
  rule: Rule | undefined,
  isUnused: boolean,
  now: number
): void => {
  const cap = caps[dimension]
  if (rule === undefined) delete caps[dimension]
  else if (cap === undefined || cap.rule.quota !== rule.quota || (isUnused && !rule.quota)) {
    caps[dimension] = Cap.make(rule, now)
  } else {
    // Part of a quota may be kept for a process that cannot be reached, so it stays used even if nothing was sent.
    Cap.advance(cap, now)
    Cap.setRule(cap, rule)
  }
}
