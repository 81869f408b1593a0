import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { keyOf, lineOf, type Result } from "../../../src/commands/run/results.ts"
import { parse } from "../../support/atOnce.ts"

const result = (key: string, text = "an answer"): Result => ({
  agent: "agent-1",
  step: "read",
  key,
  model: "claude-sonnet-5",
  usage: { inputTokens: 10, outputTokens: 2 },
  stop: "end_turn",
  text
})

const params = (content: string) => ({
  model: "claude-sonnet-5",
  max_tokens: 100,
  messages: [{ role: "user" as const, content }]
})

describe("results.jsonl", () => {
  it("reads back what was written, including line breaks in answers", () => {
    const results = [result("a", "two\nlines"), result("b")]
    const loaded = parse(results.map(lineOf).join(""))
    assert.deepStrictEqual([...loaded.results.values()], results)
    assert.deepInclude(loaded, { unreadable: 0, torn: false })
  })

  it("reads what a run of 0.4 has written: its answers, and what it was waiting for when it was killed", () => {
    const read = (name: string): string => readFileSync(new URL(name, import.meta.url), "utf8")
    const answers = read("results-0.4.jsonl")
    const loaded = parse(`${read("attempts-0.4.jsonl")}\n${answers}`)
    assert.strictEqual(Array.from(loaded.results.values(), lineOf).join(""), answers)
    assert.deepStrictEqual(
      Array.from(loaded.attempts.values(), ({ dollars }) => dollars),
      [0.016748, 0.016748]
    )
    assert.deepInclude(loaded, { unreadable: 0, torn: false })
    // It finds the answers by these keys.
    assert.strictEqual(keyOf("agent-1", "read", params("x")), "3f67b9e78d61568fda86a632ddf53fd8")
  })

  it("skips a last line that a crash cut off, and reports that it is incomplete", () => {
    const text = lineOf(result("a")) + lineOf(result("b")).slice(0, 30)
    const loaded = parse(text)
    assert.deepStrictEqual([...loaded.results.keys()], ["a"])
    assert.deepInclude(loaded, { unreadable: 1, torn: true })
    assert.deepStrictEqual([...parse(`${text}\n${lineOf(result("b"))}`).results.keys()], ["a", "b"])
  })

  it("skips lines that are not results", () => {
    const loaded = parse(`hello\n{"agent":1}\nnull\n\n${lineOf(result("a"))}`)
    assert.deepStrictEqual([...loaded.results.keys()], ["a"])
    assert.strictEqual(loaded.unreadable, 3)
  })

  it("uses the later of two results of one call", () => {
    assert.strictEqual(parse(lineOf(result("a", "1")) + lineOf(result("a", "2"))).results.get("a")?.text, "2")
  })

  it("keeps the attempts that have no answer", () => {
    const sent = (attempt: string, dollars = 1) => lineOf({ attempt, at: 5, dollars })
    const { attempts, results } = parse(
      [sent("a"), sent("b"), sent("c"), lineOf({ ...result("key"), attempt: "b" }), sent("c", 0)].join("")
    )
    assert.deepStrictEqual(Array.from(attempts.values()), [
      { attempt: "a", at: 5, dollars: 1 },
      { attempt: "c", at: 5, dollars: 0 }
    ])
    assert.strictEqual(results.size, 1)
  })

  it("identifies a call by its agent, its step and its whole request", () => {
    const keys = [
      keyOf("agent-1", "read", params("x")),
      keyOf("agent-2", "read", params("x")),
      keyOf("agent-1", "draft", params("x")),
      keyOf("agent-1", "read", params("y")),
      keyOf("agent-1", "read", { ...params("x"), max_tokens: 200 }),
      keyOf("agent-1", "read", { ...params("x"), model: "claude-haiku-5" })
    ]
    assert.strictEqual(new Set(keys).size, keys.length)
    assert.strictEqual(keys[0], keyOf("agent-1", "read", params("x")))
  })
})
