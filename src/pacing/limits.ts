/**
 * The user sets limits: of a new pool, or of an existing one.
 */
import { type Dimension, dimensions, type PerDimension } from "../domain/amounts.ts"
import type { Rule, Rules } from "../domain/rules.ts"
import * as Caps from "../admission/caps.ts"
import * as Meter from "./meter.ts"
import { bound } from "./rates.ts"
import { empty, isStated, meterOf, type Pacer } from "./state.ts"

/** A pacer under the user's limits. */
export const make = (rules: Rules, shares: PerDimension<number>, now: number): Pacer => {
  const pacer = empty(now)
  resize(pacer, rules, shares, now)
  return pacer
}

/**
 * Replaces the user's limits. What headers have taught about other dimensions stays. A pool that has sent nothing starts with
 * full buckets under its new limits.
 */
export const resize = (pacer: Pacer, rules: Rules, shares: PerDimension<number>, now: number): void => {
  const before = pacer.shares
  pacer.shares = shares
  for (const dimension of dimensions) {
    const rule = rules[dimension]
    const share = shares[dimension]
    if (rule === undefined && share !== undefined && share === before[dimension]) continue
    replace(pacer, dimension, rule, now)
  }
  // All providers limit requests and tokens. A meter without a limit finds out by how much.
  if (pacer.meters.length === 0) pacer.meters.push(Meter.make("requests", now))
  if (!pacer.meters.some(isOfTokens)) pacer.meters.push(Meter.make("tokens", now))
  if (pacer.meters.some((each) => isOfTokens(each) && each.limit < Infinity)) pacer.opening = undefined
}

/** Replaces the user's limit of a dimension, and what it says about the provider's bucket. */
const replace = (pacer: Pacer, dimension: Dimension, rule: Rule | undefined, now: number): void => {
  const wasStated = isStated(pacer, dimension)
  limitTo(pacer, dimension, rule, now)
  const meter = meterOf(pacer, dimension)
  if (rule === undefined || rule.quota) {
    if (wasStated && meter !== undefined && meter.header === undefined) Meter.forget(meter)
    return
  }
  const { burst, rate } = rule.provider
  if (meter === undefined) return void pacer.meters.push(Meter.make(dimension, now, rate, burst))
  Meter.advance(meter, now, bound(pacer, meter, now))
  Meter.setLimit(meter, rate)
  meter.burst = burst
  meter.shown = undefined
  if (pacer.sent === 0) meter.level = burst
}

const isOfTokens = ({ dimension }: Meter.Meter): boolean => dimension !== "requests"

/** Sets or removes the user's limit of a dimension. */
export const limitTo = ({ caps, sent }: Pacer, dimension: Dimension, rule: Rule | undefined, now: number): void =>
  Caps.limit(caps, dimension, rule, sent === 0, now)
