import { BaseAnthropic } from "@anthropic-ai/sdk/client"
import type { Middleware } from "@anthropic-ai/sdk"
import { Messages } from "@anthropic-ai/sdk/resources/messages/messages"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Accounting from "floodgate/Accounting"
import * as Floodgate from "floodgate/anthropic"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import { LlmProvider } from "floodgate/LlmProvider"
import * as Anthropic from "floodgate/providers/Anthropic"
import * as Retry from "floodgate/Retry"
import type * as Http from "node:http"
import { message } from "../../support/httpProvider.ts"
import { serve } from "../../support/httpServer.ts"
import { create, type Options } from "../../support/installation.ts"
import { recordingTracer } from "../../support/spans.ts"

// The clients of Bedrock, Vertex and Foundry weigh up to 64 MB, so what is different on their wire is played here. They
// were tried themselves as docs/figures/runtimes.md says.

/** A client that turns the answer into another, as Bedrock's turns AWS's frames into events: by a generator over it. */
class Platform extends BaseAnthropic {
  readonly messages = new Messages(this)
  protected override backendMiddleware(): ReadonlyArray<Middleware> {
    return [
      async (request, next) => {
        const response = await next(request)
        const { body } = response
        if (body === null || !response.ok || response.headers.get("content-type") !== "text/event-stream")
          return response
        async function* decoded() {
          for await (const bytes of body!) yield bytes
        }
        return new Response(ReadableStream.from(decoded()), response)
      }
    ]
  }
}

const bedrock = "us.anthropic.claude-opus-4-5-20251101-v1:0"
const params = { model: bedrock, max_tokens: 100, messages: [{ role: "user" as const, content: "Hello" }] }

const frame = (type: string, more: object = {}) => `event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`
const started = frame("message_start", {
  message: { ...message(10, 1), model: bedrock, content: [] }
})
const rest =
  frame("content_block_start", { index: 0, content_block: { type: "text", text: "" } }) +
  frame("content_block_delta", { index: 0, delta: { type: "text_delta", text: "Hello" } }) +
  frame("content_block_stop", { index: 0 }) +
  frame("message_delta", { delta: { stop_reason: "end_turn" }, usage: { output_tokens: 5 } }) +
  frame("message_stop")

const aws = { "x-amzn-requestid": "amzn-1" }
const json = (response: Http.ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}) => {
  response.writeHead(status, { "content-type": "application/json", ...aws, ...headers })
  response.end(JSON.stringify(body))
}
const events = (response: Http.ServerResponse, body: string) => {
  response.writeHead(200, { "content-type": "text/event-stream", ...aws })
  response.write(body)
}
const throttled = (response: Http.ServerResponse) =>
  json(
    response,
    429,
    { message: "Too many tokens" },
    { "x-amzn-errortype": "ThrottlingException:http://x/", "retry-after": "0.02" }
  )

const budget = { limits: { requests: { total: 100 }, tokens: { total: 10_000 } } } satisfies Budget.Options
const options = { accounting: Accounting.bedrockRuntime({ burndown: 5 }), retry: Retry.make({ base: "5 millis" }) }

/** A server whose first answer is its own, and all others whole. */
const failingFirst = (first: (response: Http.ServerResponse) => void) =>
  Effect.gen(function* () {
    const server = yield* serve((_, response, body) => {
      if (server.requests.length === 1) return first(response)
      if (!body.includes('"stream":true')) return json(response, 200, message(10, 5))
      events(response, started + rest)
      response.end()
    })
    return server
  })

const clientOf = (client: Parameters<typeof Anthropic.fromClient>[0], idleTimeout: "200 millis" | undefined) =>
  LlmClient.layerProvider(options).pipe(
    Layer.provideMerge(Budget.layer(budget)),
    Layer.provide(Layer.succeed(LlmProvider, Anthropic.fromClient(client, { name: "aws.bedrock", idleTimeout })))
  )

const levels = ({ pools }: Budget.BudgetStatus) => {
  const { dimensions, inFlight } = pools["default"]!
  return [dimensions.requests!.level, dimensions.tokens!.level, inFlight]
}

describe("the client of a platform", () => {
  describe("under LlmClient", () => {
    it.live("is throttled without limits in the headers, retried, and settled as Bedrock counts", () =>
      Effect.gen(function* () {
        const { requests, url } = yield* failingFirst(throttled)
        const client = new Platform({ baseURL: url, apiKey: "any" })
        yield* Effect.gen(function* () {
          yield* LlmClient.create(params)
          // 10 of input, and 5 of output that count five times.
          assert.deepStrictEqual(levels(yield* Budget.TokenBudget.use((budget) => budget.status)), [99, 10_000 - 35, 0])
        }).pipe(Effect.provide(clientOf(client, undefined)))
        assert.strictEqual(requests.length, 2)
      })
    )

    it.live("reads failures by AWS's names", () =>
      Effect.gen(function* () {
        const { url } = yield* failingFirst(throttled)
        const provider = Anthropic.fromClient(new Platform({ baseURL: url, apiKey: "any" }))
        const { reason } = yield* Effect.flip(provider.create(params))
        assert.deepInclude(reason, { _tag: "RateLimited", code: "ThrottlingException", requestId: "amzn-1" })
        assert.strictEqual((yield* provider.create(params)).requestId, "amzn-1")
      })
    )

    it.live("retries a stream that falls silent, and leaves no connection open", () =>
      Effect.gen(function* () {
        const server = yield* failingFirst((response) => events(response, started))
        const client = new Platform({ baseURL: server.url, apiKey: "any" })
        yield* Effect.gen(function* () {
          yield* Stream.runDrain(LlmClient.stream(params))
          assert.deepStrictEqual(levels(yield* Budget.TokenBudget.use((budget) => budget.status)), [98, 9_950, 0])
        }).pipe(Effect.provide(clientOf(client, "200 millis")))
        yield* closed(server)
      })
    )
  })

  describe("with the middleware", () => {
    const install = (url: string, more: Options = {}) =>
      Effect.gen(function* () {
        const floodgate = yield* Effect.acquireRelease(
          Effect.sync(() => create({ ...budget, ...options, ...more })),
          (floodgate) => Effect.promise(floodgate.dispose)
        )
        const client = new Platform({ baseURL: url, apiKey: "any", middleware: [floodgate.middleware] })
        return { client, levels: Effect.map(Effect.promise(floodgate.status), levels) }
      })

    it.live("retries a stream that falls silent, and closes its connection, which no reader can", () =>
      Effect.gen(function* () {
        const server = yield* failingFirst((response) => events(response, started))
        const { client, levels } = yield* install(server.url, { idleTimeout: "200 millis" })
        const text: Array<string> = []
        yield* Effect.promise(async () => {
          for await (const event of await client.messages.create({ ...params, stream: true })) text.push(event.type)
        })
        assert.strictEqual(text.at(-1), "message_stop")
        assert.strictEqual(server.requests.length, 2)
        yield* closed(server)
        assert.deepStrictEqual(yield* levels, [98, 9_950, 0])
      })
    )

    it.live("reports the provider that it was given", () =>
      Effect.gen(function* () {
        const { url } = yield* serve((_, response) => json(response, 200, message(10, 5)))
        const { spans, tracer } = recordingTracer()
        yield* Effect.gen(function* () {
          const middleware = [yield* Floodgate.make({ name: "aws.bedrock" })]
          const client = new Platform({ baseURL: url, apiKey: "any", middleware })
          yield* Effect.promise(() => client.messages.create(params))
        }).pipe(Effect.provide(Layer.provide(Governor.layer(options), Budget.layer(budget))), Effect.withTracer(tracer))
        const chat = spans.find((span) => span.name === `chat ${bedrock}`)
        assert.strictEqual(chat?.attributes.get("gen_ai.provider.name"), "aws.bedrock")
      })
    )

    it.live("closes the connection of an answer that the governor's timeout ends half-way", () =>
      Effect.gen(function* () {
        const server = yield* failingFirst((response) => {
          response.writeHead(200, { "content-type": "application/json", ...aws })
          response.write("{")
        })
        const { client } = yield* install(server.url, { callOptions: { timeout: "300 millis" } })
        const answer = yield* Effect.promise(() => client.messages.create(params))
        assert.strictEqual(answer.usage.output_tokens, 5)
        yield* closed(server)
      })
    )
  })
})

/** Waits until the server has no open answer; the test's own timeout is the limit. */
const closed = (server: { readonly open: () => number }) =>
  Effect.repeat(Effect.sync(server.open), { until: (open) => open === 0, schedule: Schedule.spaced("2 millis") })
