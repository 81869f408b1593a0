import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as Account from "../../../src/domain/spending/ledger.ts"
import type { CapInUnits, Kept, Period } from "../../../src/domain/spending/ledger.ts"

/** An account under a cap. */
class Ledger {
  kept: Account.Account
  private cap: CapInUnits

  constructor(cap: CapInUnits, kept: Kept = Account.nothing) {
    this.cap = cap
    this.kept = kept
  }
  get total(): number {
    return this.kept.total
  }
  spend(amount: number, now: number): void {
    this.kept = Account.spend(this.kept, amount, this.cap.period, now)
  }
  /** What counts, as a decision finds it. */
  spent(now: number): number {
    this.kept = Account.tidy(this.kept, this.cap.period, now)
    return Account.spent(this.kept, now)
  }
  fitsAt(amount: number, now: number): number | undefined {
    return Account.fitsAt(this.kept, amount, this.cap, now)
  }
  resize(cap: CapInUnits): void {
    this.cap = cap
  }
}

const ledgerOf = (limit: number, period: Period, kept?: Kept): Ledger =>
  new Ledger({ limit, period, reserve: "most" }, kept)

const day = 86_400_000
const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

/** Payments, one after another. */
const History = Schema.Array(Schema.Struct({ after: int(0, day), amount: int(0, 1_000) })).check(Schema.isMaxLength(40))

/** Plays a history. Returns each payment with its time, and the state of the ledger then. */
const play = (period: Period, history: typeof History.Type, startsAt = 0) => {
  const ledger = new Ledger({ limit: Infinity, period, reserve: "most" })
  let now = startsAt
  const paid: Array<{ readonly at: number; readonly amount: number }> = []
  const said = history.map(({ after, amount }) => {
    now += after
    ledger.spend(amount, now)
    paid.push({ at: now, amount })
    return { now, spent: ledger.spent(now), paid: [...paid] }
  })
  return { said, ledger }
}

const sum = (paid: ReadonlyArray<{ readonly at: number; readonly amount: number }>, from: number, to: number) =>
  paid.reduce((total, { amount, at }) => (at > from && at <= to ? total + amount : total), 0)

describe("ledger", () => {
  it.prop(
    "counts what was spent since midnight, UTC, and nothing else",
    { history: History, start: int(0, day) },
    (given) => {
      const { said } = play({ _tag: "Day" }, given.history, given.start)
      for (const { now, paid, spent } of said) {
        const date = (millis: number) => new Date(millis).toISOString().slice(0, 10)
        const today = paid.filter(({ at }) => at <= now && date(at) === date(now))
        assert.strictEqual(spent, sum(today, -1, now))
      }
    }
  )

  it("begins a day at its first millisecond", () => {
    const ledger = ledgerOf(100, { _tag: "Day" })
    ledger.spend(60, day - 1)
    assert.strictEqual(ledger.spent(day - 1), 60)
    assert.strictEqual(ledger.fitsAt(41, day - 1), day)
    assert.strictEqual(ledger.spent(day), 0)
    assert.isUndefined(ledger.fitsAt(101, day))
  })

  it.prop(
    "counts everything that was spent in the window, and nothing that is more than a sixtieth older",
    { history: History, millis: int(1, 2 * day), start: int(0, day) },
    ({ history, millis, start }) => {
      const { said } = play({ _tag: "Window", millis }, history, start)
      const older = Math.ceil(millis / 60)
      for (const { now, paid, spent } of said) {
        assert.isAtLeast(spent, sum(paid, now - millis, now))
        assert.isAtMost(spent, sum(paid, now - millis - older - 1, now))
      }
    }
  )

  it.prop(
    "knows to the millisecond when an amount fits",
    { history: History, millis: int(60, day), limit: int(1, 5_000), amount: int(1, 5_000) },
    ({ amount, history, limit, millis }) => {
      const ledger = ledgerOf(limit, { _tag: "Window", millis })
      let now = 0
      for (const payment of history) {
        now += payment.after / 50
        ledger.spend(payment.amount, Math.floor(now))
      }
      const at = ledger.fitsAt(amount, Math.floor(now))
      if (at === undefined) return assert.isAbove(amount, limit)
      if (at > Math.floor(now))
        assert.isAbove(ledgerOf(limit, { _tag: "Window", millis }, ledger.kept).spent(at - 1) + amount, limit)
      assert.isAtMost(ledger.spent(at) + amount, limit)
    }
  )

  const kept = { history: History, millis: int(1, day), ever: Schema.Boolean }
  it.prop("continues from its kept state, as JSON", kept, ({ ever, history, millis }) => {
    const period: Period = ever ? { _tag: "Ever" } : { _tag: "Window", millis }
    const { ledger, said } = play(period, history)
    const now = said.at(-1)?.now ?? 0
    const again = ledgerOf(Infinity, period, JSON.parse(JSON.stringify(ledger.kept)))
    for (const later of [now, now + millis / 2, now + 2 * millis]) {
      assert.strictEqual(again.spent(later), ledger.spent(later))
    }
    assert.strictEqual(again.total, ledger.total)
  })

  it("keeps no more than 62 numbers, however much is spent", () => {
    const ledger = ledgerOf(Infinity, { _tag: "Window", millis: 60_000 })
    for (let now = 0; now < 1_000_000; now += 17) {
      ledger.spend(1, now)
      ledger.spent(now)
    }
    assert.isAtMost(ledger.kept.cells.length, 62)
  })

  it("keeps counting when the clock is set back", () => {
    const ledger = ledgerOf(100, { _tag: "Day" })
    ledger.spend(60, 3 * day)
    ledger.spend(30, day)
    assert.strictEqual(ledger.spent(day), 90)
    assert.strictEqual(ledger.spent(2 * day), 90)
    assert.strictEqual(ledger.spent(4 * day), 0)
  })

  for (const period of [{ _tag: "Day" }, { _tag: "Window", millis: day }] as const) {
    it(`counts an amount for at most two periods, however far the clock is set back: ${period._tag}`, () => {
      const ledger = ledgerOf(100, period)
      ledger.spend(60, 400 * day)
      ledger.spend(30, day)
      assert.strictEqual(ledger.spent(day), 90)
      assert.strictEqual(ledger.spent(3 * day + day / 60), 0)
    })
  }

  it("counts by another period after a change, and earlier amounts for at most two of its periods", () => {
    const ledger = ledgerOf(100, { _tag: "Ever" })
    ledger.spend(60, 0)
    ledger.resize({ limit: 100, period: { _tag: "Day" }, reserve: "most" })
    ledger.spend(30, day)
    assert.strictEqual(ledger.spent(2 * day - 1), 90)
    assert.strictEqual(ledger.spent(3 * day), 0)
  })

  it.prop(
    "gives back what a call did not use, from the latest amounts, and nothing that has ended",
    { history: History, back: int(0, 2_000) },
    ({ back, history }) => {
      const { ledger, said } = play({ _tag: "Day" }, history)
      const now = said.at(-1)?.now ?? 0
      const before = ledger.spent(now)
      ledger.spend(-back, now)
      assert.strictEqual(ledger.spent(now), Math.max(0, before - back))
    }
  )

  it.prop(
    "merges two accounts to their sum, and two versions of one account to what either has",
    { one: History, other: History },
    (given) => {
      const period: Period = { _tag: "Window", millis: day }
      const [one, other] = [play(period, given.one), play(period, given.other)]
      const now = Math.max(one.said.at(-1)?.now ?? 0, other.said.at(-1)?.now ?? 0)
      const [a, b] = [one.ledger.kept, other.ledger.kept]
      assert.strictEqual(Account.spent(Account.plus(a, b), now), Account.spent(a, now) + Account.spent(b, now))
      assert.deepStrictEqual(Account.plus(a, b), Account.plus(b, a))
      const earlier = play(period, given.one.slice(0, given.one.length / 2)).ledger.kept
      const merged = Account.max(earlier, a)
      assert.strictEqual(Account.spent(merged, now), Account.spent(a, now))
      assert.strictEqual(merged.total, a.total)
    }
  )
})
