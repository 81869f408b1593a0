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
import { isFull } from "../support/size.ts"
import * as Absurd from "./absurd.ts"

/** A state that 0.3.0 has stored: two processes with calls in flight, a waiting call, a sliding window and a quota. */
const stored = JSON.parse(readFileSync(new URL("state-0.3.json", import.meta.url), "utf8"))

/** The second of its two processes. */
const second = "2.2.0"

/** A state that 0.4.0 has stored: two processes with calls in flight and waiting ones, what is kept for each, a quota and a pause. */
const stored04 = readFileSync(new URL("state-0.4.json", import.meta.url), "utf8")
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

  it("is read as 0.4 wrote it, and written so that 0.4 reads it", () => {
    assert.deepStrictEqual(JSON.parse(Text.encode(Text.decode(stored04))), JSON.parse(stored04))
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

// -----------------------------------------------------------------------------
// Absurd states: see `absurd.ts`. `absurd.soak.ts` tries every number with every value
// -----------------------------------------------------------------------------

/** Regressions: each of these stopped every process, even after the key was deleted. */
const found: ReadonlyArray<readonly [string, string]> = [
  ["time", "1e300"],
  ["law.gate.until", "1e13"],
  ["law.caps.tokens.level", "-1e13"],
  ["law.caps.requests.at", "-1e999"],
  ["law.meters.1.phase", "1e17"],
  ["law.window.size", "-1e13"]
]
const foundInOwner = [
  ["seq", "1e13"],
  ["at", "-1e13"]
] as const

/** The place of a number of the first process. */
const owner = (name: string): Absurd.Path =>
  Absurd.paths.find((path) => path[0] === "owners" && path.at(-1) === name && path.length === 3)!

const isRefused = (text: string): boolean => {
  try {
    Text.decode(text)
    return false
  } catch (error) {
    assert.instanceOf(error, Text.Damaged, String(error))
    return true
  }
}

/** In `npm test` the places of a state take turns with the values, and in `npm run test:full` each has all. */
const turn = (values: ReadonlyArray<string>, index: number): ReadonlyArray<string> =>
  isFull ? values : [values[index % values.length]!]

describe("an absurd state", () => {
  it("stops processes only while it is stored", { tags: "full" }, () => {
    const poisons = [
      ...found.map(([path, by]) => [path.split("."), by] as const),
      ...foundInOwner.map(([name, by]) => [owner(name), by] as const),
      ...Absurd.poisons.filter((_, index) => index % 101 === 0)
    ]
    assert.deepStrictEqual(Absurd.outcome(poisons), [])
  })

  it("is rejected if a number is infinite, or too large to be exact", () => {
    assert.isAbove(Absurd.paths.length, 200)
    for (const [index, path] of Absurd.paths.entries()) {
      for (const by of turn(["1e999", "-1e999", "1e300", "-1e300", "1e17", "-1e17"], index)) {
        const isPriority = path.at(-1) === "priority"
        assert.strictEqual(isRefused(Absurd.withAt(Absurd.text, path, by)), !isPriority, `${path.join(".")} = ${by}`)
      }
    }
  })

  it("is rejected if any part of it has another form", () => {
    for (const [index, path] of Absurd.paths.entries()) {
      for (const by of turn(['"1"', "[]", "{}", "true"], index)) {
        assert.isTrue(isRefused(Absurd.withAt(Absurd.text, path, by)), `${path.join(".")} = ${by}`)
      }
    }
  })

  it("is accepted as a process writes it", () => {
    assert.isFalse(isRefused(Absurd.text))
  })
})
