import { assert, describe, it } from "@effect/vitest"
import { protocols } from "floodgate/protocol"

const { llamaCpp } = protocols

const described = (body: unknown) => llamaCpp.describe(body, { operation: "generate", path: "/completion" })

describe("llama.cpp's own API", () => {
  it("is a call at its paths, but not at those of web programs", () => {
    const operation = (method: string, path: string) => llamaCpp.match(method, path)?.operation
    assert.strictEqual(operation("POST", "/completion"), "generate")
    assert.strictEqual(operation("POST", "/llama/infill"), "generate")
    assert.strictEqual(operation("GET", "/completion"), "passThrough")
    for (const path of ["/api/completion", "/app/api/completion", "/completions", "/autocompletion", "/completion/x"]) {
      assert.isUndefined(operation("POST", path), path)
    }
  })

  it("is not a call without a prompt", () => {
    for (const body of [undefined, "text", [], {}, { n_predict: 3 }]) assert.isUndefined(described(body))
    assert.isDefined(described({ prompt: "" }))
    assert.isDefined(described({ input_suffix: ";" }))
  })

  it("counts texts, tokens, pictures and what surrounds the middle of a text", () => {
    const bytes = (body: object) => described(body)!.bytes
    const hundred = "x".repeat(100)
    assert.strictEqual(bytes({ prompt: hundred }), 100)
    assert.strictEqual(bytes({ prompt: [hundred, hundred] }), 200)
    const tokens = bytes({ prompt: [1, 2, 3, 4] })
    assert.isAbove(tokens, 4)
    assert.strictEqual(bytes({ prompt: [1, 2, 3, 4, hundred] }), tokens + 100)
    assert.strictEqual(
      bytes({
        prompt: [
          [1, 2],
          [3, 4]
        ]
      }),
      tokens
    )
    assert.isAbove(bytes({ prompt: { prompt_string: hundred, multimodal_data: ["aGk="] } }), 1_000)
    assert.strictEqual(bytes({ input_prefix: hundred, input_suffix: hundred }), 200)
    assert.isAbove(bytes({ input_prefix: hundred, input_extra: [{ filename: "a.ts", text: hundred }] }), 200)
  })

  it("allows as much output as all its completions together may have", () => {
    assert.strictEqual(described({ prompt: "Hello", n_predict: 10 })!.maxTokens, 10)
    assert.strictEqual(described({ prompt: "Hello", max_tokens: 10 })!.maxTokens, 10)
    assert.isUndefined(described({ prompt: "Hello", n_predict: -1, max_tokens: 10 })!.maxTokens)
    assert.strictEqual(described({ prompt: [1, 2], n_predict: 10 })!.maxTokens, 10)
    assert.strictEqual(described({ prompt: ["a", "b"], n_cmpl: 3, n_predict: 10 })!.maxTokens, 60)
    assert.strictEqual(described({ prompt: ["a", "b"] })!.choices, 2)
  })

  it("tells what has arrived of a stream that breaks off, and its error", () => {
    const events = ['{"content":"12345678","stop":false}', "[DONE]", "{", '{"error":{"code":500,"message":"no slot"}}']
    const answer = events.reduce(
      (answer, data) => llamaCpp.observe(answer, { name: undefined, data }),
      llamaCpp.answer(undefined)
    )
    assert.deepStrictEqual([answer.uncounted, answer.started, answer.complete], [8, true, false])
    assert.deepStrictEqual(answer.error, { error: { code: 500, message: "no slot" } })
  })

  it("keeps the estimate of an answer without counts", () => {
    const uncounted = llamaCpp.answer({ content: "A gate." })
    assert.deepStrictEqual([uncounted.counts.outputTokens, uncounted.uncounted], [undefined, 0])
    const { counts, finishReason, model } = llamaCpp.answer({ stop_type: "limit", model: "m", tokens_predicted: 3 })
    assert.deepStrictEqual([counts.inputTokens, counts.outputTokens, finishReason, model], [undefined, 3, "limit", "m"])
  })
})
