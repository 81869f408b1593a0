/**
 * The form in which a state is stored: processes of 0.3 share pools with those of this version, so both must read both. What it says,
 * and what becomes of it when its store is restored to an older one.
 */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { pools } from "../../src/sharing/pools.ts"
import * as State from "../../src/sharing/state.ts"
import { statusOf } from "../../src/sharing/status.ts"
import * as StoreLoss from "../../src/sharing/storeLoss.ts"
import * as Text from "../../src/sharing/text.ts"

/** A state that 0.3.0 has stored: two processes with calls in flight, a waiting call, a sliding window and a quota. */
const stored = JSON.parse(readFileSync(new URL("state-0.3.json", import.meta.url), "utf8"))

/** The second of its two processes. */
const second = "2.2.0"
const state = (): State.PoolState => Text.decode(JSON.stringify(stored))

const dimensions = ["requests", "inputTokens", "outputTokens", "tokens"] as const
type Spent = Readonly<Record<(typeof dimensions)[number], number>>

const levels = ({ law }: State.PoolState): Spent => ({
  requests: law.caps.requests!.level,
  inputTokens: law.caps.inputTokens!.level,
  outputTokens: law.caps.outputTokens!.level,
  tokens: law.caps.tokens!.level
})

/** A state that has one more commit of the second process than the store was restored to. */
const lost = (spent: Spent = { requests: 0, inputTokens: 0, outputTokens: 0, tokens: 0 }): State.PoolState => {
  const state = Text.decode(JSON.stringify(stored))
  const member = state.members[second]!
  member.seq += 1
  const before = member.spent
  member.spent = {
    requests: before.requests + spent.requests,
    inputTokens: before.inputTokens + spent.inputTokens,
    outputTokens: before.outputTokens + spent.outputTokens,
    tokens: before.tokens + spent.tokens
  }
  return state
}

/** The restored state, in which others have gone on since. */
const restored = (): State.PoolState => {
  const later = state()
  later.time += 1
  return later
}

const merged = (one: State.PoolState, other: State.PoolState): State.PoolState =>
  StoreLoss.merge(pools, { state: one, millis: 0 }, { state: other, millis: 0 }).state

describe("A store that was restored to an older state", () => {
  it("is charged what a process has spent in the lost commits, by each of its limits", () => {
    const spent = { requests: 1, inputTokens: 2_000, outputTokens: 300, tokens: 600 }
    const before = levels(state())
    for (const after of [merged(restored(), lost(spent)), merged(lost(spent), restored())].map(levels)) {
      for (const dimension of dimensions) {
        assert.closeTo(before[dimension] - after[dimension], spent[dimension], 1e-6, dimension)
      }
    }
  })

  it("owes at most one bucket more than it holds, and all of a quota", () => {
    const enormous = { requests: 2_000, inputTokens: 1e9, outputTokens: 1e9, tokens: 1e9 }
    const after = merged(restored(), lost(enormous))
    assert.closeTo(levels(after).requests, levels(state()).requests - 2_000, 1e-6)
    for (const dimension of ["inputTokens", "outputTokens", "tokens"] as const) {
      assert.closeTo(levels(after)[dimension], -after.law.caps[dimension]!.rule.capacity, 1e-6, dimension)
    }
  })

  it("keeps the part of a quota that a silent process may use once, whichever of the states kept it", () => {
    const quota = state().members[second]!.part!.quotas.requests!
    assert.isAbove(quota, 100)
    const kept = (of: State.PoolState): State.PoolState => {
      pools.prepare(of, 0, of.time + 30_000)
      // Only the second process is silent.
      const [first] = Object.keys(of.members)
      pools.takeBack(of, of.members[first!]!)
      return of
    }
    const before = levels(state()).requests
    for (const [one, other] of [
      [restored(), kept(lost())],
      [kept(restored()), lost()],
      [kept(restored()), kept(lost())]
    ] as const) {
      assert.closeTo(before - levels(merged(one, other)).requests, quota, 1e-6)
    }
  })
})

describe("A stored state", () => {
  it("is under the same key as in 0.3", () => {
    assert.strictEqual(State.keyOf("default"), "11:default")
  })

  it("is read as 0.3 wrote it, and written so that 0.3 reads it", () => {
    // 0.3 ignores properties that it does not know.
    const { law, ...rest } = JSON.parse(Text.encode(Text.decode(JSON.stringify(stored))))
    const { refused, ...known } = law
    assert.deepStrictEqual({ ...rest, law: known }, stored)
    assert.strictEqual(refused, 0)
  })

  it("puts no process into degraded mode, whatever it holds", () => {
    const degraded = { of: 1e-9, open: [] }
    assert.isUndefined(Text.decode(JSON.stringify({ ...stored, degraded })).degraded)
  })

  it("is read again when only rejections have taught a rate, and no limit is known", () => {
    const taught = state()
    const [meter] = taught.law.meters
    meter!.limit = Infinity
    meter!.burst = undefined
    const again = Text.decode(Text.encode(taught)).law.meters[0]!
    assert.strictEqual(again.limit, Infinity)
    assert.strictEqual(again.peak, meter!.peak)
  })

  it("says how long its pool still pauses, and why", () => {
    const paused = state()
    paused.law.gate.until = paused.time + 5_000
    paused.law.gate.reason = "overload"
    const pauseAfter = (ageMillis: number) =>
      statusOf(State.keyOf("default"), { version: "1", utc: 0, value: Text.encode(paused), ageMillis })!.pause
    assert.deepStrictEqual(pauseAfter(0), { reason: "overload", leftMillis: 5_000 })
    assert.deepStrictEqual(pauseAfter(4_000), { reason: "overload", leftMillis: 1_000 })
    assert.isUndefined(pauseAfter(5_000))
  })
})
