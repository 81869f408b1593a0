/**
 * Bars that every law of this library must clear: a few cells of `npm run bench -- weather`, one seed each, by outcome.
 * The table of all of them is docs/figures/weather.md. A weather costs a second or two, so that `npm test` has the quick ones only.
 */
import { assert, describe, it } from "@effect/vitest"
import { cells } from "../../benchmark/weather/cells.ts"
import { heldOutFrom } from "../../benchmark/weather/random.ts"
import type { Result } from "../../benchmark/weather/score.ts"
import { isFull, some } from "../support/size.ts"
import { hasDied, perform } from "../../benchmark/weather/tasks.ts"

const resultOf = async (weather: string | undefined, seed: number, law = "library"): Promise<Result> => {
  const run = await perform({ law, weather, seed })
  if (hasDied(run)) throw new Error(`${law} died: ${run.error}`)
  return run.result
}

/** The weathers of a cell: `pick` says which. */
const weathersOf = (name: string, pick: (weather: string) => boolean): ReadonlyArray<string> => {
  const found =
    cells.find((cell) => cell.name === name)?.weathers.flatMap(({ name }) => (pick(name) ? [name] : [])) ?? []
  if (found.length === 0) throw new Error(`no weather of "${name}" is picked`)
  return found
}

const calm = (weather: string): boolean => weather.includes("600/min") && weather.includes("after 2 s")

describe("in the weather", () => {
  const bars: ReadonlyArray<readonly [cell: string, used: number, excess: number]> = [
    ["random 429s of 1 %, headers", 0.97, 0.01],
    ["output tokens bind", 0.95, 0.02],
    ["random 429s of 1 %, no headers", 0.93, 0.015],
    ["neighbour in bursts, headers, 2 s", 0.9, 0.04],
    ["neighbour of 50 %, headers", 0.93, 0.02],
    ["neighbour of 50 %, no headers", 0.92, 0.04],
    ["stale headers", 0.95, 0.02]
  ]
  for (const [cell, used, excess] of some(bars, bars.length)) {
    it(`a budget uses the available limit: ${cell}`, async () => {
      for (const weather of weathersOf(cell, calm)) {
        const result = await resultOf(weather, 1)
        assert.isAtLeast(result.used, used, weather)
        assert.isAtMost(result.excess, excess, weather)
        assert.strictEqual(result.lost, 0, weather)
      }
    })
  }

  it("limits as the README writes them are no slower than none", async () => {
    for (const weather of weathersOf("limits as the README writes them", () => true)) {
      const run = await perform({ law: "library", weather, seed: 1 })
      if (hasDied(run)) throw new Error(`${weather} died: ${run.error}`)
      assert.isAtMost(run.result.makespan! - run.yardsticks!.noLimits, 2.1, weather)
    }
  })

  it.runIf(isFull)("an outage at the start costs no call, and is over soon after it ends", async () => {
    for (const weather of weathersOf("outage: 500", (name) => name.includes("500 0-3 s"))) {
      const result = await resultOf(weather, 1)
      assert.strictEqual(result.lost, 0, weather)
      assert.isAtMost(result.backAfter ?? 0, 30, weather)
    }
  })

  it.runIf(isFull)("a budget of four processes is as good as one's", async () => {
    for (const cell of ["random 429s of 1 %, headers", "neighbour of 50 %, headers"]) {
      for (const weather of weathersOf(cell, calm)) {
        const [one, four] = [await resultOf(weather, 1), await resultOf(weather, 1, "library-x4")]
        assert.isAtLeast(four.used, one.used - 0.03, weather)
        assert.isAtMost(four.excess, Math.max(1.5 * one.excess, one.excess + 0.01), weather)
        assert.strictEqual(four.lost, 0, weather)
      }
    }
  })

  it.runIf(isFull)("a budget beats additive increase, multiplicative decrease where nobody tuned it", async () => {
    const scoreOf = ({ excess, lost, used }: Result): number => Math.max(-3, Math.min(1, used) - 2 * excess - 10 * lost)
    // The law alone, in an engine that runs it ten times as fast as the library.
    let ours = 0
    let aimd = 0
    const seeds = Array.from({ length: 6 }, (_, i) => heldOutFrom + i)
    for (const seed of seeds) {
      ours += scoreOf(await resultOf(undefined, seed, "benchmark/weather/admission.ts"))
      aimd += scoreOf(await resultOf(undefined, seed, "aimd"))
    }
    assert.isAtLeast(ours / seeds.length, aimd / seeds.length + 0.1)
  })
})
