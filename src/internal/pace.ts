/**
 * The part of a pool's rates that is used: lowered by rejections and by what somebody else spends, grown back in steps.
 */

/** The part of the rates that is used, and how it grows back. */
export interface Pace {
  readonly scale: number
  /** Growth per step of `stepMillis`. */
  readonly growth: number
  /** The start of the step. */
  readonly at: number
  /** What signals took from the levels in this step, as a part of a step's refill: somebody else spends that much. */
  readonly drift: number
  /** Calls admitted in this step, while the pace grows back. */
  readonly calls: number
  /** Whether the provider objected to growth, or we began slowly on purpose: then only time lets the pace grow. */
  readonly ramped: boolean
}

/** The pace moves in steps of this length, so that rates are piecewise constant. */
export const stepMillis = 10_000
/**
 * A step ends early after so many calls. By time alone, what rejections without a reason cost would grow with the number
 * of calls: one in a hundred held a pool of 2,000 calls a minute at a fifth of its rates. So the balance between growth
 * and rejections is the same for many calls as for few: the full pace at one in a hundred.
 */
const stepCalls = 16
/** DESIGN: a 429 that the local view cannot explain scales the rate by 0.7; it is back after 60 s without another. */
export const unexplainedScale = 0.7
const recovery = 0.05
/**
 * Where the provider's figures showed that somebody else spends the same limit, more is tried less eagerly, and a 429 is
 * one attempt too many. With a neighbour that takes half of the limit this keeps rejections below 2 % of calls at 2 %
 * more time; with the figures above it was 6 %, without any of it 40 %.
 */
const sharedScale = 0.8
const sharedRecovery = 0.02
/**
 * After a ramp error the rate is a tenth lower, and back after a minute; errors in a row add up. The pause is what the
 * provider asked for. Against a limit of x1.2 to x2 a minute half the rate took up to 1.7 times as long with as many
 * rejections, where the provider says when to come back and where it does not; the whole rate had twice as many.
 */
const rampScale = 0.9
const rampRecovery = 1 / 60
/** Never slower than this: a pool that is nearly stopped would not learn that it may go on. */
const slowest = 0.05

/** An amount that was taken in two parts and given back in one differs in its last bits: nobody spent that. */
const leastDrift = 1e-9

/** The whole of the rates. */
export const whole = (now: number): Pace => ({ scale: 1, growth: 0, at: now, drift: 0, calls: 0, ramped: false })

/** A slow start, from a part of the rates to the whole. */
export const ramp = ({ from, millis }: { readonly from: number; readonly millis: number }, now: number): Pace => ({
  ...whole(now),
  scale: from,
  growth: ((1 - from) * stepMillis) / millis,
  ramped: true
})

/** Whether time will change it. */
export const isChanging = (pace: Pace): boolean => pace.scale < 1 || pace.drift > 0

/**
 * What somebody else spent in a step is left to them in the next; if nobody did, the pace grows. A step changes it by
 * half at most, because one large correction shows a wrong start, not a rate.
 */
export const next = (pace: Pace, at: number): Pace => {
  const { drift, growth } = pace
  const scale =
    drift > 0 ? Math.max(slowest, pace.scale - Math.min(drift, pace.scale / 2)) : Math.min(1, pace.scale + growth)
  return {
    scale,
    growth: drift > 0 ? sharedRecovery : growth,
    at,
    drift: 0,
    calls: 0,
    ramped: pace.ramped && scale < 1
  }
}

/**
 * A call was admitted. A step in which somebody else spends is measured over its whole time, so it never ends early.
 */
export const counted = (pace: Pace, now: number): Pace => {
  if (pace.scale >= 1 || pace.ramped) return pace
  const calls = pace.calls + 1
  return calls < stepCalls || pace.drift > 0 ? { ...pace, calls } : next(pace, now)
}

/**
 * Notes that somebody else spent this part of a step's refill. A negative part takes back what was our own after all.
 */
export const drifted = (pace: Pace, drift: number, now: number): Pace => {
  if (drift === 0) return pace
  const sum = pace.drift + drift
  return { ...pace, at: isChanging(pace) ? pace.at : now, drift: sum < leastDrift ? 0 : sum }
}

const slowdowns = {
  unexplained: { scale: unexplainedScale, growth: recovery },
  shared: { scale: sharedScale, growth: sharedRecovery },
  ramp: { scale: rampScale, growth: rampRecovery }
}

/**
 * The provider said no: for no reason that we know, because somebody else spends the same limit, or because usage grew
 * too fast. The time of the step begins anew, its count of calls goes on, and a pace that grows back slowly does not
 * get quicker.
 */
export const slower = (pace: Pace, why: keyof typeof slowdowns, now: number): Pace => {
  const { growth, scale } = slowdowns[why]
  const growing = pace.scale < 1
  return {
    scale: Math.max(slowest, pace.scale * scale),
    growth: growing ? Math.min(growth, pace.growth) : growth,
    at: now,
    drift: 0,
    calls: growing ? pace.calls : 0,
    ramped: why === "ramp" || (growing && pace.ramped)
  }
}
