/**
 * An acceleration limit: usage may grow by a factor a minute, from a part of the limit on.
 *
 * It is a bucket whose rate follows the usage of the last minute, an exponential mean: at `usage * (1 + ln growth)` the mean
 * grows by exactly `growth` a minute. The bucket holds what the rate fills in 5 seconds, and a call that is larger may go
 * when it is full.
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
