import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { join } from "node:path"

const root = join(import.meta.dirname, "..")

const run = (name: string): string =>
  execFileSync(process.execPath, ["--conditions=@floodgate/source", join("examples", name)], {
    cwd: root,
    encoding: "utf8",
    timeout: 15_000
  })

// Each runs as a user would run it, in a process of its own.
describe("examples", () => {
  it("fallback.ts: the second provider answers when the first is down", () => {
    const lines = run("fallback.ts").trim().split("\n")
    assert.deepStrictEqual(
      lines,
      Array.from({ length: 8 }, () => "answered by claude-sonnet-5")
    )
  })

  it("opentelemetry.ts: metrics are scraped, and spans reach the collector", () => {
    const text = run("opentelemetry.ts")
    assert.match(text, /^floodgate_calls\{.*outcome="success".*\} 24$/m)
    assert.match(text, /^floodgate_attempts\{.*\} 24$/m)
    assert.include(text, `collector: 24 spans "chat claude-sonnet-5"`)
    assert.include(text, `collector: 12 spans "agent"`)
  })

  it("openai.ts: another client under Governor.run, where rejections are charged", () => {
    const [alone, governed] = run("openai.ts").trim().split("\n")
    assert.match(alone!, /^by itself: +([0-9]|1\d) of 24 answered, \d\d+ rejections$/)
    assert.match(governed!, /^under the governor: 24 of 24 answered, \d rejections$/)
  })

  it("sdk-middleware.ts: no 429 reaches a caller of the official SDK", () => {
    const [alone, governed] = run("sdk-middleware.ts").trim().split("\n")
    assert.match(alone!, /^by itself: +\d+ answered, ([3-9]|1\d) failed with 429$/)
    assert.strictEqual(governed, "with the middleware: 24 answered, 0 failed with 429")
  })

  it("effect-ai.ts: twelve agents over a LanguageModel", () => {
    assert.match(run("effect-ai.ts"), /^12 agents, 1800\d\d tokens: 24 calls answered, \d rejected$/m)
  })
})
