/** The command jobs against a gateway. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { floodgate } from "../support/cli.ts"
import { services } from "../../../gateway/test/support/services.ts"
import { ask, messages, ofClaudeCode, world } from "../../../gateway/test/world.ts"

const adminToken = "fedcba9876543210"
const env = { FLOODGATE_GATEWAY_ADMIN_TOKEN: adminToken }

const gateway = Effect.gen(function* () {
  const { url } = yield* world(messages, { adminToken, rules: [{ capPerJob: { agents: 3, depth: 2 } }] })
  const call = (...of: Parameters<typeof ofClaudeCode>) =>
    Effect.map(ask(`${url}/v1/messages`, ofClaudeCode(...of)), ({ status }) => status)
  return { url, ask: (subAgent?: string, parent?: string) => call("s1", subAgent, parent) }
})

const jobs = (env: Record<string, string>, ...args: ReadonlyArray<string>) =>
  floodgate("jobs", ...args).pipe(Effect.provide(services({ env })))

describe("floodgate jobs", () => {
  it.live("shows who started whom, stops a job, and lets it go on", () =>
    Effect.gen(function* () {
      const { ask, url } = yield* gateway
      assert.match((yield* jobs(env, "--gateway", url)).out, /^No job has called that a rule caps/)
      const begun = [yield* ask(), yield* ask("a"), yield* ask("b", "a"), yield* ask("c", "b")]
      assert.deepStrictEqual(begun, [200, 200, 200, 400])
      const { out } = yield* jobs(env, "--gateway", url)
      assert.match(
        out,
        /^job +id +agents +at once +last hour +deep +tokens +dollars +calls +waited +refused +stopped\n/
      )
      assert.match(out, /the job s1 of \S+ +[\da-f]{16} +3 of 3 +3 +3 +2 of 2 +60 +\$0\.00 +- +\S+ s +1 +-$/m)
      const id = /[\da-f]{16}/.exec(out)![0]
      const one = yield* jobs(env, id, "--gateway", url)
      assert.match(one.out, /\n {2}s1: 20 tokens, \$0\.00, waited \S+ s\n {4}s1\/a: 20 tokens.*\n {6}s1\/b: 20 tokens/)
      const stopped = yield* jobs(env, id, "--stop", "calls", "--json", "--gateway", url)
      assert.strictEqual(stopped.code, 0, stopped.err)
      assert.strictEqual(JSON.parse(stopped.out).jobs[0].stop, "calls")
      assert.strictEqual(yield* ask(), 400)
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
