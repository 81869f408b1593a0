/** As `storm.test.ts`, with a thousand histories of each kind. `SEED` is where to start. */
import { assert, describe, it } from "@effect/vitest"
import * as Storm from "./storm.ts"
import * as World from "./world.ts"

const redis = await World.redis()
const first = Number(process.env.SEED ?? 1)

describe("a thousand storms", () => {
  for (const losses of [false, true]) {
    it(`with a store that ${losses ? "forgets" : "remembers"}`, () => {
      const bad: Array<string> = []
      let worst = 0
      for (let seed = first; seed < first + 1_000; seed++) {
        const outcome = Storm.run(Storm.plan(seed, losses), redis)
        for (const law of Storm.broken(outcome)) bad.push(`seed ${seed}: ${law}`)
        worst = Math.max(worst, Storm.burstsOver(outcome))
      }
      console.log(`The worst exceeds its limit by ${worst.toFixed(2)} bursts.`)
      assert.deepStrictEqual(bad, [])
    })
  }
})
