/** Calls that pay from one or several ledgers of this process. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Spending from "floodgate/Spending"
import { clockAt } from "../support/clock.ts"
import { PayingCall } from "../support/paying.ts"

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const dollar = 1e9
const window = 300

/** Purses of this many dollars each. */
const world = (limits: ReadonlyArray<number>, per?: number) => {
  let now = 0
  const clock = clockAt(() => now)
  const purses = limits.map((dollars, index) =>
    Spending.make(`p${index}`, { dollars, ...(per === undefined ? {} : { per }) })
  )
  return {
    purses,
    pass: (millis: number) => (now += millis),
    now: () => now,
    ask: (dollars: number, payers: ReadonlyArray<number> = [0], agent?: string, expected = dollars) =>
      new PayingCall(
        payers.map((index) => purses[index]!),
        dollars * dollar,
        clock,
        agent,
        expected * dollar
      ),
    status: (index = 0) => Effect.runSync(Effect.provideService(purses[index]!.status, Clock.Clock, clock))
  }
}

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
  readonly call: PayingCall
  readonly cost: number
  readonly payers: ReadonlyArray<number>
}

const limits = [100, 150, 220]

describe("ledgers", () => {
  it.prop(
    "are never overspent, in any order of events, and hold nothing when all calls have ended",
    { steps: Schema.Array(Step).check(Schema.isMaxLength(120)), period: Schema.Literals(["ever", "window"]) },
    ({ period, steps }) => {
      const { ask, now, pass, status } = world(limits, period === "ever" ? undefined : window)
      const open: Array<Open> = []
      const waiting = new Set<Open>()
      const spent: Array<{ readonly at: number; readonly cost: number; readonly payers: ReadonlyArray<number> }> = []
      const arrived = () => {
        for (const one of waiting) {
          if (one.call.state === "waits") continue
          waiting.delete(one)
          if (one.call.isPaid) open.push(one)
        }
      }
      const end = (index: number, costs: boolean) => {
        const [one] = open.splice(index % open.length, 1)
        const cost = costs ? one!.cost : 0
        spent.push({ at: now(), cost, payers: one!.payers })
        one!.call.payment.settle(cost * dollar)
        one!.call.payment.settle(cost * dollar)
      }
      const check = () => {
        for (const [index, limit] of limits.entries()) {
          const from = period === "ever" ? -1 : now() - window
          const used = spent.reduce(
            (sum, { at, cost, payers }) => (payers.includes(index) && at > from ? sum + cost : sum),
            0
          )
          const { held, spent: counted } = status(index)
          assert.isAtMost(used, limit)
          assert.isAtMost(counted + held, limit)
          assert.isAtLeast(held, 0)
        }
      }
      for (const { after, event, max, payers: bits, share, which } of steps) {
        pass(after)
        if (event === "end" && open.length > 0) end(which, true)
        else if (event === "interrupt" && open.length > 0) end(which, false)
        else if (event === "giveUp" && waiting.size > 0) {
          const one = [...waiting][which % waiting.size]!
          waiting.delete(one)
          one.call.payment.settle(0)
        } else {
          const payers = [0, 1, 2].filter((index) => (bits & (1 << index)) !== 0)
          const one = { call: ask(max, payers), cost: Math.floor((max * share) / 100), payers }
          if (one.call.isPaid) open.push(one)
          else if (one.call.state === "waits") waiting.add(one)
          else assert.isAbove(one.call.refusal!.asked, one.call.refusal!.left)
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
      for (const index of limits.keys()) assert.strictEqual(status(index).held, 0)
    }
  )

  it("serve an agent's calls in the order of arrival, also behind a large one", () => {
    const { ask } = world([100])
    const first = ask(80)
    const [large, small] = [ask(90), ask(10)]
    assert.deepStrictEqual([large.state, small.state], ["waits", "waits"])
    first.payment.settle(0)
    assert.deepStrictEqual([large.state, small.state], ["paid", "paid"])
  })

  it("serve agents by what they have cost, and not by how many calls they have queued", () => {
    const { ask } = world([10])
    const running = ask(10, [0], "busy")
    const busy = Array.from({ length: 20 }, () => ask(10, [0], "busy"))
    const other = ask(10, [0], "other")
    running.payment.settle(0)
    busy[0]!.payment.settle(0)
    assert.strictEqual(other.state, "paid")
  })

  it("serve agents by what their calls have cost in the end, and not by what they reserved", () => {
    const { ask } = world([1_000])
    const blocker = ask(1_000, [0], "x")
    const [one, other] = [ask(600, [0], "a"), ask(500, [0], "b")]
    const [more, another] = [ask(600, [0], "b"), ask(600, [0], "a")]
    blocker.payment.settle(0)
    one.payment.settle(300 * dollar)
    other.payment.settle(0)
    assert.deepStrictEqual([another.state, more.state], ["paid", "waits"])
  })

  it.each([0, 50])("serve an agent whose call reserved nothing as one that has had nothing, if it cost %s", (cost) => {
    const { ask } = world([1_000])
    const blocker = ask(1_000, [0], "x")
    // What asks for nothing is admitted at once, unless others wait.
    const [first, free, other] = [ask(600, [0], "b"), ask(0, [0], "free"), ask(500, [0], "c")]
    const [second, next] = [ask(150, [0], "b"), ask(150, [0], "free")]
    blocker.payment.settle(0)
    free.payment.settle(cost * dollar)
    first.payment.settle(300 * dollar)
    assert.deepStrictEqual([other.state, next.state, second.state], ["paid", "paid", "waits"])
  })

  it("serve an agent whose call has an unknown cost by what it reserved, and one that asked for nothing by nothing", () => {
    const { ask, purses } = world([1_000])
    const blocker = ask(1_000, [0], "x")
    const [free, unknown, large] = [ask(0, [0], "free"), ask(100, [0], "a"), ask(500, [0], "b")]
    const [second, third, fourth] = [ask(450, [0], "b"), ask(450, [0], "a"), ask(450, [0], "free")]
    blocker.payment.settle(0)
    free.payment.settle(0)
    unknown.payment.settle(undefined)
    assert.deepStrictEqual([large.state, second.state, third.state, fourth.state], ["paid", "waits", "waits", "waits"])
    large.payment.settle(200 * dollar)
    assert.deepStrictEqual([fourth.state, third.state, second.state], ["paid", "waits", "waits"])
    fourth.payment.settle(0)
    assert.deepStrictEqual([third.state, second.state], ["paid", "waits"])
    assert.strictEqual(Effect.runSync(purses[0]!.status).spent, 300)
  })

  it("serve agents by the cost of their calls, and not by their number", () => {
    const { ask } = world([85])
    const blocker = ask(85, [0], "x")
    ask(60, [0], "a")
    const [, second] = [ask(10, [0], "b"), ask(10, [0], "b")]
    const later = ask(10, [0], "a")
    blocker.payment.settle(0)
    assert.deepStrictEqual([second.state, later.state], ["paid", "waits"])
  })

  it("serve agents by what their calls are expected to cost, and not by what they may cost", () => {
    const { ask } = world([1_700])
    const blocker = ask(1_700, [0], "x")
    const [first, second] = [ask(600, [0], "a", 60), ask(500, [0], "b", 300)]
    const [third, fourth] = [ask(600, [0], "a", 60), ask(500, [0], "b", 300)]
    blocker.payment.settle(0)
    assert.deepStrictEqual([first.state, second.state, third.state, fourth.state], ["paid", "paid", "paid", "waits"])
  })

  it("tell of each change, and of none twice", () => {
    let changes = 0
    const purse = Spending.make("p", { dollars: 10 }, { changed: () => changes++ })
    const call = new PayingCall(
      [purse],
      4 * dollar,
      clockAt(() => 0)
    )
    assert.strictEqual(changes, 1)
    call.payment.settle(3 * dollar)
    assert.strictEqual(changes, 2)
    call.payment.settle(3 * dollar)
    assert.strictEqual(changes, 2)
    Effect.runSync(purse.reset)
    assert.strictEqual(changes, 3)
    const running = new PayingCall(
      [purse],
      9 * dollar,
      clockAt(() => 0)
    )
    const waiting = new PayingCall(
      [purse],
      4 * dollar,
      clockAt(() => 0)
    )
    assert.deepStrictEqual([running.state, waiting.state, changes], ["paid", "waits", 4])
    // It has had nothing.
    waiting.payment.settle(0)
    assert.strictEqual(changes, 4)
  })

  it("let waiting calls go when an operator resets them", () => {
    const { ask, purses } = world([100])
    ask(60).payment.settle(60 * dollar)
    ask(30)
    const waiting = ask(40)
    assert.strictEqual(waiting.state, "waits")
    Effect.runSync(purses[0]!.reset)
    assert.strictEqual(waiting.state, "paid")
  })

  it("refuse a call at once if it does not fit beside what was spent", () => {
    const { ask } = world([100])
    ask(80).payment.settle(70 * dollar)
    const { asked, left, until } = ask(31).refusal!
    assert.deepStrictEqual({ asked, left, until }, { asked: 31 * dollar, left: 30 * dollar, until: undefined })
    assert.isTrue(ask(30).isPaid)
  })

  it("serve the others as if a call that gave up had never waited", () => {
    const { ask, status } = world([100])
    ask(60)
    const large = ask(50)
    const small = ask(40)
    assert.strictEqual(small.state, "waits")
    large.payment.settle(0)
    assert.strictEqual(small.state, "paid")
    assert.strictEqual(status().held, 100)
  })

  it("take from all of a call's purses or from none", () => {
    const { ask, status } = world([100, 100])
    const first = ask(100, [1])
    const both = ask(60, [0, 1])
    assert.deepStrictEqual([both.state, status(0).held], ["waits", 60])
    first.payment.settle(50 * dollar)
    assert.strictEqual(both.state, "refused")
    assert.deepStrictEqual([status(0).held, status(1).held], [0, 0])
  })

  it("spend the cost of a call only once, whatever it reserved", () => {
    const { ask, status } = world([100])
    const call = ask(10)
    for (const cost of [4, 7]) call.payment.settle(cost * dollar)
    const { held, spent, total } = status()
    assert.deepStrictEqual({ held, spent, total }, { held: 0, spent: 4, total: 4 })
  })

  for (const orders of [
    [[0, 1]],
    [
      [0, 1],
      [0, 1],
      [0, 1]
    ]
  ]) {
    it(`serve ${orders.length} calls that wait for two of them although others always wait for one`, () => {
      const { ask, status } = world([100, 100])
      /** For each purse, one running and two waiting calls that it alone pays for, each of an agent of its own. */
      let agents = 0
      const alone = (each: number) => ask(100, [each], `agent ${agents++}`)
      const lines = [0, 1].map((each) => [alone(each), alone(each), alone(each)])
      const pairs = orders.map((order) => ask(100, order, `agent ${agents++}`))
      let turns = 0
      for (; pairs.some(({ state }) => state === "waits") && turns < 100; turns++) {
        const each = turns % 2
        const line = lines[each]!
        if (line[0]!.isPaid) line.shift()!.payment.settle(0)
        for (const { isPaid, payment } of pairs) if (isPaid) payment.settle(0)
        while (line.length < 3) line.push(alone(each))
      }
      assert.isAtMost(turns, 20 * orders.length)
      for (const { payment } of [...pairs, ...lines.flat()]) payment.settle(0)
      assert.deepStrictEqual([status(0).held, status(1).held], [0, 0])
    })
  }
})
