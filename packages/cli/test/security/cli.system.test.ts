import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { ProviderServer } from "floodgate/testing/server"
import { type Handler, serve } from "../../../../test/support/httpServer.ts"
import { filesIn, folder, type Ran, run } from "../support/command.ts"

// The command as a process of its own, with a key in its environment and names that try to leave its folder.

const canary = "CaNaRy7Zq94xW2fKd81Ls0"
const runArgs = (...more: ReadonlyArray<string>) => [
  "run",
  "docs",
  "--prompt",
  "Say what it is",
  "--agents",
  "1",
  "--out",
  "out",
  ...more
]

const echoing: Handler = (request, response) => {
  request.resume()
  const { authorization = "" } = request.headers
  response.writeHead(401, { "content-type": "application/json", "request-id": authorization })
  const error = { type: "authentication_error", message: `\u001b[2JWrong key: ${authorization}` }
  response.end(JSON.stringify({ type: "error", error }))
}

describe("the command", { timeout: 60_000 }, () => {
  describe("a canary key in the environment", () => {
    const assertClean = (root: string, ran: Ran) => {
      for (const text of [ran.stdout, ran.stderr]) assert.notInclude(text, canary)
      for (const file of filesIn(root)) assert.notInclude(Fs.readFileSync(Path.join(root, file), "utf8"), canary, file)
    }

    it.live.each(["--json=false", "--json", "--quiet"])("is in no output, result or summary of a good run %s", (flag) =>
      Effect.gen(function* () {
        const { inside, root } = yield* folder
        const server = yield* ProviderServer.make({ latency: { baseMillis: 1, perOutputTokenMillis: 0 } })
        const env = { ANTHROPIC_API_KEY: canary, ANTHROPIC_BASE_URL: server.url }
        const ran = yield* run(inside, runArgs(flag), env)
        assert.strictEqual(ran.code, 0, ran.stderr)
        assert.includeMembers([...filesIn(root)], ["inside/out/results.jsonl", "inside/out/summary.md"])
        assert.isAbove((yield* server.stats).accepted, 0)
        assertClean(root, ran)
      })
    )

    it.live("is in no output of a run whose provider repeats it, and neither are its control characters", () =>
      Effect.gen(function* () {
        const { inside, root } = yield* folder
        const server = yield* serve(echoing)
        const env = { ANTHROPIC_API_KEY: canary, ANTHROPIC_BASE_URL: server.url }
        const ran = yield* run(inside, runArgs(), env)
        assert.strictEqual(ran.code, 1)
        assert.isAbove(server.requests.length, 0)
        assertClean(root, ran)
        assert.notInclude(ran.stdout + ran.stderr, "\u001b[2J")
      })
    )
  })

  describe("names", () => {
    it.live("of the prototype are names like any other", () =>
      Effect.gen(function* () {
        const { inside, root } = yield* folder
        Fs.writeFileSync(Path.join(inside, "docs", "__proto__"), "A document.")
        Fs.writeFileSync(Path.join(inside, "docs", "constructor"), "Another.")
        Fs.mkdirSync(Path.join(inside, "__proto__"))
        Fs.writeFileSync(
          Path.join(inside, "__proto__", "results.jsonl"),
          ['{"__proto__":{"key":"x"},"constructor":{"prototype":{"polluted":true}}}', '{"key":"__proto__"}', ""].join(
            "\n"
          )
        )
        const server = yield* ProviderServer.make({ latency: { baseMillis: 1, perOutputTokenMillis: 0 } })
        const env = { ANTHROPIC_API_KEY: "key", ANTHROPIC_BASE_URL: server.url }
        const args = [
          "run",
          "docs",
          "--prompt",
          "__proto__",
          "--model",
          "__proto__",
          "--agents",
          "3",
          "--out",
          "__proto__"
        ]
        const ran = yield* run(inside, args, env)
        assert.strictEqual(ran.code, 0, ran.stderr)
        assert.include(ran.stdout, "3 agents, 3 files")
        assert.include(ran.stdout, "Skipped in __proto__/results.jsonl: 2 lines that cannot be read")
        assert.deepStrictEqual(
          filesIn(root).filter((file) => !file.startsWith("inside/docs/")),
          ["inside/__proto__/results.jsonl", "inside/__proto__/summary.md"]
        )
      })
    )

    it.live("in an earlier run's results lead to no other file", () =>
      Effect.gen(function* () {
        const { inside, root } = yield* folder
        Fs.mkdirSync(Path.join(inside, "out"))
        const bad = { agent: "../../../evil", step: "../../evil", key: "../../evil", model: "../evil" }
        const rest = { usage: { inputTokens: 1, outputTokens: 1 }, stop: null, text: "../../evil" }
        Fs.writeFileSync(Path.join(inside, "out", "results.jsonl"), `${JSON.stringify({ ...bad, ...rest })}\n`)
        const server = yield* ProviderServer.make({ latency: { baseMillis: 1, perOutputTokenMillis: 0 } })
        const env = { ANTHROPIC_API_KEY: "key", ANTHROPIC_BASE_URL: server.url }
        const ran = yield* run(inside, runArgs("--model", "../../../evil"), env)
        assert.strictEqual(ran.code, 0, ran.stderr)
        assert.deepStrictEqual(filesIn(root), [
          "inside/docs/one.txt",
          "inside/out/results.jsonl",
          "inside/out/summary.md"
        ])
      })
    )

    it.live.skipIf(process.platform !== "linux")(
      "an --out that cannot be made is refused at once, below /proc too",
      () =>
        Effect.gen(function* () {
          // Regression: Node's recursive mkdir never ended there.
          const { inside } = yield* folder
          for (const out of ["/proc/floodgate", "/proc/self/floodgate/deeper"]) {
            const ran = yield* run(inside, ["run", "docs", "--prompt", "x", "--out", out])
            assert.strictEqual(ran.code, 3)
            assert.match(ran.stderr, /^floodgate: cannot write \/proc\/.*choose another --out\n$/)
          }
        })
    )

    it.live("an --out that is a file is refused in one line, and the file stays", () =>
      Effect.gen(function* () {
        const { inside, root } = yield* folder
        Fs.writeFileSync(Path.join(root, "precious"), "keep me")
        const ran = yield* run(inside, ["run", "docs", "--prompt", "x", "--out", "../precious"])
        assert.strictEqual(ran.code, 3)
        assert.match(ran.stderr, /^floodgate: cannot write \.\.\/precious: .*\n$/)
        assert.strictEqual(Fs.readFileSync(Path.join(root, "precious"), "utf8"), "keep me")
      })
    )
  })
})
