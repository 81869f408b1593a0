/** Steps are played on a copy of a pacer; the original never changes after that. */
import { assert, describe, it } from "@effect/vitest"
import * as Law from "../../src/pacing/law.ts"
import * as Memory from "../../src/pacing/memory.ts"
import * as Rules from "../../src/domain/rules.ts"
import { plain, play } from "../support/events.ts"
import { whole } from "../support/play.ts"

/** Freezes a state and everything that it refers to, so that any later write throws. */
const freeze = <A>(value: A): A => {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value
  Object.freeze(value)
  for (const each of Object.values(value)) freeze(each)
  return value
}

const next = (pool: Law.Pacer): Law.Pacer => Law.copy(freeze(pool))

describe("a copy of a pacer", () => {
  it("decides as its original would, and no event of the copy changes the original", () => {
    const found = new Set<number | string>()
    for (let seed = 1; seed <= 30; seed++) {
      const trace = play(seed, plain, next)
      assert.deepStrictEqual(trace, play(seed, plain), `seed ${seed}`)
      for (const each of trace) found.add(each)
    }
    for (const verdict of ["isolated", "exhausted", "ramp", "outage"]) assert.isTrue(found.has(verdict), verdict)
  })

  it("may take over a call from another pacer without changing its original", () => {
    const limits = { outputTokens: { perMinute: 60_000, window: "sliding" } } as const
    const pool = next(Law.make(Rules.resolve(limits), Rules.shares(limits), 0))
    const smaller = Law.copy(pool)
    const admission = Law.take(smaller, whole(10), 0)
    Law.adopt(next(pool), admission)
    assert.strictEqual(pool.inFlight, 0)
  })

  it("may resume what a closed pool left without changing its original", () => {
    const limits = { tokens: { perMinute: 60_000, window: "sliding" } } as const
    const pool = Law.make(Rules.resolve(limits), Rules.shares(limits), 0)
    for (let i = 0; i < 5; i++) Law.settle(pool, Law.take(pool, whole(1_000), i * 2_000), whole(500), i * 2_000)
    const rest = freeze(Memory.rest(freeze(pool), 10_000))
    const resumed = next(Law.make(Rules.resolve(limits), Rules.shares(limits), 11_000))
    Memory.resume(resumed, { ...rest, memory: { dimensions: {}, window: 7 } }, 11_000)
    assert.strictEqual(resumed.window.size, 7)
  })
})

describe("admit", () => {
  it("is decide followed by take, in any state", () => {
    let admitted = 0
    let blocked = 0
    const compare = (pool: Law.Pacer): Law.Pacer => {
      const now = 16 + Math.max(...pool.meters.map(({ at }) => at))
      const charge = whole(640)
      const [one, other] = [Law.copy(pool), Law.copy(pool)]
      const answer = Law.admit(one, charge, now)
      assert.deepStrictEqual(answer, Law.decide(other, charge, now) ?? Law.take(other, charge, now))
      assert.deepStrictEqual(one, other)
      if ("at" in answer) admitted++
      else blocked++
      return pool
    }
    for (let seed = 1; seed <= 10; seed++) play(seed, plain, compare)
    assert.isAbove(Math.min(admitted, blocked), 500)
  })
})
