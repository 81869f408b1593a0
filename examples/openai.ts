// A client that is not ours, the official one of OpenAI, under budget and retry: without them most of its calls fail.
//     npm run -s example examples/openai.ts
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Signals from "floodgate/Signals"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import OpenAI from "openai"

// A server of a few lines stands in for OpenAI's. It limits tokens, and charges what it rejects: 30,000 tokens a second, and 20,000 at once.
const perSecond = 30_000
const burst = 20_000

// -----------------------------------------------------------------------------
// The part to copy
// -----------------------------------------------------------------------------

/** One question, asked by an agent. The SDK's own retries are off: retries have one owner. */
const ask = Effect.fnUntraced(function* (client: OpenAI, agent: string, prompt: string) {
  const governor = yield* Governor.Governor
  const request = { model: "gpt-6", max_tokens: 1_000, messages: [{ role: "user" as const, content: prompt }] }

  const attempt = Effect.gen(function* () {
    const { data, response } = yield* Effect.tryPromise((signal) =>
      client.chat.completions.create(request, { signal, maxRetries: 0 }).withResponse()
    ).pipe(
      Effect.catch(({ cause }) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.fail(Signals.fromError(cause, now)))
      )
    )
    const now = yield* Clock.currentTimeMillis
    const { usage } = data
    const cached = usage?.prompt_tokens_details?.cached_tokens ?? 0
    return {
      value: data.choices[0]?.message.content ?? "",
      signal: Signals.fromHeaders(response.headers, now),
      actual: usage && {
        inputTokens: usage.prompt_tokens - cached,
        cacheReadTokens: cached,
        outputTokens: usage.completion_tokens
      }
    }
  })

  const call = { model: request.model, bytes: Buffer.byteLength(prompt), maxTokens: request.max_tokens }
  return yield* governor.run(call, () => attempt, { agent })
})

const governor = Governor.layer({ accounting: Accounting.openai }).pipe(
  Layer.provide(Budget.layer({ limits: { tokens: { perSecond, burst } } }))
)

// -----------------------------------------------------------------------------
// A server in OpenAI's form
// -----------------------------------------------------------------------------

const openServer = () => {
  let level = burst
  let at = performance.now()
  let rejected = 0
  const server = createServer((request, response) => {
    let body = ""
    request.on("data", (chunk) => (body += chunk))
    request.on("end", () => {
      const { max_tokens: allowed, messages } = JSON.parse(body)
      const prompt = Math.ceil(messages[0].content.length / 4)
      const tokens = Math.max(allowed, prompt)
      const now = performance.now()
      level = Math.min(burst, level + ((now - at) / 1_000) * perSecond)
      at = now
      const fits = tokens <= level
      // What is rejected counts, too.
      level -= fits ? tokens : tokens * 0.05
      const headers = {
        "content-type": "application/json",
        "x-ratelimit-limit-tokens": `${perSecond * 60}`,
        "x-ratelimit-remaining-tokens": `${Math.max(0, Math.floor(level))}`,
        "x-ratelimit-reset-tokens": `${Math.ceil(((burst - level) / perSecond) * 1_000)}ms`
      }
      if (!fits) {
        rejected++
        const error = { message: "Rate limit reached", type: "tokens", param: null, code: "rate_limit_exceeded" }
        response.writeHead(429, {
          ...headers,
          "retry-after-ms": `${Math.ceil(((tokens - level) / perSecond) * 1_000)}`
        })
        response.end(JSON.stringify({ error }))
        return
      }
      setTimeout(() => {
        const usage = { prompt_tokens: prompt, completion_tokens: 50, total_tokens: prompt + 50 }
        const message = { role: "assistant", content: "An answer.", refusal: null }
        const choices = [{ index: 0, message, finish_reason: "stop", logprobs: null }]
        response.writeHead(200, headers)
        response.end(
          JSON.stringify({ id: "c1", object: "chat.completion", created: 0, model: "gpt-6", choices, usage })
        )
      }, 50)
    })
  })
  return Effect.acquireRelease(
    Effect.callback<{ readonly url: string; readonly rejected: () => number }>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}/v1`, rejected: () => rejected }))
      })
    }),
    () =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      })
  )
}

// -----------------------------------------------------------------------------
// Twelve agents
// -----------------------------------------------------------------------------

const agents = Array.from({ length: 12 }, (_, n) => `agent ${n}`)
const document = "x".repeat(12_000)

/** Two questions per agent; gives how many of them were answered. */
const race = <E, R>(one: (agent: string) => Effect.Effect<unknown, E, R>) =>
  Effect.forEach(
    agents.flatMap((agent) => [agent, agent]),
    (agent) => Effect.match(one(agent), { onSuccess: () => 1, onFailure: () => 0 }),
    { concurrency: "unbounded" }
  ).pipe(Effect.map((answered) => answered.reduce<number>((sum, one) => sum + one, 0)))

const program = Effect.gen(function* () {
  const alone = yield* openServer()
  const plain = new OpenAI({ apiKey: "none", baseURL: alone.url })
  const byItself = yield* race(() =>
    Effect.tryPromise(() =>
      plain.chat.completions.create({
        model: "gpt-6",
        max_tokens: 1_000,
        messages: [{ role: "user", content: document }]
      })
    )
  )
  console.log(`by itself:          ${byItself} of 24 answered, ${alone.rejected()} rejections`)

  const server = yield* openServer()
  const client = new OpenAI({ apiKey: "none", baseURL: server.url })
  const answered = yield* race((agent) => ask(client, agent, document))
  console.log(`under the governor: ${answered} of 24 answered, ${server.rejected()} rejections`)
})

await Effect.runPromise(Effect.scoped(Effect.provide(program, governor)))
