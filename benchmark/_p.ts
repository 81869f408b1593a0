import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
const plenty = 1e12
const b: any = await Effect.runPromise(
  Layer.buildWithScope(Budget.layer({ limits: { tokens: { perSecond: plenty, burst: plenty } } }), Scope.makeUnsafe())
)
const run = (n: number) =>
  Effect.runPromise(
    Effect.provide(
      Effect.gen(function* () {
        for (let i = 0; i < n; i++) yield* Budget.withReservation({ tokens: 1 + (i % 100) }, () => Effect.void)
      }),
      b
    ) as any
  )
await run(100000)
const s = performance.now()
await run(2000000)
console.log((performance.now() - s) / 2000, "us")
