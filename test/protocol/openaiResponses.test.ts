import { assert, describe, it } from "@effect/vitest"
import { protocols } from "floodgate/protocol"
import { response, responsesEvents, responsesStream } from "./fixtures.ts"
import { answerOfText } from "./reading.ts"
import { emptyAnswer, usageOf } from "../../src/protocol/protocol.ts"

const { openaiResponses } = protocols

const match = (path: string, method = "POST") => openaiResponses.match(method, path)
const none = () => undefined
const describeBody = (body: unknown, path = "/v1/responses") => {
  const route = match(path)
  return route && openaiResponses.describe(body, route)
}
const observe = (...events: ReadonlyArray<object>) =>
  events.reduce<typeof emptyAnswer>(
    (answer, event) => openaiResponses.observe(answer, { name: undefined, data: JSON.stringify(event) }),
    emptyAnswer
  )
const failureOf = (body: unknown) => openaiResponses.failure({ status: 200, header: none, body }, { now: 0 })

describe("openaiResponses", () => {
  describe("match", () => {
    it("recognises a call in all spellings", () => {
      for (const path of ["/v1/responses", "/openai/v1/responses", "/openai/responses"]) {
        assert.deepStrictEqual(match(path), { operation: "generate", model: undefined, path })
      }
      assert.strictEqual(match("/responses")?.path, "/v1/responses")
      assert.strictEqual(match("/v1/responses/compact")?.operation, "generate")
    })

    it("tells token counts from requests that pass through", () => {
      assert.strictEqual(match("/v1/responses/input_tokens")?.operation, "countTokens")
      assert.strictEqual(match("/v1/responses/resp_1/cancel")?.operation, "passThrough")
      for (const path of ["/v1/responses/resp_1", "/v1/responses/resp_1/input_items", "/v1/responses"]) {
        assert.strictEqual(match(path, "GET")?.operation, "passThrough")
      }
      for (const path of ["/forms/f_1/responses", "/v1/chat/completions", "/v1/responsesx"]) {
        assert.isUndefined(match(path), path)
      }
    })
  })

  describe("a request", () => {
    const body = { model: "gpt-6", instructions: "Be brief.", input: "Hello" }

    it("reads the model, the limit, the size and what is asked", () => {
      const asked = { ...body, max_output_tokens: 500, stream: true, reasoning: { effort: "low" }, user: "u" }
      const { prefixes, ...described } = describeBody(asked)!
      assert.isAbove(prefixes!.fingerprints.length, 0)
      assert.deepStrictEqual(described, {
        model: "gpt-6",
        bytes: 14,
        textBytes: 14,
        maxTokens: 500,
        thinking: true,
        stream: true,
        continues: undefined,
        stored: false,
        needsUsageRequest: false
      })
      const format = { type: "json_schema", name: "a", schema: { type: "object" } }
      assert.strictEqual(describeBody({ ...body, text: { format } })?.bytes, 14 + JSON.stringify(format).length)
      assert.isFalse(describeBody({ ...body, reasoning: { effort: "none" } })?.thinking)
    })

    it("finds the answer or the stored conversation that is continued", () => {
      for (const [more, continues] of [
        [{ previous_response_id: "resp_0" }, "resp_0"],
        [{ conversation: "conv_1" }, "conv_1"],
        [{ conversation: { id: "conv_1" } }, "conv_1"]
      ] as const) {
        assert.deepInclude(describeBody({ ...body, ...more }), { continues, stored: true })
      }
      assert.deepInclude(describeBody({ ...body, previous_response_id: null }), { continues: undefined, stored: false })
      assert.deepInclude(describeBody({ prompt: { id: "pmpt_1", variables: { a: "b" } } }), {
        model: undefined,
        bytes: 1,
        stored: true
      })
    })
  })

  describe("answer", () => {
    it("reads a whole answer, with what was cached and written to the cache apart", () => {
      const answer = openaiResponses.answer(response)
      assert.deepInclude(answer, { id: "resp_1", continuation: "resp_1", finishReason: "completed", complete: true })
      assert.deepStrictEqual(usageOf(answer), {
        inputTokens: 300,
        cacheCreationTokens: 100,
        cacheReadTokens: 600,
        outputTokens: 250
      })
    })

    it("is continued by its conversation, if it has one", () => {
      assert.strictEqual(openaiResponses.answer({ ...response, conversation: { id: "conv_1" } }).continuation, "conv_1")
    })

    it("tells why an answer is incomplete, and that one runs in the background", () => {
      const incomplete = { ...response, status: "incomplete", incomplete_details: { reason: "max_output_tokens" } }
      assert.deepInclude(openaiResponses.answer(incomplete), { complete: true, finishReason: "max_output_tokens" })
      const queued = openaiResponses.answer({ ...response, status: "queued", usage: null })
      assert.deepInclude(queued, { complete: false, started: false })
      assert.isUndefined(usageOf(queued))
    })

    it("finds the error of a failed answer", () => {
      const failed = { ...response, status: "failed", error: { code: "rate_limit_exceeded", message: "Slow" } }
      const answer = openaiResponses.answer(failed)
      assert.isFalse(answer.complete)
      assert.deepInclude(failureOf(answer.error), { reason: "RateLimited", detail: "Slow" })
      assert.strictEqual(failureOf(openaiResponses.answer({ ...failed, error: null }).error).reason, "ServerFailed")
    })

    it("reads a compacted conversation, which has no status", () => {
      const answer = openaiResponses.answer({ id: "resp_2", output: [], usage: response.usage })
      assert.deepInclude(answer, { complete: true, continuation: "resp_2" })
    })
  })

  describe("observe", () => {
    it("reads a stream", () => {
      assert.deepStrictEqual(answerOfText(openaiResponses, responsesStream), {
        id: "resp_1",
        continuation: "resp_1",
        model: "gpt-6-2026-08-01",
        finishReason: "completed",
        counts: { inputTokens: 300, cacheCreationTokens: 100, cacheReadTokens: 600, outputTokens: 250 },
        uncounted: 0,
        started: true,
        complete: true,
        error: undefined
      })
    })

    it("has started with the first item, and is complete at the end alone", () => {
      assert.deepInclude(observe(...responsesEvents.slice(0, 2)), { started: false, complete: false, id: "resp_1" })
      assert.deepInclude(observe(...responsesEvents.slice(0, 3)), { started: true, complete: false })
      const open = observe(...responsesEvents.slice(0, 5))
      assert.deepInclude(open, { complete: false, uncounted: "Ein Eimer, der sich füllt 👍🏽".length })
    })

    it("finds errors in each of their forms", () => {
      const flat = { type: "error", code: "server_error", message: "no", param: null, sequence_number: 3 }
      const nested = { type: "error", sequence_number: 3, error: { type: "server_error", code: null, message: "no" } }
      const failed = {
        type: "response.failed",
        response: { status: "failed", error: { code: "server_error", message: "no" } }
      }
      const bare = { error: { type: "server_error", message: "no" } }
      for (const event of [flat, nested, failed, bare]) {
        const answer = observe(event)
        assert.isDefined(answer.error)
        assert.deepInclude(failureOf(answer.error), { reason: "ServerFailed", detail: "no" })
        assert.isFalse(answer.complete)
      }
      assert.strictEqual(openaiResponses.observe(emptyAnswer, { name: "error", data: "gone" }).error, "gone")
    })

    it("ignores unknown events", () => {
      for (const data of ["", "{", "null", "[]", '{"type":"keepalive"}', '{"type":5}']) {
        assert.strictEqual(openaiResponses.observe(emptyAnswer, { name: undefined, data }), emptyAnswer, data)
      }
    })
  })
})
