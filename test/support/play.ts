/**
 * Plays callers against a provider with pacing alone, without a queue, fibers or a clock. The law is an argument, so that the
 * same checks run over a copy with a fault.
 */
import type * as Limits from "floodgate/Limits"
import * as Amounts from "../../src/domain/amounts.ts"
import * as Rules from "../../src/domain/rules.ts"
import type * as Pacer from "../../src/pacing/pacer.ts"
import { type Outcome, Provider, type Weather } from "./provider.ts"
import { mulberry } from "./random.ts"

export type TheLaw = typeof Pacer

/** A call with only input tokens. */
export const whole = (tokens: number): Amounts.Whole => ({ requests: 1, inputTokens: tokens, outputTokens: 0, tokens })

/** The headers of a response: the limit in tokens per millisecond, and what is left. */
export const readings = (limit: number | undefined, remaining: number | undefined, roundedTo = 1): Pacer.Readings => ({
  tokens: { limit, remaining, roundedTo }
})

export interface Play {
  readonly weather: Weather
  readonly limits?: Limits.Limits | undefined
  /** The number of callers; each makes one call after the other. */
  readonly callers: number
  readonly millis: number
  readonly seed: number
  /** @default 1,000 tokens, or from a half to one and a half of it */
  readonly size?: ((random: () => number) => number) | undefined
  /** Called before each step, for events from outside. */
  readonly step?: ((pool: Pacer.Pacer, now: number) => void) | undefined
}

export interface Attempt {
  readonly call: number
  readonly at: number
  readonly tokens: number
  readonly inFlight: number
  readonly outcome: Outcome
  endedAt: number | undefined
  verdict: Pacer.Verdict | undefined
}

interface Call {
  readonly id: number
  readonly tokens: number
  /** Isolated failures of this call. */
  failures: number
}

interface Event {
  readonly at: number
  readonly run: () => void
}

const attempts = 5

export const play = (law: TheLaw, { callers, limits = {}, millis, seed, size, step, weather }: Play) => {
  const random = mulberry(seed)
  const provider = new Provider(weather, mulberry(seed + 1_000_000))
  const pool = law.make(Rules.resolve(limits), Rules.shares(limits), 0)
  const sent: Array<Attempt> = []
  const lost: Array<number> = []
  const queue: Array<Call> = []
  const agenda: Array<Event> = []
  let ids = 0
  let now = 0
  const at = (time: number, run: () => void) => void agenda.push({ at: time, run })
  const next = () => queue.push({ id: ids++, tokens: size?.(random) ?? Math.ceil(500 + 1_000 * random()), failures: 0 })
  const again = (call: Call) => void queue.unshift(call)

  const signalOf = ({ remaining }: Outcome) => (remaining === undefined ? undefined : readings(weather.rate, remaining))

  const fail = (call: Call, attempt: Attempt, verdict: Pacer.Verdict) => {
    attempt.verdict = verdict
    // In an outage, each probe is another call.
    if (verdict === "outage") return void queue.push(call)
    if (verdict !== "isolated") return again(call)
    if (++call.failures >= attempts) {
      lost.push(call.id)
      return next()
    }
    return at(now + random() * 2_000 * 2 ** (call.failures - 1), () => again(call))
  }

  const send = (call: Call, admission: Pacer.Admission) => {
    const outcome = provider.arrive(call.id, call.tokens, now)
    const { inFlight } = pool
    const attempt: Attempt = {
      call: call.id,
      at: now,
      tokens: call.tokens,
      inFlight,
      outcome,
      endedAt: undefined,
      verdict: undefined
    }
    sent.push(attempt)
    at(now + outcome.after, () => {
      attempt.endedAt = now
      const used = Amounts.nothing
      switch (outcome.kind) {
        case "accepted": {
          provider.leave()
          law.accept(pool, admission)
          const signal = signalOf(outcome)
          if (signal !== undefined) law.observe(pool, admission, signal, now)
          law.settle(pool, admission, whole(call.tokens), now)
          return next()
        }
        case "rejected": {
          const rejection = { reason: "rateLimit" as const, retryAfter: undefined, readings: signalOf(outcome), used }
          return fail(call, attempt, law.reject(pool, admission, rejection, now))
        }
        case "overloaded":
          return fail(call, attempt, law.overload(pool, admission, { retryAfter: undefined, used }, now))
      }
    })
  }

  for (let i = 0; i < callers; i++) next()
  while (now < millis) {
    step?.(pool, now)
    let wakeAt = step === undefined ? Infinity : now + 1_000
    for (let call = queue[0]; call !== undefined; call = queue[0]) {
      const blocked = law.decide(pool, whole(call.tokens), now)
      if (blocked !== undefined) {
        wakeAt = Math.min(wakeAt, now + Math.max(1, Math.ceil(blocked.millis)))
        break
      }
      queue.shift()
      send(call, law.take(pool, whole(call.tokens), now))
    }
    let first = 0
    for (let i = 1; i < agenda.length; i++) if (agenda[i]!.at < agenda[first]!.at) first = i
    const event = agenda[first]
    if (event !== undefined && event.at <= wakeAt) {
      agenda[first] = agenda.at(-1)!
      agenda.pop()
      now = event.at
      event.run()
    } else if (wakeAt < Infinity) now = wakeAt
    else break
  }
  provider.advance(now)
  const rejected = sent.filter(({ outcome }) => outcome.kind === "rejected")
  return {
    pool,
    sent,
    lost,
    /** The accepted tokens, as a fraction of those available. */
    used: provider.accepted / provider.available,
    /** Rejections that were not random, per call. */
    rejected: rejected.filter(({ outcome }) => !outcome.isRandom).length / sent.length
  }
}
