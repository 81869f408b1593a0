/**
 * An acceleration limit: above a fraction of the limit, usage may only grow by a factor per minute.
 *
 * It is a bucket whose rate follows an exponential mean of the usage of the last minute: at `usage * (1 + ln growth)` that
 * mean grows by exactly `growth` per minute. The bucket holds 5 seconds of the rate; a larger call may go when it is full.
 */
export interface Ramp {
  readonly waitFor: (amount: number, now: number) => number
  readonly take: (amount: number, now: number) => void
}

const minute = 60_000
const burstMillis = 5000

export const make = (growth: number, from: number, perMilli: number): Ramp => {
  let usage = 0
  let at = 0
  const rate = () => Math.min(perMilli, Math.max(from * perMilli, usage * (1 + Math.log(growth))))
  let level = rate() * burstMillis

  const advance = (now: number) => {
    level = Math.min(rate() * burstMillis, level + rate() * (now - at))
    usage *= Math.exp((at - now) / minute)
    at = now
  }
  return {
    waitFor: (amount, now) => {
      advance(now)
      return Math.max(0, (Math.min(amount, rate() * burstMillis * 0.99) - level) / rate())
    },
    take: (amount, now) => {
      advance(now)
      level -= amount
      usage += amount / minute
    }
  }
}
