/** The command jobs against a gateway. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { gatewayTo } from "../../../../test/support/gateway.ts"
import { message } from "../../../../test/support/httpProvider.ts"
import { serve } from "../../../../test/support/httpServer.ts"
import { floodgate } from "../support/cli.ts"
import { services } from "../../../gateway/test/support/services.ts"

const adminToken = "fedcba9876543210"
const env = { FLOODGATE_GATEWAY_ADMIN_TOKEN: adminToken }

const gateway = Effect.gen(function* () {
  const upstream = yield* serve(
    (_, response) =>
      void response
        .writeHead(200, { "content-type": "application/json" })
        .end(JSON.stringify(message(10, 10, "claude-test")))
  )
  const { url } = yield* gatewayTo(upstream.url, { adminToken, rules: [{ capPerJob: { agents: 3, depth: 2 } }] })
  const ask = (subAgent?: string, parent?: string) =>
    Effect.promise(async () => {
      const headers: Record<string, string> = {
        "x-api-key": "k",
        "anthropic-version": "2023-06-01",
        "x-claude-code-session-id": "s1"
      }
      if (subAgent !== undefined) headers["x-claude-code-agent-id"] = subAgent
      if (parent !== undefined) headers["x-claude-code-parent-agent-id"] = parent
      const body = { model: "claude-test", max_tokens: 100, messages: [{ role: "user", content: "Hi" }] }
      const response = await fetch(`${url}/v1/messages`, { method: "POST", headers, body: JSON.stringify(body) })
      await response.text()
      return response.status
    })
  return { url, ask }
})

const jobs = (env: Record<string, string>, ...args: ReadonlyArray<string>) =>
  floodgate("jobs", ...args).pipe(Effect.provide(services({ env })))

describe("floodgate jobs", () => {
  it.live("shows who started whom, stops a job, and lets it go on", () =>
    Effect.gen(function* () {
      const { ask, url } = yield* gateway
      assert.match((yield* jobs(env, "--gateway", url)).out, /^No job has called whose agents are capped/)
      const begun = [yield* ask(), yield* ask("a"), yield* ask("b", "a"), yield* ask("c", "b")]
      assert.deepStrictEqual(begun, [200, 200, 200, 402])
      const { out } = yield* jobs(env, "--gateway", url)
      assert.match(out, /^job +id +agents +at once +last hour +deep +refused +stopped\n/)
      assert.match(out, /the job s1 of \S+ +[\da-f]{16} +3 of 3 +3 +3 +2 of 2 +1 +-$/m)
      const id = /[\da-f]{16}/.exec(out)![0]
      const one = yield* jobs(env, id, "--gateway", url)
      assert.include(one.out, "\n  s1\n    s1/a\n      s1/b")
      const stopped = yield* jobs(env, id, "--stop", "calls", "--json", "--gateway", url)
      assert.strictEqual(stopped.code, 0, stopped.err)
      assert.strictEqual(JSON.parse(stopped.out).jobs[0].stop, "calls")
      assert.strictEqual(yield* ask(), 402)
      const resumed = yield* jobs(env, id, "--resume", "--gateway", url)
      assert.strictEqual(resumed.code, 0, resumed.err)
      assert.strictEqual(yield* ask(), 200)
    })
  )

  it.live.each([
    { args: ["--stop", "agents"], code: 2, says: "Say which job" },
    { args: ["x", "--stop", "agents", "--resume"], code: 2, says: "Say either --stop or --resume" },
    { args: ["x"], code: 2, says: 'no job with the id "x"' }
  ])("says what is missing: $says", ({ args, code, says }) =>
    Effect.gen(function* () {
      const { url } = yield* gateway
      const got = yield* jobs(env, ...args, "--gateway", url)
      assert.strictEqual(got.code, code)
      assert.include(got.err, says)
    })
  )

  it.live("needs the admin token to stop a job", () =>
    Effect.gen(function* () {
      const { url } = yield* gateway
      const got = yield* jobs({}, "x", "--stop", "agents", "--gateway", url)
      assert.include(got.err, "set FLOODGATE_GATEWAY_ADMIN_TOKEN")
    })
  )
})
