import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Limits from "floodgate/Limits"
import * as Signals from "floodgate/Signals"
import { type Effort, options } from "./kept.ts"

const prefix = "anthropic-ratelimit"
const names = [
  ...["requests", "input-tokens", "output-tokens", "tokens"].flatMap((name) =>
    ["limit", "remaining", "reset"].map((field) => `${prefix}-${name}-${field}`)
  ),
  ...["", "-requests", "-tokens", "-project-tokens"].flatMap((name) =>
    ["limit", "remaining", "reset"].map((field) => `x-ratelimit-${field}${name}`)
  ),
  "ratelimit",
  "ratelimit-policy",
  "ratelimit-limit",
  "ratelimit-remaining",
  "ratelimit-reset",
  "retry-after",
  "retry-after-ms",
  "date"
]

const piece = Schema.Union([
  Schema.String,
  Schema.Literals([
    "0",
    "1",
    "7",
    "1000",
    "9".repeat(17),
    "-",
    "+",
    ".",
    "e",
    "e300",
    "0x10",
    "_",
    " ",
    "\t",
    "NaN",
    "Infinity"
  ]),
  Schema.Literals([
    "ms",
    "s",
    "m",
    "h",
    "d",
    ";",
    "=",
    ",",
    '"',
    "q=100",
    "w=60",
    "r=5",
    "t=10",
    "qu=tokens",
    "__proto__"
  ]),
  Schema.Literals([
    "1970-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Fri, 01 Jan 2100 00:00:00 GMT"
  ])
])
const response = Schema.Array(Schema.Tuple([Schema.Literals(names), Schema.Array(piece)]))
const amount = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2_000_000 }))

const recordOf = (pairs: typeof response.Type): Record<string, string> =>
  Object.fromEntries(pairs.map(([name, pieces]) => [name, pieces.join("").slice(0, 8_000)]))

const now = 1_795_521_600_000
/** No header is believed for longer than an hour; after that a call waits for minutes at most. */
const hour = 3_600_000
const minutes = 3 * 60_000
const limits = { requests: { perMinute: 1_000 }, inputTokens: { perMinute: 2_000_000 } }

export const headers = (effort: Effort): void => {
  describe("headers", () => {
    it.prop(
      "say the same as a record, as a Headers object and in any order of their names",
      { response },
      ({ response }) => {
        const record = recordOf(response)
        const entries = Object.entries(record)
        const reversed = Object.fromEntries(entries.toReversed())
        const object = { get: (name: string) => record[name] ?? null }
        assert.deepStrictEqual(Signals.fromHeaders(object), Signals.fromHeaders(record))
        assert.deepStrictEqual(Signals.fromHeaders(reversed), Signals.fromHeaders(record))
        const askedBy = (headers: object) => Signals.fromError({ status: 429, headers }, now).retryAfter
        assert.deepStrictEqual(askedBy(object), askedBy(record))
      },
      options(effort, 4)
    )

    it.prop(
      "are read as they were written, by every family",
      {
        limit: amount,
        remaining: amount,
        seconds: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 86_400 }))
      },
      ({ limit, remaining, seconds }) => {
        const left = Math.min(limit, remaining)
        const expected = limit < 1 ? undefined : { limit, remaining: left, roundedTo: 1 }
        const reset = new Date(now + seconds * 1_000).toISOString()
        const go = `${Math.floor(seconds / 3_600)}h${Math.floor((seconds % 3_600) / 60)}m${seconds % 60}s`
        const families: ReadonlyArray<Record<string, string>> = [
          {
            [`${prefix}-requests-limit`]: `${limit}`,
            [`${prefix}-requests-remaining`]: `${remaining}`,
            [`${prefix}-requests-reset`]: reset
          },
          {
            "x-ratelimit-limit-requests": `${limit}`,
            "x-ratelimit-remaining-requests": `${remaining}`,
            "x-ratelimit-reset-requests": go
          },
          { "ratelimit-policy": `"p";q=${limit};w=60`, ratelimit: `"p";r=${remaining};t=${seconds}` },
          {
            "ratelimit-limit": `${limit}, ${limit};w=60`,
            "ratelimit-remaining": `${remaining}`,
            "ratelimit-reset": `${seconds}`
          }
        ]
        for (const family of families) {
          assert.deepStrictEqual(Signals.fromHeaders(family)?.dimensions.requests, expected, JSON.stringify(family))
        }
      },
      options(effort, 4)
    )

    it.effect.prop(
      "leave a budget that is finite, never above its limits, and lets the next call in",
      { responses: Schema.Array(response), configured: Schema.Boolean },
      ({ configured, responses }) =>
        Effect.gen(function* () {
          const budget = yield* Budget.TokenBudget
          for (const response of responses) {
            const record = recordOf(response)
            const reservation = yield* Effect.scoped(
              Effect.tap(Effect.option(budget.reserve({ inputTokens: 500 }, { maxWait: 0 })), (held) =>
                held._tag === "None" ? Effect.void : held.value.settle({ inputTokens: 400 })
              )
            )
            const signal = Signals.fromHeaders(record)
            const held = reservation._tag === "Some" ? reservation.value : undefined
            if (signal !== undefined) yield* held === undefined ? budget.observe(signal) : held.observe(signal)
            if ("retry-after" in record) {
              const { retryAfter } = Signals.fromError({ status: 429, headers: record }, now)
              yield* held === undefined
                ? budget.pause({ duration: retryAfter ?? 0 })
                : held.fail({ reason: "rateLimit", retryAfter })
            }
            for (const pool of Object.values((yield* budget.status).pools)) {
              for (const dimension of Limits.Dimension.literals) {
                const said = pool.dimensions[dimension]
                if (said === undefined) continue
                const { capacity, level, perSecond } = said
                assert.isTrue([capacity, level, perSecond].every(Number.isFinite), JSON.stringify(said))
                assert.isTrue(level <= capacity && perSecond > 0, JSON.stringify(said))
                const most = { requests: 1_000, inputTokens: 2_000_000 }[dimension as "requests"]
                if (configured && most !== undefined) assert.isAtMost(capacity + perSecond * 60, most * (1 + 1e-9))
              }
            }
          }
          yield* TestClock.adjust(hour)
          const next = yield* Effect.forkChild(Effect.scoped(budget.reserve({ inputTokens: 500 })))
          yield* TestClock.adjust(minutes)
          assert.strictEqual(next.pollUnsafe()?._tag, "Success")
        }).pipe(Effect.provide(Budget.layer({ limits: configured ? limits : undefined }))),
      options(effort)
    )
  })
}
