import { assert, describe, it } from "@effect/vitest"
import * as Health from "../../src/governor/health.ts"

describe("health", () => {
  it("takes an address for wrong that has refused for a minute and never answered", () => {
    const health = Health.make()
    assert.isFalse(health.note("a", "refused", 1_000))
    assert.isFalse(health.note("a", "refused", 60_999))
    assert.isFalse(health.note("a", undefined, 61_000))
    assert.isTrue(health.note("a", "refused", 61_000))
    assert.isFalse(health.note("b", "refused", 61_000), "each pool has an address of its own")
  })

  it("takes a name that does not exist for wrong at once", () => {
    assert.isTrue(Health.make().note("a", "unknown", 0))
  })

  it("takes nothing for wrong that has answered, be it with an error", () => {
    const health = Health.make()
    assert.isFalse(health.note("a", "answered", 0))
    assert.isFalse(health.note("a", "unknown", 1_000))
    assert.isFalse(health.note("a", "refused", 2_000))
    assert.isFalse(health.note("a", "refused", 3_600_000))
  })
})
