/** The command tickets against a gateway. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { gatewayTo } from "../../../../test/support/gateway.ts"
import { serve } from "../../../../test/support/httpServer.ts"
import { floodgate } from "../support/cli.ts"
import { services } from "../../../gateway/test/support/services.ts"

const token = "0123456789abcdef"
const adminToken = "fedcba9876543210"
const env = { FLOODGATE_GATEWAY_TOKEN: token, FLOODGATE_GATEWAY_ADMIN_TOKEN: adminToken }

/** A gateway whose account has used up its window. */
const gateway = Effect.gen(function* () {
  const resets = String(Math.floor(Date.now() / 1_000) + 3_600)
  const upstream = yield* serve(
    (_, response) =>
      void response
        .writeHead(429, {
          "content-type": "application/json",
          "anthropic-ratelimit-unified-status": "rejected",
          "anthropic-ratelimit-unified-representative-claim": "five_hour",
          "anthropic-ratelimit-unified-5h-utilization": "1",
          "anthropic-ratelimit-unified-5h-reset": resets
        })
        .end('{"type":"error","error":{"type":"rate_limit_error","message":""}}')
  )
  const { url } = yield* gatewayTo(upstream.url, { token, adminToken })
  const park = (key: string, agent: string) =>
    Effect.promise(async () => {
      const response = await fetch(`${url}/v1/messages`, {
        method: "POST",
        headers: {
          authorization: `Bearer ${key}`,
          "anthropic-version": "2023-06-01",
          "x-floodgate-agent": agent,
          "x-floodgate-park": "1",
          "x-floodgate-token": token
        },
        body: JSON.stringify({ model: "claude-sonnet-5", max_tokens: 9, messages: [{ role: "user", content: "Hi" }] })
      })
      await response.text()
      return response.headers.get("x-floodgate-ticket")!
    })
  return { url, park }
})

const tickets = (env: Record<string, string>, ...args: ReadonlyArray<string>) =>
  floodgate("tickets", ...args).pipe(Effect.provide(services({ env })))

describe("floodgate tickets", () => {
  it.live("lists tickets, and cancels one or all of a key", () =>
    Effect.gen(function* () {
      const { park, url } = yield* gateway
      assert.match((yield* tickets(env, "--gateway", url)).out, /^No call waits for a reset with a ticket/)
      const ids = [yield* park("sk-a", "one"), yield* park("sk-a", "two\u0085"), yield* park("sk-a", "three")]
      yield* park("sk-b", "four")
      const { out } = yield* tickets(env, "--gateway", url)
      assert.match(out, /^ticket +state +until +key +agent +bytes +order\n/)
      assert.match(out, new RegExp(`^${ids[0]!.slice(0, 13)} +waiting +\\d{4}-\\S+Z +key-\\S+ +one +\\d+ +1$`, "m"))
      assert.notInclude(out, "\u0085")
      const begun = ids[1]!.slice(0, 13)
      const one = yield* tickets(env, begun, "--cancel", "--json", "--gateway", url)
      assert.strictEqual(one.code, 0, one.err)
      assert.deepInclude(JSON.parse(one.out).tickets[0], { id: ids[1], state: "cancelled" })
      const again = yield* tickets(env, begun, "--cancel", "--gateway", url)
      assert.strictEqual(again.code, 2)
      assert.include(again.err, "No such ticket waits")
      const { key } = JSON.parse((yield* tickets(env, ids[0]!, "--json", "--gateway", url)).out).tickets[0]
      const rest = yield* tickets(env, "--key", key, "--cancel", "--json", "--gateway", url)
      assert.deepStrictEqual(
        JSON.parse(rest.out).tickets.map(({ id }: { readonly id: string }) => id),
        [ids[0], ids[2]]
      )
      const all = JSON.parse((yield* tickets(env, "--json", "--gateway", url)).out).tickets
      assert.deepStrictEqual(
        all.map(({ state }: { readonly state: string }) => state),
        ["cancelled", "cancelled", "cancelled", "waiting"]
      )
    }).pipe(Effect.scoped)
  )

  it.live("says what is wrong, with the nearest id or key, and then changes nothing", () =>
    Effect.gen(function* () {
      const { park, url } = yield* gateway
      const id = yield* park("sk-a", "one")
      const { key } = JSON.parse((yield* tickets(env, "--json", "--gateway", url)).out).tickets[0]
      const last = id[12] === "0" ? "1" : "0"
      for (const [given, args, message] of [
        [{}, [], "requires its token: set FLOODGATE_GATEWAY_TOKEN"],
        [{ FLOODGATE_GATEWAY_TOKEN: token }, [id, "--cancel"], "set FLOODGATE_GATEWAY_ADMIN_TOKEN"],
        [
          { ...env, FLOODGATE_GATEWAY_ADMIN_TOKEN: token },
          [id, "--cancel"],
          "requires its admin token: set FLOODGATE_GATEWAY_ADMIN_TOKEN"
        ],
        [env, ["--cancel"], "Say which tickets to cancel"],
        [env, [`${id.slice(0, 12)}${last}`], `did you mean "${id.slice(0, 13)}"?`],
        [env, ["--key", key.slice(0, -1), "--cancel"], `did you mean "${key}"?`]
      ] as const) {
        const { code, err } = yield* tickets(given, ...args, "--gateway", url)
        assert.strictEqual(code, 2, message)
        assert.include(err, message)
      }
      const { code, err } = yield* tickets(env, "--gateway", "http://127.0.0.1:9")
      assert.notStrictEqual(code, 0)
      assert.match(err, /No gateway answers at http:\/\/127\.0\.0\.1:9/)
      assert.match((yield* tickets(env, "--gateway", url)).out, / waiting /)
    }).pipe(Effect.scoped)
  )
})
