import Anthropic, { NotFoundError } from "@anthropic-ai/sdk"
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { ProviderServer } from "floodgate/testing/server"
import OpenAI, { BadRequestError, NotFoundError as OpenAINotFoundError, RateLimitError } from "openai"
import { answerOf, failureOf, send, spoken } from "../../support/spoken.ts"

// Real HTTP, so these run on the real clock.

const fast = { baseMillis: 1, perInputTokenMillis: 0, perOutputTokenMillis: 0 }

const withServer = <A>(options: ProviderServer.Options, f: (url: string) => Promise<A>) =>
  Effect.scoped(
    Effect.flatMap(ProviderServer.make({ latency: fast, ...options }), ({ url }) => Effect.promise(() => f(url)))
  )

const openAi = (url: string) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 })

const weather = { type: "tool_use", name: "weather", input: { city: "Paris", days: 3 } } as const

describe("ProviderServer's protocols", () => {
  for (const one of spoken) {
    const { protocol, said } = one
    describe(`${protocol.name}`, () => {
      for (const stream of [false, true]) {
        it.live(`answers ${stream ? "in a stream" : "whole"}, and its usage is read by the protocol`, () =>
          withServer({ reply: () => "An answer.", outputTokens: 20, cachedShare: 0.25 }, async (url) => {
            const response = await send(url, one, { text: "x".repeat(4_000), stream })
            assert.strictEqual(response.status, 200)
            const answer = await answerOf(one, response)
            assert.isTrue(answer.complete && answer.started)
            assert.strictEqual(answer.model, "claude-sonnet-5")
            assert.isString(answer.id)
            const { cacheReadTokens, inputTokens, outputTokens } = answer.counts
            assert.deepStrictEqual([inputTokens, cacheReadTokens, outputTokens], [750, 250, 20])
          })
        )
      }

      it.live("answers with the reply and its tool calls, streamed and whole", () =>
        withServer({ reply: () => ["Let me see.", weather] }, async (url) => {
          const response = await send(url, one, { text: "How is the weather?" })
          assert.deepStrictEqual(said(await response.json()), ["Let me see.", ["weather", weather.input]])
          const whole = await answerOf(one, await send(url, one, { text: "How is the weather?" }))
          const streamed = await answerOf(one, await send(url, one, { text: "How is the weather?", stream: true }))
          assert.strictEqual(streamed.finishReason, whole.finishReason)
          assert.deepStrictEqual(streamed.counts, whole.counts)
        })
      )

      it.live("ends at the output limit of the request", () =>
        withServer({ reply: () => "abcdefghij".repeat(100) }, async (url) => {
          const short = await answerOf(one, await send(url, one, { text: "Hello", maxTokens: 5 }))
          assert.strictEqual(short.counts.outputTokens, 5)
          const whole = await answerOf(one, await send(url, one, { text: "Hello" }))
          assert.strictEqual(whole.counts.outputTokens, 250)
          assert.notStrictEqual(short.finishReason, whole.finishReason)
        })
      )

      it.live("answers injected faults with errors that are read as those faults", () =>
        withServer(
          {
            faults: [
              { kind: "400", calls: [1] },
              { kind: "401", calls: [2] },
              { kind: "404", calls: [3] },
              { kind: "429", calls: [4], retryAfterMillis: 1_500 },
              { kind: "429", calls: [5], errorCode: "enforced_spend_limit_reached" },
              { kind: "500", calls: [6] },
              { kind: "529", calls: [7] },
              { kind: "timeout", calls: [8], afterMillis: 5 }
            ]
          },
          async (url) => {
            const reasons: Array<string> = []
            let wait: number | undefined
            for (let call = 0; call < 8; call++) {
              const failure = await failureOf(one, await send(url, one, { text: "Hello", stream: call % 2 === 1 }))
              reasons.push(failure.reason)
              wait ??= failure.retryAfterMillis
              assert.isString(failure.detail)
            }
            assert.deepStrictEqual(reasons, [
              "InvalidRequest",
              "AccessDenied",
              "InvalidRequest",
              "RateLimited",
              "SpendLimited",
              "ServerFailed",
              "Overloaded",
              "TimedOut"
            ])
            assert.strictEqual(wait, 2_000)
          }
        )
      )

      it.live("garbles a whole answer, or the last events of a stream, if a fault says so", () =>
        withServer(
          {
            faults: [{ kind: "malformed" }],
            latency: { ...fast, perOutputTokenMillis: 1 },
            outputTokens: 20,
            reply: () => "word ".repeat(50)
          },
          async (url) => {
            const whole = await send(url, one, { text: "Hello" })
            assert.strictEqual(whole.status, 200)
            assert.instanceOf(await whole.json().catch((error: unknown) => error), SyntaxError)
            const streamed = await answerOf(one, await send(url, one, { text: "Hello", stream: true }))
            assert.deepStrictEqual([streamed.started, streamed.complete], [true, false])
          }
        )
      )

      it.live("reports its limits where the real provider does", () =>
        withServer(
          { limits: { requests: { perMinute: 1, burst: 1 }, tokens: { perMinute: 60_000 } }, timeScale: 2 },
          async (url) => {
            const first = await send(url, one, { text: "Hello" })
            const read = (response: Response, body: unknown) =>
              protocol.limits({
                status: response.status,
                header: (name) => response.headers.get(name) ?? undefined,
                body
              })?.dimensions
            const told = read(first, await first.json())
            const second = await send(url, one, { text: "Hello" })
            const rejected = read(second, await second.json())
            assert.strictEqual(second.status, 429)
            // In the caller's time twice as many a minute.
            assert.deepStrictEqual([rejected?.requests?.limit, rejected?.requests?.remaining], [2, 0])
            const limits = [told?.requests?.limit, told?.tokens?.limit]
            assert.deepStrictEqual(limits, protocol.name === "gemini" ? [undefined, undefined] : [2, 120_000])
          }
        )
      )

      it.live("refuses malformed requests in the provider's form", () =>
        withServer({ maxBodyBytes: 10_000 }, async (url) => {
          const post = async (body: string, key = "any") => {
            const response = await fetch(url + one.path({ text: "" }), {
              method: "POST",
              headers: key === "" ? {} : { [one.keyHeader]: `Bearer ${key}` },
              body
            })
            return (await failureOf(one, response)).reason
          }
          assert.strictEqual(await post("{}", ""), "AccessDenied")
          assert.strictEqual(await post("x".repeat(10_001)), "InvalidRequest")
          const nested = `${"[".repeat(600)}${"]".repeat(600)}`
          const rubbish = ["", "{", "[]", "null", "{}", `{"model":"m","messages":7,"input":7,"contents":7}`]
          for (const body of [
            ...rubbish,
            `{"model":"m","messages":[],"input":[],"contents":[]}`,
            `{"model":"m","messages":[7],"input":[7],"contents":[7]}`,
            `{"model":"m","messages":[{}],"input":[{"type":"item_reference"}],"contents":${nested}}`
          ]) {
            assert.include(["InvalidRequest", "InvalidRequest"], await post(body), body)
          }
        })
      )
    })
  }

  it.live("understands the paths of other base URLs, and answers unknown paths in the protocol's form", () =>
    withServer({}, async (url) => {
      const ask = (path: string, body: unknown) =>
        fetch(url + path, { method: "POST", headers: { "api-key": "any" }, body: JSON.stringify(body) })
      const messages = [{ role: "user", content: "Hello" }]
      for (const path of ["/messages", "/v1/v1/messages", "/anthropic/v1/messages", "/model/claude-sonnet-5/invoke"]) {
        assert.strictEqual((await ask(path, { model: "m", max_tokens: 9, messages })).status, 200, path)
      }
      for (const path of ["/chat/completions", "/openai/deployments/d1/chat/completions"]) {
        assert.strictEqual((await ask(path, { model: "m", messages })).status, 200, path)
      }
      const contents = [{ parts: [{ text: "Hello" }] }]
      const vertex = "/v1beta1/projects/p/locations/l/publishers/google/models/m:generateContent"
      assert.strictEqual((await ask(vertex, { contents })).status, 200)
      const moderations = await ask("/v1/moderations", { model: "m", input: "Hello" })
      assert.deepStrictEqual(
        [moderations.status, ((await moderations.json()) as { error: { type: string } }).error.type],
        [404, "invalid_request_error"]
      )
    })
  )

  it.live("counts tokens in each protocol that can", () =>
    withServer({}, async (url) => {
      const ask = async (path: string, body: unknown) => {
        const response = await fetch(`${url}${path}?key=any`, { method: "POST", body: JSON.stringify(body) })
        return (await response.json()) as unknown
      }
      const text = "x".repeat(400)
      const contents = [{ parts: [{ text }] }]
      const counts = "/v1beta/models/m:countTokens"
      assert.deepStrictEqual(await ask(counts, { contents }), { totalTokens: 100 })
      assert.deepStrictEqual(await ask(counts, { generateContentRequest: { contents } }), { totalTokens: 100 })
      assert.deepStrictEqual(await ask("/v1/responses/input_tokens", { model: "m", input: text }), {
        object: "response.input_tokens",
        input_tokens: 100
      })
    })
  )

  it.live("streams Gemini's answers as one JSON list unless events are asked for", () =>
    withServer({ reply: () => ["Let me see.", weather], outputTokens: 20 }, async (url) => {
      const response = await fetch(`${url}/v1/models/gemini-3:streamGenerateContent`, {
        method: "POST",
        headers: { "x-goog-api-key": "any" },
        body: JSON.stringify({ contents: [{ parts: [{ text: "Hello" }] }] })
      })
      assert.match(response.headers.get("content-type")!, /^application\/json/)
      const gemini = spoken.at(-1)!.protocol
      assert.strictEqual(gemini.answer(await response.json()).counts.outputTokens, 20)
    })
  )

  describe("the openai package", () => {
    const messages = [{ role: "user" as const, content: "How is the weather?" }]

    it.live("reads completions, streams and calls of tools", () =>
      withServer({ reply: () => ["Let me see.", weather], outputTokens: 20 }, async (url) => {
        const client = openAi(url)
        const whole = await client.chat.completions.create({ model: "gpt-6", messages })
        assert.strictEqual(whole.choices[0]!.finish_reason, "tool_calls")
        const runner = client.chat.completions.stream({
          model: "gpt-6",
          messages,
          stream_options: { include_usage: true }
        })
        const streamed = await runner.finalChatCompletion()
        assert.deepStrictEqual(
          streamed.choices[0]!.message.tool_calls?.map((call) => call.type === "function" && call.function.name),
          ["weather"]
        )
        assert.strictEqual(streamed.choices[0]!.message.content, "Let me see.")
        assert.strictEqual(streamed.usage?.completion_tokens, 20)
      })
    )

    it.live("gets no usage in a stream unless it asks for it", () =>
      withServer({}, async (url) => {
        const stream = await openAi(url).chat.completions.create({ model: "gpt-6", messages, stream: true })
        for await (const chunk of stream) {
          assert.isUndefined(chunk.usage)
          assert.strictEqual(chunk.choices.length, 1)
        }
      })
    )

    it.live("reads responses, whole and streamed", () =>
      withServer({ reply: () => ["Let me see.", weather], outputTokens: 20 }, async (url) => {
        const client = openAi(url)
        const whole = await client.responses.create({ model: "gpt-6", input: "Hello" })
        const streamed = await client.responses.stream({ model: "gpt-6", input: "Hello" }).finalResponse()
        assert.strictEqual(whole.output_text, "Let me see.")
        assert.strictEqual(streamed.output_text, "Let me see.")
        assert.deepStrictEqual(
          streamed.output.map(({ type }) => type),
          ["message", "function_call"]
        )
        assert.strictEqual(streamed.usage?.output_tokens, whole.usage?.output_tokens)
      })
    )

    it.live("continues a stored response with its history, but not a response that was not stored", () =>
      withServer({ charsPerToken: 1, reply: () => "x".repeat(50) }, async (url) => {
        const { responses } = openAi(url)
        const first = await responses.create({ model: "gpt-6", input: "a".repeat(100) })
        const more = { model: "gpt-6", input: "b".repeat(10), previous_response_id: first.id }
        const second = await responses.stream(more).finalResponse()
        assert.strictEqual(second.usage?.input_tokens, 160)
        const third = await responses.create({ ...more, previous_response_id: second.id, store: false })
        assert.strictEqual(third.usage?.input_tokens, 220)
        const lost = await responses
          .create({ ...more, previous_response_id: third.id })
          .catch((error: unknown) => error)
        assert.instanceOf(lost, BadRequestError)
        assert.strictEqual(lost.code, "previous_response_not_found")
        const item = { type: "item_reference" as const, id: first.output[0]!.id! }
        const again = await responses.create({ model: "gpt-6", input: [item, { role: "user", content: "Hello" }] })
        assert.strictEqual(again.usage?.input_tokens, 55)
      })
    )

    it.live("adds responses to a conversation, whole and streamed, stored or not", () =>
      withServer({ charsPerToken: 1, reply: () => "x".repeat(50) }, async (url) => {
        const { conversations, responses } = openAi(url)
        const { id } = await conversations.create({ items: [{ role: "user", content: "c".repeat(20) }] })
        const ask = { model: "gpt-6", input: "a".repeat(100), conversation: id }
        const first = await responses.create(ask)
        assert.strictEqual(first.usage?.input_tokens, 120)
        assert.deepStrictEqual(first.conversation, { id })
        const second = await responses.stream({ ...ask, conversation: { id }, store: false }).finalResponse()
        assert.strictEqual(second.usage?.input_tokens, 270)
        assert.strictEqual((await responses.create(ask)).usage?.input_tokens, 420)
        const empty = await conversations.create()
        assert.strictEqual((await responses.create({ ...ask, conversation: empty.id })).usage?.input_tokens, 100)
        const failure = (more: object) => responses.create({ ...ask, ...more }).catch((error: unknown) => error)
        assert.instanceOf(await failure({ conversation: "conv_none" }), OpenAINotFoundError)
        assert.instanceOf(await failure({ previous_response_id: first.id }), BadRequestError)
      })
    )

    it.live("embeds texts and tokens, under the same limits", () =>
      withServer({ limits: { requests: { perMinute: 4, window: "fixed" } } }, async (url) => {
        const client = openAi(url)
        const model = "text-embedding-3-small"
        const { data, usage } = await client.embeddings.create({ model, input: ["one", "two", "one"] })
        assert.deepStrictEqual(usage, { prompt_tokens: 3, total_tokens: 3 })
        const [one, two, again] = data.map(({ embedding }) => embedding)
        assert.strictEqual(one!.length, 1_536)
        assert.approximately(Math.hypot(...one!), 1, 1e-5)
        assert.deepStrictEqual(one, again)
        assert.notDeepEqual(one, two)
        const plain = await client.embeddings.create({
          model,
          input: [[1, 2, 3], [4]],
          dimensions: 8,
          encoding_format: "float"
        })
        assert.deepStrictEqual(
          plain.data.map(({ embedding }) => embedding.length),
          [8, 8]
        )
        const wrong = await client.embeddings.create({ model, input: [] }).catch((error: unknown) => error)
        assert.instanceOf(wrong, BadRequestError)
        await client.embeddings.create({ model, input: "three" })
        await client.embeddings.create({ model, input: "four" })
        const rejected = await client.embeddings.create({ model, input: "five" }).catch((error: unknown) => error)
        assert.instanceOf(rejected, RateLimitError)
      })
    )
  })

  describe("message threads", () => {
    /** Twice a tool, then an end. */
    const reply: NonNullable<ProviderServer.Options["reply"]> = ({ messages }) =>
      messages.filter(({ role }) => role === "assistant").length < 2 ? [weather] : "It will be fine."

    const tool = betaTool({
      name: "weather",
      description: "The weather",
      inputSchema: { type: "object", properties: { city: { type: "string" } } },
      run: () => "Sunny. ".repeat(100)
    })

    it.live("of the SDK's tool runner send only new messages, and count the stored ones", () =>
      withServer({ reply, charsPerToken: 1 }, async (url) => {
        const bodies: Array<number> = []
        const client = new Anthropic({
          baseURL: url,
          apiKey: "any",
          maxRetries: 0,
          fetch: (input, init) => {
            bodies.push(`${init?.body}`.length)
            return fetch(input as string, init)
          }
        })
        const runner = client.beta.messages.toolRunner({
          model: "claude-sonnet-5",
          max_tokens: 1_000,
          system: "s".repeat(2_000),
          messages: [{ role: "user", content: "a".repeat(5_000) }],
          tools: [tool]
        })
        const inputs: Array<number> = []
        for await (const message of runner) inputs.push(message.usage.input_tokens)
        assert.strictEqual(inputs.length, 3)
        // Each turn reads all that came before it, although its body is small.
        assert.isTrue(inputs[0]! > 7_000 && inputs[1]! > inputs[0]! + 700 && inputs[2]! > inputs[1]! + 700, `${inputs}`)
        assert.isTrue(bodies[0]! > 7_000 && bodies[1]! < 2_000 && bodies[2]! < 2_000, `${bodies}`)
      })
    )

    it.live("that are not stored are reported as the SDK expects", () =>
      withServer({}, async (url) => {
        const client = new Anthropic({ baseURL: url, apiKey: "any", maxRetries: 0 })
        const error: unknown = await client.beta.messages
          .create({
            model: "claude-sonnet-5",
            max_tokens: 100,
            messages: [{ role: "user", content: "Hello" }],
            thread: { type: "continue", previous_message_id: "msg_lost" }
          })
          .catch((error: unknown) => error)
        assert.instanceOf(error, NotFoundError)
        assert.strictEqual(error.errorCode, "thread_not_found")
      })
    )
  })
})
