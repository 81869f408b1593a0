/** The command advise against a gateway, and without one. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { gatewayTo } from "../../../../test/support/gateway.ts"
import { serve } from "../../../../test/support/httpServer.ts"
import { floodgate } from "../support/cli.ts"
import { services } from "../../../gateway/test/support/services.ts"

const limits = { tokens: { perSecond: 60_000, burst: 200_000 } }
const incident = ["--calls", "5", "--first-input-tokens", "149800", "--input-tokens", "13800", "--output-tokens", "200"]
const told = ["--tokens-per-second", "60000", "--burst", "200000"]
const token = "0123456789abcdef"
/** An address at which nothing listens any more. */
const deserted = Effect.map(Effect.scoped(serve(() => {})), ({ url }) => url)

const gateway = (given?: string) =>
  Effect.gen(function* () {
    const upstream = yield* serve((_, response) => void response.writeHead(500).end())
    return (yield* gatewayTo(upstream.url, { token: given }, limits)).url
  })

const advise = (env: Record<string, string>, ...args: ReadonlyArray<string>) =>
  floodgate("advise", ...args).pipe(Effect.provide(services({ env })))

describe("floodgate advise", () => {
  it.live("asks the gateway of the flag, or of the environment", () =>
    Effect.gen(function* () {
      const url = yield* gateway()
      for (const [env, args] of [
        [{}, ["--gateway", url]],
        [{ FLOODGATE_GATEWAY_URL: `${url}/` }, []]
      ] as const) {
        const { code, out } = yield* advise(env, "--agents", "104", ...incident, ...args)
        assert.strictEqual(code, 0)
        assert.match(out, /^Start 5 of 104 agents now: .*because tokens are the limit\./)
        assert.match(out, /agents that start now +all of these end in\n1 +14\.6 s\n2 +16\.2 s/)
        assert.include(out, `From the gateway at ${url}.`)
      }
    })
  )

  it.live("prints JSON, with the source", () =>
    Effect.gen(function* () {
      const few = yield* advise({}, "--concurrency", "10", "--json")
      assert.strictEqual(JSON.parse(few.out).source, "the stated limits (10 calls at once)")
      const { out } = yield* advise({}, "--agents", "104", ...incident, ...told, "--json")
      const advice = JSON.parse(out) as Record<string, unknown>
      assert.deepInclude(advice, { agents: 5, binding: "tokens", job: 104 })
      assert.strictEqual(advice["source"], "the stated limits (60,000 tokens/s (bucket of 200,000))")
    })
  )

  it.live("says that agents never end if a call of theirs is larger than the limit", () =>
    Effect.gen(function* () {
      const { out } = yield* advise({}, "--tokens-per-second", "100", "--agents", "3")
      assert.match(out, /^Start no agents now, because tokens are the limit\. 3 agents will never end\./)
      assert.notInclude(out, "agents that start now")
      const json = yield* advise({}, "--tokens-per-second", "100", "--json")
      assert.deepInclude(JSON.parse(json.out), { agents: 0, endSeconds: null, ends: [], rangeSeconds: null })
    })
  )

  it.live("says what to do if no gateway answers, a token is missing, or another server answers", () =>
    Effect.gen(function* () {
      const away = yield* deserted
      const { code, err } = yield* advise({}, "--gateway", away)
      assert.strictEqual(code, 4)
      const says = `No gateway answers at ${away} (ECONNREFUSED): start one with \`floodgate gateway\`, or state the limits`
      assert.include(err, says)
      const secret = yield* gateway(token)
      const refused = yield* advise({}, "--gateway", secret)
      assert.strictEqual(refused.code, 2)
      assert.include(refused.err, `The gateway at ${secret} requires its token: set FLOODGATE_GATEWAY_TOKEN`)
      assert.strictEqual((yield* advise({ FLOODGATE_GATEWAY_TOKEN: token }, "--gateway", secret)).code, 0)
      const other = yield* serve((_, response) => void response.writeHead(404).end("nothing here"))
      const wrong = yield* advise({}, "--gateway", other.url)
      assert.strictEqual(wrong.code, 4)
      assert.include(wrong.err, `${other.url} answers 404: is it a Floodgate gateway, and not older than this command?`)
    })
  )

  it.live("names the flag, and what was expected", () =>
    Effect.gen(function* () {
      const url = yield* gateway()
      for (const [args, message] of [
        [["--agents", "20000"], "--agents: expected an integer from 1 to 10000, got 20000"],
        [["--agents", "0"], '--agents: expected a whole number above 0, got "0"'],
        [["--like", "doc-*", "--calls", "2"], "--calls: does not apply, because like says what each agent does"],
        [["--pool", "opus"], 'No pool is known for "opus": known are "default"'],
        [["--gateway", "nowhere"], '--gateway: expected an address such as http://127.0.0.1:8788, got "nowhere"'],
        [["--gateway", "http://127.0.0.1:8788/?page"], "--gateway: expected an address such as http://127.0.0.1:8788"],
        [["--gateway", "http://127.0.0.1:8788/?"], "--gateway: expected an address such as http://127.0.0.1:8788"]
      ] as const) {
        const where = args[0] === "--gateway" ? [] : ["--gateway", url]
        const { code, err } = yield* advise({}, ...args, ...where)
        assert.strictEqual(code, 2, message)
        assert.include(err, message)
      }
      const secret = "http://me:secret@127.0.0.1:1"
      for (const [env, args, name] of [
        [{}, ["--gateway", secret], "--gateway"],
        [{ FLOODGATE_GATEWAY_URL: secret }, [], "FLOODGATE_GATEWAY_URL"],
        [{ FLOODGATE_GATEWAY_URL: "nowhere" }, [], "FLOODGATE_GATEWAY_URL"]
      ] as const) {
        const { code, err } = yield* advise(env, ...args)
        assert.strictEqual(code, 2)
        assert.include(
          err,
          `${name}: expected an address such as http://127.0.0.1:8788, got something else (not shown)`
        )
        assert.notInclude(err, "secret")
      }
      const both = yield* advise({}, ...told, "--gateway", url)
      assert.include(both.err, "does not apply: the stated limits answer")
    })
  )
})
