/**
 * One process of many that share a budget over one Redis: `node redis.ts URL`. A message `{ way, perSecond, seconds }` asks for a
 * turn. `free` calls never wait, and come at random; `waiting` ones are four at a time, and wait for the limit that all share.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as FloodgateRedis from "@floodgate/redis"
import { timed } from "../support/inTurns.ts"
import { setTimeout as sleep } from "node:timers/promises"

export type Way = "idle" | "free" | "waiting"

export interface Question {
  readonly way: Way
  /** The calls a second of all processes together, and of this one. */
  readonly perSecond: number
  readonly ofThis: number
  readonly seconds: number
}

const url = process.argv[2]!
const live = { close: Effect.void as Effect.Effect<void> }

const build = async (way: Way, perSecond: number): Promise<() => Promise<unknown>> => {
  // A call takes one request.
  const limit = way === "waiting" ? { perSecond, burst: perSecond } : { perSecond: 1e9, burst: 1e9 }
  const scope = Scope.makeUnsafe()
  const budget = Budget.layer({ limits: { requests: limit } }).pipe(
    Layer.provide(FloodgateRedis.layerStoreUrl({ url, prefix: way }))
  )
  const context = await Effect.runPromise(Layer.buildWithScope(budget, scope))
  live.close = Scope.close(scope, Exit.void)
  const call = Budget.withReservation({ tokens: 1 }, (reservation) => reservation.settle({ tokens: 1 }))
  return () => Effect.runPromise(Effect.provide(call, context))
}

let built: { readonly way: Way; readonly call: () => Promise<unknown> } | undefined

const answer = async ({ ofThis, perSecond, seconds, way }: Question) => {
  if (built?.way !== way) {
    await Effect.runPromise(live.close)
    built = { way, call: await build(way, perSecond) }
    await built.call()
  }
  const { call } = built
  let count = 0
  const until = performance.now() + seconds * 1_000
  const one = () => call().then(() => void count++)
  const running: Array<Promise<void>> = []
  const { micros } = await timed(1, async () => {
    if (way === "waiting") {
      const loop = async (): Promise<void> => {
        while (performance.now() < until) await one()
      }
      running.push(...Array.from({ length: 4 }, loop))
    }
    const gap = (): number => (way === "free" ? (-Math.log(1 - Math.random()) * 1_000) / ofThis : Infinity)
    while (performance.now() < until) {
      await sleep(Math.min(until - performance.now(), gap()))
      if (way === "free") running.push(one())
    }
  })
  // Calls that still wait are no part of the turn.
  const made = count
  await Promise.all(running)
  return { count: made, micros }
}

process.on("message", (question: Question) => void answer(question).then((taken) => process.send!(taken)))
process.on("disconnect", () => process.exit())
process.send!("ready")
