/** Claude Code itself at two places of the gateway, while they are alike, one is slow, or one is down. `FLOODGATE_CLAUDE` names the binary. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { ProviderSim } from "floodgate/testing"
import { ProviderServer } from "floodgate/testing/server"
import { createHash } from "node:crypto"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { gatewayTo } from "../support/gateway.ts"
import { claudeCodeIn, homeFor } from "./programs.ts"

const claude = process.env["FLOODGATE_CLAUDE"]
const apiKey = "fg-caller-0123456789"
const model = "claude-sonnet-5"

const latency = (baseMillis: number) => ({ baseMillis, perInputTokenMillis: 0, perOutputTokenMillis: 0 })
const usual = { latency: latency(300) }

/** Two agents ask two questions each, one after the other. Returns the calls that each place has answered. */
const answered = Effect.fnUntraced(function* (first: ProviderServer.Options) {
  const servers = yield* Effect.forEach([first, usual], (options) => ProviderServer.make(options))
  const [one, mirror] = servers.map(({ url }) => url)
  const { url } = yield* gatewayTo(one!, {
    upstreams: { anthropic: one!, mirror: mirror! },
    keys: [{ name: "caller", sha256: createHash("sha256").update(apiKey).digest("hex") }],
    credentials: { anthropic: Redacted.make("KEY-0"), mirror: Redacted.make("KEY-1") },
    places: { [model]: ["anthropic", "mirror"].map((upstream) => ({ upstream, concurrency: 1 })) }
  })
  const home = yield* homeFor("places")
  const env = { ...claudeCodeIn(home, `${url}/anthropic`), ANTHROPIC_AUTH_TOKEN: apiKey }
  const agent = async (): Promise<void> => {
    for (let n = 0; n < 2; n++) {
      const child = spawn(claude!, ["-p", "hello", "--model", model], { cwd: home, env, stdio: "ignore" })
      assert.deepStrictEqual(await once(child, "exit"), [0, null])
    }
  }
  yield* Effect.promise(() => Promise.all([agent(), agent()]))
  const counts = yield* Effect.forEach(servers, ({ stats }) => Effect.map(stats, ({ completed }) => completed))
  assert.strictEqual(counts[0]! + counts[1]!, 4)
  return counts
})

describe.skipIf(claude === undefined)("Claude Code at two places", () => {
  it.live("has all answers if they are alike", () => answered(usual))

  it.live("asks one that is slow once", () =>
    Effect.map(answered({ latency: latency(8_000) }), ([slow]) => assert.isAtMost(slow!, 1))
  )

  it.live("has all answers of the other if one is down", () =>
    Effect.map(answered({ ...usual, faults: [ProviderSim.outage(0, 3_600_000)] }), (counts) =>
      assert.deepStrictEqual(counts, [0, 4])
    )
  )
})
