import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { join } from "node:path"

const source = join(import.meta.dirname, "../../src/terminal/youngSpace.ts")

/** The megabytes that a process keeps for young objects, of which many survive for a while. */
const kept = (start: string): number => {
  const program = `
    import { getHeapSpaceStatistics } from "node:v8"
    import { withSmallYoungSpace } from ${JSON.stringify(source)}
    const recent = []
    const work = async () => {
      for (let turn = 0; turn < 300; turn++) {
        for (let count = 0; count < 2_000; count++) recent.push({ turn, count, list: [count, turn] })
        if (recent.length > 40_000) recent.splice(0, 20_000)
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    ${start}
    const young = getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space")
    console.log(young.space_size / 1_024 / 1_024)`
  const args = ["--expose-gc", "--input-type=module", "-e", program]
  const { stderr, stdout } = spawnSync(process.execPath, args, { encoding: "utf8" })
  assert.strictEqual(stderr, "")
  return Number(stdout)
}

describe("the space of young objects", () => {
  it("stays small, both while a program is loaded and while it runs", () => {
    assert.isAbove(kept("await work(); await work()"), 32, "what V8 does without a bound")
    assert.isAtMost(kept("await withSmallYoungSpace(work)"), 4)
    assert.isAtMost(kept("await withSmallYoungSpace(async () => {}); await work(); await work()"), 16)
  })

  it("grows back after V8 has made it smaller, as it does in a quiet process", () => {
    // Regression: it had grown once and could not grow any more, so a gateway had 2 MB from its first quiet minute on.
    const shrunk = 'await withSmallYoungSpace(work); await work(); gc({ type: "major", flavor: "last-resort" })'
    assert.isAtMost(kept(shrunk), 4)
    const again = kept(`${shrunk}; await work(); await work()`)
    assert.isAbove(again, 4)
    assert.isAtMost(again, 16)
  })
})
