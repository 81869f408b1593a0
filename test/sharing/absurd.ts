/**
 * Absurd states, as in a store that was damaged or written to by something else: one number of a real state is replaced by a
 * value that no process writes. A process must serve its callers again once the key of such a state is deleted.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Budget from "floodgate/Budget"
import * as State from "../../src/sharing/state.ts"
import { keyOf } from "../../packages/redis/src/store.ts"
import * as World from "./world.ts"

const redis = await World.redis()
/** Where the pool is in Redis. */
const key = keyOf("world", State.keyOf("default"))

const options: Budget.Options = {
  limits: {
    tokens: { perSecond: 10_000, burst: 10_000 },
    inputTokens: { perMinute: 600_000, window: "sliding" },
    requests: { total: 1_000_000 },
    outputTokens: { share: 0.5 }
  },
  concurrency: 100
}
const call: World.Call = { estimate: { inputTokens: 500, outputTokens: 500 }, millis: 20 }
const limits = { limit: 600_000, remaining: 5_000 }

/** Values that JSON can hold and no process writes. */
export const absurd = ["1e300", "-1e300", "1e999", "-1e999", "1e17", "-1e17", "1e13", "-1e13", "null"] as const

export type Path = ReadonlyArray<string>

/** The paths of all numbers of a value, infinite ones included. The `cost` that 0.3 wrote is not read. */
const pathsOf = (value: unknown, path: Path = []): ReadonlyArray<Path> => {
  if (typeof value === "number" || value === null) return [path]
  if (typeof value !== "object") return []
  return Object.entries(value).flatMap(([name, each]) => (name === "cost" ? [] : pathsOf(each, [...path, name])))
}

/** The text of a value in which the value at a path is replaced. */
export const withAt = (text: string, path: Path, by: string): string => {
  const value = JSON.parse(text) as Record<string, unknown>
  let at = value
  for (const name of path.slice(0, -1)) at = (at[name] ??= {}) as Record<string, unknown>
  at[path.at(-1)!] = "<here>"
  return JSON.stringify(value).replace('"<here>"', by)
}

const stored = (): string => redis.send(["HGET", key, "value"]) as string

/** Two processes with calls in flight, calls that wait, and parts of the limits for when the store is away. */
const busy = Effect.fnUntraced(function* (world: World.World) {
  const fleet = [
    yield* world.start("p0", options, { whenAway: "degrade" }),
    yield* world.start("p1", options, { whenAway: "degrade" })
  ]
  const observed = (process: World.Process) =>
    process.run(
      Budget.withReservation(call.estimate, (reservation) =>
        reservation.observe({ dimensions: { outputTokens: limits, tokens: limits } })
      )
    )
  yield* Effect.forEach(fleet, observed)
  const calls = fleet.flatMap((process) => Array.from({ length: 20 }, () => process.call({ ...call, millis: 1_000 })))
  yield* Effect.forkDetach(Effect.all(calls, { concurrency: "unbounded" }))
  yield* Effect.sleep(600)
  return fleet
})

/** A call is made as soon as the store can be reached. */
const served = (process: World.Process): Effect.Effect<void, unknown> =>
  Effect.timeout(Effect.retry(process.call(call), Schedule.spaced(250)), "2 minutes")

const play = World.player(redis, "absurd")

/** A state with something in every place, and the paths of its numbers. */
export const text = play((world) => Effect.map(busy(world), stored))
export const paths = pathsOf(JSON.parse(text))

/** A number of the state, and what replaces it. */
export type Poison = readonly [Path, string]

/** Every number with every absurd value. */
export const poisons: ReadonlyArray<Poison> = paths.flatMap((path) => absurd.map((by) => [path, by] as const))

/** The problem, if any, when processes read such states one after the other. */
export const outcome = (poisons: ReadonlyArray<Poison>): ReadonlyArray<string> =>
  play((world) =>
    Effect.gen(function* () {
      const fleet = yield* busy(world)
      const wrong: Array<string> = []
      for (const [index, [path, by]] of poisons.entries()) {
        yield* Effect.forEach(fleet, served)
        redis.send(["HSET", key, "version", `odd.${index}`, "value", withAt(stored(), path, by)])
        const late = yield* world.start(`late${index}`, options, { whenAway: "degrade" })
        const all = [...fleet, late]
        const tries = yield* Effect.forEach(all, (process) => Effect.forkDetach(Effect.ignore(process.call(call))))
        yield* Effect.sleep(1_500)
        redis.send(["DEL", key])
        for (const process of all) {
          const exit = yield* Effect.exit(served(process))
          if (Exit.isFailure(exit))
            wrong.push(`${process.name}: ${path.join(".")} = ${by}: ${String(Cause.squash(exit.cause))}`)
        }
        yield* Fiber.interruptAll(tries)
        yield* late.close
        if (wrong.length > 0) return wrong
      }
      yield* Effect.forEach(fleet, ({ close }) => close)
      return wrong
    })
  )
