/** What a provider says of its limits goes through the script, too: nonsense stalls no process and spoils no state. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import { cases, limits, run, type Setting } from "../support/hostileHeaders.ts"
import { quiet } from "../support/httpServer.ts"
import * as Redis from "./server.ts"
import { simulated } from "./simulated.ts"

describe.skipIf(Redis.skippedWithoutAny !== undefined)("hostile headers, over Redis", () => {
  const prefix = Redis.fresh("hostile")
  let server: Awaited<ReturnType<typeof Redis.any>>
  beforeAll(async () => {
    server = await Redis.any()
  })
  afterAll(() => server.stop())

  const redis = simulated(() => server.url)
  const settingOf = (name: string): Setting => {
    const store = redis.store({ prefix: `${prefix}-${name}` })
    return {
      stores: [store, store],
      quiet: (provider) => quiet({ ...provider, open: () => provider.open() + redis.open() })
    }
  }

  describe.each([
    ["with limits", limits],
    ["without", undefined]
  ] as const)("%s", (title, given) => {
    describe.each([200, 429])("in answers of %i", (status) => {
      for (const [i, one] of cases.entries()) {
        it.effect(`${one.name} stalls no process, and leaves a state that others go on with`, () =>
          Effect.gen(function* () {
            yield* TestClock.setTime(1_795_521_600_000)
            const name = `${title}-${status}-${i}`
            yield* run(one, status, given, settingOf(name))
            const states = (yield* Effect.promise(() =>
              server.command("KEYS", `{${prefix}-${encodeURIComponent(name)}:*}:*:state`)
            )) as ReadonlyArray<string>
            assert.strictEqual(states.length, 1)
          })
        )
      }
    })
  })
})
