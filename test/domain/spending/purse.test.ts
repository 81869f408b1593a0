import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import type { Period } from "../../../src/domain/spending/ledger.ts"
import * as Purses from "../../../src/domain/spending/purse.ts"

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const purse = (limit: number, period: Period = { _tag: "Ever" }, name = "p") =>
  new Purses.PurseState(name, { limit, period, reserve: "most" })

/** A call: what it may cost, the share that it costs, the purses that pay, and the next event of the running calls. */
const Step = Schema.Struct({
  after: int(0, 40),
  max: int(0, 60),
  share: int(0, 100),
  payers: int(1, 7),
  event: Schema.Literals(["ask", "end", "interrupt", "giveUp"]),
  which: int(0, 100)
})

interface Open {
  readonly payment: Purses.Payment
  readonly cost: number
  readonly payers: ReadonlyArray<number>
}

const limits = [100, 150, 220]
const window = 300

describe("purses", () => {
  it.prop(
    "are never overspent, in any order of events, and hold nothing when all calls have ended",
    { steps: Schema.Array(Step).check(Schema.isMaxLength(120)), period: Schema.Literals(["ever", "window"]) },
    ({ period, steps }) => {
      const how: Period = period === "ever" ? { _tag: "Ever" } : { _tag: "Window", millis: window }
      const purses = limits.map((limit, index) => purse(limit, how, `p${index}`))
      const open: Array<Open> = []
      const waiting = new Set<{
        readonly waiter: Purses.Waiter
        readonly cost: number
        readonly payers: Array<number>
      }>()
      const spent: Array<{ readonly at: number; readonly cost: number; readonly payers: ReadonlyArray<number> }> = []
      let now = 0
      const arrived = () => {
        for (const one of waiting) {
          const { outcome } = one.waiter
          if (outcome === undefined) continue
          waiting.delete(one)
          if (outcome instanceof Purses.Payment) open.push({ payment: outcome, cost: one.cost, payers: one.payers })
        }
      }
      const end = (index: number, costs: boolean) => {
        const [one] = open.splice(index % open.length, 1)
        const cost = costs ? one!.cost : 0
        spent.push({ at: now, cost, payers: one!.payers })
        one!.payment.settle(cost, now)
        one!.payment.settle(cost, now)
      }
      const check = () => {
        for (const [index, limit] of limits.entries()) {
          const { ledger } = purses[index]!
          const from = period === "ever" ? -1 : now - window
          const used = spent.reduce(
            (sum, { at, cost, payers }) => (payers.includes(index) && at > from ? sum + cost : sum),
            0
          )
          assert.isAtMost(used, limit)
          assert.isAtMost(ledger.spent(now) + ledger.held, limit)
          assert.isAtLeast(ledger.held, 0)
        }
      }
      for (const { after, max, payers: bits, share, event, which } of steps) {
        now += after
        if (event === "end" && open.length > 0) end(which, true)
        else if (event === "interrupt" && open.length > 0) end(which, false)
        else if (event === "giveUp" && waiting.size > 0) {
          const one = [...waiting][which % waiting.size]!
          waiting.delete(one)
          Purses.leave(one.waiter, now)
        } else {
          const payers = [0, 1, 2].filter((index) => (bits & (1 << index)) !== 0)
          const bill = { purses: payers.map((index) => purses[index]!), max, expected: max }
          const cost = Math.floor((max * share) / 100)
          const taken = Purses.take(bill, now)
          if (taken instanceof Purses.Payment) open.push({ payment: taken, cost, payers })
          else if (taken instanceof Purses.PurseState) {
            waiting.add({ waiter: Purses.wait(bill, taken, () => {}), cost, payers })
          } else assert.isAbove(taken.asked, taken.left)
        }
        arrived()
        check()
      }
      // When all running calls have ended, no call waits.
      while (open.length > 0) {
        end(0, true)
        arrived()
        check()
      }
      assert.strictEqual(waiting.size, 0)
      for (const { ledger, waiting: queue } of purses) {
        assert.strictEqual(ledger.held, 0)
        assert.strictEqual(queue.size, 0)
      }
    }
  )

  it("serves calls in the order of arrival, also behind a large one", () => {
    const one = purse(100)
    const bill = (max: number) => ({ purses: [one], max, expected: max })
    const first = Purses.take(bill(80), 0) as Purses.Payment
    const order: Array<string> = []
    assert.strictEqual(Purses.take(bill(90), 0), one)
    Purses.wait(bill(90), one, () => order.push("large"))
    assert.strictEqual(Purses.take(bill(10), 0), one)
    const small = Purses.wait(bill(10), one, () => order.push("small"))
    first.settle(0, 0)
    assert.deepStrictEqual(order, ["large", "small"])
    assert.instanceOf(small.outcome, Purses.Payment)
  })

  it("refuses a call at once if it does not fit beside what was spent", () => {
    const one = purse(100)
    const bill = (max: number) => ({ purses: [one], max, expected: max })
    ;(Purses.take(bill(80), 0) as Purses.Payment).settle(70, 0)
    const { asked, left, until } = Purses.take(bill(31), 0) as Purses.CapRefusal
    assert.deepStrictEqual({ asked, left, until }, { asked: 31, left: 30, until: undefined })
    assert.instanceOf(Purses.take(bill(30), 0), Purses.Payment)
  })

  it("serves the others as if a call that gave up had never waited", () => {
    const one = purse(100)
    const bill = (max: number) => ({ purses: [one], max, expected: max })
    Purses.take(bill(60), 0)
    const large = Purses.wait(bill(50), one, () => {})
    let woken = false
    Purses.wait(bill(40), one, () => (woken = true))
    assert.isFalse(woken)
    Purses.leave(large, 0)
    assert.isTrue(woken)
    assert.strictEqual(one.ledger.held, 100)
  })

  for (const orders of [
    [[0, 1]],
    [[1, 0]],
    [
      [0, 1],
      [1, 0],
      [0, 1]
    ]
  ]) {
    it(`serves calls that wait for two purses although others always wait for one: ${orders.join(" and ")}`, () => {
      const both = [purse(100, undefined, "a"), purse(100, undefined, "b")]
      const bill = (of: ReadonlyArray<number>) => ({ purses: of.map((each) => both[each]!), max: 100, expected: 100 })
      const ask = (of: ReadonlyArray<number>) =>
        Purses.wait(bill(of), Purses.take(bill(of), 0) as Purses.PurseState, () => {})
      /** For each purse, one running and two waiting calls that it alone pays for. */
      const running = [0, 1].map((each) => Purses.take(bill([each]), 0) as Purses.Payment)
      const lines = [0, 1].map((each) => [ask([each]), ask([each])])
      const pairs = orders.map(ask)
      let turns = 0
      for (; pairs.some(({ outcome }) => outcome === undefined) && turns < 100; turns++) {
        const each = turns % 2
        running[each]!.settle(0, 0)
        for (const { outcome } of pairs) if (outcome instanceof Purses.Payment) outcome.settle(0, 0)
        const [line] = [lines[each]!]
        if (line[0]!.outcome instanceof Purses.Payment) running[each] = line.shift()!.outcome as Purses.Payment
        while (line.length < 2) line.push(ask([each]))
      }
      assert.isAtMost(turns, 20 * orders.length)
      // No call waits in the end.
      for (let end = 0; end < 10; end++) {
        for (const { outcome } of [...pairs, ...lines.flat()])
          if (outcome instanceof Purses.Payment) outcome.settle(0, 0)
        for (const one of running) one.settle(0, 0)
      }
      for (const { ledger, waiting } of both) assert.deepStrictEqual([ledger.held, waiting.size], [0, 0])
    })
  }
})
