/**
 * The pure step of a pool's buckets: every dimension together, all or nothing. `(ledger, event, now) => decision`.
 *
 * A store applies these steps atomically: the memory store in one go, the Redis store as a Lua script that is tested
 * against them. Times are milliseconds of the store's clock.
 */
import * as Limits from "../Limits.ts"
import type { Pushback } from "../LlmError.ts"
import * as Bucket from "./bucket.ts"
import * as Pace from "./pace.ts"
import * as Reading from "./reading.ts"

export interface Ledger {
  /** The limits that the user set; a provider's headers never raise them. */
  readonly configured: Limits.Limits
  readonly headroom: number
  readonly buckets: Limits.PerDimension<Bucket.Bucket>
  readonly cooldown: Cooldown | undefined
  readonly pace: Pace.Pace
  /** Per dimension the latest call that the provider had counted when it made us lower the level. */
  readonly loweredBy: Limits.PerDimension<number>
  /** The provider's date of the latest signal that was heeded. */
  readonly signalDate: number
  /** When the limits were last told, by a response or by whoever changed them. */
  readonly toldAt: number
  /** By how much signals and rejections have moved each level, in sum. */
  readonly corrected: Limits.Charge
  readonly doubt: Reading.Doubt
}

/** Nothing is admitted before `until`. */
interface Cooldown {
  readonly until: number
  readonly reason: Pushback
  /** When a rejection was last judged, in this cooldown or in one before: calls that were sent earlier say nothing new. */
  readonly judgedAt?: number | undefined
}

/** What is held for one call. */
export interface Held {
  /** Counts up in the order of admission. */
  readonly id: number
  readonly charge: Limits.Charge
  readonly takenAt: number
  /** The levels right after it was taken, see {@link leftOf}. */
  readonly left?: Limits.Charge | undefined
}

/** What the ledger must know of a response. */
export interface Answered {
  /** The call that was answered; the latest one where that is unknown. */
  readonly id: number
  /** What was left when it was taken; `undefined` where that is unknown. */
  readonly left: Limits.Charge | undefined
  /** The output that it may have; 0 once it is settled. */
  readonly output: number
  /** The output that the other open calls may have: the provider counts it as it comes. */
  readonly uncounted: number
  /** Whether it was the latest call, and no other is open. */
  readonly idle: boolean
}

export type Decision =
  | { readonly _tag: "Granted" }
  | { readonly _tag: "Wait"; readonly millis: number; readonly dimension: Limits.Dimension | undefined }
  | { readonly _tag: "Exhausted"; readonly dimension: Limits.Dimension; readonly asked: number; readonly left: number }

const granted: Decision = { _tag: "Granted" }

export const make = (
  limits: Limits.Limits,
  now: number,
  options: { readonly headroom: number; readonly ramp: { readonly from: number; readonly millis: number } | undefined }
): Ledger => {
  const unlimited: Ledger = {
    configured: {},
    headroom: options.headroom,
    buckets: {},
    cooldown: undefined,
    pace: options.ramp === undefined ? Pace.whole(now) : Pace.ramp(options.ramp, now),
    loweredBy: {},
    corrected: {},
    doubt: Reading.noDoubt,
    signalDate: -Infinity,
    toldAt: now
  }
  return resize(unlimited, limits, now)
}

/** A ledger that has so much left; a dimension of which nothing is said stays as it is. */
export const withLevels = (ledger: Ledger, levels: Limits.Charge): Ledger =>
  withBuckets(
    ledger,
    Limits.mapDimensions(ledger.buckets, (bucket, dimension) =>
      Bucket.withLevel(bucket, levels[dimension] ?? bucket.level)
    )
  )

/** The rules as they are now, learned limits included. */
export const rules = (ledger: Ledger): Limits.Rules => Limits.mapDimensions(ledger.buckets, (bucket) => bucket.rule)

/**
 * The ledger as of `now`: levels refilled, the pace grown back. However often it is called between two moments, the
 * result is the same: each step of the pace refills at its own rate.
 */
export const advance = (ledger: Ledger, now: number): Ledger => {
  let advanced = ledger
  while (Pace.isChanging(advanced.pace) && advanced.pace.at + Pace.stepMillis <= now) {
    const at = advanced.pace.at + Pace.stepMillis
    advanced = paced(refilled(advanced, at), Pace.next(advanced.pace, at))
  }
  return refilled(advanced, now)
}

const refilled = (ledger: Ledger, now: number): Ledger => {
  const buckets: { [D in Limits.Dimension]?: Bucket.Bucket } = {}
  let changed = false
  for (const dimension of Limits.dimensions) {
    const bucket = ledger.buckets[dimension]
    if (bucket === undefined) continue
    const later = Bucket.refill(bucket, now)
    buckets[dimension] = later
    if (later !== bucket) changed = true
  }
  return changed ? withBuckets(ledger, buckets) : ledger
}

const withBuckets = (ledger: Ledger, buckets: Ledger["buckets"]): Ledger => ({ ...ledger, buckets })

/** Another pace: what refills from now on refills at it. */
const paced = (ledger: Ledger, pace: Pace.Pace): Ledger => {
  if (pace === ledger.pace) return ledger
  const buckets =
    pace.scale === ledger.pace.scale
      ? ledger.buckets
      : Limits.mapDimensions(ledger.buckets, (bucket) => Bucket.withRule(bucket, bucket.rule, pace.scale))
  return { ...ledger, pace, buckets }
}

/** Decides whether `charge` is admitted now. The ledger must be as of `now`. */
export const decide = (ledger: Ledger, charge: Limits.Charge, now: number): Decision => {
  let millis = 0
  let binding: Limits.Dimension | undefined
  for (const dimension of Limits.dimensions) {
    const bucket = ledger.buckets[dimension]
    const asked = charge[dimension]
    if (bucket === undefined || asked === undefined) continue
    const wait = Bucket.waitFor(bucket, asked, now)
    if (bucket.rule.quota && wait > 0) {
      return { _tag: "Exhausted", dimension, asked, left: Math.max(0, bucket.level) }
    }
    if (wait > millis) {
      millis = wait
      binding = dimension
    }
  }
  const left = (ledger.cooldown?.until ?? now) - now
  if (left > 0 && left >= millis) return { _tag: "Wait", millis: left, dimension: undefined }
  const nextStep = Pace.isChanging(ledger.pace) ? ledger.pace.at + Pace.stepMillis - now : Infinity
  const wait = Math.ceil(Math.min(millis, nextStep))
  // After aeons a number holds no milliseconds any more: who plays ahead would wait for ever.
  return now + wait === now ? granted : { _tag: "Wait", millis: wait, dimension: binding }
}

/** Takes a charge from every dimension at one instant. */
export const take = (ledger: Ledger, charge: Limits.Charge, now: number): Ledger =>
  paced(
    withBuckets(
      ledger,
      Limits.mapDimensions(ledger.buckets, (bucket, dimension) => Bucket.take(bucket, charge[dimension] ?? 0, now))
    ),
    Pace.counted(ledger.pace, now)
  )

/**
 * Advances, decides and takes in one step where nothing is in the way: the same as the three of them, for the hot path.
 * `undefined` where the slower steps must decide.
 */
export const takeAtOnce = (ledger: Ledger, charge: Limits.Charge, now: number): Ledger | undefined => {
  if (Pace.isChanging(ledger.pace) || (ledger.cooldown !== undefined && ledger.cooldown.until > now)) return undefined
  const { inputTokens, outputTokens, requests, tokens } = ledger.buckets
  const buckets: { [D in Limits.Dimension]?: Bucket.Bucket } = {}
  // Written out, like `withBuckets`: every reservation comes through here.
  if (requests !== undefined) {
    const taken = Bucket.takeIfFits(requests, charge.requests ?? 0, now)
    if (taken === undefined) return undefined
    buckets.requests = taken
  }
  if (inputTokens !== undefined) {
    const taken = Bucket.takeIfFits(inputTokens, charge.inputTokens ?? 0, now)
    if (taken === undefined) return undefined
    buckets.inputTokens = taken
  }
  if (outputTokens !== undefined) {
    const taken = Bucket.takeIfFits(outputTokens, charge.outputTokens ?? 0, now)
    if (taken === undefined) return undefined
    buckets.outputTokens = taken
  }
  if (tokens !== undefined) {
    const taken = Bucket.takeIfFits(tokens, charge.tokens ?? 0, now)
    if (taken === undefined) return undefined
    buckets.tokens = taken
  }
  return withBuckets(ledger, buckets)
}

/**
 * Replaces what was held by what was used. More becomes debt. Less is given back; where the provider had already counted
 * the call when it made us move the level, only to the window.
 */
export const settle = (ledger: Ledger, held: Held, used: Limits.Charge, now: number): Ledger => {
  if (isAsEstimated(held.charge, used)) return ledger
  return withBuckets(
    ledger,
    Limits.mapDimensions(ledger.buckets, (bucket, dimension) => {
      const estimate = held.charge[dimension]
      if (estimate === undefined) return bucket
      const more = (used[dimension] ?? estimate) - estimate
      if (more > 0) return Bucket.take(bucket, more, now)
      const counted = !bucket.rule.quota && held.id <= (ledger.loweredBy[dimension] ?? -1)
      // The window remembers what we took, whatever the provider said of what is left.
      return counted ? Bucket.forget(bucket, -more, held.takenAt) : Bucket.give(bucket, -more, held.takenAt)
    })
  )
}

/** Then there is nothing to settle. */
export const isAsEstimated = (charge: Limits.Charge, used: Limits.Charge): boolean => {
  if (charge === used) return true
  for (const dimension of Limits.dimensions) {
    if (used[dimension] !== undefined && used[dimension] !== charge[dimension]) return false
  }
  return true
}

/** What is left right after a call was taken, in the terms of the ledger before any correction. */
export const leftOf = (ledger: Ledger): Limits.Charge =>
  Limits.mapDimensions(ledger.buckets, (bucket, dimension) => bucket.level - (ledger.corrected[dimension] ?? 0))

/**
 * Pauses the pool: the longest pause wins, a shorter one never shortens it.
 *
 * A 429 that the local view cannot explain (the rejected charge, refunded, would be admitted again) says that somebody
 * else spends the same limit: the rate is scaled down, at most once per cooldown and for the calls that were out already,
 * and the levels are set so that the rejected charge fits just when the pause ends. A 429 that it can explain changes the
 * rate only if it is known already, from an earlier rejection or from the provider's figures, that somebody else spends the
 * limit.
 */
export const cool = (
  ledger: Ledger,
  {
    charge,
    millis,
    reason,
    takenAt = Infinity
  }: {
    readonly reason: Pushback
    readonly millis: number
    readonly charge: Limits.Charge | undefined
    readonly takenAt?: number | undefined
  },
  now: number
): Ledger => {
  const { until = now, judgedAt = -Infinity } = ledger.cooldown ?? {}
  const isJudged = until <= now && takenAt > judgedAt && reason !== "overload"
  const isLonger = until <= now || until < now + millis
  const cooldown = isLonger ? { until: now + millis, reason, judgedAt: isJudged ? now : judgedAt } : ledger.cooldown
  const paused = { ...ledger, cooldown }
  if (!isJudged) return paused
  if (reason === "ramp") return paced(paused, Pace.slower(paused.pace, "ramp", now))
  if (charge === undefined) return paused
  if (decide({ ...ledger, cooldown: undefined }, charge, now)._tag !== "Granted") {
    return Pace.isChanging(ledger.pace) ? paced(paused, Pace.slower(paused.pace, "shared", now)) : paused
  }
  const corrected = { ...paused.corrected }
  const buckets = Limits.mapDimensions(paused.buckets, (bucket, dimension) => {
    const asked = charge[dimension] ?? 0
    if (bucket.rule.quota || asked === 0) return bucket
    const refilled = bucket.rate * Pace.unexplainedScale * millis
    const level = Math.min(bucket.level, Bucket.needed(bucket, asked) - refilled)
    corrected[dimension] = (corrected[dimension] ?? 0) + level - bucket.level
    return Bucket.withLevel(bucket, level)
  })
  return paced({ ...paused, buckets, corrected }, Pace.slower(paused.pace, "unexplained", now))
}

/**
 * Replaces the configured limits; levels keep their debt and are cut to the new capacity. What responses taught of
 * dimensions that nobody configured stays: only those of `before` are replaced.
 */
export const resize = (
  ledger: Ledger,
  limits: Limits.Limits,
  now: number,
  before: Limits.PerDimension<unknown> = ledger.configured
): Ledger => ({
  ...ledger,
  configured: limits,
  toldAt: now,
  buckets: replaced(
    ledger.buckets,
    before,
    Limits.mapDimensions(Limits.resolve(limits), (rule, dimension) => ruled(ledger, dimension, rule, now))
  )
})

/** Goes back to the configured limits, unless limits were told less than so long ago. */
export const unlearn = (ledger: Ledger, untoldMillis: number, now: number): Ledger =>
  now - ledger.toldAt < untoldMillis ? ledger : resize(ledger, ledger.configured, now, ledger.buckets)

/** Some values with others instead of those in the dimensions of `before`. */
export const replaced = <A>(
  values: Limits.PerDimension<A>,
  before: Limits.PerDimension<unknown>,
  others: Limits.PerDimension<A>
): Limits.PerDimension<A> =>
  Limits.mapDimensions<A, A>(
    { ...values, ...Limits.mapDimensions(before, () => undefined), ...others },
    (value) => value
  )

/** The bucket of a dimension by a rule that may be the first of its kind: then it is full. */
export const ruled = (ledger: Ledger, dimension: Limits.Dimension, rule: Limits.Rule, now: number): Bucket.Bucket => {
  const bucket = ledger.buckets[dimension]
  return bucket === undefined || bucket.rule.quota !== rule.quota
    ? Bucket.make(rule, now, { pace: ledger.pace.scale, headroom: ledger.headroom })
    : Bucket.withRule(bucket, rule, ledger.pace.scale)
}
