/** Laws of a budget that processes share, in simulated time. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as TestClock from "effect/testing/TestClock"
import * as World from "./world.ts"

const redis = await World.redis()
const limit = { perSecond: 100_000, burst: 200_000 }

/** The same 96 agents of six calls each, however they are spread. */
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
    const fiber = yield* Effect.forkChild(Effect.all(agents, { concurrency: "unbounded", discard: true }))
    yield* TestClock.adjust("2 minutes")
    yield* Fiber.join(fiber)
    return { world, log: world.log }
  }).pipe(Random.withSeed("fleet"))

describe("a fleet", () => {
  for (const n of [1, 2, 8]) {
    it.effect(`of ${n}`, () =>
      Effect.gen(function* () {
        const w = Date.now()
        const { log, world } = yield* job(n)
        const start = log[0]!.at
        const span = log.at(-1)!.at - start
        const middle = log.filter(({ at }) => at > start + span * 0.1 && at < start + span * 0.85)
        const by = Object.values(Object.groupBy(middle, ({ process }) => process)).map((e) => e!.reduce((s, { amounts }) => s + amounts.tokens!, 0))
        console.log(n, log.length, span, World.excessOf(log, "tokens", limit), World.jain(by), world.requests() / log.length, Date.now() - w)
      })
    )
  }
})
