/** The executable, which this builds (`npm run executable`), as people use it who have no Node: docs/gateway.md, "One executable". */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { ProviderServer } from "floodgate/testing/server"
import { execFile, spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { promisify } from "node:util"
import { executable } from "../../../../scripts/executable.ts"
import * as Redis from "../../../redis/test/server.ts"
import { folder, programAt, run as runPackage } from "../support/command.ts"

const root = Path.resolve(import.meta.dirname, "../../../..")
const program = programAt(executable)

/** Holds neither Node nor anything else. */
const noPath = { PATH: "/nowhere", NODE_COMPILE_CACHE: "" }

const python = "python3"
const withoutPython = spawnSync(python, ["--version"]).status === 0 ? undefined : `there is no ${python} on the PATH`
if (withoutPython !== undefined && process.env.CI) throw new Error(`${withoutPython}: on CI these tests have to run`)

interface Told {
  readonly outcomes: Readonly<Record<string, number>>
  readonly seconds: number
}

/** Runs agents.py: 40 agents of 5 calls. */
const agents = (baseUrl: string): Effect.Effect<Told> =>
  Effect.promise(async () => {
    const script = Path.join(import.meta.dirname, "agents.py")
    const { stdout } = await promisify(execFile)(python, [script, baseUrl, "40", "5"])
    return JSON.parse(stdout) as Told
  })

/** An executable that listens. */
const started = Effect.fnUntraced(function* (cwd: string, args: ReadonlyArray<string>) {
  const gateway = program.start(cwd, ["--port", "0", ...args], noPath)
  yield* Effect.addFinalizer(() => Effect.sync(() => gateway.child.kill("SIGKILL")))
  const text = yield* Effect.repeat(Effect.sync(gateway.output), {
    until: (output) => output.endsWith("\n") || gateway.child.exitCode !== null,
    schedule: Schedule.spaced("20 millis")
  })
  const [, url] = /^floodgate gateway listening on (http:\/\/127\.0\.0\.1:\d+)(?: in 2 processes)?\n$/.exec(text) ?? []
  assert.isDefined(url, text)
  return { ...gateway, url: url! }
})

const get = (url: string) =>
  Effect.promise(async () => {
    const response = await fetch(url)
    return { status: response.status, text: await response.text() }
  })

/** Whether the health check of the image, with another port than its own, is content with a gateway. */
const isHealthy = Effect.fnUntraced(function* (url: string) {
  const image = Fs.readFileSync(Path.join(root, "docs/gateway/Dockerfile"), "utf8")
  const [command, ...args] = JSON.parse(/^HEALTHCHECK CMD (\[.*\])$/m.exec(image)![1]!) as [string, ...Array<string>]
  const here = args.map((arg) => arg.replace("127.0.0.1/8788", `127.0.0.1/${new URL(url).port}`))
  assert.notDeepEqual(here, args)
  return yield* Effect.promise(() =>
    promisify(execFile)(command, here).then(
      () => true,
      () => false
    )
  )
})

beforeAll(async () => {
  await promisify(execFile)(process.execPath, [Path.join(root, "scripts/executable.ts")])
}, 120_000)

describe("the executable", () => {
  it.live("says what the package says: help, schema, and what is wrong with flags and files", () =>
    Effect.gen(function* () {
      const { inside } = yield* folder
      Fs.writeFileSync(Path.join(inside, "gateway.json"), '{ "limit": {} }')
      for (const args of [
        ["--help"],
        ["schema"],
        ["--upstreem", "openai=http://127.0.0.1:1"],
        ["--port", "0", "--config", "gateway.json"]
      ]) {
        const said = yield* program.run(inside, args, noPath)
        assert.deepStrictEqual(said, yield* runPackage(inside, args), args.join(" "))
        assert.notStrictEqual(said.stdout + said.stderr, "")
      }
      const { version } = JSON.parse(Fs.readFileSync(Path.join(root, "package.json"), "utf8")) as { version: string }
      const { stdout } = yield* program.run(inside, ["--version"], noPath)
      assert.strictEqual(stdout, `floodgate-gateway v${version}\n`)
    })
  )

  it.live.skipIf(withoutPython !== undefined)(
    "answers 40 agents in Python, who make 5 calls each, and ends at Ctrl-C",
    () =>
      Effect.gen(function* () {
        const limits = { requests: { perSecond: 40, burst: 40 } }
        const provider = yield* ProviderServer.make({
          limits,
          latency: { baseMillis: 50, perInputTokenMillis: 0 },
          headers: "openai"
        })
        // The provider rejects what comes too fast, and agents.py does not retry.
        const alone = yield* agents(`${provider.url}/v1`)
        assert.isAbove(alone.outcomes["429"] ?? 0, 0)
        const before = yield* provider.stats

        const { inside } = yield* folder
        Fs.writeFileSync(Path.join(inside, "gateway.json"), JSON.stringify({ upstreams: { openai: provider.url } }))
        const gateway = yield* started(inside, ["--config", "gateway.json", "--state", "state.json"])
        assert.isTrue(yield* isHealthy(gateway.url))
        const { outcomes } = yield* agents(`${gateway.url}/v1`)
        const { completed } = yield* provider.stats
        assert.deepStrictEqual(outcomes, { answered: 200 })
        assert.strictEqual(completed - before.completed, 200)

        const page = yield* get(`${gateway.url}/floodgate/`)
        assert.include(page.text, "<html")
        for (const [, file] of page.text.matchAll(/(?:href|src)="(page\.\w+)"/g)) {
          assert.strictEqual((yield* get(`${gateway.url}/floodgate/${file}`)).status, 200, file)
        }
        const status = yield* get(`${gateway.url}/floodgate/status`)
        const shown = JSON.parse(status.text) as { readonly agents: ReadonlyArray<{ readonly calls: number }> }
        assert.strictEqual(
          shown.agents.reduce((sum, { calls }) => sum + calls, 0),
          200
        )
        assert.match((yield* get(`${gateway.url}/metrics`)).text, /^floodgate_\w+/m)

        gateway.child.kill("SIGINT")
        const { code, stderr } = yield* Effect.promise(() => gateway.ended)
        assert.strictEqual(code, 130, stderr)
        assert.notMatch(stderr, /Warning|Error|sk-a-secret/)
        assert.isTrue(Fs.existsSync(Path.join(inside, "state.json")))
        assert.isFalse(yield* isHealthy(gateway.url))
      })
  )

  it.live.skipIf(Redis.skipped !== undefined)("has the client of Redis in it", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.scoped
      const { inside } = yield* folder
      yield* started(inside, ["--redis", redis.url])
      const clients = String(yield* Effect.promise(() => redis.command("CLIENT", "LIST")))
      assert.match(clients, /lib-name=/)
    })
  )

  it.live.skipIf(Redis.skipped !== undefined)("serves with several processes", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.scoped
      const { inside } = yield* folder
      const gateway = yield* started(inside, ["--redis", redis.url, "--processes", "2"])
      const { text } = yield* get(`${gateway.url}/floodgate/status`)
      assert.include(text, '"pools"')
      gateway.child.kill("SIGTERM")
      const { code, stdout } = yield* Effect.promise(() => gateway.ended)
      assert.strictEqual(code, 143)
      assert.match(stdout, / in 2 processes\n$/)
    })
  )

  it("comes with the licences of all that is in it", () => {
    const licences = Fs.readFileSync(Path.join(Path.dirname(executable), "LICENSES.txt"), "utf8")
    for (const name of ["Floodgate", "effect", "undici", "redis", "@redis/client", "Node.js"]) {
      assert.match(licences, new RegExp(`^${name}( v?[\\d.]+)?\\n=+\\n\\n\\S`, "m"))
    }
  })
})

describe("the image of the gateway", () => {
  it("copies the executable, and nothing else", () => {
    const image = Fs.readFileSync(Path.join(root, "docs/gateway/Dockerfile"), "utf8")
    const args = new Map([...image.matchAll(/^ARG (\w+)=(\S+)$/gm)].map(([, name, value]) => [name!, value!]))
    const copied = [...image.matchAll(/^COPY (?:--\S+ )*(.+) \S+$/gm)].map(([, path]) =>
      path!.replaceAll(/\$\{(\w+)\}/g, (_, name: string) => args.get(name) ?? "")
    )
    assert.deepStrictEqual(copied, [Path.relative(root, executable)])
    assert.isTrue(Fs.existsSync(executable))
    assert.notMatch(image, /^ADD /m)
    assert.match(image, /^USER [1-9]/m)
  })
})
