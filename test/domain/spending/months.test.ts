/** Months that begin on a stated day, beside a calendar that shares nothing with the library. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import * as Spending from "floodgate/Spending"
import { nextMonth } from "../../support/calendar.ts"

/** Zones whose clocks change in the night, at midnight, by half an hour, or not at all; and one that is a day ahead. */
const zones = [
  "UTC",
  "Europe/Berlin",
  "America/New_York",
  "America/Santiago",
  "Australia/Lord_Howe",
  "Africa/Cairo",
  "Asia/Beirut",
  "Pacific/Kiritimati"
]

const at = (text: string): number => Date.parse(text)

const untilAt = (day: number, zone: string, now: number) =>
  Effect.gen(function* () {
    yield* TestClock.setTime(now)
    const per = `month from ${day} in ${zone}` as const
    const { until } = yield* Spending.make("credits", { dollars: 1, per }).status
    return until!
  })

const said = (time: number): string => new Date(time).toISOString()

describe("the cap of a month that begins on a stated day", () => {
  it("begins where a calendar says so", () => {
    // The calendar itself.
    assert.strictEqual(said(nextMonth(31, "UTC", at("2027-01-31"))), "2027-02-28T00:00:00.000Z")
    assert.strictEqual(said(nextMonth(29, "UTC", at("2028-02-28T23:59:59.999Z"))), "2028-02-29T00:00:00.000Z")
    assert.strictEqual(said(nextMonth(6, "America/Santiago", at("2026-09-01"))), "2026-09-06T04:00:00.000Z")
  })

  it.effect.each(
    [29, 30, 31].flatMap((day) => ["UTC", "Europe/Berlin", "Africa/Cairo"].map((zone) => [day, zone] as const))
  )("ends at each of 26 months' ends from the %d in %s", ([day, zone]) =>
    Effect.gen(function* () {
      let now = at("2027-01-15T12:00:00Z")
      for (let month = 0; month < 26; month++) {
        const end = nextMonth(day, zone, now)
        assert.strictEqual(said(yield* untilAt(day, zone, now)), said(end))
        assert.strictEqual(said(yield* untilAt(day, zone, end - 1)), said(end))
        now = end
      }
    })
  )

  it.effect.prop(
    "ends where a calendar says so, at any time and in zones whose clocks change",
    {
      day: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 31 })),
      zone: Schema.Literals(zones),
      now: Schema.Int.check(Schema.isBetween({ minimum: at("2015-01-01"), maximum: at("2035-01-01") }))
    },
    ({ day, now, zone }) =>
      Effect.map(untilAt(day, zone, now), (until) =>
        assert.strictEqual(said(until), said(nextMonth(day, zone, now)), `${day} ${zone} ${said(now)}`)
      ),
    { arbitrary: { runs: 60 } }
  )
})
