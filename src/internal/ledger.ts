/**
 * The pure step of a pool's buckets: every dimension together, all or nothing. `(ledger, event, now) => decision`.
 *
 * A store applies these steps atomically: the memory store to a `Ref`, the Redis store as a Lua script that is tested
 * against them. Times are milliseconds of the store's clock.
 */
import * as Limits from "../Limits.ts"
import * as Bucket from "./bucket.ts"
import * as Reading from "./reading.ts"

export interface Ledger {
  /** The limits that the user set; a provider's headers never raise them. */
  readonly configured: Limits.Limits
  readonly headroom: number
  readonly buckets: { readonly [D in Limits.Dimension]?: Bucket.Bucket }
  readonly cooldown: Cooldown | undefined
  readonly pace: Pace
  /** Per dimension the latest call that the provider had counted when it made us lower the level. */
  readonly loweredBy: { readonly [D in Limits.Dimension]?: number }
  /** The provider's date of the latest signal that was heeded. */
  readonly signalDate: number
  /** By how much signals and rejections have moved each level, in sum. */
  readonly corrected: Limits.Charge
  readonly doubt: Reading.Doubt
  /** Whether any limit is known; while none is, calls go alone. */
  readonly known: boolean
}

/** Nothing is admitted before `until`. */
interface Cooldown {
  readonly until: number
  readonly reason: PauseReason
}

export type PauseReason = "rateLimit" | "ramp" | "overload"

/** The part of the rates that is used, and how it grows back. */
interface Pace {
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

/** What is held for one call. */
export interface Held {
  /** Counts up in the order of admission. */
  readonly id: number
  readonly charge: Limits.Charge
  readonly takenAt: number
  /** The levels right after it was taken, see {@link leftOf}. */
  readonly left?: Limits.Charge | undefined
}

/** A response, as far as the ledger must know. */
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

/** The pace moves in steps of this length, so that rates are piecewise constant. */
const stepMillis = 10_000
/**
 * A step ends early after so many calls. By time alone, what rejections without a reason cost would grow with the number
 * of calls: one in a hundred held a pool of 2,000 calls a minute at a fifth of its rates. So the balance between growth
 * and rejections is the same for many calls as for few: the full pace at one in a hundred.
 */
const stepCalls = 16
/** DESIGN: a 429 that the local view cannot explain scales the rate by 0.7; it is back after 60 s without another. */
const unexplainedScale = 0.7
const recovery = 0.05
/**
 * Where the provider's figures showed that somebody else spends the same limit, more is tried less eagerly, and a 429 is
 * one attempt too many. With a neighbour that takes half of the limit this keeps rejections below 2 % of calls at 2 %
 * more time; with the figures above it was 6 %, without any of it 40 %.
 */
const sharedScale = 0.8
const sharedRecovery = 0.02
/** Each lowering doubles what is kept back, up to this part of the capacity. */
const mostReserve = 0.25
/**
 * After a ramp error the rate is a tenth lower, and back after a minute; errors in a row add up. The pause is what the
 * provider asked for. Against a limit of x1.2 to x2 a minute half the rate took up to 1.7 times as long with as many
 * rejections, where the provider says when to come back and where it does not; the whole rate had twice as many.
 */
const rampScale = 0.9
const rampRecovery = 1 / 60
/** Never slower than this: a pool that is nearly stopped would not learn that it may go on. */
const slowest = 0.05

/** Headroom shrinks to a sixteenth of what was asked for while the provider confirms the local view. */
const leastHeadroom = 1 / 16
/** Responses overtake one another by seconds; a date that is off by more is a wrong clock. */
const mostDisorderMillis = 60_000

const granted: Decision = { _tag: "Granted" }

export const make = (
  limits: Limits.Limits,
  now: number,
  options: { readonly headroom: number; readonly ramp: { readonly from: number; readonly millis: number } | undefined }
): Ledger => {
  const pace: Pace =
    options.ramp === undefined
      ? { scale: 1, growth: 0, at: now, drift: 0, calls: 0, ramped: false }
      : {
          scale: options.ramp.from,
          growth: ((1 - options.ramp.from) * stepMillis) / options.ramp.millis,
          at: now,
          drift: 0,
          calls: 0,
          ramped: true
        }
  const rules = Limits.resolve(limits)
  return {
    configured: limits,
    headroom: options.headroom,
    buckets: mapDimensions(rules, (rule) => Bucket.make(rule, now, { pace: pace.scale, headroom: options.headroom })),
    cooldown: undefined,
    pace,
    loweredBy: {},
    corrected: {},
    doubt: Reading.noDoubt,
    signalDate: -Infinity,
    known: Object.keys(rules).length > 0
  }
}

const mapDimensions = <A, B>(
  record: { readonly [D in Limits.Dimension]?: A },
  f: (value: A, dimension: Limits.Dimension) => B
): { [D in Limits.Dimension]?: B } => {
  const result: { [D in Limits.Dimension]?: B } = {}
  for (const dimension of Limits.dimensions) {
    const value = record[dimension]
    if (value !== undefined) result[dimension] = f(value, dimension)
  }
  return result
}

/** A ledger that has so much left; a dimension of which nothing is said stays as it is. */
export const withLevels = (ledger: Ledger, levels: Limits.Charge): Ledger =>
  withBuckets(
    ledger,
    mapDimensions(ledger.buckets, (bucket, dimension) => Bucket.withLevel(bucket, levels[dimension] ?? bucket.level))
  )

/** The rules as they are now, learned limits included. */
export const rules = (ledger: Ledger): Limits.Rules => mapDimensions(ledger.buckets, (bucket) => bucket.rule)

/**
 * The ledger as of `now`: levels refilled, the pace grown back. However often it is called between two moments, the
 * result is the same: each step of the pace refills at its own rate.
 */
export const advance = (ledger: Ledger, now: number): Ledger => {
  let advanced = ledger
  while (isChanging(advanced.pace) && advanced.pace.at + stepMillis <= now) {
    const at = advanced.pace.at + stepMillis
    advanced = withPace(refilled(advanced, at), nextPace(advanced.pace, at))
  }
  return refilled(advanced, now)
}

const isChanging = (pace: Pace): boolean => pace.scale < 1 || pace.drift > 0

/**
 * What somebody else spent in a step is left to him in the next; with nobody there, the pace grows. A step changes it by
 * half at most: one large correction is a wrong start, not a rate.
 */
const nextPace = (pace: Pace, at: number): Pace => {
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

/** Written out, because this is the hottest allocation and a spread costs several times as much. */
const withBuckets = (ledger: Ledger, buckets: Ledger["buckets"]): Ledger => ({
  configured: ledger.configured,
  headroom: ledger.headroom,
  buckets,
  cooldown: ledger.cooldown,
  pace: ledger.pace,
  loweredBy: ledger.loweredBy,
  corrected: ledger.corrected,
  doubt: ledger.doubt,
  signalDate: ledger.signalDate,
  known: ledger.known
})

const withPace = (ledger: Ledger, pace: Pace): Ledger => ({
  ...ledger,
  pace,
  buckets: mapDimensions(ledger.buckets, (bucket) => Bucket.withRule(bucket, bucket.rule, pace.scale))
})

/** Decides whether `charge` is admitted now. The ledger must be as of `now`. */
export const decide = (ledger: Ledger, charge: Limits.Charge, now: number): Decision => {
  let millis = 0
  let binding: Limits.Dimension | undefined
  for (const dimension of Limits.dimensions) {
    const bucket = ledger.buckets[dimension]
    const asked = charge[dimension]
    if (bucket === undefined || asked === undefined) continue
    if (bucket.rule.quota && asked > bucket.level) {
      return { _tag: "Exhausted", dimension, asked, left: Math.max(0, bucket.level) }
    }
    const wait = Bucket.waitFor(bucket, asked, now)
    if (wait > millis) {
      millis = wait
      binding = dimension
    }
  }
  if (ledger.cooldown !== undefined && ledger.cooldown.until - now >= millis && ledger.cooldown.until > now) {
    return { _tag: "Wait", millis: ledger.cooldown.until - now, dimension: undefined }
  }
  if (millis === 0) return granted
  const nextStep = isChanging(ledger.pace) ? ledger.pace.at + stepMillis - now : Infinity
  return { _tag: "Wait", millis: Math.ceil(Math.min(millis, nextStep)), dimension: binding }
}

/** Takes a charge from every dimension at one instant. */
export const take = (ledger: Ledger, charge: Limits.Charge, now: number): Ledger =>
  counted(
    withBuckets(
      ledger,
      mapDimensions(ledger.buckets, (bucket, dimension) => Bucket.take(bucket, charge[dimension] ?? 0, now))
    ),
    now
  )

/** What somebody else spends in a step is measured over all of its time, so such a step never ends early. */
const counted = (ledger: Ledger, now: number): Ledger => {
  const { pace } = ledger
  if (pace.scale >= 1 || pace.ramped) return ledger
  const calls = pace.calls + 1
  return calls < stepCalls || pace.drift > 0
    ? { ...ledger, pace: { ...pace, calls } }
    : withPace(ledger, nextPace(pace, now))
}

/**
 * Advances, decides and takes in one step where nothing is in the way: the same as the three of them, for the hot path.
 * `undefined` where there is more to say.
 */
export const takeAtOnce = (ledger: Ledger, charge: Limits.Charge, now: number): Ledger | undefined => {
  if (isChanging(ledger.pace) || (ledger.cooldown !== undefined && ledger.cooldown.until > now)) return undefined
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
    mapDimensions(ledger.buckets, (bucket, dimension) => {
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

/**
 * Moves the local view toward the provider's: lowers a level at once, and raises it only where `idle`, when everything
 * that was sent is counted. A signal that is older than the last one heeded is ignored.
 */
export const observe = (ledger: Ledger, signal: Limits.Signal, answered: Answered, now: number): Ledger => {
  const date = signal.date ?? ledger.signalDate
  // A date that is far behind the last one says that the last one was wrong, not that this signal is old.
  if (date < ledger.signalDate && date > ledger.signalDate - mostDisorderMillis) return ledger
  const buckets: { [D in Limits.Dimension]?: Bucket.Bucket } = {}
  const loweredBy = { ...ledger.loweredBy }
  const corrected = { ...ledger.corrected }
  let { doubt } = ledger
  let drift = 0
  for (const dimension of Limits.dimensions) {
    const said = signal.dimensions[dimension]
    const bucket = learnLimit(ledger, dimension, said, now)
    if (bucket === undefined) continue
    buckets[dimension] = bucket
    if (said === undefined || bucket.rule.quota) continue
    const { capacity } = bucket.rule
    // Output is counted as it comes; what was left of it when a call was sent says nothing.
    const isOutput = dimension === "outputTokens"
    const left = isOutput ? undefined : answered.left?.[dimension]
    const view = {
      level: bucket.level,
      capacity,
      // A limit that was learned since may be smaller than what was left then.
      left: left === undefined ? undefined : Math.min(capacity, left + (corrected[dimension] ?? 0)),
      uncounted: isOutput ? answered.uncounted : 0
    }
    const reading = Reading.read(said, view, doubt)
    if (reading === undefined) continue
    doubt = reading.doubt
    // Whether the answer's own output is counted by now is not known either: it is kept until it is settled.
    const own = isOutput ? answered.output : 0
    let level = bucket.level
    let reserve = Math.max(bucket.reserve / 2, capacity * ledger.headroom * leastHeadroom)
    if (reading.lowered !== undefined) {
      level = reading.lowered - own
      reserve = Math.min(capacity * mostReserve, Math.max(bucket.reserve, capacity * ledger.headroom) * 2)
      // The first signal tells where we start, the later ones what somebody else spends meanwhile. What open calls may
      // have put out already is our own.
      const theirs = bucket.level - reading.lowered - view.uncounted - own
      if (corrected[dimension] !== undefined && theirs > 0) {
        drift = Math.max(drift, theirs / (bucket.rule.rate * stepMillis))
      }
      if (!isOutput) loweredBy[dimension] = Math.max(answered.id, loweredBy[dimension] ?? -1)
    } else if (answered.idle && ledger.pace.scale >= 1) {
      level = Math.min(capacity, Math.max(level, reading.least - own))
      // What the provider says is as the answered call was used: giving back its estimate would count that twice.
      if (!isOutput && level > bucket.level) loweredBy[dimension] = Math.max(answered.id, loweredBy[dimension] ?? -1)
    } else if (left !== undefined && reading.more > 0) {
      // An estimate that was too high looks like somebody else until it is settled. Once the provider has more than we
      // think, however it is read, what was taken from the level was ours.
      const returned = Math.min(reading.more, -(corrected[dimension] ?? 0))
      if (returned > 0) {
        level = bucket.level + returned
        if (drift <= 0) drift = Math.min(drift, -returned / (bucket.rule.rate * stepMillis))
      }
    }
    corrected[dimension] = (corrected[dimension] ?? 0) + level - bucket.level
    buckets[dimension] = Bucket.withReserve(Bucket.withLevel(bucket, level), reserve)
  }
  const known = ledger.known || Object.keys(buckets).length > 0
  const pace =
    drift === 0
      ? ledger.pace
      : {
          ...ledger.pace,
          at: isChanging(ledger.pace) ? ledger.pace.at : now,
          drift: Math.max(0, ledger.pace.drift + drift)
        }
  return { ...ledger, buckets, loweredBy, corrected, signalDate: date, known, doubt, pace }
}

/** What is left right after a call was taken, in the terms of the ledger before any correction. */
export const leftOf = (ledger: Ledger): Limits.Charge => {
  const left: { [D in Limits.Dimension]?: number } = {}
  for (const dimension of Limits.dimensions) {
    const bucket = ledger.buckets[dimension]
    if (bucket !== undefined) left[dimension] = bucket.level - (ledger.corrected[dimension] ?? 0)
  }
  return left
}

/** A limit header teaches rate and capacity, never above what was configured. */
const learnLimit = (
  ledger: Ledger,
  dimension: Limits.Dimension,
  said: Limits.DimensionSignal | undefined,
  now: number
): Bucket.Bucket | undefined => {
  const bucket = ledger.buckets[dimension]
  const limit = said?.limit
  if (limit === undefined || !(limit > 0 && limit < Infinity)) return bucket
  const configured = ledger.configured[dimension]
  if (configured?.total !== undefined) return bucket
  const learned = configured === undefined ? told(dimension, limit, said!, bucket) : capped(configured, limit)
  const rule = Limits.resolve({ [dimension]: learned })[dimension]!
  if (bucket === undefined) {
    return Bucket.make(rule, now, { pace: ledger.pace.scale, headroom: ledger.headroom })
  }
  return Limits.sameRules({ [dimension]: bucket.rule }, { [dimension]: rule })
    ? bucket
    : Bucket.withRule(bucket, rule, ledger.pace.scale)
}

/** Of a limit that was only heard of, this part is taken as the burst until the provider says that it has more. */
const leastBurst = 0.05

/**
 * A limit that nobody configured. How much a bucket holds is not said, but what is left of it can be had at once: the
 * most that was ever left is the burst. Requests are smoothed all the same.
 */
const told = (
  dimension: Limits.Dimension,
  perMinute: number,
  { remaining = 0, window }: Limits.DimensionSignal,
  bucket: Bucket.Bucket | undefined
): Limits.Limit => {
  if (window !== "bucket" || dimension === "requests") return { perMinute, window }
  const most = Math.max(perMinute * leastBurst, bucket?.rule.capacity ?? 0, remaining > 0 ? remaining : 0)
  return { perMinute, window, burst: Math.min(perMinute, most) }
}

const capped = (configured: Limits.Limit, perMinute: number): Limits.Limit => {
  const limit = configured.perMinute ?? configured.perSecond! * 60
  if (perMinute >= limit) return configured
  const part = perMinute / limit
  return {
    ...configured,
    ...(configured.perMinute === undefined ? { perSecond: configured.perSecond! * part } : { perMinute }),
    ...(configured.burst === undefined ? {} : { burst: configured.burst * part })
  }
}

/**
 * Pauses the pool: the longest pause wins, a shorter one never shortens it.
 *
 * A 429 that the local view cannot explain (the rejected charge, refunded, would be admitted again) says that somebody
 * else spends the same limit: the rate is scaled down, at most once per cooldown, and the levels are set so that the
 * rejected charge fits just when the pause ends. One that it can explain changes the rate only where somebody else has
 * shown before, by a rejection or by the provider's figures.
 */
export const cool = (
  ledger: Ledger,
  pause: { readonly reason: PauseReason; readonly millis: number; readonly charge: Limits.Charge | undefined },
  now: number
): Ledger => {
  const cooling = ledger.cooldown !== undefined && ledger.cooldown.until > now
  const until = now + pause.millis
  const cooldown = cooling && ledger.cooldown!.until >= until ? ledger.cooldown : { until, reason: pause.reason }
  const paused = { ...ledger, cooldown }
  if (cooling || pause.reason === "overload") return paused
  if (pause.reason === "ramp") return slower(paused, rampScale, rampRecovery, now)
  if (pause.charge === undefined) return paused
  if (decide({ ...ledger, cooldown: undefined }, pause.charge, now)._tag !== "Granted") {
    return isChanging(ledger.pace) ? slower(paused, sharedScale, sharedRecovery, now) : paused
  }
  const charge = pause.charge
  const corrected = { ...paused.corrected }
  const buckets = mapDimensions(paused.buckets, (bucket, dimension) => {
    const asked = charge[dimension] ?? 0
    if (bucket.rule.quota || asked === 0) return bucket
    const fits = Math.min(asked + bucket.reserve, bucket.rule.capacity)
    const level = Math.min(bucket.level, fits - bucket.rate * unexplainedScale * pause.millis)
    corrected[dimension] = (corrected[dimension] ?? 0) + level - bucket.level
    return Bucket.withLevel(bucket, level)
  })
  return slower({ ...paused, buckets, corrected }, unexplainedScale, recovery, now)
}

/** A rejection begins the time of a step anew, but not its calls; and what grows back more slowly is not sped up. */
const slower = (ledger: Ledger, factor: number, growth: number, now: number): Ledger => {
  const { pace } = ledger
  const growing = pace.scale < 1
  return withPace(ledger, {
    scale: Math.max(slowest, pace.scale * factor),
    growth: growing ? Math.min(growth, pace.growth) : growth,
    at: now,
    drift: 0,
    calls: growing ? pace.calls : 0,
    ramped: growth === rampRecovery || (growing && pace.ramped)
  })
}

/** Replaces the configured limits; levels keep their debt and are cut to the new capacity. */
export const resize = (ledger: Ledger, limits: Limits.Limits, now: number): Ledger => ({
  ...ledger,
  configured: limits,
  known: true,
  buckets: mapDimensions(Limits.resolve(limits), (rule, dimension) => {
    const bucket = ledger.buckets[dimension]
    return bucket === undefined
      ? Bucket.make(rule, now, { pace: ledger.pace.scale, headroom: ledger.headroom })
      : Bucket.withRule(bucket, rule, ledger.pace.scale)
  })
})
