/**
 * Processes of 0.4.0 share a store with those of this version, as while a fleet is updated: no cap and no limit is exceeded in any storm,
 * and no call waits for ever. `npm run storms -- --beside COMMIT` plays more.
 */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { rmSync } from "node:fs"
import * as Beside from "./beside.ts"
import * as LedgerStorm from "./ledgerStorm.ts"
import * as Storm from "./storm.ts"
import * as World from "./world.ts"

const redis = await World.redis()

describe.skipIf(!Beside.isKnown(Beside.released))("0.4.0 beside this version", { timeout: 600_000 }, async () => {
  const folder = Beside.sourcesOf(Beside.released)
  afterAll(() => rmSync(folder, { recursive: true }))

  for (const isFirst of [false, true]) {
    const code = await Beside.beside(folder, isFirst)
    const who = isFirst ? "which was there first" : "which comes later"

    it(`keeps the limits of a pool in storms, ${who}`, () => {
      for (let seed = 1; seed <= 60; seed++) {
        const plan = (seed % 3 === 0 ? Storm.rougher : Storm.plan)(seed, seed % 2 === 0)
        const complaint = Storm.complaint(plan, redis, code)
        assert.isUndefined(complaint, complaint)
      }
    })

    it(`keeps caps in dollars in storms, ${who}`, () => {
      for (let seed = 1; seed <= 60; seed++) {
        const complaint = LedgerStorm.complaint(LedgerStorm.plan(seed, seed % 2 === 0), redis, code)
        assert.isUndefined(complaint, complaint)
      }
    })
  }
})
