import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { ProviderServer } from "floodgate/testing/server"
import { join } from "node:path"
import { services } from "../../../gateway/test/support/services.ts"
import { floodgate } from "../support/cli.ts"
import * as Process from "../support/command.ts"

describe("floodgate gateway", () => {
  it.live("is the command of the gateway, whose record forecast and storm play", () =>
    Effect.gen(function* () {
      const provider = yield* ProviderServer.make({ latency: { baseMillis: 10, perInputTokenMillis: 0 } })
      const { inside } = yield* Process.folder
      const flags = ["--port", "0", "--upstream", `anthropic=${provider.url}`, "--record", "trace.csv"]
      const { child, ended, output } = Process.start(inside, ["gateway", ...flags])
      yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
      const text = yield* Effect.repeat(Effect.sync(output), {
        until: (text) => text.includes("\n"),
        schedule: Schedule.spaced("20 millis")
      })
      const [, url] = /^floodgate gateway listening on (http:\/\/127\.0\.0\.1:\d+)\n$/.exec(text) ?? []
      assert.isDefined(url, text)
      const body = JSON.stringify({
        model: "claude-sonnet-5",
        max_tokens: 9,
        messages: [{ role: "user", content: "Hi" }]
      })
      const headers = { "x-api-key": "sk-a-secret", "anthropic-version": "2023-06-01" }
      for (let call = 0; call < 3; call++) {
        const { status } = yield* Effect.promise(() => fetch(`${url}/v1/messages`, { method: "POST", headers, body }))
        assert.strictEqual(status, 200)
      }
      child.kill("SIGTERM")
      const { code, stderr } = yield* Effect.promise(() => ended)
      assert.strictEqual(code, 143, stderr)
      for (const [command, ...more] of [["forecast"], ["storm", "--strategy", "floodgate"]] as const) {
        const { code, err } = yield* floodgate(command, "--trace", join(inside, "trace.csv"), ...more)
        assert.strictEqual(code, 0, err)
      }
    }).pipe(Effect.provide(services()))
  )

  it.effect("names itself as its user started it, in its help and in the hint of an error", () =>
    Effect.gen(function* () {
      const { out } = yield* floodgate("gateway", "--help")
      assert.match(out, /^ {2}floodgate gateway --config gateway\.json --redis/m)
      assert.notMatch(out, /floodgate-gateway/)
      const { code, err } = yield* floodgate("gateway", "--burst", "5")
      assert.strictEqual(code, 2)
      assert.match(err, /See floodgate gateway --help/)
    }).pipe(Effect.provide(services()))
  )

  it.live("says after init how to start the gateway in a clone, where the command has no name in the shell", () =>
    Effect.gen(function* () {
      const { inside } = yield* Process.folder
      const { out } = yield* floodgate("gateway", "init", join(inside, "gateway.json"))
      assert.match(out, /^ {2}ANTHROPIC_API_KEY=\.\.\. npm run -s floodgate -- gateway --config \S+gateway\.json$/m)
    }).pipe(Effect.provide(services()))
  )
})
