import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Floodgate from "floodgate/promise"
import { ProviderServer } from "floodgate/testing/server"

// Real HTTP, so these run on the real clock. Waits are for conditions, never for times.

type Json = Readonly<Record<string, unknown>>
type Server = ProviderServer.ProviderServer["Service"]

const fast = { perInputTokenMillis: 0, perOutputTokenMillis: 0.1 }
const calls = { reply: () => ["Let me see.", { type: "tool_use", name: "weather", input: { city: "Paris" } } as const] }

const served = <A>(options: ProviderServer.Options, f: (server: Server) => Promise<A>) =>
  Effect.scoped(
    Effect.flatMap(ProviderServer.make({ latency: fast, ...options }), (server) => Effect.promise(() => f(server)))
  )

/** Sends a request without a key, as programs do to these servers. */
const post = ({ url }: Server, path: string, body: unknown): Promise<Response> =>
  fetch(url + path, { method: "POST", body: JSON.stringify(body) })

const get = async ({ url }: Server, path: string): Promise<Json> => (await (await fetch(url + path)).json()) as Json

const linesOf = async (response: Response): Promise<ReadonlyArray<Json>> =>
  (await response.text())
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Json)

const chat = { model: "llama3.2", messages: [{ role: "user", content: "How is the weather?" }] }
const generate = { model: "llama3.2", system: "Be brief.", prompt: "Hello" }

/** What a stream of chats says, and its calls of tools. */
const saidIn = (lines: ReadonlyArray<Json>) => {
  const messages = lines.map(({ message }) => message as { readonly content: string; readonly tool_calls?: unknown })
  return [messages.map(({ content }) => content).join(""), messages.find(({ tool_calls }) => tool_calls)?.tool_calls]
}

describe("Ollama's own API", () => {
  it.live("streams chats as objects on lines, the last of which has the counts", () =>
    served({ server: "ollama", reply: () => "word".repeat(8) }, async (server) => {
      const response = await post(server, "/api/chat", chat)
      assert.strictEqual(response.headers.get("content-type"), "application/x-ndjson")
      const lines = await linesOf(response)
      assert.strictEqual(lines.length, 9, "one for each token, and the end")
      const last = lines.at(-1)!
      assert.strictEqual(saidIn(lines)[0], "word".repeat(8))
      assert.isTrue(lines.slice(0, -1).every(({ done, model }) => done === false && model === "llama3.2"))
      const { done, done_reason, eval_count, prompt_eval_count } = last
      assert.deepStrictEqual([done, done_reason, prompt_eval_count, eval_count], [true, "stop", 5, 8])
      const { eval_duration, prompt_eval_duration, total_duration } = last as Record<string, number>
      assert.isAtLeast(eval_duration!, 7 * 100_000, "nanoseconds, of 0.1 ms each")
      assert.isAtLeast(total_duration!, eval_duration! + prompt_eval_duration! - 1)
    })
  )

  it.live("answers as a whole if asked, and has the same calls of tools in both", () =>
    served({ server: "ollama", ...calls }, async (server) => {
      const whole = (await (await post(server, "/api/chat", { ...chat, stream: false })).json()) as Json
      const expected = ["Let me see.", [{ function: { name: "weather", arguments: { city: "Paris" } } }]]
      assert.deepStrictEqual(saidIn([whole]), expected)
      assert.deepStrictEqual(saidIn(await linesOf(await post(server, "/api/chat", chat))), expected)
    })
  )

  it.live("generates from a prompt, up to num_predict", () =>
    served({ server: "ollama", reply: () => "abcd".repeat(50) }, async (server) => {
      const asks = { ...generate, options: { num_predict: 5 } }
      const lines = await linesOf(await post(server, "/api/generate", asks))
      assert.strictEqual(lines.map(({ response }) => response).join(""), "abcd".repeat(5))
      assert.strictEqual(lines.at(-1)!["done_reason"], "length")
      const whole = (await (await post(server, "/api/generate", { ...generate, stream: false })).json()) as Json
      const { done_reason, eval_count, prompt_eval_count, response } = whole
      assert.deepStrictEqual([response, done_reason, eval_count], ["abcd".repeat(50), "stop", 50])
      assert.strictEqual(prompt_eval_count, 4)
    })
  )

  it.live("has messages of every role, pictures and tools in its count", () =>
    served({ server: "ollama" }, async (server) => {
      const messages = [
        { role: "system", content: "x".repeat(400) },
        { role: "user", content: "x".repeat(400), images: ["aGk="] },
        {
          role: "assistant",
          content: "",
          tool_calls: [{ function: { name: "weather", arguments: { city: "Paris" } } }]
        },
        { role: "tool", tool_name: "weather", content: "x".repeat(400) }
      ]
      const answer = (await (
        await post(server, "/api/chat", { model: "llama3.2", messages, stream: false })
      ).json()) as { readonly prompt_eval_count: number }
      assert.isAtLeast(answer.prompt_eval_count, 300)
    })
  )

  it.live("answers 503 with its own words when OLLAMA_MAX_QUEUE wait", () =>
    served({ server: "ollama", queue: 0, outputTokens: 1_000_000 }, async (server) => {
      const controller = new AbortController()
      const body = JSON.stringify(chat)
      const first = fetch(`${server.url}/api/chat`, { method: "POST", body, signal: controller.signal })
      await Effect.runPromise(
        Effect.repeat(server.stats, { until: ({ inFlight }) => inFlight === 1, schedule: Schedule.spaced("5 millis") })
      )
      const refused = await post(server, "/api/chat", chat)
      assert.strictEqual(refused.status, 503)
      assert.deepStrictEqual(await refused.json(), {
        error: "server busy, please try again.  maximum pending requests exceeded"
      })
      controller.abort()
      await first.catch(() => undefined)
    })
  )

  it.live("says what is wrong with a request, and answers 404 to what is not simulated", () =>
    served({ server: "ollama" }, async (server) => {
      const wrong = await post(server, "/api/chat", { messages: chat.messages })
      assert.deepStrictEqual([wrong.status, await wrong.json()], [400, { error: "model is required" }])
      assert.strictEqual((await post(server, "/api/chat", { model: "llama3.2", messages: [] })).status, 400)
      assert.strictEqual((await post(server, "/api/embed", { model: "all-minilm", input: "x" })).status, 404)
      assert.strictEqual((await post(server, "/api/pull", { model: "llama3.2" })).status, 404)
    })
  )

  it.live("lists its models: those with a pool, or one", () =>
    Effect.gen(function* () {
      yield* served({ server: "ollama" }, async (server) => {
        const { models } = (await get(server, "/api/tags")) as { readonly models: ReadonlyArray<Json> }
        assert.deepStrictEqual(
          models.map(({ name }) => name),
          ["llama3.2:latest"]
        )
        assert.isString((await get(server, "/api/version"))["version"])
        assert.strictEqual(await (await fetch(server.url)).text(), "Ollama is running")
      })
      yield* served({ server: "ollama", pools: { "gemma3:4b": {}, qwen3: {} } }, async (server) => {
        const { models } = (await get(server, "/api/ps")) as { readonly models: ReadonlyArray<Json> }
        assert.deepStrictEqual(
          models.map(({ name }) => name),
          ["gemma3:4b", "qwen3:latest"]
        )
        const { data } = (await get(server, "/v1/models")) as { readonly data: ReadonlyArray<Json> }
        assert.deepStrictEqual(
          data.map(({ id }) => id),
          ["gemma3:4b", "qwen3"]
        )
      })
    })
  )

  it.live("is counted to the token by the governed fetch", () =>
    served({ server: "ollama", reply: () => "word".repeat(8) }, async (server) => {
      await using floodgate = Floodgate.create({ concurrency: 1 })
      const asks = { method: "POST", body: JSON.stringify(chat) }
      await (await floodgate.fetch(`${server.url}/api/chat`, asks)).text()
      const metrics = await floodgate.metrics()
      const tokens = metrics.match(/^floodgate_tokens\{.*type="(?:input|output)"\} \d+/gm) ?? []
      assert.deepStrictEqual(
        tokens.map((line) => line.split(" ").at(-1)),
        ["5", "8"]
      )
    })
  )
})

/** The events of a stream. */
const eventsOf = async (response: Response): Promise<ReadonlyArray<Json>> =>
  (await response.text())
    .trim()
    .split("\n\n")
    .map((event) => JSON.parse(event.slice("data: ".length)) as Json)

describe("llama.cpp's own API", () => {
  const completion = { prompt: "Hello, my name is" }

  it.live("completes a prompt, streamed and whole", () =>
    served({ server: "llama.cpp", reply: () => "word".repeat(8) }, async (server) => {
      const events = await eventsOf(await post(server, "/completion", { ...completion, stream: true }))
      assert.strictEqual(events.map(({ content }) => content).join(""), "word".repeat(8))
      assert.deepStrictEqual(
        events.map(({ stop }) => stop),
        [...Array<boolean>(8).fill(false), true]
      )
      const last = events.at(-1)!
      const whole = (await (await post(server, "/completion", completion)).json()) as Json
      for (const end of [last, whole]) {
        const { stop_type, tokens_evaluated, tokens_predicted, truncated } = end
        assert.deepStrictEqual([stop_type, tokens_evaluated, tokens_predicted, truncated], ["eos", 5, 8, false])
        assert.strictEqual((end["timings"] as Json)["predicted_n"], 8)
      }
      assert.strictEqual(whole["content"], "word".repeat(8))
    })
  )

  it.live("ends at n_predict, and takes prompts of tokens", () =>
    served({ server: "llama.cpp", reply: () => "abcd".repeat(50) }, async (server) => {
      const asks = { prompt: [1, 2, 3, "abcd"], n_predict: 3 }
      const { content, stop_type, tokens_evaluated } = (await (await post(server, "/completion", asks)).json()) as Json
      assert.deepStrictEqual([content, stop_type, tokens_evaluated], ["abcd".repeat(3), "limit", 4])
      const wrong = await post(server, "/completion", { n_predict: 3 })
      assert.strictEqual(wrong.status, 400)
      const { error } = (await wrong.json()) as { readonly error: Json }
      assert.deepStrictEqual([error["code"], error["type"]], [400, "invalid_request_error"])
    })
  )

  it.live("is counted to the token by the governed fetch", () =>
    served({ server: "llama.cpp", reply: () => "word".repeat(8) }, async (server) => {
      await using floodgate = Floodgate.create({ concurrency: 1 })
      for (const stream of [true, false]) {
        const asks = { method: "POST", body: JSON.stringify({ ...completion, stream }) }
        await (await floodgate.fetch(`${server.url}/completion`, asks)).text()
      }
      const metrics = await floodgate.metrics()
      const tokens = metrics.match(/^floodgate_tokens\{.*type="(?:input|output)"\} \d+/gm) ?? []
      assert.deepStrictEqual(
        tokens.map((line) => line.split(" ").at(-1)),
        ["10", "16"]
      )
    })
  )

  it.live("shows its slots, and that it is well", () =>
    served({ server: "llama.cpp", concurrency: 2, outputTokens: 1_000_000 }, async (server) => {
      assert.deepStrictEqual(await get(server, "/health"), { status: "ok" })
      assert.strictEqual((await get(server, "/props"))["total_slots"], 2)
      const controller = new AbortController()
      const first = fetch(`${server.url}/completion`, {
        method: "POST",
        body: JSON.stringify(completion),
        signal: controller.signal
      })
      const processing = Effect.map(
        Effect.promise(() => get(server, "/slots")),
        (slots) => (slots as unknown as ReadonlyArray<Json>).map(({ is_processing }) => is_processing)
      )
      const busy = await Effect.runPromise(
        Effect.repeat(processing, { until: (slots) => slots[0] === true, schedule: Schedule.spaced("5 millis") })
      )
      assert.deepStrictEqual(busy, [true, false])
      controller.abort()
      await first.catch(() => undefined)
    })
  )
})

describe("ProviderServer without or with another server", () => {
  it.live("has the own API of a server only with that server", () =>
    Effect.gen(function* () {
      yield* served({}, async (server) => {
        assert.strictEqual((await post(server, "/api/chat", chat)).status, 404)
        assert.strictEqual((await fetch(`${server.url}/v1/models`)).status, 404)
      })
      yield* served({ server: "vllm" }, async (server) => {
        assert.strictEqual((await post(server, "/completion", { prompt: "x" })).status, 404)
        assert.strictEqual((await fetch(`${server.url}/slots`)).status, 404)
        assert.strictEqual((await fetch(`${server.url}/health`)).status, 200)
        const { object } = await get(server, "/v1/models")
        assert.strictEqual(object, "list")
      })
    })
  )
})
