/**
 * Simple laws to compare with: what people run today, and the oracle.
 */
import { type Amounts, type Dimension, dimensionsOf } from "./amounts.ts"
import type { Law, MakeLaw, Setting } from "./engine.ts"
import * as Prng from "./prng.ts"

const isolated = () => "isolated" as const

/** No budget: every call goes at once, and retries do the rest. */
export const retryAfter: MakeLaw = () => ({
  ask: () => 0,
  send: () => undefined,
  answered: () => undefined,
  rejected: isolated,
  overloaded: isolated
})

/**
 * The retries of the official SDKs of Anthropic and OpenAI: half a second, doubled up to 8 s, minus up to a quarter, or a
 * `retry-after` of at most one minute. By default they make 2 retries.
 */
const sdk =
  (retries: number): MakeLaw =>
  (setting) => ({
    ...retryAfter(setting),
    retryIn: (failures, retryAfter, random) => {
      if (failures > retries) return undefined
      if (retryAfter !== undefined && retryAfter <= 60_000) return retryAfter
      return Math.min(8000, 500 * 2 ** (failures - 1)) * (1 - random / 4)
    }
  })

/** Only retries, with unlimited attempts: how long jobs take without any budget. */
export const patient: MakeLaw = (setting) => ({
  ...retryAfter(setting),
  rejected: () => "exhausted",
  overloaded: () => "outage"
})

/** Knows the provider's meters, outages and in-flight limit, but not which calls are rejected at random. */
export const oracle: MakeLaw = ({ fairPart, trueLimits, waitFor }) => {
  const own = fairPart === 1 ? undefined : makeBuckets(trueLimits, () => fairPart)
  return {
    ask: (charge, now) => Math.max(waitFor(now), own?.waitFor(charge, now) ?? 0),
    send: (charge, now) => own?.take(charge, now),
    answered: () => undefined,
    rejected: isolated,
    overloaded: isolated
  }
}

/** Token buckets for the stated limits at a fraction of their rates; without a stated burst they hold one second. */
const makeBuckets = (limits: Setting["limits"], part: () => number) => {
  const buckets = dimensionsOf(limits).map((dimension) => {
    const { burst, perMinute } = limits[dimension]!
    return { dimension, rate: perMinute / 60_000, size: burst ?? perMinute / 60, level: burst ?? perMinute / 60 }
  })
  let at = 0
  const advance = (now: number) => {
    for (const each of buckets) each.level = Math.min(each.size, each.level + each.rate * part() * (now - at))
    at = now
  }
  const needed = (size: number, charge: Amounts, dimension: Dimension) => Math.min(size, charge[dimension] ?? 0)
  return {
    waitFor: (charge: Amounts, now: number) => {
      advance(now)
      const waits = buckets.map(
        ({ dimension, level, rate, size }) => (needed(size, charge, dimension) - level) / (rate * part())
      )
      return Math.max(0, ...waits)
    },
    take: (charge: Amounts, now: number) => {
      advance(now)
      for (const each of buckets) each.level -= charge[each.dimension] ?? 0
    }
  }
}

/**
 * Additive increase, multiplicative decrease of a rate: x 0.7 for a rejection, at most once per round trip, and plus 2 % of
 * the limit each second. Without stated limits it paces requests: the rate doubles each second until the first rejection, and
 * the last rate that was too high replaces the limit.
 */
export const aimd: MakeLaw = ({ limits }) => {
  const isTold = dimensionsOf(limits).length > 0
  let part = 1
  let top = 1
  let isOpening = !isTold
  let cutAt = -Infinity
  let at = 0
  // Without stated limits, `part` is in requests per second.
  const buckets = makeBuckets(isTold ? limits : { requests: { perMinute: 60, burst: 1 } }, () => part)

  const advance = (now: number) => {
    const seconds = (now - at) / 1000
    part = isOpening ? part * 2 ** seconds : part + 0.02 * top * seconds
    if (isTold) part = Math.min(1, part)
    at = now
  }
  const charged = (charge: Amounts): Amounts => (isTold ? charge : { requests: 1 })
  const law: Law<number> = {
    ask: (charge, now) => {
      advance(now)
      return buckets.waitFor(charged(charge), now)
    },
    send: (charge, now) => {
      buckets.take(charged(charge), now)
      return now
    },
    answered: () => undefined,
    rejected: (sentAt, now) => {
      if (sentAt < cutAt) return "isolated"
      advance(now)
      if (!isTold) top = part
      isOpening = false
      part *= 0.7
      cutAt = now
      return "isolated"
    },
    overloaded: isolated
  }
  return law
}

/**
 * The adaptive mode of the AWS SDKs: no limit until the first throttling, then a token bucket of requests whose rate is cut
 * by 0.7 and grows along CUBIC's curve, at most to twice what is sent.
 */
export const aws: MakeLaw = () => {
  const beta = 0.7
  const scale = 0.4
  const smooth = 0.8
  const least = { rate: 0.5, capacity: 1 }
  let isOn = false
  let level = 0
  let capacity = 1
  let rate = least.rate
  let at = 0
  let measured = 0
  let count = 0
  let countedFrom = 0
  let lastMax = 0
  let throttledAt = 0

  const refill = (seconds: number) => {
    level = Math.min(capacity, level + rate * Math.max(0, seconds - at))
    at = seconds
  }
  const measure = (seconds: number) => {
    count++
    const until = Math.floor(seconds * 2) / 2
    if (until <= countedFrom) return
    measured = (count / (until - countedFrom)) * smooth + measured * (1 - smooth)
    count = 0
    countedFrom = until
  }
  const update = (wanted: number, seconds: number) => {
    refill(seconds)
    rate = Math.max(wanted, least.rate)
    capacity = Math.max(wanted, least.capacity)
    level = Math.min(level, capacity)
  }

  return {
    ask: (_, now) => {
      if (!isOn) return 0
      refill(now / 1000)
      return level >= 1 ? 0 : ((1 - level) / rate) * 1000
    },
    send: () => {
      if (isOn) level -= 1
    },
    answered: (_, _used, now) => {
      const seconds = now / 1000
      measure(seconds)
      if (!isOn) return
      const window = Math.cbrt((lastMax * (1 - beta)) / scale)
      update(Math.min(scale * (seconds - throttledAt - window) ** 3 + lastMax, 2 * measured), seconds)
    },
    rejected: (_, now) => {
      const seconds = now / 1000
      measure(seconds)
      lastMax = isOn ? Math.min(measured, rate) : measured
      throttledAt = seconds
      isOn = true
      update(beta * lastMax, seconds)
      return "isolated"
    },
    overloaded: isolated
  }
}

/**
 * Client-side throttling of Google's SRE book: a client refuses its own call with probability
 * (requests - 2 accepts) / (requests + 1), over the verdicts of two minutes.
 */
export const sre: MakeLaw = ({ seed }) => {
  const prng = Prng.make(seed, 5)
  const seconds = 120
  const requests = new Float64Array(seconds)
  const accepts = new Float64Array(seconds)
  let second = 0
  const sums = { requests: 0, accepts: 0 }

  const count = (now: number, isAccepted: boolean) => {
    for (; second < Math.floor(now / 1000); second++) {
      const oldest = (second + 1) % seconds
      sums.requests -= requests[oldest]!
      sums.accepts -= accepts[oldest]!
      requests[oldest] = accepts[oldest] = 0
    }
    requests[second % seconds]!++
    sums.requests++
    if (!isAccepted) return
    accepts[second % seconds]!++
    sums.accepts++
  }
  return {
    refuses: (_, now) => {
      const isRefused = prng.next() < (sums.requests - 2 * sums.accepts) / (sums.requests + 1)
      if (isRefused) count(now, false)
      return isRefused
    },
    ask: () => 0,
    send: () => undefined,
    answered: (_, _used, now) => count(now, true),
    rejected: (_, now) => {
      count(now, false)
      return "isolated"
    },
    overloaded: (_, now) => {
      count(now, false)
      return "isolated"
    }
  }
}

export const rivals: { readonly [name: string]: MakeLaw } = {
  "retry-after": retryAfter,
  sdk: sdk(2),
  "sdk-10": sdk(10),
  patient,
  aimd,
  aws,
  sre,
  oracle
}
