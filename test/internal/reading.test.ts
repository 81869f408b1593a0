import { assert, describe, it } from "@effect/vitest"
import * as Reading from "../../src/internal/reading.ts"

const view = (level: number, left: number | undefined = level) => ({ level, capacity: 100_000, left, uncounted: 0 })
const exact = (remaining: number) => ({ remaining })

describe("reading", () => {
  it("lowers nothing where the provider sees what we see", () => {
    assert.isUndefined(Reading.read(exact(40_000), view(40_000.7), Reading.noDoubt)!.lowered)
  })

  it("lowers to what the provider has left", () => {
    assert.strictEqual(Reading.read(exact(30_000), view(40_000), Reading.noDoubt)!.lowered, 30_000)
  })

  it("reads a rounded figure as the least that it may mean, and heeds it only beyond the rounding", () => {
    const rounded = (remaining: number) => ({ remaining, roundedTo: 1_000 })
    assert.isUndefined(Reading.read(rounded(40_000), view(40_500), Reading.noDoubt)!.lowered)
    assert.strictEqual(Reading.read(rounded(40_000), view(40_501), Reading.noDoubt)!.lowered, 39_500)
    assert.strictEqual(Reading.read(rounded(0), view(501), Reading.noDoubt)!.lowered, 0)
  })

  it("lowers by neither reading until one is believed: figures of the admission of a call", () => {
    // Others were sent since, and the bucket refilled more than they took: what is left now is more than it was.
    assert.isUndefined(Reading.read(exact(20_000), view(50_000, 20_000), Reading.noDoubt)!.lowered)
    assert.isUndefined(Reading.read(exact(50_000), view(50_000, 80_000), Reading.noDoubt)!.lowered)
  })

  it("learns which reading the provider means, and then believes it alone", () => {
    let doubt = Reading.noDoubt
    for (let i = 0; i < 5; i++) doubt = Reading.read(exact(20_000), view(50_000, 20_000), doubt)!.doubt
    // As of the admission: 5,000 less than we thought then, so 5,000 less now.
    assert.strictEqual(Reading.read(exact(15_000), view(50_000, 20_000), doubt)!.lowered, 45_000)
    doubt = Reading.noDoubt
    for (let i = 0; i < 5; i++) doubt = Reading.read(exact(50_000), view(50_000, 20_000), doubt)!.doubt
    // As of now: what was left at the admission does not matter.
    assert.strictEqual(Reading.read(exact(45_000), view(50_000, 20_000), doubt)!.lowered, 45_000)
  })

  it("says by how much the provider has more than we think, however it is read", () => {
    const more = (remaining: number, level: number, left: number) =>
      Reading.read({ remaining, roundedTo: 1_000 }, view(level, left), Reading.noDoubt)!.more
    assert.strictEqual(more(60_000, 30_000, 50_000), 9_500)
    assert.strictEqual(more(60_000, 50_000, 30_000), 9_500)
    assert.strictEqual(more(60_000, 30_000, 59_500), 0)
    assert.strictEqual(more(60_000, 70_000, 30_000), 0)
  })

  it("takes what open calls may still produce off the figure", () => {
    const open = { level: 40_000, capacity: 100_000, left: undefined, uncounted: 15_000 }
    assert.strictEqual(Reading.read(exact(50_000), open, Reading.noDoubt)!.lowered, 35_000)
  })

  it("ignores what is no figure", () => {
    for (const remaining of [NaN, -1, Infinity]) {
      assert.isUndefined(Reading.read(exact(remaining), view(1), Reading.noDoubt))
    }
  })
})
