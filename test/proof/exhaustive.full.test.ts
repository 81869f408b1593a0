/** Every order of a few events keeps the laws; `npm run test:full` goes a move deeper, and `exhaustive.soak.ts` far deeper. */
import { assert, describe, it } from "@effect/vitest"
import * as Laws from "./laws.ts"
import { type History, library, replay } from "./play.ts"
import { type ScopeName, scopes } from "./scopes.ts"
import * as Search from "./search.ts"
import { isFull } from "../support/size.ts"

/** Moves that take a second or two for each scope, and a fifth of that without the last. */
const depths: Record<ScopeName, number> = {
  bucket: 4,
  places: 7,
  harms: 5,
  dimensions: 4,
  turns: 6,
  shares: 11,
  jobs: 8,
  callers: 7,
  corrections: 7,
  priorities: 5,
  window: 4,
  quota: 5,
  resize: 4,
  rejections: 6,
  outage: 5,
  probes: 8,
  ramp: 5,
  unknown: 4
}

describe("every order of a few events keeps the laws", () => {
  for (const [name, depth] of Object.entries(depths)) {
    it(`about ${name}`, () => {
      const found = Search.search(library, scopes[name as ScopeName], { depth: isFull ? depth : depth - 1 })
      assert.isUndefined(found.broken, Search.describe(found))
      assert.isTrue(found.isWhole)
      assert.isAbove(found.states, isFull ? 200 : 50)
    })
  }

  it("in orders that deeper searches have found", () => {
    const ask = ["ask", "a", 0] as const
    // With nothing known, more calls went in a round than it had places.
    const history: History = [ask, ask, ask, ["tick", 250], ["end", 0, "rejected"], ["tick", 250]]
    const play = replay(library, scopes.unknown, history)
    for (const [name, law] of Object.entries(Laws.laws)) assert.isUndefined(law(play), name)
  })
})
