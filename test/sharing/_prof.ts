import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as World from "./world.ts"
import * as Virtual from "../../benchmark/weather/virtualTime.ts"
const redis = await World.redis()
const limit = { perSecond: 100_000, burst: 200_000 }
const job = (processes: number, usedPart = 1) =>
  Effect.gen(function* () {
    redis.wipe()
    const world = yield* World.make(redis)
    const fleet = yield* Effect.forEach(Array.from({ length: processes }, (_, p) => `p${p}`), (name) =>
      world.start(name, { limits: { tokens: limit } })
    )
    const agent = (process: World.Process, n: number) =>
      Effect.forEach(
        Array.from({ length: 6 }),
        () =>
          Effect.flatMap(Random.nextIntBetween(1_000, 9_000), (tokens) =>
            process.call({ estimate: { tokens: Math.ceil(tokens / usedPart) }, usage: { tokens }, millis: 100, options: { agent: `a${n}` } })
          ),
        { discard: true }
      )
    const agents = Array.from({ length: 96 }, (_, n) => agent(fleet[n % processes]!, n))
    yield* Effect.all(agents, { concurrency: "unbounded", discard: true })
    return world
  }).pipe(Random.withSeed("fleet"))
for (const n of [1, 2, 8, 8]) {
  const t = performance.now()
  const v = Virtual.make()
  const exit = v.run(job(n))
  if (exit._tag === "Failure") console.log(String(exit.cause))
  else { const w = exit.value; const log = w.log; console.log(n, log.length, log.at(-1)!.at - log[0]!.at, World.excessOf(log, "tokens", limit), w.requests() / log.length, performance.now() - t) }
}
