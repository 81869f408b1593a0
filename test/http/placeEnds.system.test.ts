/** Places over real HTTP, with the official SDK: one job while a place is slow, dies, or is like the other. */
import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Floodgate from "floodgate/promise"
import { ProviderSim } from "floodgate/testing"
import { ProviderServer } from "floodgate/testing/server"

const model = "claude-sonnet-5"
const agents = 10
const callsEach = 8

const latency = (baseMillis: number) => ({ baseMillis, perInputTokenMillis: 0, perOutputTokenMillis: 0 })
/** Neither place alone takes all calls at once. */
const limits = { requests: { perSecond: 40, burst: 5, window: "bucket" as const } }

/** Runs a job at two places, and returns the requests that each has accepted and refused. */
const job = Effect.fnUntraced(function* (first: ProviderServer.Options, second: ProviderServer.Options) {
  const servers = yield* Effect.forEach([first, second], (options) => ProviderServer.make({ limits, ...options }))
  const floodgate = Floodgate.create({
    places: {
      models: {
        [model]: servers.map(({ url }, n) => ({ name: "ab"[n]!, url, key: `KEY-${n}`, limits }))
      }
    }
  })
  const client = new Anthropic({ apiKey: "KEY", baseURL: servers[0]!.url, fetch: floodgate.fetch, maxRetries: 0 })
  const agent = async (name: string) => {
    for (let n = 0; n < callsEach; n++) {
      const metadata = { user_id: name }
      const messages = [{ role: "user" as const, content: `${name}, call ${n}` }]
      const { stop_reason: reason } = await client.messages.create({ model, max_tokens: 20, metadata, messages })
      assert.isNotNull(reason)
    }
  }
  yield* Effect.promise(() => Promise.all(Array.from({ length: agents }, (_, n) => agent(`agent ${n}`))))
  const stats = yield* Effect.forEach(servers, (server) => server.stats)
  yield* Effect.promise(() => floodgate.dispose())
  const answered = stats.map(({ completed }) => completed)
  // Nothing is lost, and nothing is answered twice.
  assert.strictEqual(answered[0]! + answered[1]!, agents * callsEach)
  return { answered, stats }
})

describe("two places over HTTP", () => {
  it.live("share a job if they are alike", () =>
    Effect.gen(function* () {
      const { answered, stats } = yield* job({ latency: latency(30) }, { latency: latency(30) })
      for (const count of answered) assert.isAtLeast(count, 0.3 * agents * callsEach)
      assert.deepStrictEqual(
        stats.map(({ rejected }) => rejected),
        [0, 0]
      )
    })
  )

  it.live("give few calls to one that is slow", () =>
    Effect.gen(function* () {
      const { answered } = yield* job({ latency: latency(1_500) }, { latency: latency(30) })
      // One for each agent at the most, and one more that may find out if it has recovered.
      assert.isAtMost(answered[0]!, agents + 1)
    })
  )

  it.live("lose no call if one dies", () =>
    Effect.gen(function* () {
      const { answered } = yield* job(
        { latency: latency(30), faults: [ProviderSim.outage(200, 3_600_000)] },
        { latency: latency(30) }
      )
      assert.isAtLeast(answered[1]!, 0.5 * agents * callsEach)
    })
  )
})
