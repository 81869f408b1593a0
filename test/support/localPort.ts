/** The port of a pool of one process, and calls that go through it. */
import * as Amounts from "../../src/domain/amounts.ts"
import * as Rules from "../../src/domain/rules.ts"
import * as Pacer from "../../src/pacing/pacer.ts"
import { LocalPort } from "../../src/sharing/local.ts"
import * as State from "../../src/sharing/state.ts"
import { whole } from "./play.ts"

const limits = { tokens: { perSecond: 1_000 }, requests: { perMinute: 600, window: "sliding" } } as const

const config = { rules: Rules.resolve(limits), shares: Rules.shares(limits), concurrency: Infinity }

export const makePort = (state = State.make(config, 0, "here")) => {
  let now = 0
  const port = LocalPort.untimed(State.copy, state, () => now)
  return { port, later: (millis: number) => void (now += millis) }
}

/** A step that sends a call. */
export const send = ({ law }: State.PoolState, now: number): Pacer.Admission => Pacer.take(law, whole(10), now)

/** Sends a call and ends it. */
export const call = (port: LocalPort): void => {
  const admission = port.transact(send)
  port.transact(({ law }, now) => Pacer.settle(law, admission, Amounts.nothing, now))
}
