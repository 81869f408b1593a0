/**
 * The store on a real server, but by the TestClock: the script is given the time with each request. So hours pass in
 * milliseconds, and the only thing to wait for is what is on its way.
 */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as FloodgateRedis from "floodgate/redis"
import { withClock } from "../../src/redis/scripts.ts"
import { aroundSend } from "./wire.ts"

const script = withClock("local function clock() return tonumber(ARGV[#ARGV]) end")

export interface Simulated {
  readonly store: (options: FloodgateRedis.Options) => Layer.Layer<never>
  /** Requests whose replies are on their way. */
  readonly open: () => number
}

export const simulated = (url: () => string): Simulated => {
  let open = 0
  const byTestClock = aroundSend(
    (send) =>
      (command, ...args) =>
        command.startsWith("EVAL")
          ? Effect.flatMap(Clock.currentTimeMillis, (now) => {
              open++
              return Effect.ensuring(
                send("EVAL", script, ...args.slice(1), String(now)),
                Effect.sync(() => open--)
              )
            })
          : send(command, ...args)
  )
  return {
    // What takes real time must not be taken for an outage because simulated time has passed.
    store: (options) =>
      FloodgateRedis.layerStore({ timeout: "1 day", lease: "1 day", ...options }).pipe(
        Layer.provide(byTestClock),
        Layer.provide(Layer.suspend(() => NodeRedis.layer({ url: url() }))),
        Layer.orDie
      ),
    open: () => open
  }
}
