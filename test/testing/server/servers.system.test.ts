import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { ProviderServer } from "floodgate/testing/server"
import OpenAI from "openai"

// Real HTTP, so these run on the real clock. Waits are for conditions, never for times.

const asks = (content: string) => ({
  model: "llama",
  max_tokens: 100_000,
  messages: [{ role: "user" as const, content }]
})

const served = <A>(
  options: ProviderServer.Options,
  f: (client: OpenAI, server: ProviderServer.ProviderServer["Service"]) => Effect.Effect<A>
) =>
  Effect.scoped(
    Effect.flatMap(ProviderServer.make(options), (server) =>
      f(new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "any", maxRetries: 0 }), server)
    )
  )

/** Reads a stream to its end: its text, and what had been read before each part. */
const readAll = async (client: OpenAI, content: string, order: Array<string>) => {
  let text = ""
  for await (const chunk of await client.chat.completions.create({ ...asks(content), stream: true })) {
    const part = chunk.choices[0]?.delta.content ?? ""
    if (part !== "") order.push(content)
    text += part
  }
  return text
}

const metricsOf = (server: ProviderServer.ProviderServer["Service"]) =>
  Effect.map(
    Effect.promise(async () => (await fetch(`${server.url}/metrics`)).text()),
    (text) => Object.fromEntries(text.split("\n").flatMap((line) => (/^[a-z]/.test(line) ? [line.split(" ")] : [])))
  )

describe("ProviderServer with a server", () => {
  it.live(
    "streams the tokens of a batch side by side to the official client of OpenAI, and then those of the queue",
    () =>
      served(
        { server: "vllm", concurrency: 2, outputTokens: 100, reply: () => "word".repeat(100), timeScale: 2 },
        (client) =>
          Effect.gen(function* () {
            const order: Array<string> = []
            const texts = yield* Effect.promise(() =>
              Promise.all(["a", "b", "c"].map((content) => readAll(client, content, order)))
            )
            assert.deepStrictEqual(texts, Array(3).fill("word".repeat(100)))
            assert.strictEqual(order.length, 300, "one part for each token")
            const [first, second, third] = [...new Set(order)]
            // Two share the batch, so that neither waits for the end of the other. The third waits for the first of them.
            assert.isBelow(order.indexOf(second!), order.lastIndexOf(first!))
            assert.isAbove(order.indexOf(third!), order.lastIndexOf(first!))
          })
      )
  )

  it.live("shows its batch and queue as vLLM and llama.cpp do, and forgets clients that disconnect", () =>
    served({ server: "llama.cpp", concurrency: 1, outputTokens: 1_000_000 }, (client, server) =>
      Effect.gen(function* () {
        const controllers = [new AbortController(), new AbortController(), new AbortController()]
        const calls = controllers.map(({ signal }) =>
          client.chat.completions.create(asks("x"), { signal }).then(
            () => "answered",
            () => "aborted"
          )
        )
        const until = (running: string, waiting: string) =>
          Effect.repeat(metricsOf(server), {
            until: (metrics) =>
              metrics["vllm:num_requests_running"] === running &&
              metrics["vllm:num_requests_waiting"] === waiting &&
              metrics["llamacpp:requests_processing"] === running &&
              metrics["llamacpp:requests_deferred"] === waiting,
            schedule: Schedule.spaced("5 millis")
          })
        yield* until("1", "2")
        controllers[2]!.abort()
        yield* until("1", "1")
        controllers[0]!.abort()
        controllers[1]!.abort()
        yield* until("0", "0")
        assert.deepStrictEqual(yield* Effect.promise(() => Promise.all(calls)), Array(3).fill("aborted"))
      })
    )
  )

  it.live("has Ollama's 503 when its queue is full, and no metrics without a server", () =>
    Effect.gen(function* () {
      yield* served({ server: "ollama", queue: 0, outputTokens: 100_000 }, (client, server) =>
        Effect.gen(function* () {
          const controller = new AbortController()
          const first = client.chat.completions.create(asks("x"), { signal: controller.signal }).catch(() => "aborted")
          yield* Effect.repeat(server.stats, {
            until: ({ inFlight }) => inFlight === 1,
            schedule: Schedule.spaced("5 millis")
          })
          const error = yield* Effect.promise(() => client.chat.completions.create(asks("y")).catch((e: unknown) => e))
          assert.strictEqual((error as { readonly status?: number }).status, 503)
          controller.abort()
          assert.strictEqual(yield* Effect.promise(() => first), "aborted")
        })
      )
      yield* served({}, (_, server) =>
        Effect.map(
          Effect.promise(() => fetch(`${server.url}/metrics`)),
          ({ status }) => assert.strictEqual(status, 404)
        )
      )
    })
  )
})
