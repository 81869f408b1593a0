import { assert, describe, it } from "@effect/vitest"
import { clients } from "./clients.ts"
import { agents, callsEach, storm } from "./storm.ts"

// Real packages over real HTTP, each with its own retries and with nothing of ours but a base URL.

const calls = agents * callsEach

describe("the storm through the gateway", () => {
  // What plugs a floodgate in makes no difference there, and each storm takes ten seconds: the streams of the providers' own
  // packages stand for those of the AI SDK.
  const each = clients.filter(({ name }) => !/^AI SDK.*(streamed|middleware)/.test(name))
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
