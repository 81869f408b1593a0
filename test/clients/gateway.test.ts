import { assert, describe, it } from "@effect/vitest"
import { clients } from "./clients.ts"
import { agents, callsEach, storm } from "./storm.ts"

// Real packages over real HTTP, each with its own retries and with nothing of ours but a base URL.

const calls = agents * callsEach

describe("the storm through the gateway", () => {
  // A client is set up in one way only there: what plugs a floodgate in makes no difference.
  const each = clients.filter(({ name }, index) => clients.findIndex((other) => other.name === name) === index)
  for (const client of each) {
    it(`is weathered by ${client.name}, by its base URL alone`, async () => {
      const { failures, ok, rejected, stalledMillis } = await storm(client, "gateway")
      assert.deepStrictEqual(failures, [])
      assert.strictEqual(ok, calls)
      // What the gateway knows of the limits it learns from the first answers.
      assert.isAtMost(rejected, stalledMillis > 100 ? 4 : 2)
    })
  }
})
