import { assert, describe, it } from "@effect/vitest"
import type { ProviderSim } from "floodgate/testing"
import type { DuelAgent } from "../../src/commands/try/duel.ts"
import { next } from "../../src/commands/try.ts"
import * as View from "../../src/commands/try/view.ts"

const stats = (rejected: number) => ({ rejected }) as ProviderSim.Stats

const agent = (more: Partial<DuelAgent> = {}): DuelAgent => ({
  calls: 5,
  done: 0,
  endedAt: undefined,
  failure: undefined,
  ...more
})

const alone: View.SideView = {
  name: "the SDK by itself",
  agents: new Map([
    ["agent-01", agent({ done: 5, endedAt: 9.4 })],
    ["agent-02", agent({ done: 1, endedAt: 5, failure: "429" })]
  ]),
  stats: stats(3),
  waits: new Map()
}

const guarded: View.SideView = {
  name: "with Floodgate",
  agents: new Map([
    ["agent-01", agent({ done: 4 })],
    ["agent-02", agent()]
  ]),
  stats: stats(0),
  waits: new Map([["agent-02", 12]])
}

describe("the duel of `try`", () => {
  it("shows both sides under one clock, in 80 columns", () => {
    const lines = View.draw([alone, guarded], 12.2, { columns: 80, rows: 24 })
    assert.deepStrictEqual(lines, [
      "          the SDK by itself                 with Floodgate",
      "agent-01  ██████████ 5/5 done 0:09          ████████░░ 4/5 asks",
      "agent-02  ██░░░░░░░░ 1/5 lost: 429          ░░░░░░░░░░ 0/5 waits 0:12",
      "0:12      6 of 10, 4 lost, 429s: 3          4 of 10, 429s: 0"
    ])
  })

  it("draws no more lines than a terminal has, and none that wraps", () => {
    const lines = View.draw([alone, guarded], 12, { columns: 40, rows: 4 })
    assert.strictEqual(lines.length, 3)
    for (const line of lines) assert.isBelow(line.length, 40)
  })

  it("colours the lost calls, and nothing else", () => {
    const lines = View.draw([alone, guarded], 12.2, { columns: 80, rows: 24 })
    const painted = lines.map((line) => View.painted(line, (text, tone) => `<${tone}>${text}</>`))
    assert.deepStrictEqual(painted.slice(1), [
      lines[1]!,
      "agent-02  <lost>██░░░░░░░░ 1/5 lost: 429</>          ░░░░░░░░░░ 0/5 waits 0:12",
      "0:12      6 of 10, <lost>4 lost</>, 429s: 3          4 of 10, 429s: 0"
    ])
  })

  it("shows the progress in one line if nothing can be redrawn", () => {
    assert.strictEqual(
      View.plain([alone, guarded], 65),
      "1:05  the SDK by itself: 6 of 10, 4 lost, 429s: 3; with Floodgate: 4 of 10, 429s: 0"
    )
  })

  it("sums up in one line first which side answered how many, and how long it takes at least", () => {
    const all: View.SideView = { ...guarded, agents: new Map([["agent-01", agent({ done: 5, endedAt: 20 })]]) }
    const facts = { isOver: true, atLeast: 18.5, limit: { perMinute: 1_800_000, burst: 100_000 } }
    const lines = View.summary([alone, all], facts)
    assert.strictEqual(lines[0], "Without Floodgate 6 of 10 calls were answered, with Floodgate 5 of 5.")
    assert.match(lines.join("\n"), /^the least possible +18\.5 s *$/m)
    assert.match(lines.at(-1)!, /allows 1\.8M input tokens a minute and 100K at once/)
  })

  it("sums up what was seen so far", () => {
    const facts = { isOver: false, atLeast: 0, limit: { perMinute: 1_800_000, burst: 100_000 } }
    const lines = View.summary([alone, guarded], facts)
    assert.strictEqual(lines[0], "Without Floodgate 6 of 10 calls were answered, with Floodgate 4 of 10, so far.")
    assert.notInclude(lines.join("\n"), "the least possible")
  })

  it("says what to do next in lines that a narrow terminal does not wrap", () => {
    const wide = next.split("\n").filter((line) => line.length > 80)
    assert.deepStrictEqual(wide, [])
  })
})
