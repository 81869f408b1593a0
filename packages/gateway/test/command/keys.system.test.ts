import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { ProviderServer } from "floodgate/testing/server"
import { createHash } from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { gateway } from "../support/cli.ts"
import * as Process from "../support/command.ts"
import { services } from "../support/services.ts"

// Keys of a gateway, as its operator uses them: the real command, its files and its environment.

const sha256 = (key: string): string => createHash("sha256").update(key).digest("hex")

const until = <A>(effect: Effect.Effect<A>, holds: (value: A) => boolean): Effect.Effect<A> =>
  Effect.repeat(effect, { until: holds, schedule: Schedule.spaced("20 millis") })

/** The status of a call; 0 if its connection breaks, as it does for a call whose key is removed while it runs. */
const ask = (url: string, key: string): Effect.Effect<number> =>
  Effect.tryPromise(async () => {
    const body = JSON.stringify({
      model: "claude-sonnet-5",
      max_tokens: 9,
      messages: [{ role: "user", content: "Hi" }]
    })
    const headers = { "x-api-key": key, "anthropic-version": "2023-06-01" }
    const response = await fetch(`${url}/v1/messages`, { method: "POST", headers, body })
    await response.text()
    return response.status
  }).pipe(Effect.orElseSucceed(() => 0))

describe("floodgate-gateway key new", () => {
  it.effect("prints a new key and its entry, and never the same key twice", () =>
    Effect.gen(function* () {
      const first = yield* gateway("key", "new", "search", "--json")
      const { entry, key } = JSON.parse(first.out) as { readonly key: string; readonly entry: object }
      assert.match(key, /^fg-[\w-]{43}$/)
      assert.deepStrictEqual(entry, { name: "search", sha256: sha256(key) })
      const { out } = yield* gateway("key", "new", "search", "--expires", "2027-01-01")
      const [text = ""] = /fg-[\w-]{43}/.exec(out) ?? []
      assert.notStrictEqual(text, key)
      const [printed = ""] = /^\{.*\}$/m.exec(out) ?? []
      assert.deepStrictEqual(JSON.parse(printed), { name: "search", sha256: sha256(text), expires: "2027-01-01" })
    }).pipe(Effect.provide(services()))
  )

  it.effect("refuses invalid names and dates", () =>
    Effect.gen(function* () {
      for (const args of [
        [],
        [""],
        [" a"],
        ["x".repeat(65)],
        ["a", "--expires", "soon"],
        ["a", "--expires", "2027-13-01"],
        // The gateway would refuse the entry.
        ["a", "--expires", "2027-02-31"]
      ]) {
        const { code, out } = yield* gateway("key", "new", ...args)
        assert.strictEqual(code, 2, args.join(" "))
        assert.notMatch(out, /fg-/)
      }
    }).pipe(Effect.provide(services()))
  )
})

describe("a gateway with keys in its configuration", () => {
  it.live("takes credentials from files and the environment, and follows both and its keys at a reload", () =>
    Effect.gen(function* () {
      const provider = yield* ProviderServer.make({ latency: { baseMillis: 5, perInputTokenMillis: 0 } })
      const { inside } = yield* Process.folder
      const [file, secret] = [Path.join(inside, "gateway.json"), Path.join(inside, "anthropic.key")]
      const configure = (...keys: ReadonlyArray<object>) =>
        Fs.writeFileSync(
          file,
          JSON.stringify({
            upstreams: { anthropic: provider.url, openai: provider.url },
            credentials: { anthropic: "file:anthropic.key" },
            keys
          })
        )
      Fs.writeFileSync(secret, "sk-provider-1\n")
      configure(
        { name: "search", sha256: sha256("fg-one") },
        { name: "old", sha256: sha256("fg-old"), expires: "2020-01-01" }
      )
      const args = ["--port", "0", "--config", "gateway.json", "--log-level", "debug"]
      const { child, ended, output } = Process.start(inside, args, { OPENAI_API_KEY: "sk-provider-2" })
      yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
      const text = yield* until(Effect.sync(output), (text) => /listening on .*\n/.test(text))
      assert.match(text, /^gateway\.json: keys\[1\] \(old\) expired on 2020-01-01, so it is refused: remove it, or/m)
      const url = /http:\/\/127\.0\.0\.1:\d+/.exec(text)![0]
      const statuses = (...keys: ReadonlyArray<string>) => Effect.forEach(keys, (key) => ask(url, key))
      assert.deepStrictEqual(yield* statuses("fg-one", "fg-old", "fg-two", "sk-provider-1"), [200, 401, 401, 401])
      configure({ name: "search", sha256: sha256("fg-one") }, { name: "search", sha256: sha256("fg-two") })
      child.kill("SIGHUP")
      yield* until(Effect.sync(output), (text) => text.includes("Reloaded"))
      assert.deepStrictEqual(yield* statuses("fg-one", "fg-two"), [200, 200])
      configure({ name: "search", sha256: sha256("fg-two") })
      child.kill("SIGHUP")
      yield* until(statuses("fg-one"), ([status]) => status === 401)
      assert.deepStrictEqual(yield* statuses("fg-two"), [200])
      Fs.writeFileSync(secret, "")
      child.kill("SIGHUP")
      yield* until(Effect.sync(output), (text) => /Kept the old configuration: .*anthropic\.key is empty/.test(text))
      assert.deepStrictEqual(yield* statuses("fg-two"), [200])
      child.kill("SIGTERM")
      const { stderr, stdout } = yield* Effect.promise(() => ended)
      assert.match(stderr, /"key":"search"/)
      assert.notMatch(stdout + stderr, /fg-|sk-provider/)
    })
  )

  it.live("refuses what would not work, in one line with the file, the place and what to do", () =>
    Effect.gen(function* () {
      const { inside } = yield* Process.folder
      const file = Path.join(inside, "gateway.json")
      const keys = [{ name: "search", sha256: sha256("fg-secret") }]
      const upstreams = { anthropic: "https://api.anthropic.com" }
      const wrong: ReadonlyArray<readonly [config: object, says: RegExp]> = [
        [
          { keys: [{ name: "a", key: "fg-secret" }] },
          /gateway\.json: keys\[0\]\.key: remove the key, and set sha256 as the command "key new NAME"/
        ],
        [
          { keys: [{ name: "a", sha256: "fg-secret" }], upstreams, credentials: { anthropic: "none" } },
          /gateway\.json: keys\[0\]\.sha256: expected the SHA-256 .* and not the key itself, got something else/
        ],
        [
          { keys: [...keys, ...keys], upstreams, credentials: { anthropic: "none" } },
          /gateway\.json: keys\[1\]\.sha256: .*remove one/
        ],
        [{ keys: [{ name: "a" }] }, /gateway\.json: "keys\[0\]\.sha256" is missing/],
        [
          { keys },
          /gateway\.json: credentials: no provider has a credential: set one of ANTHROPIC_API_KEY, OPENAI_API_KEY/
        ],
        [
          { keys, upstreams },
          /gateway\.json: credentials\.anthropic: .* missing: set ANTHROPIC_API_KEY, or add "anthropic": "file:/
        ],
        [
          { keys, upstreams: { groq: "https://api.groq.com" } },
          /gateway\.json: credentials\.groq: .* missing: add "groq": "file:PATH"/
        ],
        [
          { keys, upstreams, credentials: { anthropic: "env:NO_SUCH" } },
          /gateway\.json: credentials\.anthropic: the variable NO_SUCH is not set: set it/
        ],
        [
          { keys, upstreams, credentials: { anthropic: `file:${inside}/none` } },
          /gateway\.json: credentials\.anthropic: .*none: there is no such file/
        ],
        [
          { keys, upstreams, credentials: { anthropic: "sk-secret" } },
          /gateway\.json: credentials\.anthropic: expected "env:NAME", "file:PATH", or "none"/
        ],
        [
          { keys, upstreams, credentials: { anthropic: "env:OAUTH" } },
          /gateway\.json: credentials\.anthropic: .* the token of a subscription/
        ],
        [
          { upstreams, credentials: { anthropic: "env:OAUTH" } },
          /gateway\.json: keys: expected keys, because the gateway has 1 credential/
        ],
        [
          { rules: [{ name: "a" }, { name: "a" }] },
          /gateway\.json: rules\[1\]\.name: expected a name that no other rule has, got "a"/
        ]
      ]
      for (const [config, says] of wrong) {
        Fs.writeFileSync(file, JSON.stringify(config))
        const { code, err } = yield* gateway("--port", "0", "--config", file)
        assert.include([2, 3], code, JSON.stringify(config))
        assert.match(err.replaceAll(/\s+/g, " "), says)
        assert.notMatch(err, /secret|oat01/)
      }
    }).pipe(Effect.provide(services({ env: { OAUTH: "sk-ant-oat01-x" } })))
  )

  it.live("shows none of its secrets: not in the status, the metrics, the page, the log, or at a failed reload", () =>
    Effect.gen(function* () {
      const provider = yield* ProviderServer.make({ latency: { baseMillis: 5, perInputTokenMillis: 0 } })
      const { inside } = yield* Process.folder
      const file = Path.join(inside, "gateway.json")
      const token = "canary-of-the-token"
      const config = {
        upstreams: { anthropic: provider.url },
        credentials: { anthropic: "env:CANARY" },
        token,
        adminToken: "canary-of-the-operator",
        keys: [{ name: "search", sha256: sha256("fg-one") }],
        rules: [{ headers: { "x-team": "canary-of-a-header" }, cap: { dollars: 1 } }, { cap: { dollars: 5 } }]
      }
      Fs.writeFileSync(file, JSON.stringify(config))
      const args = ["--port", "0", "--config", "gateway.json", "--log-level", "debug"]
      const { child, output } = Process.start(inside, args, { CANARY: "canary-of-the-provider" })
      yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
      const url = /http:\/\/127\.0\.0\.1:\d+/.exec(
        yield* until(Effect.sync(output), (text) => /listening on .*\n/.test(text))
      )![0]
      assert.strictEqual(yield* ask(url, "fg-one"), 200)
      const read = (path: string) =>
        Effect.promise(async () => (await fetch(`${url}${path}`, { headers: { "x-floodgate-token": token } })).text())
      const pages = yield* Effect.forEach(["/floodgate/", "/floodgate/status", "/metrics"], read)
      assert.include(pages[1], "search")
      Fs.writeFileSync(file, JSON.stringify({ ...config, adminToken: token, credentials: { anthropic: "canary" } }))
      child.kill("SIGHUP")
      const text = yield* until(Effect.sync(output), (text) => text.includes("Kept the old configuration"))
      assert.notMatch([...pages, text].join("\n"), /canary|fg-one/)
    })
  )
})

describe("floodgate-gateway init", () => {
  it.live("writes a configuration with which the gateway starts, and prints its key only", () =>
    Effect.gen(function* () {
      const { inside } = yield* Process.folder
      const file = Path.join(inside, "gateway.json")
      const { code, out } = yield* gateway("init", file)
      assert.strictEqual(code, 0)
      const [key = ""] = /fg-[\w-]{43}/.exec(out) ?? []
      const text = Fs.readFileSync(file, "utf8")
      assert.include(text, sha256(key))
      assert.notInclude(text, key)
      const again = yield* gateway("init", file)
      assert.match(again.err, /gateway\.json exists already: name another file, or remove it/)
      assert.strictEqual(Fs.readFileSync(file, "utf8"), text)
      const args = ["--port", "0", "--config", "gateway.json"]
      const { child, output } = Process.start(inside, args, { ANTHROPIC_API_KEY: "sk-provider" })
      yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
      yield* until(Effect.sync(output), (text) => /listening on .*\n/.test(text))
    }).pipe(Effect.provide(services()))
  )
})
