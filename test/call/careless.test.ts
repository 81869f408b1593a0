import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { LlmError, RateLimited, TimedOut } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import * as Spending from "floodgate/Spending"

// Accountings, usages and callbacks of users may throw or be invalid. A call still frees its slot.

const live = Governor.layer({
  prices: { "my-model": { input: 1, output: 2 } },
  retry: Retry.make({ attempts: 1 })
}).pipe(Layer.provideMerge(Budget.layer({ limits: { tokens: { perMinute: 1_000_000 } }, concurrency: 1 })))

const call: Governor.Call = { model: "my-model", bytes: 0, inputTokens: 1_000, maxTokens: 100 }

const broken = (usage: Accounting.Accounting["usage"]): Accounting.Accounting => ({ ...Accounting.anthropic, usage })

const throws = (): never => {
  throw new Error("a bug of the user's")
}

const accountings = {
  sound: Accounting.anthropic,
  throwing: broken(throws),
  empty: broken(() => undefined as never),
  odd: broken(() => ({ inputTokens: NaN, outputTokens: -1, tokens: Infinity }))
}

const figures = {
  "sound figures": { inputTokens: 900, outputTokens: 50 },
  nothing: undefined,
  null: null as never,
  "a text": "many" as never,
  "odd figures": { inputTokens: "9" as never, outputTokens: NaN, cacheReadTokens: -5 }
}

type Attempt = (ticket: Governor.Ticket) => Effect.Effect<Governor.Outcome<string>, unknown>

const seen = (ticket: Governor.Ticket, actual: Accounting.Actual | undefined) =>
  Effect.sync(() => {
    if (actual !== undefined) ticket.recordUsage(actual)
  })

const trap = {
  get isRetryable() {
    return throws()
  }
}

const ends: Readonly<Record<string, (given: Accounting.Actual | undefined) => Attempt>> = {
  succeeds: (actual) => () => Effect.succeed({ value: "", actual }),
  fails: (actual) => (ticket) =>
    Effect.andThen(
      seen(ticket, actual),
      Effect.fail(new LlmError({ reason: new TimedOut({ after: Duration.seconds(1) }) }))
    ),
  "is rejected": () => () => Effect.fail(new LlmError({ reason: new RateLimited({}) })),
  "fails with fields that throw": (actual) => (ticket) => Effect.andThen(seen(ticket, actual), Effect.fail(trap)),
  dies: (actual) => (ticket) => Effect.andThen(seen(ticket, actual), Effect.die("a bug")),
  "is interrupted": (actual) => (ticket) => Effect.andThen(seen(ticket, actual), Effect.interrupt)
}

const cases = Object.keys(ends).flatMap((end) =>
  Object.keys(figures).flatMap((figure) => Object.keys(accountings).map((accounting) => ({ accounting, end, figure })))
)

describe("a call gives back its place and its money", () => {
  it.effect.each(cases)("that $end with $figure, by an accounting that is $accounting", ({ accounting, end, figure }) =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const budget = yield* Budget.TokenBudget
      const purse = Spending.make("us", { dollars: 1 }, { changed: throws })
      const attempt = ends[end]!(figures[figure as keyof typeof figures])
      const how = { ...call, accounting: accountings[accounting as keyof typeof accountings] }
      yield* Effect.exit(governor.run(how, attempt, { purses: [purse] }))
      const { held, spent } = yield* purse.status
      assert.strictEqual(held, 0)
      assert.isTrue(spent >= 0 && spent < 0.01, `it cost ${spent}`)
      const pools = Object.values((yield* budget.status).pools)
      for (const { dimensions, inFlight } of pools) {
        assert.strictEqual(inFlight, 0)
        for (const { level } of Object.values(dimensions)) assert.isTrue(Number.isFinite(level), `a level is ${level}`)
      }
      // The only slot is free.
      yield* Effect.scoped(budget.reserve({ tokens: 1 }))
    }).pipe(Effect.provide(live))
  )
})
