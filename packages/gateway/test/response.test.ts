import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import type { ServerResponse } from "node:http"
import * as Response from "../src/response.ts"
import { setAhead } from "../../../test/support/clock.ts"

describe("a response that is kept alive", () => {
  it.effect("gets its keep-alive text at the same times when the wall clock is set", () =>
    Effect.gen(function* () {
      let ahead = 0
      let written = ""
      const response = {
        writableNeedDrain: false,
        writeHead: () => {},
        write: (text: string) => void (written += text)
      } as never as ServerResponse
      const clock = setAhead(yield* Clock.Clock, () => ahead)
      const keeper = yield* Response.makeKeeper(Duration.seconds(20), Duration.seconds(10), () => {}).pipe(
        Effect.provideService(Clock.Clock, clock)
      )
      keeper.add({ response, contentType: "application/json", text: " ", began: false, isHeldBack: false })
      ahead = 3_600_000
      yield* TestClock.adjust("18 seconds")
      assert.strictEqual(written, "")
      ahead = -3_600_000
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(written, " ")
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(written, "  ")
    })
  )
})
