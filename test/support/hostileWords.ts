/**
 * Every operation of a budget with absurd numbers. Whatever the arguments, figures stay finite, an argument is refused by
 * name or applied, and once the original limits are restored, calls go out within hours.
 */
import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import type * as Budget from "floodgate/Budget"
import * as Limits from "floodgate/Limits"
import * as Amounts from "../../src/domain/amounts.ts"

export const odd = [NaN, Infinity, -Infinity, -1, 0, 5e-324, 0.5, 1, 100, 1e12, 1e16, 1e308]
const number = Schema.Literals(odd.map((_, i) => i)).pipe((index) => Schema.optionalKey(index))
const dimension = Schema.Literals(Limits.Dimension.literals)
const amounts = Schema.Struct({ requests: number, inputTokens: number, outputTokens: number, tokens: number })

/** One operation, whose numbers are indices into the list of odd ones. */
export const Word = Schema.Union([
  Schema.Struct({
    say: Schema.Literal("observe"),
    dimension,
    limit: number,
    remaining: number,
    roundedTo: number
  }),
  Schema.Struct({
    say: Schema.Literal("cooldown"),
    reason: Schema.Literals(["rateLimit", "ramp", "overload"]),
    retryAfter: number,
    usage: amounts
  }),
  Schema.Struct({
    say: Schema.Literal("resize"),
    dimension,
    perSecond: number,
    burst: number,
    concurrency: number
  }),
  Schema.Struct({ say: Schema.Literal("reserve"), estimate: amounts, usage: amounts, maxWait: number, weight: number })
])
export type Word = (typeof Word)["Type"]

export const limits: Limits.Limits = {
  requests: { perSecond: 10 },
  inputTokens: { perSecond: 1_000 },
  outputTokens: { perMinute: 60_000 },
  tokens: { perMinute: 60_000, window: "bucket" }
}

const at = <A extends Record<string, number | undefined>>(indices: A): { [K in keyof A]: number } =>
  Object.fromEntries(Object.entries(indices).map(([key, i]) => [key, i === undefined ? undefined : odd[i]])) as never

/** Performs one operation. `withUsage` also reports its usage, which may leave a debt. */
export const say = (
  budget: Budget.TokenBudget["Service"],
  word: Word,
  withUsage: boolean,
  patience: Effect.Effect<unknown>
): Effect.Effect<void> => {
  const said = Effect.scoped(
    Effect.suspend(() => {
      switch (word.say) {
        case "observe": {
          const { dimension, say: _, ...figures } = word
          const signal = { dimensions: { [dimension]: at(figures) } }
          return Effect.flatMap(budget.reserve({ tokens: 1 }, { maxWait: 0 }), (reservation) =>
            Effect.andThen(reservation.observe(signal), reservation.refund)
          ).pipe(Effect.catch(() => budget.observe(signal)))
        }
        case "cooldown": {
          const { reason, usage } = word
          const { retryAfter } = at({ retryAfter: word.retryAfter })
          return Effect.flatMap(budget.reserve({ tokens: 1 }, { maxWait: 0 }), (reservation) =>
            reservation.fail({ reason, retryAfter, usage: withUsage ? at(usage) : Amounts.nothing })
          ).pipe(Effect.catch(() => budget.pause({ reason, duration: retryAfter ?? 0 })))
        }
        case "resize": {
          const { burst, concurrency, dimension, perSecond } = word
          const changed = { ...limits, [dimension]: at({ perSecond, burst }) }
          return budget.resize({ limits: changed, ...at({ concurrency }) })
        }
        default: {
          const { estimate, maxWait, usage, weight } = word
          return Effect.flatMap(budget.reserve(at(estimate), at({ maxWait, weight })), (reservation) =>
            withUsage ? reservation.settle(at(usage)) : reservation.refund
          )
        }
      }
    })
  )
  return Effect.gen(function* () {
    // A call that would have to wait gives up.
    const exit = yield* Effect.exit(Effect.raceFirst(said, patience))
    if (Exit.isSuccess(exit) || !Cause.hasDies(exit.cause)) return
    assert.match(Cause.pretty(exit.cause), /^RangeError: [\w.: ]+: expected /, JSON.stringify(word))
  })
}

/** Every figure in the status is finite and within its bounds. */
export const assertReadable = (status: Budget.BudgetStatus): void => {
  const pool = status.pools.default
  if (pool === undefined) return
  for (const [name, figures] of Object.entries(pool.dimensions)) {
    const { capacity, level, limitPerSecond, perSecond } = figures
    const told = `${name}: ${JSON.stringify(figures)}`
    assert.isTrue(Object.values(figures).every(Number.isFinite), told)
    assert.isTrue(level <= capacity && capacity >= 0, told)
    assert.isTrue(perSecond >= 0 && perSecond <= limitPerSecond, told)
  }
  assert.isAtMost(pool.pause?.leftMillis ?? 0, 3_600_000)
}

/** Every operation with every odd number, in all of its arguments and in one. */
export const everyWord: ReadonlyArray<Word> = odd.flatMap((_, i): ReadonlyArray<Word> => {
  const amounts = { requests: i, inputTokens: i, outputTokens: i, tokens: i }
  return [
    { say: "observe", dimension: "tokens", limit: i, remaining: i, roundedTo: i },
    { say: "observe", dimension: "tokens", remaining: 8, roundedTo: i },
    { say: "cooldown", reason: "rateLimit", retryAfter: i, usage: {} },
    { say: "cooldown", reason: "ramp", usage: amounts },
    { say: "resize", dimension: "tokens", perSecond: i, burst: i },
    { say: "resize", dimension: "tokens", perSecond: 8, concurrency: i },
    { say: "reserve", estimate: {}, usage: amounts },
    { say: "reserve", estimate: amounts, usage: {}, maxWait: i, weight: i }
  ]
})
