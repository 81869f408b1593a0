import { afterAll, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as FloodgateRedis from "floodgate/redis"
import { assertReadable, everyWord, limits, say } from "../support/hostileWords.ts"
import * as Redis from "./server.ts"

describe.skipIf(Redis.skippedWithoutAny !== undefined)("whatever is said to a budget in Redis", () => {
  let server: Awaited<ReturnType<typeof Redis.any>>
  beforeAll(async () => {
    server = await Redis.any()
  })
  afterAll(() => server.stop())

  it.live("its figures stay finite, in every process, and what makes no sense is refused by name", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits })
      const other = yield* Budget.make({ limits })
      yield* Effect.scoped(other.reserve({ tokens: 1 }))
      for (const word of everyWord) {
        yield* say(budget, word, true, Effect.sleep(20))
        assertReadable(yield* budget.status)
        assertReadable(yield* other.status)
      }
    }).pipe(
      Effect.scoped,
      Effect.provide(
        Layer.suspend(() => FloodgateRedis.layerStoreUrl({ url: server.url, prefix: Redis.fresh("hostile-words") }))
      )
    )
  )
})
