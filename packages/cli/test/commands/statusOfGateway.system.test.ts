/** The command status with a gateway. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { createHash } from "node:crypto"
import * as Gateway from "@floodgate/gateway"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { serve } from "../../../../test/support/httpServer.ts"
import { services } from "../../../gateway/test/support/services.ts"
import { ask, completion, json } from "../../../gateway/test/world.ts"
import { floodgate } from "../support/cli.ts"

const key = "fg-caller-0123456789"
const keys = [{ name: "caller", sha256: createHash("sha256").update(key).digest("hex") }]

/** A gateway whose first place refuses the credential. */
const gateway = Effect.fnUntraced(function* (places?: Gateway.Options["places"], rules?: Gateway.Options["rules"]) {
  const refusing = yield* serve((_, response) => json(response, 401, "{}"))
  const answering = yield* serve((_, response) => json(response, 200, completion))
  const live = yield* Layer.build(
    Gateway.layer({
      upstreams: { openai: refusing.url, mirror: answering.url },
      keys,
      credentials: { openai: Redacted.make("KEY-0"), mirror: Redacted.make("KEY-1") },
      places,
      rules,
      drain: "20 millis"
    }).pipe(Layer.provide(Governor.layer()), Layer.provide(Budget.layer()), Layer.provide(Gateway.layerEvents))
  )
  const { url } = yield* Effect.provide(Gateway.Gateway, live)
  return url
})

/** Makes a call, which opens its pool. */
const call = Effect.fnUntraced(function* (url: string) {
  const body = JSON.stringify({ model: "gpt-6", max_tokens: 9, messages: [] })
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" }
  const sent = yield* ask(`${url}/openai/v1/chat/completions`, { method: "POST", headers, body })
  assert.strictEqual(sent.status, 200)
})

const status = (...args: ReadonlyArray<string>) =>
  floodgate("status", ...args).pipe(Effect.provide(services({ env: {} })))

describe("floodgate status --gateway", () => {
  it.live("shows what each place does, and why calls came from elsewhere", () =>
    Effect.gen(function* () {
      const limits = { requests: { perMinute: 60 } }
      const url = yield* gateway({ "gpt-6": [{ upstream: "openai" }, { upstream: "mirror", limits, concurrency: 4 }] })
      yield* call(url)
      const { code, err, out } = yield* status("--gateway", url)
      assert.strictEqual(code, 0, err)
      assert.match(out, /^place +state +an answer takes +in flight +waiting +a minute +came from elsewhere$/m)
      assert.match(out, /\/openai\/gpt-6 +refused, tried in \d+ s +- +0 +0 +- +-$/m)
      assert.match(out, /\/mirror\/gpt-6 +open +\S+ s +0 of 4 +0 +60 requests +1 failed$/m)
      const { places } = JSON.parse((yield* status("--gateway", url, "--json")).out)
      assert.deepStrictEqual(places.map(({ came, state }: { came: object; state: string }) => [state, came]).sort(), [
        ["open", { failed: 1 }],
        ["refused", {}]
      ])
    })
  )

  it.live("shows limits, calls and caps as it shows those in Redis", () =>
    Effect.gen(function* () {
      const limits = { requests: { perMinute: 60 }, inputTokens: { perMinute: 120_000, burst: 2_000 } }
      const url = yield* gateway({ "gpt-6": [{ upstream: "mirror", limits, concurrency: 4 }] }, [
        { name: "batch", agent: "batch-*", cap: { dollars: 5, per: "1 day" } }
      ])
      yield* call(url)
      const { code, err, out } = yield* status("--gateway", url)
      assert.strictEqual(code, 0, err)
      assert.match(out, /^input +█+░* [\d.]+K of 2K free, refills 2K\/s$/m)
      assert.match(out, /^calls +0 of 4 in flight, 0 waiting$/m)
      assert.match(out, /^requests +limit 1\/s, stated$/m)
      assert.match(out, /^cap +spent +reserved +of +until$/m)
      assert.match(out, /^batch +\$0.00 +\$0.00 +\$5.00 +-$/m)
      const { caps, pools } = JSON.parse((yield* status("--gateway", url, "--json")).out)
      assert.deepStrictEqual([caps[0].dollars, pools[0].allowed], [5, 4])
    })
  )

  it.live("says so if there is nothing to show", () =>
    Effect.gen(function* () {
      const { out } = yield* status("--gateway", yield* gateway())
      assert.match(out, /^No call waits or runs at this gateway/)
    })
  )

  it.live("does not look at both", () =>
    Effect.gen(function* () {
      const both = yield* status("--redis", "redis://127.0.0.1:1", "--gateway", "http://127.0.0.1:1")
      assert.strictEqual(both.code, 2)
      assert.include(both.err, '--redis "redis://127.0.0.1:1" does not apply: --gateway is given')
    })
  )

  it.live("says what an address looks like", () =>
    Effect.gen(function* () {
      const { code, err } = yield* status("--gateway", "nowhere")
      assert.strictEqual(code, 2)
      assert.include(err, "an address such as http://127.0.0.1:8788")
    })
  )
})
