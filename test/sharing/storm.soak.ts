/**
 * As `storm.test.ts`, with a thousand histories of each kind. `SEED` is where to start, `SEEDS` how many to play of each
 * kind, and `MINUTES` after how many minutes to stop earlier. It says by how much limits were exceeded, and why.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Storm from "./storm.ts"
import * as World from "./world.ts"

const redis = await World.redis()
const first = Number(process.env.SEED ?? 1)
const seeds = Number(process.env.SEEDS ?? 1_000)
const minutes = Number(process.env.MINUTES ?? 10)
/** Complaints after which it stops. */
const most = 5

describe("many storms", () => {
  for (const isLossyStore of [false, true]) {
    it(
      `with a store that ${isLossyStore ? "forgets" : "remembers"}`,
      () => {
        const complaints: Array<string> = []
        const worsts = new Map<string, { histories: number; bursts: number; calls: number }>()
        const begun = performance.now()
        let seed = first
        for (; seed < first + seeds && complaints.length < most; seed++) {
          if (performance.now() - begun > (minutes * 60_000) / 2) break
          const outcome = Storm.run(Storm.plan(seed, isLossyStore), redis)
          const cause = Storm.causeOf(outcome.plan)
          const worst = worsts.get(cause) ?? { histories: 0, bursts: 0, calls: 0 }
          worsts.set(cause, {
            histories: worst.histories + 1,
            bursts: Math.max(worst.bursts, Storm.burstsOver(outcome)),
            calls: Math.max(worst.calls, outcome.peak - outcome.plan.concurrency, 0)
          })
          if (Storm.broken(outcome).length > 0) complaints.push(Storm.complaint(seed, isLossyStore, redis)!)
        }
        const seconds = ((performance.now() - begun) / 1_000).toFixed(0)
        console.log(`${seed - first} histories from seed ${first} on, in ${seconds} s`)
        for (const [cause, { bursts, calls, histories }] of worsts) {
          console.log(`${cause}: ${bursts.toFixed(2)} bursts and ${calls} calls over at the worst of ${histories}`)
        }
        assert.deepStrictEqual(complaints, [], complaints.join("\n\n"))
      },
      (minutes + 5) * 60_000
    )
  }
})
