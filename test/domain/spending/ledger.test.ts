import { assert, describe, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import * as Spending from "floodgate/Spending"
import * as Account from "../../../src/domain/spending/ledger.ts"
import type { CapInUnits, Kept, Period } from "../../../src/domain/spending/ledger.ts"
import * as Months from "../../../src/domain/spending/months.ts"

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

const at = (text: string): number => Date.parse(text)
const endOf = (words: string, now: string): string =>
  new Date(Months.endOf(Months.parse(words)!, at(now))).toISOString()

describe("a month", () => {
  it.each([
    ["month", "2026-12-02T09:00:00Z", "2027-01-01T00:00:00.000Z"],
    ["month", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00.000Z"],
    ["month from 15", "2026-12-14T23:59:59.999Z", "2026-12-15T00:00:00.000Z"],
    ["month from 15", "2026-12-15T00:00:00Z", "2027-01-15T00:00:00.000Z"],
    // Months without that day begin on their last one, and the next begins on the stated day again.
    ["month from 31", "2027-01-31T00:00:00Z", "2027-02-28T00:00:00.000Z"],
    ["month from 31", "2027-02-28T00:00:00Z", "2027-03-31T00:00:00.000Z"],
    ["month from 31", "2027-03-31T00:00:00Z", "2027-04-30T00:00:00.000Z"],
    ["month from 30", "2028-02-01T00:00:00Z", "2028-02-29T00:00:00.000Z"],
    ["month from 29", "2027-02-27T23:59:59Z", "2027-02-28T00:00:00.000Z"],
    ["month from 29", "2100-02-01T00:00:00Z", "2100-02-28T00:00:00.000Z"],
    // Berlin is one hour ahead of UTC in winter, two in summer.
    ["month in Europe/Berlin", "2026-12-31T22:59:59Z", "2026-12-31T23:00:00.000Z"],
    ["month in Europe/Berlin", "2026-12-31T23:00:00Z", "2027-01-31T23:00:00.000Z"],
    ["month from 29 in Europe/Berlin", "2026-03-28T23:30:00Z", "2026-04-28T22:00:00.000Z"],
    ["month from 25 in Europe/Berlin", "2026-10-24T22:00:00Z", "2026-11-24T23:00:00.000Z"],
    ["month from 31 in Asia/Kolkata", "2027-02-01T00:00:00Z", "2027-02-27T18:30:00.000Z"],
    ["month in Pacific/Kiritimati", "2026-12-31T09:59:59Z", "2026-12-31T10:00:00.000Z"],
    // The clocks of Santiago are put forward at midnight, so that day has none.
    ["month from 6 in America/Santiago", "2026-09-01T00:00:00Z", "2026-09-06T04:00:00.000Z"]
  ])("%s, %s: until %s", (words, now, end) => assert.strictEqual(endOf(words, now), end))

  it.each([
    "months",
    "month from 0",
    "month from 32",
    "month from 1.5",
    "month in Nowhere/Else",
    "month from 15 in",
    "Month"
  ])("is not %s", (words) => {
    assert.isUndefined(Months.parse(words))
    assert.throws(
      () => Spending.make("x", { dollars: 1, per: words as never }),
      RangeError,
      /"month from 15 in Europe\/Berlin"/
    )
  })

  it.each(["month", "month from 31", "month in Asia/Tokyo", "month from 2 in America/New_York"])(
    "is said as it is read: %s",
    (words) => assert.strictEqual(Months.words(Months.parse(words)!), words)
  )

  const zones = [
    "UTC",
    "Europe/Berlin",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Cairo",
    "Asia/Beirut"
  ]

  it.prop(
    "ends later than now, within 32 days, on the stated day or the last one, and the next begins there",
    { day: int(1, 31), zone: Schema.Literals(zones), now: int(at("1990-01-01"), at("2090-01-01")) },
    ({ day, now, zone }) => {
      const month = { day, zone }
      const end = Months.endOf(month, now)
      assert.isTrue(end > now && end - now <= 32 * 86_400_000)
      assert.strictEqual(Months.endOf(month, end - 1), end)
      const next = Months.endOf(month, end)
      assert.isTrue(next - end >= 27 * 86_400_000, `${end} to ${next}`)
      const local = DateTime.makeZonedUnsafe(end, { timeZone: zone })
      const { day: begins } = DateTime.toParts(local)
      const { day: tomorrow } = DateTime.toParts(DateTime.add(local, { days: 1 }))
      assert.isTrue(begins === day || (begins < day && tomorrow === 1), `${begins} for ${day}`)
    },
    { arbitrary: { runs: 100 } }
  )
})

describe("a cap of a month", () => {
  const period: Period = { _tag: "Month", day: 31, zone: "UTC" }
  const cap: CapInUnits = { limit: 10, period, reserve: "most" }

  it("counts what was spent since the month began, and says when it fits again", () => {
    const now = at("2027-02-27T23:59:59.999Z")
    const account = Account.spend(Account.nothing, 9, period, now)
    assert.strictEqual(Account.spent(account, now), 9)
    assert.strictEqual(Account.fitsAt(account, 2, cap, now), at("2027-02-28"))
    assert.strictEqual(Account.nextEnd(account, period, now), at("2027-02-28"))
    assert.strictEqual(Account.spent(account, at("2027-02-28")), 0)
  })

  it("counts for two months at most after a clock was set back", () => {
    const account = Account.spend(Account.nothing, 9, period, at("2030-01-05"))
    const { cells } = Account.tidy(account, period, at("2027-02-01"))
    assert.isAtMost(cells[0]!.ends!, at("2027-02-28") + 32 * 86_400_000)
  })

  it.effect("is a cap like any other", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(at("2026-12-02"))
      const purse = Spending.make("credits", { dollars: 100, per: "month from 15 in Europe/Berlin" })
      assert.deepInclude(yield* purse.status, { left: 100, until: at("2026-12-14T23:00:00Z") })
    })
  )
})
