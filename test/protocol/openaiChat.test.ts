import { assert, describe, it } from "@effect/vitest"
import { protocols } from "floodgate/protocol"
import { chatCompletion, chatStream, chatStreamPlain } from "./fixtures.ts"
import { answerOfText } from "./reading.ts"
import { emptyAnswer, usageOf } from "../../src/protocol/protocol.ts"

const { openaiChat } = protocols

const match = (path: string, method = "POST") => openaiChat.match(method, path)
const none = () => undefined
const describeBody = (body: unknown, path = "/v1/chat/completions") => {
  const route = match(path)
  return route && openaiChat.describe(body, route)
}
const observe = (...chunks: ReadonlyArray<object | string>) =>
  chunks.reduce<typeof emptyAnswer>(
    (answer, chunk) =>
      openaiChat.observe(answer, { name: undefined, data: typeof chunk === "string" ? chunk : JSON.stringify(chunk) }),
    emptyAnswer
  )
const delta = (delta: object, finish_reason: string | null = null) => ({
  choices: [{ index: 0, delta, finish_reason }]
})

describe("openaiChat", () => {
  describe("match", () => {
    it.each([
      ["/v1/chat/completions", "/v1/chat/completions"],
      ["/chat/completions", "/v1/chat/completions"],
      ["/openai/v1/chat/completions", "/openai/v1/chat/completions"],
      ["/v1beta/openai/chat/completions", "/v1beta/openai/chat/completions"]
    ])("takes %s for a call", (path, canonical) => {
      assert.deepStrictEqual(match(path), { operation: "generate", model: undefined, path: canonical })
    })

    it("uses Azure's deployment as the model, because it has its own limits", () => {
      const path = "/openai/deployments/my%20gpt/chat/completions"
      assert.deepInclude(match(path), { operation: "generate", model: "my gpt" })
      assert.strictEqual(describeBody({ model: "gpt-6", messages: [] }, path)?.model, "my gpt")
    })

    it("lets everything else of the API pass through", () => {
      for (const path of ["/v1/moderations", "/v1/files/f_1", "/v1/batches", "/v1/completions"]) {
        assert.strictEqual(match(path)?.operation, "passThrough", path)
      }
      for (const path of ["/v1/models", "/v1/models/ft:gpt-6:org::id"]) {
        assert.strictEqual(match(path, "GET")?.operation, "passThrough", path)
      }
      assert.isUndefined(match("/v1/models/gemini-3.8-flash:generateContent"))
      assert.strictEqual(match("/v1/chat/completions", "GET")?.operation, "passThrough")
      assert.strictEqual(match("/v1/chat/completions/chatcmpl-1/messages")?.operation, "passThrough")
      for (const path of ["/v1/responses", "/chat", "/completions", "/weather"]) assert.isUndefined(match(path), path)
    })
  })

  describe("a request", () => {
    const body = { model: "gpt-6", messages: [{ role: "user", content: "Hello" }] }

    it("reads the model, the limit, the size and what is asked", () => {
      const { prefixes, ...described } = describeBody(body)!
      assert.isAbove(prefixes!.fingerprints.length, 0)
      assert.deepStrictEqual(described, {
        model: "gpt-6",
        bytes: 9,
        textBytes: 9,
        maxTokens: undefined,
        thinking: false,
        stream: false,
        continues: undefined,
        stored: false,
        needsUsageRequest: false
      })
      assert.strictEqual(describeBody({ ...body, max_tokens: 100 })?.maxTokens, 100)
      assert.strictEqual(describeBody({ ...body, max_tokens: 100, max_completion_tokens: 200 })?.maxTokens, 200)
      assert.strictEqual(describeBody({ ...body, max_tokens: 300, max_completion_tokens: 200 })?.maxTokens, 300)
      assert.isTrue(describeBody({ ...body, service_tier: "priority" })?.fast)
      assert.isUndefined(describeBody({ ...body, service_tier: "flex" })?.fast)
      assert.strictEqual(describeBody({ ...body, service_tier: "ultrafast" })?.priceFactor, 6)
      // All choices together.
      assert.strictEqual(describeBody({ ...body, max_tokens: 100, n: 3 })?.maxTokens, 300)
      assert.strictEqual(describeBody({ ...body, max_tokens: 100, n: -3 })?.maxTokens, 100)
      const tools = [{ type: "function", function: { name: "find", parameters: { type: "object" } } }]
      assert.strictEqual(describeBody({ ...body, tools })?.bytes, 9 + JSON.stringify(tools).length)
    })

    it("tells whether the model is asked to reason", () => {
      const thinking = (more: object) => describeBody({ ...body, ...more })?.thinking
      assert.isTrue(thinking({ reasoning_effort: "low" }))
      assert.isTrue(thinking({ reasoning: { effort: "high" } }))
      assert.isFalse(thinking({ reasoning_effort: "none" }))
      assert.isFalse(thinking({ reasoning_effort: null }))
    })

    it("tells whether a stream reports its usage only on request", () => {
      const needs = (more: object) => describeBody({ ...body, ...more })?.needsUsageRequest
      assert.isFalse(needs({}))
      assert.isTrue(needs({ stream: true }))
      assert.isTrue(needs({ stream: true, stream_options: null }))
      assert.isTrue(needs({ stream: true, stream_options: { include_usage: false } }))
      assert.isFalse(needs({ stream: true, stream_options: { include_usage: true } }))
    })

    it("uses the user as the agent, not the key of a cached prefix", () => {
      const agentOf = (more: object) => openaiChat.agentOf({ ...body, ...more }, none)
      assert.strictEqual(agentOf({ user: "u", safety_identifier: "s", prompt_cache_key: "p" }), "s")
      assert.strictEqual(agentOf({ user: "u" }), "u")
      assert.isUndefined(agentOf({ prompt_cache_key: "p" }))
    })

    it("does not describe a body that is not an object", () => {
      for (const other of [undefined, null, "text", 5, [body]]) assert.isUndefined(describeBody(other))
    })
  })

  describe("answer", () => {
    it("reads a whole answer, with cached tokens apart from the others", () => {
      const answer = openaiChat.answer(chatCompletion)
      assert.deepInclude(answer, { id: "chatcmpl-2", model: "gpt-6-2026-08-01", finishReason: "stop", complete: true })
      assert.deepStrictEqual(usageOf(answer), {
        inputTokens: 86,
        cacheCreationTokens: 0,
        cacheReadTokens: 1_920,
        outputTokens: 300
      })
    })

    it("splits the prompt so that its parts are the whole, whatever the details are", () => {
      const usage = (details: object) =>
        usageOf(
          openaiChat.answer({ usage: { prompt_tokens: 100, completion_tokens: 1, prompt_tokens_details: details } })
        )
      for (const details of [
        {},
        { cached_tokens: 60 },
        { cached_tokens: 60, cache_write_tokens: 30 },
        { cached_tokens: 60, cache_write_tokens: 70 },
        { cached_tokens: 1_000 },
        { cached_tokens: -5, cache_write_tokens: "many" }
      ]) {
        const { cacheCreationTokens = 0, cacheReadTokens = 0, inputTokens } = usage(details)!
        assert.strictEqual(inputTokens + cacheCreationTokens + cacheReadTokens, 100)
        assert.isTrue(inputTokens >= 0 && cacheCreationTokens >= 0 && cacheReadTokens >= 0)
      }
    })

    it("finds the error of a compatible service that answers 200", () => {
      const answer = openaiChat.answer({ error: { message: "no", code: 502 } })
      assert.isFalse(answer.complete)
      const failure = openaiChat.failure({ status: 200, header: none, body: answer.error }, { now: 0 })
      assert.deepInclude(failure, { reason: "ServerFailed", detail: "no" })
    })
  })

  describe("observe", () => {
    it("reads a stream that reports its usage", () => {
      assert.deepStrictEqual(answerOfText(openaiChat, chatStream), {
        id: "chatcmpl-1",
        continuation: undefined,
        model: "gpt-6-2026-08-01",
        finishReason: "tool_calls",
        counts: { inputTokens: 86, cacheCreationTokens: 0, cacheReadTokens: 1_920, outputTokens: 300 },
        uncounted: 0,
        started: true,
        complete: true,
        error: undefined
      })
    })

    it("estimates nothing for a complete stream without usage", () => {
      const answer = answerOfText(openaiChat, chatStreamPlain)
      assert.isTrue(answer.complete)
      assert.isUndefined(usageOf(answer))
    })

    it("estimates the received part of a broken stream", () => {
      const answer = observe(delta({ content: "x".repeat(20) }), delta({ reasoning_content: "x".repeat(7) }))
      assert.deepInclude(usageOf(answer), { inputTokens: 0, outputTokens: 10 })
    })

    it("has not started with the role, and has with any content", () => {
      assert.isFalse(observe(delta({ role: "assistant", content: "" })).started)
      assert.isFalse(observe(delta({ role: "assistant", content: null, tool_calls: [] })).started)
      for (const content of [{ content: "a" }, { refusal: "no" }, { tool_calls: [{}] }, { reasoning: "hm" }]) {
        assert.isTrue(observe(delta(content)).started)
      }
    })

    it("is complete with its finish reason or [DONE], not earlier", () => {
      assert.isFalse(observe(delta({ content: "a" })).complete)
      assert.deepInclude(observe(delta({}, "stop")), { complete: true, finishReason: "stop" })
      assert.isTrue(observe("[DONE]").complete)
    })

    it("uses the last counts if every chunk has some", () => {
      const usage = (completion_tokens: number) => ({ usage: { prompt_tokens: 10, completion_tokens } })
      const answer = observe({ ...delta({ content: "a" }), ...usage(1) }, { ...delta({ content: "b" }), ...usage(2) })
      assert.deepInclude(usageOf(answer), { inputTokens: 10, outputTokens: 2 })
    })

    it("finds the error of a stream", () => {
      const error = { error: { code: 429, message: "Rate limited", metadata: {} } }
      const answer = observe(delta({ content: "a" }), error)
      assert.deepStrictEqual(answer.error, error)
      assert.deepInclude(openaiChat.failure({ status: 200, header: none, body: answer.error }, { now: 0 }), {
        reason: "RateLimited",
        status: 200,
        detail: "Rate limited"
      })
    })

    it("ignores unknown events", () => {
      for (const data of ["", "{", "null", "[]", "5", '"error"']) {
        assert.strictEqual(openaiChat.observe(emptyAnswer, { name: undefined, data }), emptyAnswer)
      }
    })
  })
})
