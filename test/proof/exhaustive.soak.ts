/** As `exhaustive.test.ts`, up to 100,000 states of each scope, or `STATES` of them. It says how many there were. */
import { assert, describe, it } from "@effect/vitest"
import { library } from "./play.ts"
import { scopes } from "./scopes.ts"
import * as Search from "./search.ts"

const states = Number(process.env.STATES ?? 100_000)

describe("every order of many events keeps the laws", () => {
  for (const scope of Object.values(scopes)) {
    it(`about ${scope.name}`, () => {
      const found = Search.search(library, scope, { depth: 30, states })
      console.log(Search.describe(found))
      assert.isUndefined(found.broken)
    })
  }
})
