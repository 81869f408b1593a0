/** Floodgates that share their budget in Redis, as two processes do. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import type * as Layer from "effect/Layer"
import * as Floodgate from "floodgate/promise"
import * as FloodgateRedis from "@floodgate/redis"
import * as Redis from "../../../packages/redis/test/server.ts"

/** The compiler checks that the package takes what the option `redis` gives it. */
const layerStoreUrl: (options: Exclude<Floodgate.Options["redis"], string | undefined>) => Layer.Layer<never> =
  FloodgateRedis.layerStoreUrl

describe.skipIf(Redis.skipped !== undefined)("floodgate/promise with Redis", () => {
  let server: Redis.Server
  beforeAll(async () => {
    server = await Redis.start()
  })
  afterAll(() => server.stop())

  const limits = { requests: { total: 3 } }
  const call = (floodgate: Floodgate.Floodgate) => floodgate.run({ model: "m" }, async () => 1)

  it("shares one budget between floodgates with the same prefix", async () => {
    await using one = Floodgate.create({ limits, redis: { url: server.url, prefix: "ours" } })
    await using two = Floodgate.create({ limits, redis: { url: server.url, prefix: "ours" } })
    await using other = Floodgate.create({ limits, redis: server.url })
    for (const each of [one, two, one, other]) await call(each)
    const refused = await call(two).then(
      () => undefined,
      (error: unknown) => error
    )
    assert.instanceOf(refused, Floodgate.RefusedError)
    assert.strictEqual((refused as Floodgate.RefusedError).reason, "used")
    await call(other)
  })

  it("shares it with floodgates that use the package's layer as their store", async () => {
    const shared = { url: server.url, prefix: "brought" }
    await using one = Floodgate.create({ limits, redis: shared })
    await using two = Floodgate.create({ limits, store: layerStoreUrl(shared) })
    for (const each of [one, two, one]) await call(each)
    const refused = await call(two).catch((error: unknown) => error)
    assert.strictEqual(refused instanceof Floodgate.RefusedError && refused.reason, "used")
  })

  it("refuses calls if the server is away and they must not wait for it", async () => {
    const gone = await Redis.start()
    await gone.stop()
    await using floodgate = Floodgate.create({ limits, redis: { url: gone.url, whenAway: "fail" } })
    const refused = await call(floodgate).then(
      () => undefined,
      (error: unknown) => error
    )
    assert.strictEqual((refused as Floodgate.RefusedError).reason, "unavailable")
  })
})
