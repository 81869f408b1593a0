/**
 * Callers that use a budget against a provider as the governor does: they reserve, send, settle, and retry failed calls. A
 * failure counts as an attempt only if the budget judges it isolated.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import type * as Budget from "floodgate/Budget"
import type { Make } from "./history.ts"
import { type Outcome, Provider, type Weather } from "./provider.ts"
import { mulberry } from "./random.ts"
import { retryOf, type Verdict } from "./budget.ts"

export interface Traffic {
  readonly weather: Weather
  readonly limits?: Budget.Options["limits"]
  readonly concurrency?: number
  /** The number of callers; each makes its calls one after the other. */
  readonly callers: number
  readonly calls: number
  readonly seed: number
  /** @default from 500 to 1,500 tokens */
  readonly size?: (random: () => number) => number
  /** Whether all callers are one agent. @default false */
  readonly isOneAgent?: boolean
  readonly millis: number
}

export interface Attempt {
  readonly call: number
  readonly sentAt: number
  readonly tokens: number
  readonly outcome: Outcome
  verdict: Verdict | undefined
}

const attempts = 5

export const run = (
  make: Make,
  { callers, calls, concurrency, isOneAgent, limits, millis, seed, size, weather }: Traffic
) =>
  Effect.gen(function* () {
    const random = mulberry(seed)
    const provider = new Provider(weather, mulberry(seed + 1_000_000))
    const budget = yield* make({ limits, concurrency })
    const sent: Array<Attempt> = []
    const lost: Array<number> = []
    const finishedAt: Array<number> = []
    let ids = 0

    const attempt = (call: number, tokens: number, agent: string, first: boolean) =>
      Effect.gen(function* () {
        const charge = { requests: 1, inputTokens: tokens, outputTokens: 0, tokens }
        const reservation = yield* budget.reserve(charge, retryOf({ agent }, first))
        const now = yield* Clock.currentTimeMillis
        const outcome = provider.arrive(call, tokens, now)
        const { after, kind, remaining } = outcome
        const made: Attempt = { call, sentAt: now, tokens, outcome, verdict: undefined }
        sent.push(made)
        yield* Effect.sleep(Math.ceil(after))
        const signal =
          remaining === undefined ? undefined : { dimensions: { tokens: { limit: weather.rate * 60_000, remaining } } }
        if (kind === "accepted") {
          provider.leave()
          if (signal !== undefined) yield* reservation.observe({ ...signal })
          yield* reservation.settle(charge)
          return undefined
        }
        const reason = kind === "rejected" ? "rateLimit" : "overload"
        return (made.verdict = yield* reservation.fail({ reason, signal }))
      }).pipe(Effect.scoped, Effect.orDie)

    const caller = Effect.fnUntraced(function* (number: number) {
      for (let i = 0; i < calls; i++) {
        const tokens = size?.(random) ?? Math.ceil(500 + 1_000 * random())
        const call = ids++
        let failures = 0
        let verdict: Verdict | undefined
        for (let n = 0; ; n++) {
          verdict = yield* attempt(
            call,
            tokens,
            isOneAgent === true ? "all" : `${number}`,
            n > 0 && verdict !== "outage"
          )
          if (verdict === undefined) break
          if (verdict !== "isolated") continue
          if (++failures >= attempts) {
            lost.push(call)
            break
          }
          yield* Effect.sleep(Math.ceil(random() * 2_000 * 2 ** (failures - 1)))
        }
      }
      finishedAt[number] = yield* Clock.currentTimeMillis
    })

    for (let number = 0; number < callers; number++) yield* Effect.forkChild(caller(number))
    yield* TestClock.adjust(millis)
    provider.advance(millis)
    const rejected = sent.filter(({ outcome }) => outcome.kind === "rejected" && !outcome.isRandom).length
    return {
      budget,
      sent,
      lost,
      finishedAt,
      used: provider.accepted / provider.available,
      rejected: rejected / sent.length
    }
  }).pipe(Effect.scoped, Effect.provide(TestClock.layer()))
