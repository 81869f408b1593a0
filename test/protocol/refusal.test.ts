import Anthropic, * as AnthropicSdk from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import { type Protocol, protocols as known } from "floodgate/protocol"
import OpenAI, * as OpenAiSdk from "openai"
import { anthropicStream, chatCompletion, chatStream, response, responsesStream } from "./fixtures.ts"
import { answerOfText } from "./reading.ts"
import type { Refusal } from "../../src/protocol/refusal.ts"

const { anthropic, gemini, openaiChat, openaiResponses } = known

// How real SDKs read our refusals. @google/genai is not a dependency, so its reader is repeated below.

const refusal = (kind: Refusal["kind"], retryAfterSeconds?: number): Refusal => ({
  kind,
  retryAfterSeconds,
  message: "Floodgate: the wait of 90 s is longer than maxWait"
})

const kinds = [
  "rateLimited",
  "unavailable",
  "tooLarge",
  "spendLimited",
  "notFound",
  "invalid",
  "timedOut",
  "unauthorized",
  "forbidden",
  "upgradeRequired"
] as const
const protocols = [anthropic, openaiChat, openaiResponses, gemini]

/** A fetch that answers everything with the same response. */
const answering = (body: string, headers: Record<string, string>, status = 200) => {
  const seen = { requests: 0 }
  const fetch = () => {
    seen.requests++
    return Promise.resolve(new Response(body, { status, headers }))
  }
  return { fetch, seen }
}

const refusing = (protocol: Protocol, given: Refusal) => {
  const { body, headers, status } = protocol.refuse(given)
  return answering(body, headers, status)
}

const streaming = (text: string) => answering(text, { "content-type": "text/event-stream" })

const claude = (fetch: () => Promise<Response>) => new Anthropic({ apiKey: "any", maxRetries: 0, fetch }).messages
const claudeParams = { model: "claude-sonnet-5", max_tokens: 10, messages: [{ role: "user" as const, content: "Hi" }] }
const openai = (fetch: () => Promise<Response>) => new OpenAI({ apiKey: "any", maxRetries: 0, fetch })
const chatParams = { model: "gpt-6", messages: [{ role: "user" as const, content: "Hi" }] }
const responsesParams = { model: "gpt-6", input: "Hi" }

const thrownBy = async (call: () => PromiseLike<unknown>): Promise<unknown> => {
  try {
    await call()
  } catch (thrown) {
    return thrown
  }
  return assert.fail("nothing was thrown")
}

const drain = async (stream: AsyncIterable<unknown>): Promise<ReadonlyArray<unknown>> => {
  const items: Array<unknown> = []
  for await (const item of stream) items.push(item)
  return items
}

describe("refusals", () => {
  it.each([
    [undefined, "5"],
    [0, "5"],
    [-10, "5"],
    [Number.NaN, "5"],
    [5.1, "6"],
    [30, "30"],
    [59, "59"],
    [60, "59"],
    [3_600, "59"],
    [Infinity, "59"]
  ])("ask a client that would wait %s s to come back in %s s", (seconds, expected) => {
    for (const protocol of protocols) {
      for (const kind of ["rateLimited", "unavailable"] as const) {
        assert.strictEqual(protocol.refuse(refusal(kind, seconds)).headers["retry-after"], expected)
      }
      for (const kind of kinds.filter((kind) => kind !== "rateLimited" && kind !== "unavailable")) {
        assert.notProperty(protocol.refuse(refusal(kind, seconds)).headers, "retry-after")
      }
    }
  })

  it("have the status of their kind and JSON, and say not to retry only if a retry cannot help", () => {
    for (const protocol of protocols) {
      const answers = kinds.map((kind) => protocol.refuse(refusal(kind)))
      assert.deepStrictEqual(
        answers.map(({ status }) => status),
        [429, 503, 413, protocol === openaiResponses ? 400 : 402, 404, 400, 408, 401, 403, 426]
      )
      for (const { body, headers, status } of answers) {
        assert.strictEqual(headers["content-type"], "application/json")
        assert.strictEqual(headers["x-should-retry"], status === 429 || status === 503 ? undefined : "false")
        assert.include(JSON.stringify(JSON.parse(body)), "longer than maxWait")
      }
    }
  })

  it("are recognised by our own reader", () => {
    const reasons = { rateLimited: "RateLimited", unavailable: "Overloaded", tooLarge: "InvalidRequest" } as const
    for (const protocol of protocols) {
      for (const [kind, reason] of Object.entries(reasons)) {
        const { body, headers, status } = protocol.refuse(refusal(kind as keyof typeof reasons, 20))
        const failure = protocol.failure({ status, header: (name) => headers[name], body }, { now: 0 })
        assert.strictEqual(failure.reason, reason, `${protocol.name} ${kind}`)
        assert.strictEqual(failure.detail, refusal("rateLimited").message)
        assert.strictEqual(failure.retryAfterMillis, kind === "tooLarge" ? undefined : 20_000)
      }
      const { body, status } = protocol.refuse(refusal("spendLimited"))
      const spent = protocol.failure({ status, header: () => undefined, body }, { now: 0 })
      assert.strictEqual(spent.reason, "SpendLimited")
    }
  })

  describe("through @anthropic-ai/sdk", () => {
    it.each([
      ["rateLimited", AnthropicSdk.RateLimitError, "rate_limit_error"],
      ["unavailable", AnthropicSdk.InternalServerError, "api_error"],
      ["tooLarge", AnthropicSdk.APIError, "request_too_large"],
      ["spendLimited", AnthropicSdk.APIError, "billing_error"],
      ["notFound", AnthropicSdk.NotFoundError, "not_found_error"],
      ["invalid", AnthropicSdk.BadRequestError, "invalid_request_error"],
      ["timedOut", AnthropicSdk.APIError, "timeout_error"],
      ["unauthorized", AnthropicSdk.AuthenticationError, "authentication_error"],
      ["forbidden", AnthropicSdk.PermissionDeniedError, "permission_error"],
      ["upgradeRequired", AnthropicSdk.APIError, "invalid_request_error"]
    ] as const)("is %s the error that one expects", async (kind, Class, type) => {
      const { fetch } = refusing(anthropic, refusal(kind))
      const thrown = await thrownBy(() => claude(fetch).create(claudeParams))
      assert.instanceOf(thrown, Class)
      const { status } = anthropic.refuse(refusal(kind))
      assert.deepInclude(thrown as { readonly type: string; readonly status: number }, { type, status })
      assert.include((thrown as Error).message, "longer than maxWait")
    })

    it("ends a stream that has begun with an APIError of that type", async () => {
      const { fetch } = streaming(anthropic.keepAlive.stream + anthropic.refuseInStream(refusal("rateLimited")))
      const stream = await claude(fetch).create({ ...claudeParams, stream: true })
      const thrown = await thrownBy(() => drain(stream))
      assert.instanceOf(thrown, AnthropicSdk.APIError)
      assert.deepInclude(thrown as InstanceType<typeof AnthropicSdk.APIError>, {
        type: "rate_limit_error",
        status: undefined
      })
    })

    it("skips what keeps a response alive", async () => {
      const { stream: ping, whole } = anthropic.keepAlive
      const plain = await drain(
        await claude(streaming(anthropicStream).fetch).create({ ...claudeParams, stream: true })
      )
      const kept = streaming(ping.repeat(3) + anthropicStream)
      assert.deepStrictEqual(await drain(await claude(kept.fetch).create({ ...claudeParams, stream: true })), plain)
      const json = answering(whole.repeat(20) + '{"id":"msg_1"}', { "content-type": "application/json" })
      assert.strictEqual((await claude(json.fetch).create(claudeParams)).id, "msg_1")
    })
  })

  describe.each([
    [
      "openai chat",
      openaiChat,
      chatStream,
      chatCompletion,
      (client: OpenAI) => client.chat.completions.create(chatParams),
      (client: OpenAI) => client.chat.completions.create({ ...chatParams, stream: true })
    ],
    [
      "openai responses",
      openaiResponses,
      responsesStream,
      response,
      (client: OpenAI) => client.responses.create(responsesParams),
      (client: OpenAI) => client.responses.create({ ...responsesParams, stream: true })
    ]
  ] as const)("through %s", (_, protocol, text, answer, whole, stream) => {
    it.each([
      ["rateLimited", OpenAiSdk.RateLimitError, "rate_limit_exceeded"],
      ["unavailable", OpenAiSdk.InternalServerError, "server_is_overloaded"],
      ["tooLarge", OpenAiSdk.APIError, "request_too_large"],
      ["spendLimited", OpenAiSdk.APIError, "insufficient_quota"],
      ["notFound", OpenAiSdk.NotFoundError, "not_found"],
      ["invalid", OpenAiSdk.BadRequestError, "invalid_body"],
      ["timedOut", OpenAiSdk.APIError, "request_timeout"],
      ["unauthorized", OpenAiSdk.AuthenticationError, "unauthorized"],
      ["forbidden", OpenAiSdk.PermissionDeniedError, "forbidden"],
      ["upgradeRequired", OpenAiSdk.APIError, "upgrade_required"]
    ] as const)("is %s the error that one expects", async (kind, Class, code) => {
      const thrown = await thrownBy(() => whole(openai(refusing(protocol, refusal(kind)).fetch)))
      assert.instanceOf(thrown, Class)
      assert.deepInclude(thrown as InstanceType<typeof OpenAiSdk.APIError>, {
        code,
        status: protocol.refuse(refusal(kind)).status
      })
      assert.include((thrown as Error).message, "longer than maxWait")
    })

    it("retries only retryable failures", async () => {
      // The SDK waits for `retry-after`, so it is almost zero here.
      for (const [kind, requests] of [
        ["tooLarge", 1],
        ["spendLimited", 1],
        ["notFound", 1],
        ["invalid", 1],
        ["rateLimited", 2]
      ] as const) {
        const { body, status } = protocol.refuse(refusal(kind))
        const { fetch, seen } = answering(body, { "content-type": "application/json", "retry-after-ms": "1" }, status)
        await thrownBy(() => whole(new OpenAI({ apiKey: "any", maxRetries: 1, fetch })))
        assert.strictEqual(seen.requests, requests, kind)
      }
    })

    it("ends a stream that has begun with an APIError of that code", async () => {
      const { fetch } = streaming(protocol.keepAlive.stream + protocol.refuseInStream(refusal("rateLimited")))
      const thrown = await thrownBy(async () => drain(await stream(openai(fetch))))
      assert.instanceOf(thrown, OpenAiSdk.APIError)
      assert.deepInclude(thrown as InstanceType<typeof OpenAiSdk.APIError>, {
        code: "rate_limit_exceeded",
        status: undefined
      })
    })

    it("skips what keeps a response alive", async () => {
      const plain = await drain(await stream(openai(streaming(text).fetch)))
      const kept = streaming(protocol.keepAlive.stream.repeat(3) + text)
      assert.deepStrictEqual(await drain(await stream(openai(kept.fetch))), plain)
      const json = answering(protocol.keepAlive.whole.repeat(20) + JSON.stringify(answer), {
        "content-type": "application/json"
      })
      assert.strictEqual((await whole(openai(json.fetch))).id, answer.id)
    })
  })

  describe("of Gemini", () => {
    it("have what @google/genai 3.3 reads: a numeric code within a stream, and the whole body as the message", () => {
      const data = /^data: (.*)\n\n$/.exec(gemini.refuseInStream(refusal("rateLimited", 20)))?.[1] ?? ""
      assert.deepInclude((JSON.parse(data) as { error: object }).error, { code: 429, status: "RESOURCE_EXHAUSTED" })
      assert.include(data, '"retryDelay":"20s"')
      // A comment is a block that does not begin with `data:`, and ends with two line feeds.
      assert.strictEqual(gemini.keepAlive.stream, ": keep-alive\n\n")
    })
  })

  it("are found in a stream by our own reader, after keep-alive events", () => {
    for (const protocol of protocols) {
      const alive = answerOfText(protocol, protocol.keepAlive.stream.repeat(2))
      assert.deepInclude(alive, { started: false, complete: false, error: undefined })
      const { error } = answerOfText(protocol, protocol.refuseInStream(refusal("rateLimited")))
      const failure = protocol.failure({ status: 200, header: () => undefined, body: error }, { now: 0 })
      assert.deepInclude(failure, { reason: "RateLimited", status: 200, detail: refusal("rateLimited").message })
    }
  })

  it("write any message as one event, without extra lines", () => {
    const message = 'a\nevent: message_stop\ndata: {}\n\n"\r\u2028'
    for (const protocol of protocols) {
      const event = protocol.refuseInStream({ kind: "rateLimited", message })
      assert.strictEqual(event.split("\n\n").length, 2)
      const { error } = answerOfText(protocol, event)
      assert.include(JSON.stringify(error), JSON.stringify(message))
    }
  })
})
