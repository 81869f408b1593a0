/** A process of the library that makes 100 calls under a cap which others share. It prints how many it sent. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Spending from "floodgate/Spending"
import * as FloodgateRedis from "@floodgate/redis"

let sent = 0
const refused: Record<string, number> = {}

const call = Effect.flatMap(Governor.Governor, (governor) =>
  governor.run({ model: "claude-sonnet-5-5", bytes: 100, maxTokens: 3_000 }, () =>
    Effect.suspend(() => {
      sent++
      return Effect.as(Effect.sleep(500), { value: "", actual: { inputTokens: 10, outputTokens: 990 } })
    })
  )
).pipe(
  Effect.catchTag("BudgetError", ({ reason }) =>
    Effect.sync(() => {
      const tag = reason._tag === "Denied" ? (reason.cause as { readonly _tag: string })._tag : reason._tag
      refused[tag] = (refused[tag] ?? 0) + 1
    })
  )
)

const program = Effect.gen(function* () {
  const purse = yield* Spending.open("three", { dollars: 1, per: "day" })
  const calls = Array.from({ length: 100 }, () => call)
  yield* Effect.all(calls, { concurrency: 10 }).pipe(Spending.from(purse))
}).pipe(Effect.scoped)

const live = Governor.layer().pipe(
  Layer.provide(Budget.layer()),
  Layer.provideMerge(FloodgateRedis.layerStoreUrl({ url: process.argv[2]! }))
)

await Effect.runPromise(Effect.provide(program, live))
process.stdout.write(`${JSON.stringify({ sent, refused })}\n`)
