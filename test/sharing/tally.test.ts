/** The summary of `npm run storms`. */
import { assert, describe, it } from "@effect/vitest"
import * as Storm from "./storm.ts"
import * as Tally from "./tally.ts"
import * as World from "./world.ts"

const redis = await World.redis()

describe("a tally of storms", () => {
  it("counts each seed once, and again if a forgetful store makes a difference", { tags: "full" }, () => {
    const seeds = [1, 2, 3, 4, 5, 6]
    const forgetful = seeds.filter((seed) => Storm.losesOf(Storm.plan(seed, true)))
    assert.isAbove(forgetful.length, 0)
    assert.isBelow(forgetful.length, seeds.length)
    const tally = seeds.map((seed) => Tally.of(seed, redis)).reduce(Tally.add, Tally.nothing)
    assert.strictEqual(tally.storms, seeds.length + forgetful.length)
    assert.deepStrictEqual(tally.complaints, [])
    const rows = Object.values(tally.rows)
    assert.strictEqual(
      rows.reduce((sum, { storms }) => sum + storms, 0),
      tally.storms
    )
    assert.lengthOf(Tally.show(tally).split("\n"), 2 + rows.length)
  })

  it("keeps the worst of each kind", () => {
    const of = (storms: number, bursts: number, calls: number): Tally.Tally => ({
      ...Tally.nothing,
      storms,
      rows: { kind: { storms, bursts, calls } }
    })
    assert.deepStrictEqual(Tally.add(of(1, 0.5, 2), of(3, 0.25, 4)), of(4, 0.5, 4))
  })

  it("reports a seed that breaks a law, and one that throws", { tags: "full" }, () => {
    const [complaint] = Tally.of(3, redis, World.comparingNothing).complaints
    assert.include(complaint, "npm run storms -- --from 3 --seeds 1")
    const throwing: World.Code = {
      ...World.library,
      makeStore: () => {
        throw new Error("no store")
      }
    }
    const [thrown] = Tally.of(1, redis, throwing).complaints
    assert.include(thrown, "no store")
    assert.include(thrown, "npm run storms -- --from 1 --seeds 1")
  })
})
