import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import { ProviderServer } from "floodgate/testing/server"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { some } from "../../../../test/support/size.ts"
import { gateway } from "../support/cli.ts"
import * as Process from "../support/command.ts"
import { services } from "../support/services.ts"

const body = JSON.stringify({ model: "claude-sonnet-5", max_tokens: 9, messages: [{ role: "user", content: "Hello" }] })

const ask = (url: string, path: string): Effect.Effect<number> =>
  Effect.promise(async () => {
    const headers = { "x-api-key": "sk-a-secret", "anthropic-version": "2023-06-01" }
    const response = await fetch(`${url}${path}`, path.endsWith("/messages") ? { method: "POST", headers, body } : {})
    await response.text()
    return response.status
  })

interface Kept {
  readonly limits: { readonly pools: ReadonlyArray<{ readonly inputTokens?: { readonly perMinute?: number } }> }
  readonly calls: { readonly profiles: ReadonlyArray<{ readonly outputs: ReadonlyArray<number> }> }
}

const until = <A>(effect: Effect.Effect<A>, holds: (value: A) => boolean): Effect.Effect<A> =>
  Effect.repeat(effect, { until: holds, schedule: Schedule.spaced("20 millis") })

/** A gateway that listens. */
const started = Effect.fnUntraced(function* (folder: string, flags: ReadonlyArray<string>) {
  const process = Process.start(folder, ["--port", "0", ...flags])
  yield* Effect.addFinalizer(() => Effect.sync(() => process.child.kill("SIGKILL")))
  const text = yield* until(Effect.sync(process.output), (text) => text.includes("\n"))
  const [, url] = /^floodgate gateway listening on (http:\/\/127\.0\.0\.1:\d+)\n$/.exec(text) ?? []
  assert.isDefined(url, text)
  return { ...process, url: url! }
})

describe("floodgate-gateway", () => {
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
      const args = ["--port", "0", "--config", "gateway.json", "--log-level", "debug"]
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
      const logged = stderr.split("\n").find((line) => line.includes('"event":"call"'))
      const { at, millis, ...record } = JSON.parse(logged ?? "") as Record<string, unknown>
      assert.match(String(at), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
      assert.isAbove(Number(millis), 1_000)
      assert.deepInclude(record, { upstream: "anthropic", model: "claude-sonnet-5", outcome: "answered", status: 200 })
      assert.notMatch(stderr, /sk-a-secret|Hello/)
    })
  )

  it.live("keeps what it learned, and its record of calls, across restarts", () =>
    Effect.gen(function* () {
      const provider = yield* ProviderServer.make({
        limits: { inputTokens: { perMinute: 60_000 }, requests: { perMinute: 600 } },
        latency: { baseMillis: 10, perInputTokenMillis: 0 },
        headers: "exact"
      })
      const { inside } = yield* Process.folder
      const flags = ["--upstream", `anthropic=${provider.url}`, "--state", "state.json", "--record", "trace.csv"]
      const [state, trace] = [Path.join(inside, "state.json"), Path.join(inside, "trace.csv")]
      const stateOf = () => JSON.parse(Fs.readFileSync(state, "utf8")) as Kept
      const once = Effect.gen(function* () {
        const { child, ended, url } = yield* started(inside, flags)
        for (let call = 0; call < 3; call++) assert.strictEqual(yield* ask(url, "/v1/messages"), 200)
        child.kill("SIGTERM")
        const { code, stderr } = yield* Effect.promise(() => ended)
        assert.strictEqual(code, 143, stderr)
      })
      yield* once
      const first = stateOf()
      assert.strictEqual(first.limits.pools[0]!.inputTokens!.perMinute, 60_000)
      assert.isAbove(first.calls.profiles.length, 0)
      yield* once
      const second = stateOf()
      assert.strictEqual(second.limits.pools.length, 1)
      const outputs = ({ calls }: Kept) => Math.max(...calls.profiles.map(({ outputs }) => outputs.length))
      assert.deepStrictEqual([outputs(first), outputs(second)], [3, 6])
      const lines = Fs.readFileSync(trace, "utf8").trim().split("\n")
      assert.strictEqual(lines.length, 7)
      assert.match(
        lines[1]!,
        /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3},\d+,\d+,claude-sonnet-5,[\da-f]{16},\d+\.\d{3},[\da-f]{16},,0,0,,\d+\.\d{3}$/
      )
      for (const file of [state, trace]) assert.notMatch(Fs.readFileSync(file, "utf8"), /sk-a-secret|Hello/)
      // The error names a damaged file, and the file stays as it is.
      for (const [file, flag, text] of [
        [state, "--state", Fs.readFileSync(state, "utf8").slice(0, -2)],
        [state, "--state", '{"format":2}'],
        [trace, "--record", "Time,Tokens\n1,2\n"]
      ] as const) {
        Fs.writeFileSync(file, text)
        const { code, err } = yield* gateway("--port", "0", flag, file)
        assert.strictEqual(code, 3, err)
        assert.include(err.replaceAll("\n", " "), file)
        assert.strictEqual(Fs.readFileSync(file, "utf8"), text)
      }
    }).pipe(Effect.provide(services()))
  )

  it.live(
    "reads its configuration again at SIGHUP, ends no call for it, and keeps the old one if the new is wrong",
    () =>
      Effect.gen(function* () {
        const provider = yield* ProviderServer.make({ latency: { baseMillis: 1_000, perInputTokenMillis: 0 } })
        const { inside } = yield* Process.folder
        const configure = (more: object) =>
          Fs.writeFileSync(
            Path.join(inside, "gateway.json"),
            JSON.stringify({
              upstreams: { anthropic: provider.url },
              limits: { requests: { perMinute: 600 } },
              ...more
            })
          )
        configure({})
        const { child, output, url } = yield* started(inside, ["--config", "gateway.json"])
        const said = (pattern: RegExp) => until(Effect.sync(output), (text) => pattern.test(text.replaceAll("\n", " ")))
        const other = yield* ProviderServer.make({ latency: { baseMillis: 10, perInputTokenMillis: 0 } })
        const running = yield* Effect.forkChild(ask(url, "/v1/messages"))
        yield* until(provider.stats, ({ inFlight }) => inFlight === 1)
        configure({
          upstreams: { anthropic: other.url },
          token: "0123456789abcdef",
          limits: { requests: { perMinute: 60 } }
        })
        child.kill("SIGHUP")
        yield* said(/Reloaded the configuration/)
        assert.strictEqual(yield* ask(url, "/v1/messages"), 401)
        assert.strictEqual(yield* ask(url, "/token/0123456789abcdef/v1/messages"), 200)
        assert.strictEqual((yield* other.stats).completed, 1)
        assert.strictEqual(yield* Fiber.join(running), 200)
        assert.strictEqual((yield* provider.stats).completed, 1)
        for (const [wrong, why] of [
          [
            { maxHold: "soon" },
            /Kept the old configuration: gateway\.json: maxHold: expected a duration from 1 millisecond to 1 day/
          ],
          [{ rules: [{ cap: { dollars: -1 } }] }, /gateway\.json: rules\[0\]\.cap\.dollars/],
          [{ limits: { requests: { perMinute: -1 } } }, /gateway\.json: limits\.requests\.perMinute/],
          [{ limits: { pools: {} } }, /"limits" has other pools/],
          [{ maxQueued: 7 }, /"maxQueued" was changed/],
          [{ limit: {} }, /Kept the old configuration: gateway\.json: unknown setting "limit": did you mean "limits"\?/]
        ] as const) {
          configure(wrong)
          child.kill("SIGHUP")
          yield* said(why)
          assert.strictEqual(yield* ask(url, "/token/0123456789abcdef/v1/messages"), 200)
        }
      })
  )

  it.live("gives all pools another concurrency at SIGHUP, also without limits", () =>
    Effect.gen(function* () {
      const provider = yield* ProviderServer.make({ latency: { baseMillis: 1, perInputTokenMillis: 0 } })
      const { inside } = yield* Process.folder
      const configure = (concurrency: number) =>
        Fs.writeFileSync(
          Path.join(inside, "gateway.json"),
          JSON.stringify({ upstreams: { anthropic: provider.url }, concurrency })
        )
      configure(3)
      const { child, output, url } = yield* started(inside, ["--config", "gateway.json"])
      assert.strictEqual(yield* ask(url, "/v1/messages"), 200)
      const allowed = Effect.promise(async () => {
        const status: unknown = await (await fetch(`${url}/floodgate/status`)).json()
        const { pools } = status as { readonly pools: Record<string, { readonly allowed: number }> }
        return Object.values(pools).map((pool) => pool.allowed)
      })
      assert.deepStrictEqual(yield* allowed, [3])
      configure(5)
      child.kill("SIGHUP")
      yield* until(Effect.sync(output), (text) => text.includes("Reloaded the configuration"))
      assert.deepStrictEqual(yield* allowed, [5])
    })
  )

  it.live("refuses invalid settings and flags in one line", () =>
    Effect.gen(function* () {
      const { inside } = yield* Process.folder
      const wrong: ReadonlyArray<readonly [config: string, says: RegExp]> = [
        ['{"limit": {}}', /gateway\.json: unknown setting "limit": did you mean "limits"\?/],
        [
          '{"limits": {"requests": {"perMinute": -1}}}',
          /gateway\.json: limits\.requests\.perMinute: expected a number above/
        ],
        [
          '{"limits": {"pools": {"m": {"tokens": {"total": 0}}}}}',
          /gateway\.json: limits\.pools\.m\.tokens\.total: expected/
        ],
        ['{"maxHold": "soon"}', /gateway\.json: maxHold: expected a duration from 1 millisecond to 1 day/],
        [
          '{"upstreams": {"own": "[::1]:8787"}}',
          /gateway\.json: upstreams\.own: expected an address .*, got "\[::1\]:8787"/
        ],
        [
          '{"rules": [{"cap": {"dollars": 20, "per": "dya"}}]}',
          /gateway\.json: rules\[0\]\.cap\.per: expected "day", .*got "dya"/
        ],
        ['{"prices": {"m": {"input": -1, "output": 1}}}', /gateway\.json: prices\.m\.input: expected/],
        [
          '{"limits": {"pools": {"sonet-5": {"requests": {"perMinute": 60}}}}}',
          /gateway\.json: limits\.pools: no model belongs to the pool "sonet-5": did you mean "sonnet-5"\?/
        ],
        ['{"maxPools": 0}', /gateway\.json: maxPools: expected/],
        ['{"maxQueued": -1}', /gateway\.json: maxQueued: expected/],
        ['{"idleTimeout": 0}', /gateway\.json: idleTimeout: expected/],
        ['{"host": "0.0.0.0"}', /FLOODGATE_GATEWAY_TOKEN, or token in \S*gateway\.json: expected a token/],
        ['{"adminToken": "short"}', /gateway\.json: adminToken: expected at least 16 letters/],
        [
          '{"token": "0123456789abcdef", "adminToken": "0123456789abcdef"}',
          /gateway\.json: adminToken: expected another secret than the token, which agents have/
        ],
        ["no JSON", /gateway\.json: line 1, column 2: Unexpected token 'o'/]
      ]
      const file = Path.join(inside, "gateway.json")
      for (const [config, says] of wrong) {
        Fs.writeFileSync(file, config)
        const { code, err } = yield* gateway("--port", "0", "--config", file)
        assert.strictEqual(code, 2, config)
        assert.match(err.replaceAll(/\s+/g, " "), says)
        assert.notMatch(err, /\uFFFD/)
      }
      for (const [flags, says] of [
        [["--upstream", "foo"], /a name and an address, such as groq=https:\/\/api\.groq\.com\/openai/],
        [["--upstream", "own=127.0.0.1:8787"], /--upstream own: expected an address .*, got "127\.0\.0\.1:8787"/],
        [["--host-name", "gateway:80"], /--host-name: expected a name without a scheme, .*, got "gateway:80"/],
        [["--host", "0.0.0.0"], /FLOODGATE_GATEWAY_TOKEN: expected a token/],
        [["--max-hold", "2 days"], /--max-hold: expected a duration from 1 millisecond to 1 day, got "2 days"/]
      ] as const) {
        const { code, err } = yield* gateway("--port", "0", ...flags)
        assert.strictEqual(code, 2, err)
        assert.match(err.replaceAll(/\s+/g, " "), says)
      }
    }).pipe(Effect.provide(services()))
  )

  it.live("accepts the longest hold of a call as a duration or in seconds, in the file and in the flag", () =>
    Effect.gen(function* () {
      const { inside } = yield* Process.folder
      const cases = [
        [240, "4 minutes"],
        ["4 minutes", "240"]
      ] as const
      for (const [maxHold, flag] of some(cases, 2)) {
        Fs.writeFileSync(Path.join(inside, "gateway.json"), JSON.stringify({ maxHold, silence: 20 }))
        yield* started(inside, ["--config", "gateway.json"])
        yield* started(inside, ["--max-hold", flag])
      }
    })
  )

  it.effect("names itself as its user started it, in its help and in the hint of an error", () =>
    Effect.gen(function* () {
      const { code, out } = yield* gateway("--help")
      assert.strictEqual(code, 0)
      assert.match(out, /^ {2}floodgate-gateway --config gateway\.json --redis/m)
      assert.notMatch(out, /floodgate gateway /)
      assert.strictEqual((yield* gateway("help")).out, out)
      const wrong = yield* gateway("--burst", "5")
      assert.strictEqual(wrong.code, 2)
      assert.match(wrong.err, /See floodgate-gateway --help/)
    }).pipe(Effect.provide(services()))
  )
})
