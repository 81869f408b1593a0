import { assert, describe, it } from "@effect/vitest"
import { type Protocol, protocols } from "floodgate/protocol"

const { geminiEmbeddings, openaiEmbeddings } = protocols

const described = (protocol: Protocol, path: string, body: unknown) => {
  const route = protocol.match("POST", path)
  return route && protocol.describe(body, route)
}

describe("openaiEmbeddings", () => {
  const of = (body: unknown) => described(openaiEmbeddings, "/v1/embeddings", body)

  it("measures texts, lists of texts, and tokens, which have no output", () => {
    const model = "text-embedding-3-small"
    assert.deepInclude(of({ model, input: "Grüße" }), { model, bytes: 7, maxTokens: 0, stream: false })
    assert.strictEqual(of({ model, input: ["one", "two"] })?.bytes, 6)
    // As much as the texts of so many tokens.
    assert.strictEqual(of({ model, input: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] })?.bytes, 27)
    assert.strictEqual(
      of({
        model,
        input: [
          [1, 2, 3, 4, 5],
          [6, 7, 8, 9, 10]
        ]
      })?.bytes,
      27
    )
    assert.isUndefined(of({ model, input: "x" })?.requests)
  })

  it("counts a body of no known form by its size, so that it is no way around a limit", () => {
    assert.strictEqual(of({ model: "m", prompt: "x".repeat(1_000) })?.bytes, 1_025)
    assert.isDefined(of({ input: null }))
    assert.isUndefined(of([]))
  })

  it("takes the model of a deployment from the path", () => {
    const path = "/openai/deployments/mine/embeddings"
    assert.strictEqual(described(openaiEmbeddings, path, { input: "x", model: "other" })?.model, "mine")
  })

  it("reads the usage, and leaves it unknown where there is none", () => {
    const { answer } = openaiEmbeddings
    const data = [{ embedding: [0.1] }]
    const counted = { inputTokens: 8, outputTokens: 0 }
    assert.deepInclude(answer({ data, usage: { prompt_tokens: 8, total_tokens: 8 } }).counts, counted)
    // Voyage has only the total.
    assert.deepInclude(answer({ data, usage: { total_tokens: 8 } }).counts, counted)
    assert.deepStrictEqual(answer({ data }).counts, {})
    assert.isTrue(answer({ data }).complete)
    assert.deepInclude(answer({ error: { message: "no" } }), { complete: false, started: false })
  })
})

describe("geminiEmbeddings", () => {
  const one = { content: { parts: [{ text: "Hello" }] }, taskType: "RETRIEVAL_QUERY", title: "T" }
  const path = "/v1beta/models/gemini-embedding-001"

  it("counts each item of a batch as a request", () => {
    const of = (body: unknown) => described(geminiEmbeddings, `${path}:batchEmbedContents`, body)
    const model = "gemini-embedding-001"
    assert.deepInclude(of({ requests: [one, one, one] }), { model, bytes: 18, requests: 3, maxTokens: 0 })
    assert.deepInclude(of({ requests: [] }), { requests: 1 })
    assert.deepInclude(described(geminiEmbeddings, `${path}:embedContent`, one), { model, bytes: 6, requests: 1 })
  })

  it("reads the usage of models that report it", () => {
    const embeddings = [{ values: [0.1] }]
    const { counts } = geminiEmbeddings.answer({ embeddings, usageMetadata: { promptTokenCount: 7 } })
    assert.deepInclude(counts, { inputTokens: 7, outputTokens: 0 })
    assert.deepStrictEqual(geminiEmbeddings.answer({ embeddings }).counts, {})
  })

  it("refuses in Google's form", () => {
    const { body, status } = geminiEmbeddings.refuse({ kind: "rateLimited", message: "later" })
    assert.strictEqual(status, 429)
    assert.include(body, "RESOURCE_EXHAUSTED")
  })
})
