import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import { ProviderServer } from "floodgate/testing/server"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Process from "../support/command.ts"

const body = JSON.stringify({ model: "claude-sonnet-5", max_tokens: 9, messages: [{ role: "user", content: "Hello" }] })

const ask = (url: string, path: string): Effect.Effect<number> =>
  Effect.promise(async () => {
    const headers = { "x-api-key": "sk-a-secret", "anthropic-version": "2023-06-01" }
    const response = await fetch(`${url}${path}`, path.endsWith("/messages") ? { method: "POST", headers, body } : {})
    await response.text()
    return response.status
  })

describe("floodgate gateway", () => {
  it.live("prints one line when it is ready, follows its file, and ends its calls at SIGTERM", () =>
    Effect.gen(function* () {
      const provider = yield* ProviderServer.make({ latency: { baseMillis: 1_500, perInputTokenMillis: 0 } })
      const { inside } = yield* Process.folder
      const config = {
        upstreams: { anthropic: provider.url },
        limits: { requests: { perMinute: 60 } },
        drain: "20 seconds"
      }
      Fs.writeFileSync(Path.join(inside, "gateway.json"), JSON.stringify(config))
      const args = ["gateway", "--port", "0", "--config", "gateway.json", "--log-level", "debug"]
      const token = "0123456789abcdef"
      const { child, ended, output } = Process.start(inside, args, { FLOODGATE_GATEWAY_TOKEN: token })
      yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
      const line = yield* Effect.repeat(Effect.sync(output), {
        until: (text) => text.endsWith("\n"),
        schedule: Schedule.spaced("20 millis")
      })
      const [, url] = /^floodgate gateway listening on (http:\/\/127\.0\.0\.1:\d+)\n$/.exec(line) ?? []
      assert.isDefined(url, line)
      assert.strictEqual(yield* ask(url!, "/v1/messages"), 401)
      const call = yield* Effect.forkChild(ask(url!, `/token/${token}/v1/messages`))
      yield* Effect.repeat(provider.stats, {
        until: ({ inFlight }) => inFlight === 1,
        schedule: Schedule.spaced("20 millis")
      })
      child.kill("SIGTERM")
      assert.strictEqual(yield* Fiber.join(call), 200)
      const { code, stderr } = yield* Effect.promise(() => ended)
      assert.strictEqual(code, 143)
      assert.match(stderr, /"outcome":"answered","status":200/)
      assert.notMatch(stderr, /sk-a-secret|Hello/)
    })
  )

  it.live("refuses what makes no sense, in a line that says so", () =>
    Effect.gen(function* () {
      const { inside } = yield* Process.folder
      const wrong: ReadonlyArray<readonly [config: string, says: RegExp]> = [
        ['{"limit": {}}', /gateway\.json: .*"limit"/],
        ['{"limits": {"requests": {"perMinute": -1}}}', /Limits\.requests\.perMinute: expected a number above 0/],
        ['{"maxHold": "soon"}', /Gateway\.maxHold: expected a finite duration/],
        ['{"host": "0.0.0.0"}', /Gateway\.token: expected a token/],
        ["no JSON", /gateway\.json: /]
      ]
      for (const [config, says] of wrong) {
        Fs.writeFileSync(Path.join(inside, "gateway.json"), config)
        const { code, stderr } = yield* Process.run(inside, ["gateway", "--port", "0", "--config", "gateway.json"])
        assert.strictEqual(code, 2, config)
        assert.match(stderr.replaceAll("\n", " "), says)
      }
    })
  )
})
