import { assert, describe, it } from "@effect/vitest"
import { protocols } from "floodgate/protocol"
import { step } from "../../src/protocol/anthropic.ts"
import { anthropicMessage, anthropicStream } from "./fixtures.ts"
import { answerOfText } from "./reading.ts"
import { emptyAnswer, usageOf } from "../../src/protocol/protocol.ts"

const { anthropic } = protocols

const match = (path: string, method = "POST") => anthropic.match(method, path)
const none = () => undefined
const describeBody = (body: unknown, path = "/v1/messages") => {
  const route = match(path)
  return route && anthropic.describe(body, route)
}

const fold = (...events: ReadonlyArray<object>) => events.reduce(step, emptyAnswer)
const start = (usage: object) => ({ type: "message_start", message: { usage } })
const delta = (delta: object) => ({ type: "content_block_delta", delta })
const total = (usage: unknown) => ({ type: "message_delta", usage })
const outputOf = (...events: ReadonlyArray<object>) => usageOf(fold(...events))?.outputTokens

describe("anthropic", () => {
  describe("match", () => {
    it.each([
      ["/v1/messages", "/v1/messages"],
      ["/messages", "/v1/messages"],
      ["/anthropic/v1/messages", "/anthropic/v1/messages"],
      ["/anthropic/messages", "/anthropic/messages"],
      ["/api/v1/messages", "/api/v1/messages"]
    ])("takes %s for a call", (path, canonical) => {
      assert.deepStrictEqual(match(path), { operation: "generate", path: canonical })
    })

    it("tells token counts from requests that pass through", () => {
      assert.strictEqual(match("/v1/messages/count_tokens")?.operation, "countTokens")
      for (const path of ["/v1/messages/batches", "/v1/messages/batches/b_1/results", "/v1/models", "/v1/files/f_1"]) {
        assert.strictEqual(match(path, "GET")?.operation, "passThrough", path)
      }
      assert.strictEqual(match("/v1/messages/batches")?.operation, "passThrough")
    })

    it("reads the model from the paths of Vertex AI and Bedrock", () => {
      const publisher = "/v1/projects/p/locations/global/publishers/anthropic/models"
      assert.deepInclude(match(`${publisher}/claude-sonnet-5%4020260901:rawPredict`), {
        operation: "generate",
        model: "claude-sonnet-5@20260901"
      })
      assert.deepInclude(match(`${publisher}/claude-sonnet-5:streamRawPredict`), { operation: "stream" })
      assert.deepInclude(match(`${publisher}/count-tokens:rawPredict`), { operation: "countTokens" })
      const model = "anthropic.claude-sonnet-5-v1:0"
      assert.deepInclude(match(`/model/${encodeURIComponent(model)}/invoke`), { operation: "generate", model })
      assert.deepInclude(match(`/model/${model}/invoke-with-response-stream`), { operation: "stream", model })
    })

    it.each([
      ["/v1/threads/thread_1/messages", "POST"],
      ["/v1/messages", "GET"],
      ["/v1/messages/other", "POST"],
      ["/chat/messages", "POST"],
      ["/api/hello", "HEAD"],
      ["/v1/projects/p/locations/l/publishers/google/models/gemini:generateContent", "POST"],
      ["/v1/projects/p/locations/l/publishers/anthropic/models/claude:rawPredict", "GET"]
    ])("leaves %s alone", (path, method) => {
      assert.isUndefined(match(path, method))
    })
  })

  describe("a request", () => {
    const body = {
      model: "claude-sonnet-5",
      max_tokens: 1_024,
      system: "Be brief.",
      messages: [{ role: "user", content: "Hello" }]
    }

    it("reads the model, the limit, the size and what is asked", () => {
      const { prefixes, ...described } = describeBody(body)!
      assert.isAbove(prefixes!.fingerprints.length, 0)
      assert.deepStrictEqual(described, {
        model: "claude-sonnet-5",
        bytes: "Be brief.userHello".length,
        textBytes: "Be brief.userHello".length,
        caches: false,
        maxTokens: 1_024,
        thinking: false,
        stream: false,
        continues: undefined,
        stored: false,
        needsUsageRequest: false
      })
      const asked = describeBody({ ...body, stream: true, thinking: { type: "adaptive" } })
      assert.deepInclude(asked, { stream: true, thinking: true })
      assert.deepInclude(describeBody({ ...body, thinking: { type: "disabled" } }), { thinking: false })
      const dear = describeBody({ ...body, speed: "fast", inference_geo: "us" })
      assert.deepInclude(dear, { fast: true, priceFactor: 1.1 })
    })

    it("asks for caching if it, a tool or a part of its content is marked, or if it continues a thread", () => {
      const cachesOf = (more: object) => describeBody({ ...body, ...more })?.caches
      const marked = { type: "text", text: "Hello", cache_control: { type: "ephemeral" } }
      for (const asking of [
        { cache_control: { type: "ephemeral" } },
        { system: [marked] },
        { messages: [{ role: "user", content: [{ type: "text", text: "Hi" }, marked] }] },
        { messages: [{ role: "user", content: [{ type: "tool_result", tool_use_id: "t", content: [marked] }] }] },
        { tools: [{ name: "a" }, { name: "b", cache_control: { type: "ephemeral" } }] },
        { thread: { type: "continue", previous_message_id: "msg_1" } }
      ]) {
        assert.isTrue(cachesOf(asking), JSON.stringify(asking))
      }
      const unmarked = { ...marked, cache_control: null }
      const input = { type: "tool_use", id: "t", name: "n", input: marked }
      for (const not of [
        {},
        { cache_control: null },
        { tools: [{ name: "a", input_schema: { properties: marked } }] },
        { messages: [{ role: "user", content: [unmarked] }] },
        { messages: [{ role: "assistant", content: [input] }] }
      ]) {
        assert.isFalse(cachesOf(not), JSON.stringify(not))
      }
    })

    it("reads the model and the stream from the path", () => {
      const path = "/v1/projects/p/locations/l/publishers/anthropic/models/claude-opus-5:streamRawPredict"
      const { model: _, ...rest } = body
      const vertex = { ...rest, anthropic_version: "vertex-2023-10-16" }
      assert.deepInclude(describeBody(vertex, path), { model: "claude-opus-5", stream: true })
    })

    it("finds the agent in our header, Claude Code's session, its metadata, or a plain user", () => {
      const agentOf = (metadata: object | undefined, headers: Record<string, string> = {}) =>
        anthropic.agentOf({ ...body, metadata }, (name) => headers[name])
      const user = JSON.stringify({ device_id: "d", account_uuid: "", session_id: "s-1" })
      assert.strictEqual(agentOf({ user_id: "u-1" }), "u-1")
      assert.strictEqual(agentOf({ user_id: user }), "s-1")
      assert.strictEqual(agentOf({ user_id: "{broken" }), "{broken")
      // Parsing a text as long as a body would take as long as parsing a body.
      assert.isUndefined(agentOf({ user_id: JSON.stringify({ session_id: "s-1", rest: "x".repeat(5_000) }) }))
      assert.strictEqual(agentOf({ user_id: user }, { "x-claude-code-session-id": "s-2" }), "s-2")
      const both = { "x-claude-code-session-id": "s-2", "x-floodgate-agent": "a7" }
      assert.strictEqual(agentOf({ user_id: user }, both), "a7")
      const subAgent = { "x-claude-code-session-id": "s-2", "x-claude-code-agent-id": "a1b2" }
      assert.strictEqual(agentOf({ user_id: user }, subAgent), "s-2/a1b2")
      assert.strictEqual(agentOf({ user_id: user }, { ...subAgent, "x-floodgate-agent": "a7" }), "a7")
      for (const nothing of [undefined, {}, { user_id: "" }, { user_id: 5 }, { user_id: "x".repeat(10_000) }]) {
        assert.isUndefined(agentOf(nothing))
      }
    })

    it("finds the answer that a thread continues", () => {
      const thread = (thread: unknown) => describeBody({ ...body, thread })
      assert.deepInclude(thread({ type: "continue", previous_message_id: "msg_1" }), {
        continues: "msg_1",
        stored: true
      })
      for (const other of [{ type: "create" }, { type: "continue" }, null, "continue", undefined]) {
        assert.deepInclude(thread(other), { continues: undefined, stored: false })
      }
    })

    it("does not describe a body of another protocol", () => {
      for (const other of [undefined, null, "text", 5, [], [body]]) assert.isUndefined(describeBody(other))
      // The provider refuses it.
      for (const other of [{}, { messages: "x" }]) assert.isDefined(describeBody(other))
      assert.isUndefined(describeBody({ inputText: "Hello" }, "/model/amazon.titan-text/invoke"))
      assert.isDefined(describeBody({ prompt: "Hello" }, "/model/anthropic.claude-v2/invoke"))
    })
  })

  describe("answer", () => {
    it("reads a whole answer", () => {
      const answer = anthropic.answer(anthropicMessage)
      assert.deepInclude(answer, {
        id: "msg_01B",
        continuation: "msg_01B",
        model: "claude-sonnet-5-20260901",
        finishReason: "end_turn",
        complete: true,
        error: undefined
      })
      assert.deepStrictEqual(usageOf(answer), {
        inputTokens: 25,
        cacheCreationTokens: 5,
        cacheReadTokens: 1_000,
        outputTokens: 12
      })
    })

    it("has no usage if the provider does not count", () => {
      for (const body of [{ ...anthropicMessage, usage: undefined }, "text", null, undefined]) {
        assert.isUndefined(usageOf(anthropic.answer(body)))
      }
      assert.isFalse(anthropic.answer("text").complete)
    })

    it("separates cache writes for an hour, which cost more", () => {
      const cache_creation = { ephemeral_5m_input_tokens: 10, ephemeral_1h_input_tokens: 90 }
      const usage = { input_tokens: 1, output_tokens: 2, cache_creation_input_tokens: 100, cache_creation }
      const all = {
        inputTokens: 1,
        cacheCreationTokens: 100,
        cacheCreationLongTokens: 90,
        cacheReadTokens: 0,
        outputTokens: 2
      }
      assert.deepStrictEqual(usageOf(anthropic.answer({ usage })), all)
      // The last event of a stream does not repeat it.
      const last = { input_tokens: 1, output_tokens: 2, cache_creation_input_tokens: 100 }
      assert.deepStrictEqual(usageOf(fold(start({ ...usage, output_tokens: 1 }), total(last))), all)
    })

    it("adds compactions of the context, which the provider's sums leave out", () => {
      // Regression: a call of 203,000 tokens was settled to 23,000.
      const compaction = {
        type: "compaction",
        input_tokens: 180_000,
        cache_creation_input_tokens: 2_000,
        cache_read_input_tokens: 300,
        output_tokens: 3_500
      }
      const usage = {
        input_tokens: 23_000,
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: 0,
        output_tokens: 1_000,
        iterations: [compaction, { type: "message", input_tokens: 23_000, output_tokens: 1_000 }, null]
      }
      const all = { inputTokens: 203_000, cacheCreationTokens: 2_000, cacheReadTokens: 300, outputTokens: 4_500 }
      assert.deepStrictEqual(usageOf(anthropic.answer({ usage })), all)
      assert.deepStrictEqual(usageOf(fold(start({ ...usage, output_tokens: 1 }), total(usage), total(usage))), all)
    })
  })

  describe("observe", () => {
    it("reads a stream, with the last counts and not their sum", () => {
      const answer = answerOfText(anthropic, anthropicStream)
      assert.deepStrictEqual(answer, {
        id: "msg_01A",
        continuation: "msg_01A",
        model: "claude-sonnet-5-20260901",
        finishReason: "tool_use",
        counts: { inputTokens: 10_682, cacheCreationTokens: 300, cacheReadTokens: 12_000, outputTokens: 510 },
        uncounted: 0,
        started: true,
        complete: true,
        error: undefined
      })
    })

    it("has started with the first content, and is complete with message_stop alone", () => {
      const marks = (...events: ReadonlyArray<object>) => [fold(...events).started, fold(...events).complete]
      assert.deepStrictEqual(marks(start({ input_tokens: 1 })), [false, false])
      assert.deepStrictEqual(marks(start({ input_tokens: 1 }), { type: "content_block_start" }), [true, false])
      assert.deepStrictEqual(marks(total({ output_tokens: 1 }), { type: "message_stop" }), [false, true])
    })

    it("estimates output that was not counted, of text, thinking and tool input, until it is", () => {
      const parts = [
        delta({ type: "text_delta", text: "x".repeat(27) }),
        delta({ type: "thinking_delta", thinking: "x".repeat(27) }),
        delta({ type: "input_json_delta", partial_json: "x".repeat(27) }),
        delta({ type: "signature_delta", signature: "x".repeat(1_000) })
      ]
      const open = [start({ input_tokens: 10, output_tokens: 1 }), ...parts]
      assert.strictEqual(outputOf(...open), 31)
      assert.strictEqual(outputOf(...open, total({ output_tokens: 25 })), 25)
    })

    it("keeps its own estimate where the last counts lack the output", () => {
      // Regression: for a stream without usage, the placeholder of message_start counted as its whole output.
      const open = [start({ input_tokens: 10, output_tokens: 1 }), delta({ type: "text_delta", text: "x".repeat(27) })]
      for (const usage of [undefined, null, {}, { output_tokens: null }]) {
        assert.strictEqual(outputOf(...open, total(usage)), 11)
      }
      assert.strictEqual(outputOf(...open, total({ output_tokens: 0 })), 10)
    })

    it("ignores counts that are not numbers", () => {
      const { counts } = fold(start({ input_tokens: 10 }), total({ input_tokens: -1, output_tokens: "many" }))
      assert.deepInclude(counts, { inputTokens: 10, outputTokens: undefined })
    })

    it("finds the error of a stream, in JSON or not", () => {
      const overloaded = { type: "error", error: { type: "overloaded_error", message: "Overloaded" } }
      for (const name of ["error", undefined]) {
        assert.deepStrictEqual(
          anthropic.observe(emptyAnswer, { name, data: JSON.stringify(overloaded) }).error,
          overloaded
        )
      }
      assert.strictEqual(anthropic.observe(emptyAnswer, { name: "error", data: "bad gateway" }).error, "bad gateway")
      assert.strictEqual(
        anthropic.failure({ status: 200, header: none, body: overloaded }, { now: 0 }).reason,
        "Overloaded"
      )
    })

    it("ignores pings and unknown events", () => {
      for (const [name, data] of [
        ["ping", '{"type":"ping"}'],
        [undefined, '{"type":"ping"}'],
        ["message_stop", ""],
        ["of_tomorrow", '{"type":"of_tomorrow"}'],
        ["message_stop", "{"],
        ["message_stop", "null"],
        ["message_stop", '["message_stop"]']
      ] as const) {
        assert.strictEqual(anthropic.observe(emptyAnswer, { name, data }), emptyAnswer, data)
      }
    })
  })
})
