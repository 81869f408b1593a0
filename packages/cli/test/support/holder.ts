/** A process that shares a budget in Redis, and holds a call for ever: `node holder.ts <url> <prefix>`. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as FloodgateRedis from "@floodgate/redis"

const [url = "", prefix] = process.argv.slice(2)
const budget = Budget.layer({ limits: { inputTokens: { perMinute: 1_000 } } }).pipe(
  Layer.provide(FloodgateRedis.layerStoreUrl({ url, prefix, name: "holder", lease: "3 seconds" }))
)
const holds = Effect.andThen(
  Effect.sync(() => process.stdout.write("holds\n")),
  Effect.never
)
Effect.runFork(
  Effect.provide(
    Budget.withReservation({ inputTokens: 100 }, () => holds),
    budget
  )
)
