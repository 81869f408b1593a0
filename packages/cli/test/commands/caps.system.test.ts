/** The command caps against a gateway. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { gatewayTo } from "../../../../test/support/gateway.ts"
import { serve } from "../../../../test/support/httpServer.ts"
import { floodgate } from "../support/cli.ts"
import { services } from "../../../gateway/test/support/services.ts"

const token = "0123456789abcdef"
const adminToken = "fedcba9876543210"
const env = { FLOODGATE_GATEWAY_TOKEN: token, FLOODGATE_GATEWAY_ADMIN_TOKEN: adminToken }

/** A gateway that has spent a part of its cap. */
const gateway = Effect.gen(function* () {
  const upstream = yield* serve((_, response) => {
    response.writeHead(200, { "content-type": "application/json" })
    response.end(
      JSON.stringify({
        type: "message",
        role: "assistant",
        model: "claude-sonnet-5",
        content: [],
        stop_reason: "end_turn",
        usage: { input_tokens: 1_000, output_tokens: 800 }
      })
    )
  })
  const rules = [{ name: "search", cap: { dollars: 0.03, per: "day" as const }, capPerAgent: { dollars: 1 } }]
  const { url } = yield* gatewayTo(upstream.url, { token, adminToken, rules })
  const ask = Effect.promise(async () => {
    const response = await fetch(`${url}/v1/messages`, {
      method: "POST",
      headers: { "x-api-key": "k", "anthropic-version": "2023-06-01", "x-floodgate-token": token },
      body: JSON.stringify({ model: "claude-sonnet-5", max_tokens: 2_500, messages: [{ role: "user", content: "Hi" }] })
    })
    await response.text()
    return response.status
  })
  return { url, ask }
})

const caps = (env: Record<string, string>, ...args: ReadonlyArray<string>) =>
  floodgate("caps", ...args).pipe(Effect.provide(services({ env })))

describe("floodgate caps", () => {
  it.live("shows, raises and resets a cap, and the next calls follow it", () =>
    Effect.gen(function* () {
      const { ask, url } = yield* gateway
      // A cent was spent, and a call may cost two and a half.
      assert.deepStrictEqual([yield* ask, yield* ask], [200, 402])
      const shown = yield* caps(env, "--gateway", url)
      assert.match(
        shown.out,
        /^cap +spent +reserved +of +until\nsearch +\$0\.01 +\$0\.00 +\$0\.03 +\d{4}-.*T00:00:00\.000Z$/m
      )
      const raised = yield* caps(env, "search", "--usd", "0.04", "--gateway", url)
      assert.strictEqual(raised.code, 0, raised.err)
      assert.deepStrictEqual([yield* ask, yield* ask], [200, 402])
      const reset = yield* caps(env, "search", "--reset", "--json", "--gateway", url)
      const [cap] = JSON.parse(reset.out).caps
      assert.deepInclude(cap, { name: "search", dollars: 0.04, spent: 0 })
      assert.strictEqual(yield* ask, 200)
      const byId = yield* caps(env, cap.id, "--usd", "2", "--json", "--gateway", url)
      assert.strictEqual(JSON.parse(byId.out).caps[0].dollars, 2)
      // The status leaves out this cap once nothing is spent of it.
      const all = JSON.parse((yield* caps(env, "--json", "--gateway", url)).out).caps
      const agent = all.find(({ name }: { readonly name: string }) => name.startsWith("agent "))
      const forgotten = yield* caps(env, agent.name, "--reset", "--json", "--gateway", url)
      assert.strictEqual(forgotten.code, 0, forgotten.err)
      assert.deepStrictEqual(JSON.parse(forgotten.out).caps, [{ id: agent.id, name: agent.name, dollars: 1, spent: 0 }])
    }).pipe(Effect.scoped)
  )

  it.live("says which token is missing or wrong, and then changes nothing", () =>
    Effect.gen(function* () {
      const { url } = yield* gateway
      const { FLOODGATE_GATEWAY_ADMIN_TOKEN: _, ...agent } = env
      for (const [given, args, message] of [
        [{}, [], "requires its token: set FLOODGATE_GATEWAY_TOKEN"],
        [agent, ["search", "--usd", "9"], "set FLOODGATE_GATEWAY_ADMIN_TOKEN to the gateway's admin token"],
        [
          { ...env, FLOODGATE_GATEWAY_ADMIN_TOKEN: token },
          ["search", "--usd", "9"],
          "requires its admin token: set FLOODGATE_GATEWAY_ADMIN_TOKEN"
        ],
        [env, ["--usd", "9"], "Say which cap to change"],
        [env, ["serch"], 'The gateway shows no cap named "serch": it has "search"'],
        [env, ["serch", "--reset"], "No cap, or more than one, has this name"],
        [env, ["search", "--usd", "0"], "--usd: expected a number from 0.001"]
      ] as const) {
        const { code, err } = yield* caps(given, ...args, "--gateway", url)
        assert.strictEqual(code, 2, message)
        assert.include(err, message)
      }
      const { out } = yield* caps(env, "--json", "--gateway", url)
      assert.strictEqual(JSON.parse(out).caps[0].dollars, 0.03)
    }).pipe(Effect.scoped)
  )
})
