/** What a budget keeps for a waiting call, by how many jobs the calls belong to, and what remains when all have ended. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Budget from "floodgate/Budget"

const calls = 10_000

/** Bytes alive after a collection. */
const heap = Effect.promise(async () => {
  for (let i = 0; i < 3; i++) {
    globalThis.gc!()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return process.memoryUsage().heapUsed
})

/** Bytes for each waiting call, and bytes in all that are still held after all of them have left. */
const kept = (jobs: number) =>
  Effect.gen(function* () {
    const wait = (n: number) =>
      Budget.withReservation({ tokens: 10 }, () => Effect.void, { agent: `${n % jobs}/${n}`, job: `job ${n % jobs}` })
    // The first call takes all, so that the others wait.
    yield* Budget.withReservation({ tokens: 100 }, (reservation) => reservation.settle({ tokens: 100 }))
    const before = yield* heap
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    for (let n = 0; n < calls; n++) fibers.push(yield* Effect.forkChild(wait(n)))
    yield* Effect.yieldNow
    const waiting = (yield* heap) - before
    yield* Fiber.interruptAll(fibers)
    fibers.length = 0
    return { waiting: waiting / calls, left: (yield* heap) - before }
  }).pipe(Effect.provide(Budget.layer({ limits: { tokens: { perMinute: 1, burst: 100, window: "bucket" } } })))

export const memory = async (): Promise<void> => {
  console.log(`| jobs | bytes for each of ${calls} waiting calls | kept when all have left |`)
  console.log("| ---: | ---: | ---: |")
  await Effect.runPromise(kept(1))
  for (const jobs of [1, 100, calls]) {
    const { left, waiting } = await Effect.runPromise(kept(jobs))
    console.log(`| ${jobs} | ${waiting.toFixed(0)} | ${(left / 1e3).toFixed(0)} KB |`)
  }
}
