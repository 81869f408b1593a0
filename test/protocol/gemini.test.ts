import { assert, describe, it } from "@effect/vitest"
import { protocols } from "floodgate/protocol"
import { geminiList, geminiQuotaError, geminiResponse, geminiStream } from "./fixtures.ts"
import { answerOfText } from "./reading.ts"
import { emptyAnswer, usageOf } from "../../src/protocol/protocol.ts"

const { gemini } = protocols

const match = (path: string, method = "POST") => gemini.match(method, path)
const none = () => undefined
const describeBody = (body: unknown, method = "generateContent") => {
  const route = match(`/v1beta/models/gemini-3.8-flash:${method}`)
  return route && gemini.describe(body, route)
}
const failure = (body: unknown, now = 0) => gemini.failure({ status: 429, header: none, body }, { now })

const perMinute = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
const perDay = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
const tokens = "GenerateContentPaidTierInputTokensPerModelPerMinute"
const hour = 3_600_000

describe("gemini", () => {
  describe("match", () => {
    it("reads operation and model from the path", () => {
      const path = "/v1beta/models/gemini-3.8-flash"
      const model = "gemini-3.8-flash"
      assert.deepStrictEqual(match(`${path}:generateContent`), {
        operation: "generate",
        model,
        path: `${path}:generateContent`
      })
      assert.deepInclude(match("/v1beta/models/bad%E0%A4:generateContent"), { model: "bad%E0%A4" })
      assert.deepInclude(match(`${path}:streamGenerateContent`), { operation: "stream", model })
      assert.deepInclude(match(`${path}:countTokens`), { operation: "countTokens", model })
      assert.deepInclude(match(`${path}:predict`), { operation: "passThrough", model })
      assert.strictEqual(match("/models/m:generateContent")?.path, "/v1beta/models/m:generateContent")
      assert.strictEqual(match("/v1/models/m:generateContent")?.path, "/v1/models/m:generateContent")
    })

    it("reads the paths of Vertex AI, and leaves other publishers' alone", () => {
      const location = "/v1beta1/projects/p/locations/us-central1"
      assert.deepInclude(match(`${location}/publishers/google/models/gemini-3.8-flash:streamGenerateContent`), {
        operation: "stream",
        model: "gemini-3.8-flash"
      })
      assert.deepInclude(match(`${location}/endpoints/123:generateContent`), { operation: "generate", model: "123" })
      assert.isUndefined(match(`${location}/publishers/anthropic/models/claude-sonnet-5:rawPredict`))
      assert.isUndefined(match(`${location}/publishers/meta/models/llama:generateContent`))
    })

    it("lets everything else of the API pass through", () => {
      for (const path of [
        "/v1beta/models",
        "/v1beta/models/gemini-3.8-flash",
        "/v1beta/files",
        "/v1beta/cachedContents/c"
      ]) {
        assert.strictEqual(match(path, "GET")?.operation, "passThrough", path)
      }
      for (const path of ["/v1/models", "/v1beta/openai/chat/completions", "/v1/messages"]) {
        assert.isUndefined(match(path), path)
      }
    })
  })

  describe("a request", () => {
    const body = { contents: [{ role: "user", parts: [{ text: "Hello" }] }] }

    it("reads the limit, the size and what is asked", () => {
      const { prefixes, ...described } = describeBody(body)!
      assert.isAbove(prefixes!.fingerprints.length, 0)
      assert.deepStrictEqual(described, {
        model: "gemini-3.8-flash",
        bytes: 9,
        textBytes: 9,
        maxTokens: undefined,
        thinking: false,
        stream: false,
        continues: undefined,
        stored: false,
        needsUsageRequest: false
      })
      const systemInstruction = { parts: [{ text: "Be brief." }] }
      const responseSchema = { type: "OBJECT" }
      assert.deepInclude(
        describeBody(
          { ...body, systemInstruction, generationConfig: { maxOutputTokens: 800, responseSchema } },
          "streamGenerateContent"
        ),
        { maxTokens: 800, stream: true, bytes: 18 + JSON.stringify(responseSchema).length }
      )
    })

    it("reads names in snake case as well", () => {
      const snake = {
        ...body,
        system_instruction: { parts: [{ text: "Be brief." }] },
        generation_config: { max_output_tokens: 800, thinking_config: { thinking_budget: 5 } },
        cached_content: "cachedContents/c"
      }
      assert.deepInclude(describeBody(snake), { maxTokens: 800, bytes: 18, thinking: true, stored: true })
    })

    it("tells whether the model is asked to think", () => {
      const thinking = (thinkingConfig: unknown) =>
        describeBody({ ...body, generationConfig: { thinkingConfig } })?.thinking
      assert.isTrue(thinking({ thinkingBudget: -1 }))
      assert.isTrue(thinking({ thinkingLevel: "HIGH" }))
      assert.isFalse(thinking({ thinkingBudget: 0 }))
      assert.isFalse(thinking(undefined))
    })
  })

  describe("answer", () => {
    it("reads a whole answer: the cached part of the prompt apart, and thinking as output", () => {
      const answer = gemini.answer(geminiResponse)
      assert.deepInclude(answer, { id: "r-abc", model: "gemini-3.8-flash", finishReason: "STOP", complete: true })
      assert.deepStrictEqual(usageOf(answer), {
        inputTokens: 1_500 - 1_024 + 40,
        cacheCreationTokens: 0,
        cacheReadTokens: 1_024,
        outputTokens: 92
      })
    })

    it("reads the list that a stream without alt=sse is", () => {
      assert.deepInclude(usageOf(gemini.answer(geminiList)), { inputTokens: 516, outputTokens: 104 })
      const broken = gemini.answer([geminiList[0], geminiQuotaError(perMinute, "15", "16s")])
      assert.deepInclude(broken, { complete: false })
      assert.isDefined(broken.error)
    })

    it("recognises a blocked prompt", () => {
      const blocked = { promptFeedback: { blockReason: "SAFETY" }, usageMetadata: { promptTokenCount: 7 } }
      assert.deepInclude(gemini.answer(blocked), { complete: true, finishReason: "SAFETY" })
      assert.deepInclude(usageOf(gemini.answer(blocked)), { inputTokens: 7, outputTokens: 0 })
    })

    it("has no usage if nothing is counted", () => {
      for (const body of [{ candidates: geminiResponse.candidates }, {}, [], "text", null]) {
        assert.isUndefined(usageOf(gemini.answer(body)))
      }
    })
  })

  describe("observe", () => {
    it("reads a stream, with the last counts and not their sum", () => {
      assert.deepStrictEqual(answerOfText(gemini, geminiStream), {
        id: "r-abc",
        continuation: undefined,
        model: "gemini-3.8-flash",
        finishReason: "STOP",
        counts: { inputTokens: 516, cacheCreationTokens: undefined, cacheReadTokens: 1_024, outputTokens: 104 },
        uncounted: 0,
        started: true,
        complete: true,
        error: undefined
      })
    })

    it("estimates output that was not counted", () => {
      const part = (part: object) => ({ candidates: [{ content: { parts: [part] } }] })
      const answer = [part({ text: "x".repeat(20) }), part({ functionCall: { a: 1 } })].reduce<typeof emptyAnswer>(
        (answer, event) => gemini.observe(answer, { name: undefined, data: JSON.stringify(event) }),
        emptyAnswer
      )
      assert.deepInclude(answer, { uncounted: 27, started: true, complete: false })
      assert.strictEqual(usageOf(answer)?.outputTokens, 10)
    })

    it("finds the error of a stream", () => {
      const event = { error: { code: 503, message: "The model is overloaded.", status: "UNAVAILABLE" } }
      const answer = gemini.observe(emptyAnswer, { name: undefined, data: JSON.stringify(event) })
      assert.strictEqual(
        gemini.failure({ status: 200, header: none, body: answer.error }, { now: 0 }).reason,
        "Overloaded"
      )
    })
  })

  describe("quotas", () => {
    it("treats a quota per minute as a rate limit, with its limit and its delay", () => {
      assert.deepInclude(failure(geminiQuotaError(perMinute, "15", "36.5s")), {
        reason: "RateLimited",
        code: "RESOURCE_EXHAUSTED",
        retryAfterMillis: 36_500,
        signal: { dimensions: { requests: { limit: 15, remaining: 0, roundedTo: 1 } } }
      })
      const either = failure(geminiQuotaError("GenerateTokensPerMinutePerProject", "9000", "5s")).signal
      assert.deepStrictEqual(either?.dimensions.tokens, { limit: 9_000, remaining: 0, roundedTo: 1 })
      assert.isUndefined(failure(geminiQuotaError("ImagesPerMinutePerProject", "9", "5s")).signal)
      const body = geminiQuotaError(tokens, "250000", "59s")
      assert.deepStrictEqual(gemini.limits({ status: 429, header: none, body }), {
        dimensions: { inputTokens: { limit: 250_000, remaining: 0, roundedTo: 1 } }
      })
      assert.isUndefined(gemini.limits({ status: 200, header: none }))
    })

    it("treats a daily quota as used up until the delay is over", () => {
      const now = Date.UTC(2026, 10, 24)
      assert.deepInclude(failure(geminiQuotaError(perDay, "250", "35640s"), now), {
        reason: "SpendLimited",
        resumesAt: now + 35_640_000,
        signal: undefined
      })
      assert.deepInclude(failure(geminiQuotaError(perDay, "250", undefined)), {
        reason: "SpendLimited",
        resumesAt: undefined
      })
    })

    it("believes a delay of at most an hour, and that a limit of 0 never opens", () => {
      assert.deepInclude(failure(geminiQuotaError(perDay, "20", "36.429760048s")), { reason: "RateLimited" })
      assert.deepInclude(failure(geminiQuotaError(perDay, "20", "3600s")), {
        reason: "RateLimited",
        retryAfterMillis: hour
      })
      assert.deepInclude(failure(geminiQuotaError(perDay, "20", "3601s")), { reason: "SpendLimited" })
      assert.deepInclude(failure(geminiQuotaError(perMinute, "0", "10s")), { reason: "SpendLimited" })
    })

    it("treats Vertex AI's busy pool as a rate limit without figures", () => {
      const busy = { error: { code: 429, message: "Resource exhausted.", status: "RESOURCE_EXHAUSTED" } }
      assert.deepInclude(failure(busy), { reason: "RateLimited", signal: undefined, retryAfterMillis: undefined })
      assert.deepInclude(failure([busy]), { reason: "RateLimited" })
    })

    it("survives any details", () => {
      for (const details of [
        null,
        {},
        [null],
        [{ violations: {} }],
        [{ violations: [null, { quotaId: 5 }] }],
        [{ retryDelay: "soon" }]
      ]) {
        assert.deepInclude(failure({ error: { code: 429, status: "RESOURCE_EXHAUSTED", details } }), {
          reason: "RateLimited",
          retryAfterMillis: undefined
        })
      }
      assert.deepInclude(failure(geminiQuotaError(perDay, "1e99", `${"9".repeat(9)}d`), 0), {
        reason: "SpendLimited",
        resumesAt: 31 * 24 * hour
      })
    })
  })
})
