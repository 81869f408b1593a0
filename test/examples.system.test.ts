import { assert, describe, it } from "@effect/vitest"
import { execFileSync, spawn } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { hasServer } from "../packages/redis/test/server.ts"

const root = join(import.meta.dirname, "..")

const run = (name: string, env: NodeJS.ProcessEnv = process.env, ...args: ReadonlyArray<string>): string =>
  execFileSync(process.execPath, ["--conditions=@floodgate/source", join("examples", name), ...args], {
    cwd: root,
    encoding: "utf8",
    env,
    timeout: 40_000
  })

const files = readdirSync(join(root, "examples")).filter((file) => file.endsWith(".ts"))

// Each runs as a user would run it, in a process of its own.
describe("examples", () => {
  it("are all run here, and begin with what they show and how to run them", () => {
    const tests = readFileSync(import.meta.filename, "utf8")
    for (const file of files) {
      const [shows, how] = readFileSync(join(root, "examples", file), "utf8").split("\n")
      assert.match(shows!, /^\/\/ [A-Z].{40,}\.$/, file)
      if (file.endsWith(".test.ts")) assert.strictEqual(how, `//     npm test -- examples/${file}`)
      else {
        assert.strictEqual(how, `//     npm run -s example examples/${file}`)
        assert.include(tests, `run("${file}"`)
      }
    }
  })

  it("are all listed", () => {
    const page = readFileSync(join(root, "examples/README.md"), "utf8")
    assert.deepStrictEqual(
      files.filter((file) => !page.includes(`(${file})`)),
      []
    )
  })

  it("parallel-agents.ts: twelve agents end, and the provider rejects none or one", () => {
    const lines = run("parallel-agents.ts").trim().split("\n")
    assert.strictEqual(lines.filter((line) => /^agent-\d+ done after/.test(line)).length, 12)
    assert.match(lines.at(-1)!, /^The provider rejected \d of 6\d requests$/)
  })

  it("streaming-chat.ts: a stopped answer is aborted, and the rest of its estimate is refunded", () => {
    const text = run("streaming-chat.ts")
    assert.include(text, "The provider completed 1 answer, and was told to abort 1.")
    const [, first, second] = [...text.matchAll(/0 calls run, (\d+) output tokens left/g)].map(([, left]) =>
      Number(left)
    )
    assert.isUndefined(second)
    assert.isAbove(first!, 59_000)
    assert.match(text, /^It wrote \d{2,3} tokens; the poem would have been 1000\.$/m)
  })

  it("ask-before-you-spawn.ts: the orchestrator asks, waits, and all agents are done", () => {
    const text = run("ask-before-you-spawn.ts")
    assert.match(text, /^\d\.\d s {2}Start \d of 16 agents now: more at once would end the job at most 8 % earlier/)
    assert.match(text, /Start no more agents now/)
    assert.match(text, /all 16 agents are done\n$/)
    assert.strictEqual(new Set(text.match(/reviewer-\d+/g)).size, 16)
  })

  it("tool-agent.ts: the loop stops at its cap, with the answer so far", () => {
    const text = run("tool-agent.ts")
    assert.match(text, /^the next call needs about \d+ tokens, and \d+ are left$/m)
    assert.match(text, /^Stopped by its cap after [4-7] pages: it opens at dawn\.$/m)
  })

  it("documents.ts: every document is read, after a forecast of how long that takes", () => {
    const text = run("documents.ts")
    const documents = Number(/^(\d+) documents: about \d+ s, bound by inputTokens$/m.exec(text)![1])
    assert.strictEqual(text.match(/ read after /g)!.length, documents)
    assert.match(text, /^All in one:\n- /m)
  })

  it.skipIf(!hasServer)("two-processes.ts: two processes share one limit", () => {
    const text = run("two-processes.ts")
    for (const name of ["one", "two"]) assert.match(text, new RegExp(`^${name}: 10 answers in \\d+\\.\\d s$`, "m"))
    assert.match(text, /^The provider saw 2\d requests and rejected \d: /m)
  })

  it("two-processes.ts: reports that there is no Redis", () => {
    assert.match(run("two-processes.ts", { ...process.env, PATH: "" }), /^There is no redis-server on the PATH/)
  })

  it("sqlite-store.ts: two processes share one limit through a file", () => {
    const text = run("sqlite-store.ts")
    const seconds = ["one", "two"].map((name) =>
      Number(new RegExp(`^${name}: 40,000 tokens in (\\d+\\.\\d) s$`, "m").exec(text)![1])
    )
    // 80,000 tokens, of which 20,000 go at once: the later of the two ends after three seconds, less how it started later.
    assert.isAtLeast(Math.max(...seconds), 2.5)
  })

  it("fallback.ts: the second provider answers when the first is down", () => {
    const lines = run("fallback.ts").trim().split("\n")
    assert.deepStrictEqual(
      lines,
      Array.from({ length: 8 }, () => "claude-opus-5 is down: answered by claude-sonnet-5")
    )
  })

  it("elsewhere.ts: one call per adapter waits for the first model, and the others use the second", () => {
    assert.deepStrictEqual(run("elsewhere.ts").trim().split("\n"), [
      "middleware: claude-opus-5, claude-sonnet-5, claude-sonnet-5",
      "fetch: gpt-6, claude-sonnet-5, claude-sonnet-5",
      "aiSdk: claude-opus-5, claude-sonnet-5, claude-sonnet-5",
      "run: claude-opus-5, claude-sonnet-5, claude-sonnet-5"
    ])
  })

  it("elsewhere-effect.ts: an ExecutionPlan does that, too", () => {
    assert.deepStrictEqual(run("elsewhere-effect.ts").trim().split("\n"), [
      "LlmClient: claude-opus-5, claude-sonnet-5, claude-sonnet-5",
      "LanguageModel: claude-opus-5, claude-sonnet-5, claude-sonnet-5"
    ])
  })

  it("opentelemetry.ts: metrics are scraped, and spans reach the collector", () => {
    const text = run("opentelemetry.ts")
    assert.match(text, /^floodgate_calls\{.*outcome="success".*\} 24$/m)
    assert.match(text, /^floodgate_attempts\{.*\} 24$/m)
    assert.include(text, `collector: 24 spans "chat claude-sonnet-5"`)
    assert.include(text, `collector: 12 spans "agent"`)
  })

  it("openai.ts: another client with a governed fetch, where rejections are charged", () => {
    const [alone, governed] = run("openai.ts").trim().split("\n")
    assert.match(alone!, /^by itself: +([0-9]|1\d|2[0-3]) of 24 answered, \d\d+ rejections$/)
    assert.match(governed!, /^with a governed fetch: 24 of 24 answered, \d rejections$/)
  })

  it("sdk-middleware.ts: no 429 reaches a caller of the official SDK", () => {
    const [alone, governed] = run("sdk-middleware.ts").trim().split("\n")
    assert.match(alone!, /^by itself: +\d+ answered, ([3-9]|1\d) failed with 429$/)
    assert.strictEqual(governed, "with the middleware: 24 answered, 0 failed with 429")
  })

  it("forty-agents.ts: all calls are answered by a provider of the command", async () => {
    const args = ["--conditions=@floodgate/source", "packages/cli/src/bin.ts", "provider", "--port", "0"]
    const provider = spawn(process.execPath, [...args, "--time-scale", "20"], {
      cwd: root,
      stdio: ["ignore", "pipe", "ignore"]
    })
    const said = await new Promise<string>((resolve) =>
      provider.stdout.once("data", (data: Buffer) => resolve(`${data}`))
    )
    assert.match(said, /\n {2}key +test; any other/)
    const printed = run("forty-agents.ts", process.env, /http:\S+/.exec(said)![0])
    provider.kill("SIGTERM")
    assert.match(printed, /^200 of 200 answered, \d x 429, \d+ s \(at least 7\d s\)\n$/)
  }, 60_000)

  it("effect-ai.ts: twelve agents over a LanguageModel", () => {
    assert.match(run("effect-ai.ts"), /^12 agents, 1800\d\d tokens: 24 calls answered, \d rejected$/m)
  })
})
