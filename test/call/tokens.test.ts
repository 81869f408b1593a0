import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { RetryTokens } from "../../src/call/retryBudget.ts"

const between = (minimum: number, maximum: number) => Schema.Finite.check(Schema.isBetween({ minimum, maximum }))
const count = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 40 }))

const histories = {
  ratio: between(0, 1),
  minPerSecond: between(0, 5),
  events: Schema.Array(
    Schema.Struct({ after: between(0, 5_000), begin: count, take: count, end: count, giveBack: count })
  )
}
const runs = { arbitrary: { runs: 300 } }

describe("retry tokens", () => {
  it.prop(
    "let no more retries go by any time than the share of the calls and the floor allow",
    histories,
    ({ events, minPerSecond, ratio }) => {
      const rule = { ratio, minPerSecond }
      const tokens = new RetryTokens(rule, 0)
      const made: Array<number> = []
      let now = 0
      let ended = 0
      let most = minPerSecond * 10
      for (const { after, begin, end, take } of events) {
        now += after
        for (let n = 0; n < begin; n++) tokens.begin(now)
        most = Math.max(most, tokens.open)
        for (let n = 0; n < take; n++) made.push(now + tokens.take(now))
        for (let n = 0; n < end && tokens.open > 0; n++) {
          tokens.end(now)
          ended++
        }
        for (const time of [now, now + 1_000, now + 60_000]) {
          const gone = made.filter((at) => at <= time).length
          assert.isAtMost(gone, most + (most * time) / 10_000 + ratio * ended + 1e-6)
        }
      }
    },
    runs
  )

  it.prop(
    "let every retry of a call in flight go at some time",
    histories,
    ({ events, minPerSecond, ratio }) => {
      const rule = { ratio, minPerSecond }
      const tokens = new RetryTokens(rule, 0)
      let now = 0
      for (const { after, begin, giveBack, take } of events) {
        now += after
        for (let n = 0; n <= begin; n++) tokens.begin(now)
        for (let n = 0; n < take; n++) {
          const wait = tokens.take(now)
          assert.isTrue(wait >= 0 && wait < Infinity)
        }
        for (let n = 0; n < giveBack; n++) tokens.giveBack()
        assert.isAtMost(tokens.balance(now), Math.max(minPerSecond * 10, tokens.open) + 1e-6)
      }
    },
    runs
  )

  it("return with time as fast as the calls that were in flight then allow, whatever begins or ends later", () => {
    const spending = (calls: number) => {
      const tokens = new RetryTokens({ ratio: 0, minPerSecond: 1 }, 0)
      for (let n = 0; n < calls; n++) tokens.begin(0)
      for (let n = 0; n < Math.max(10, calls); n++) tokens.take(0)
      return tokens
    }
    const few = spending(0)
    for (let n = 0; n < 20; n++) few.begin(5_000)
    assert.strictEqual(few.balance(5_000), 20 - 5)
    const many = spending(20)
    for (let n = 0; n < 10; n++) many.end(5_000)
    assert.strictEqual(many.balance(5_000), 10 - 10)
  })

  it("allow no retry without calls and without a minimum", () => {
    const rule = { ratio: 1, minPerSecond: 0 }
    assert.strictEqual(new RetryTokens(rule, 0).take(0), Infinity)
  })

  it("are not replenished by a clock that is set back", () => {
    const rule = { ratio: 0, minPerSecond: 1 }
    const tokens = new RetryTokens(rule, 60_000)
    for (let n = 0; n < 10; n++) tokens.take(60_000)
    assert.strictEqual(tokens.balance(0), 0)
    assert.strictEqual(tokens.balance(1_000), 1)
  })
})
