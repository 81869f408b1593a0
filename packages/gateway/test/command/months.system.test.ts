/** Caps of months that begin on a stated day, from the text of a configuration to the status of a gateway. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { nextMonth } from "../../../../test/support/calendar.ts"
import * as Settings from "../../src/settings/index.ts"
import { decode } from "../../src/settings/problems.ts"

const months = [29, 30, 31].flatMap((day) =>
  ["UTC", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe"].map((zone) => ({ day, zone }))
)

describe("the months of a gateway's caps", () => {
  it.live("end where a calendar says so", () =>
    Effect.gen(function* () {
      const text = JSON.stringify({
        rules: months.map(({ day, zone }) => ({
          name: `${day} ${zone}`,
          cap: { dollars: 1, per: `month from ${day} in ${zone}` }
        }))
      })
      const { rules } = Result.getOrThrow(decode(Settings.Config)(JSON.parse(text)))
      const live = yield* Layer.build(Layer.provideMerge(Governor.layer(), Budget.layer()))
      const { url } = yield* Effect.provide(Gateway.make({ rules, drain: "20 millis" }), live)
      const before = Date.now()
      const { caps } = (yield* Effect.promise(async () => (await fetch(`${url}/floodgate/status`)).json())) as {
        readonly caps: ReadonlyArray<{ readonly name: string; readonly until: number }>
      }
      const after = Date.now()
      assert.lengthOf(caps, months.length)
      for (const { day, zone } of months) {
        const { until } = caps.find(({ name }) => name.includes(`${day} ${zone}`))!
        // It may have begun in between.
        assert.include([nextMonth(day, zone, before), nextMonth(day, zone, after)], until, `${day} ${zone}`)
      }
    }).pipe(Effect.scoped)
  )
})
