/**
 * How a provider counts one dimension: with a token bucket, over the last 60 seconds, or per minute of the clock.
 *
 * Times are in milliseconds and never go back. The room can become negative, because output counts when it is produced.
 */
export interface Meter {
  /** The amount that may be taken now. */
  readonly room: (now: number) => number
  readonly take: (amount: number, now: number) => void
  /** Milliseconds until there is room for an amount if nothing else is taken; Infinity if there never is. */
  readonly waitFor: (amount: number, now: number) => number
  readonly resize: (perMinute: number, burst: number, now: number) => void
}
export type Window = "bucket" | "sliding" | "fixed"

const minute = 60_000

/** A bucket that refills continuously, holds at most the burst, and starts full. */
const bucket = (perMinute: number, burst: number): Meter => {
  let rate = perMinute / minute
  let size = burst
  let level = burst
  let at = 0
  const room = (now: number) => {
    level = Math.min(size, level + rate * (now - at))
    at = now
    return level
  }
  return {
    room,
    take: (amount, now) => {
      level = room(now) - amount
    },
    waitFor: (amount, now) => {
      if (amount > size) return Infinity
      return Math.max(0, (amount - room(now)) / rate)
    },
    resize: (perMinute, burst, now) => {
      level = Math.min(burst, room(now))
      rate = perMinute / minute
      size = burst
    }
  }
}

/** Limits what is taken in any 60 seconds. */
const sliding = (perMinute: number): Meter => {
  let limit = perMinute
  let sum = 0
  let first = 0
  const times: Array<number> = []
  const amounts: Array<number> = []
  const room = (now: number) => {
    while (first < times.length && times[first]! <= now - minute) sum -= amounts[first++]!
    if (first > 10_000 && first * 2 > times.length) {
      times.splice(0, first)
      amounts.splice(0, first)
      first = 0
    }
    return limit - sum
  }
  return {
    room,
    take: (amount, now) => {
      room(now)
      times.push(now)
      amounts.push(amount)
      sum += amount
    },
    waitFor: (amount, now) => {
      let missing = amount - room(now)
      if (missing <= 0) return 0
      for (let i = first; i < times.length; i++) {
        missing -= amounts[i]!
        if (missing <= 0) return times[i]! + minute - now
      }
      return Infinity
    },
    resize: (perMinute) => {
      limit = perMinute
    }
  }
}

/** Limits what is taken in each minute of the provider's clock, which is `phase` ahead of ours. */
const fixed = (perMinute: number, phase: number): Meter => {
  let limit = perMinute
  let sum = 0
  let current = 0
  const room = (now: number) => {
    const index = Math.floor((now + phase) / minute)
    if (index !== current) sum = 0
    current = index
    return limit - sum
  }
  return {
    room,
    take: (amount, now) => {
      room(now)
      sum += amount
    },
    waitFor: (amount, now) => {
      if (amount > limit) return Infinity
      return amount <= room(now) ? 0 : minute - ((now + phase) % minute)
    },
    resize: (perMinute) => {
      limit = perMinute
    }
  }
}

export const make = (
  window: Window,
  limit: { readonly perMinute: number; readonly burst: number },
  phase: number
): Meter => {
  switch (window) {
    case "bucket":
      return bucket(limit.perMinute, limit.burst)
    case "sliding":
      return sliding(limit.perMinute)
    case "fixed":
      return fixed(limit.perMinute, phase)
  }
}
