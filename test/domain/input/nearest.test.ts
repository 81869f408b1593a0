import { assert, describe, it } from "@effect/vitest"
import { hint, nearest } from "../../../src/domain/input/nearest.ts"

const known = ["limits", "concurrency", "maxQueued", "learned", "perMinute", "perSecond", "weight", "agent"]

describe("the name that was probably meant", () => {
  it.each([
    ["limit", "limits"],
    ["limts", "limits"],
    ["LIMITS", "limits"],
    ["concurency", "concurrency"],
    ["maxQueue", "maxQueued"],
    ["perMin", "perMinute"],
    ["conc", "concurrency"],
    ["agents", "agent"],
    ["weigth", "weight"],
    ["wieght", "weight"],
    ["agnet", "agent"]
  ])("of %s is %s", (name, meant) => {
    assert.strictEqual(nearest(name, known), meant)
  })

  it.each(["x", "timeout", "mispelt", "", "l".repeat(1_000)])("is none for %s", (name) => {
    assert.isUndefined(nearest(name, known))
  })

  it("is the nearest of several, and the first of those that are equally near", () => {
    assert.strictEqual(nearest("model-5", ["model-55", "model-5a"]), "model-55")
    assert.strictEqual(nearest("model-5", ["model-555", "model-5a"]), "model-5a")
  })

  it("is suggested, or else all names are listed", () => {
    assert.strictEqual(hint("limit", known), 'did you mean "limits"?')
    assert.strictEqual(hint("nothing like it", ["a", "b"]), "known are a, b")
  })
})
