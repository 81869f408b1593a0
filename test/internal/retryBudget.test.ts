import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as Budget from "../../src/internal/retryBudget.ts"

const rule = { ratio: 0.2, minPerSecond: 0 }

const run = (rule: Budget.Rule, events: ReadonlyArray<readonly [now: number, event: Budget.Event]>) => {
  let state = Budget.empty
  const allowed: Array<boolean> = []
  for (const [now, event] of events) {
    const decision = Budget.step(rule, state, now, event)
    state = decision.state
    if (event === "retry") allowed.push(decision.allowed)
  }
  return { state, allowed }
}

const calls = (count: number, now: number) => Array.from({ length: count }, () => [now, "call"] as const)

describe("retryBudget", () => {
  it("allows one retry for five calls at a fifth", () => {
    assert.deepStrictEqual(run(rule, [...calls(4, 0), [0, "retry"]]).allowed, [false])
    assert.deepStrictEqual(run(rule, [...calls(5, 0), [0, "retry"], [0, "retry"]]).allowed, [true, false])
  })

  it("begins with the floor of ten seconds", () => {
    const { allowed } = run({ ratio: 0, minPerSecond: 0.2 }, [
      [0, "retry"],
      [0, "retry"],
      [0, "retry"]
    ])
    assert.deepStrictEqual(allowed, [true, true, false])
  })

  it("forgets a second when ten have passed", () => {
    const { state } = run(rule, calls(5, 999))
    assert.isTrue(Budget.step(rule, state, 9_999, "retry").allowed)
    assert.isFalse(Budget.step(rule, state, 10_000, "retry").allowed)
  })

  it("forgets the future when the clock is set back", () => {
    const { state } = run({ ratio: 0, minPerSecond: 0.1 }, [[3_600_000, "retry"]])
    assert.isTrue(Budget.step({ ratio: 0, minPerSecond: 0.1 }, state, 0, "retry").allowed)
  })

  it("counts 0.29 x 100 calls as 29 retries although the product falls short", () => {
    const retries = Array.from({ length: 30 }, () => [0, "retry"] as const)
    const { allowed } = run({ ratio: 0.29, minPerSecond: 0 }, [...calls(100, 0), ...retries])
    assert.strictEqual(allowed.filter(Boolean).length, 29)
  })

  it.prop(
    "never lets retries in a window pass the share of its calls plus the floor",
    {
      ratio: Schema.Literals([0, 0.1, 0.2, 0.5, 1]),
      minPerSecond: Schema.Literals([0, 0.3, 1, 2]),
      events: Schema.Array(
        Schema.Struct({
          after: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 3_000 })),
          event: Schema.Literals(["call", "retry", "retry"])
        })
      )
    },
    ({ events, minPerSecond, ratio }) => {
      const rule = { ratio, minPerSecond }
      let state = Budget.empty
      let now = 0
      const seen: Array<{ readonly second: number; readonly event: Budget.Event }> = []
      for (const { after, event } of events) {
        now += after
        const second = Math.floor(now / 1_000)
        const decision = Budget.step(rule, state, now, event)
        state = decision.state
        const window = seen.filter((one) => one.second > second - Budget.windowSeconds)
        const count = (event: Budget.Event) => window.filter((one) => one.event === event).length
        const room = ratio * count("call") + minPerSecond * 10 - count("retry")
        if (event === "retry") assert.strictEqual(decision.allowed, room >= 1 - 1e-9)
        if (decision.allowed) seen.push({ second, event })
        assert.isTrue(state.length <= Budget.windowSeconds)
      }
    },
    { arbitrary: { runs: 300 } }
  )
})
