import { assert, describe, it } from "@effect/vitest"
import * as Work from "../../src/agents/work.ts"

describe("work", () => {
  it("weighs by what is left, and by 1 who has as much left as the mean", () => {
    const job = Work.job()
    const [small, large] = [Work.start(job, 1_000), Work.start(job, 3_000)]
    assert.strictEqual(Work.weight(small, 0), 0.5)
    assert.strictEqual(Work.weight(large, 0), 1.5)
    assert.strictEqual(Work.weight(large, 2_000), 1)
  })

  it("leaves a tenth to who needs more than was said, so that nobody stands still", () => {
    const job = Work.job()
    const [more, other] = [Work.start(job, 1_000), Work.start(job, 1_000)]
    assert.closeTo(Work.weight(more, 5_000), (2 * 100) / 1_100, 1e-12)
    assert.closeTo(Work.weight(other, 0), (2 * 1_000) / 1_100, 1e-12)
  })

  it("counts those that have ended no more, and stays within what a budget takes", () => {
    const job = Work.job()
    const [tiny, huge] = [Work.start(job, 1), Work.start(job, 1e12)]
    assert.strictEqual(Work.weight(tiny, 0), 0.001)
    assert.closeTo(Work.weight(huge, 0), 2, 1e-9)
    Work.end(huge)
    Work.end(huge)
    assert.strictEqual(Work.weight(tiny, 0), 1)
    assert.strictEqual(Work.weight(huge, 0), 1)
  })
})
