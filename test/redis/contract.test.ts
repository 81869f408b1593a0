import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as FloodgateRedis from "floodgate/redis"
import { StoreContract } from "floodgate/testing"
import * as Redis from "./server.ts"

describe("memory store", () => {
  for (const check of StoreContract.checks({
    layer: Layer.empty,
    pass: (millis) => TestClock.adjust(millis)
  })) {
    it.effect(check.name, () => check.run)
  }
})

describe.skipIf(Redis.skipped !== undefined)("redis store", () => {
  let server: Redis.Server
  beforeAll(async () => {
    server = await Redis.start()
  })
  afterAll(() => server.stop())

  const layer = Layer.suspend(() => FloodgateRedis.layerStoreUrl({ url: server.url, prefix: "contract" }))
  // By the server's clock, so in real time.
  for (const check of StoreContract.checks({ layer, shared: true })) {
    it.live(check.name, () => check.run)
  }

  it.live("leaves nothing behind that does not expire", () =>
    Effect.promise(async () => {
      const keys = (await server.command("KEYS", "*")) as ReadonlyArray<string>
      assert.isAbove(keys.length, 0)
      for (const key of keys) {
        assert.match(key, /^\{contract:.*\}:(state|open|lost|seen)$/)
        assert.isAbove(Number(await server.command("PTTL", key)), 0, key)
      }
    })
  )
})

if (Redis.skipped !== undefined) console.warn(`SKIPPED: the tests of the Redis store, because ${Redis.skipped}`)
