import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Budget from "floodgate/Budget"
import * as FloodgateRedis from "floodgate/redis"
import { inspect } from "node:util"

// The address of a Redis holds its password. Whatever is wrong with it, nothing that comes out says the password.

const canary = "CaNaRy7Zq94xW2fKd81Ls0"

const printed = (value: unknown): ReadonlyArray<string> => [
  String(value),
  JSON.stringify(value) ?? "",
  inspect(value, { depth: 8, maxStringLength: null }),
  ...(Exit.isExit(value) && Exit.isFailure(value) ? [Cause.pretty(value.cause)] : [])
]

/** Makes a budget over the store of this address, uses it, and searches all that is left. */
const search = Effect.fnUntraced(function* (url: string) {
  const lines: Array<unknown> = []
  const logger = Logger.make((options) => {
    lines.push(options.message, options.cause, Logger.formatJson.log(options), Logger.formatLogFmt.log(options))
  })
  const env = ConfigProvider.fromUnknown({ REDIS_URL: url })
  const store = Layer.provide(FloodgateRedis.layerStoreConfig({ whenAway: "fail" }), ConfigProvider.layer(env))
  const exit = yield* Effect.scoped(Budget.consume(1)).pipe(
    Effect.provide(Layer.provide(Budget.layer({ limits: { requests: { perMinute: 60 } } }), store)),
    Effect.tapCause((cause) => Effect.logFatal("it failed", cause)),
    Effect.exit,
    Effect.provide(Logger.layer([logger])),
    Effect.provideService(References.MinimumLogLevel, "All")
  )
  assert.isTrue(Exit.isFailure(exit))
  assert.isAbove(lines.length, 0)
  for (const value of [exit, ...lines]) for (const text of printed(value)) assert.notInclude(text, canary)
  return exit
})

describe("the password of a Redis", () => {
  it.live("is in nothing that is left where nobody listens", () =>
    Effect.gen(function* () {
      const exit = yield* search(`redis://:${canary}@127.0.0.1:1`)
      assert.match(String(exit), /StoreUnavailable/)
    })
  )

  // Regression: such a store was never reached and never given up, and held the whole process.
  it.live.each([`redis://:${canary}@127.0.0.1:port`, `http://:${canary}@127.0.0.1:1`, canary])(
    "is in nothing that is left of an address that is none, which is refused at once: %#",
    (url) =>
      Effect.gen(function* () {
        const exit = yield* search(url)
        assert.match(String(exit), /ConfigError\(.*REDIS_URL/s)
        assert.match(String(exit), /an address such as redis:/)
      })
  )
})
