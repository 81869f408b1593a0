import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { until } from "../../../test/support/gateway.ts"
import { content, event, message, started } from "../../../test/support/httpProvider.ts"
import { type Handler, serve } from "../../../test/support/httpServer.ts"

/** A token of output costs a hundredth of a cent. */
const prices = {
  "claude-test": { input: 1, output: 100, context: 100_000, maxOutput: 10_000 },
  "gpt-test": { input: 1, output: 100, context: 100_000, maxOutput: 10_000 }
}

const world = Effect.fnUntraced(function* (answer: Handler) {
  const lines: Array<string> = []
  const upstream = yield* serve(answer)
  const context = yield* Layer.build(
    Governor.layer({ prices }).pipe(
      Layer.provideMerge(Budget.layer()),
      Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map())),
      Layer.provideMerge(Logger.layer([Logger.make(({ message }) => void lines.push(String(message)))]))
    )
  )
  const { url } = yield* Gateway.make({
    upstreams: { anthropic: upstream.url, openai: upstream.url },
    rules: [{ cap: { dollars: 20 } }],
    drain: "20 millis"
  }).pipe(Effect.provideContext(context))
  return { url, lines }
})

interface Figures {
  readonly agents: ReadonlyArray<{
    readonly inputTokens: number
    readonly outputTokens: number
    readonly dollars: number
  }>
  readonly caps: ReadonlyArray<{ readonly spent: number; readonly held: number }>
  readonly minutes: ReadonlyArray<{ readonly tokens: number }>
}

const figures = (url: string) =>
  Effect.promise(async () => (await (await fetch(`${url}/floodgate/status`)).json()) as Figures)

const post = (url: string, path: string, body: object, signal?: AbortSignal) =>
  fetch(`${url}${path}`, {
    method: "POST",
    ...(signal !== undefined && { signal }),
    headers: { "x-api-key": "sk-one", "anthropic-version": "2023-06-01", "x-floodgate-agent": "a" },
    body: JSON.stringify({ max_tokens: 50, messages: [{ role: "user", content: "Hello" }], ...body })
  })

const absurd = 1e12

const anthropicStream =
  started +
  content +
  event("content_block_stop", { index: 0 }) +
  event("message_delta", { delta: { stop_reason: "end_turn" }, usage: { output_tokens: absurd } }) +
  event("message_stop")

const chunk = (more: object): string => `data: ${JSON.stringify({ id: "c1", model: "gpt-test", ...more })}\n\n`
const delta = chunk({ choices: [{ index: 0, delta: { content: "word ".repeat(80) } }] })

describe("the usage in an answer", () => {
  const answers = {
    "in one piece": [
      "/v1/messages",
      { model: "claude-test" },
      JSON.stringify(message(25, absurd, "claude-test")),
      "application/json"
    ],
    "in a stream": ["/v1/messages", { model: "claude-test", stream: true }, anthropicStream, "text/event-stream"],
    "in one piece of OpenAI's": [
      "/v1/chat/completions",
      { model: "gpt-test" },
      JSON.stringify({
        id: "c1",
        choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
        usage: { prompt_tokens: absurd, completion_tokens: absurd }
      }),
      "application/json"
    ]
  } as const
  for (const [how, [path, body, text, type]] of Object.entries(answers)) {
    it.live(`destroys no cap, however large it is: ${how}`, () =>
      Effect.gen(function* () {
        const here = yield* world((_, response) => void response.writeHead(200, { "content-type": type }).end(text))
        yield* Effect.promise(async () => (await post(here.url, path, body)).text())
        const { agents, caps } = yield* until(figures(here.url), ({ caps }) => (caps[0]?.spent ?? 0) > 0)
        // All of the context and of the output of the model.
        assert.isAtMost(caps[0]!.spent, 1.1)
        assert.isAtMost(agents[0]!.outputTokens, 10_000)
        assert.isAtMost(agents[0]!.inputTokens, 100_000)
        assert.strictEqual(here.lines.filter((line) => line.includes("more than it can use")).length, 1)
        yield* Effect.promise(async () => assert.strictEqual((await post(here.url, path, body)).status, 200))
      })
    )
  }
})

describe("the usage of a call", () => {
  const used = { prompt_tokens: 1_000_000, completion_tokens: 20_000 }
  const answer = JSON.stringify({
    id: "c1",
    choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
    usage: used
  })
  const ours = [
    {
      tools: [
        { type: "function", function: { name: "read" } },
        { type: "custom", custom: { name: "write" } }
      ]
    },
    { tools: [{ functionDeclarations: [] }, { name: "bash", type: "bash_20250124" }, { name: "read" }] },
    {}
  ]
  const theirs = [
    {
      tools: [
        { type: "function", function: { name: "read" } },
        { type: "web_search_20260318", name: "web_search" }
      ]
    },
    { tools: [{ type: "something new" }] },
    { tools: [{ googleSearch: {} }] },
    { web_search_options: {} },
    { mcp_servers: [] },
    { agent_id: "a1" }
  ]
  for (const [body, hasServerTools] of [
    ...ours.map((body) => [body, false] as const),
    ...theirs.map((body) => [body, true] as const)
  ]) {
    it.live(`may ${hasServerTools ? "" : "not "}be that of several rounds: ${JSON.stringify(body)}`, () =>
      Effect.gen(function* () {
        const here = yield* world(
          (_, response) => void response.writeHead(200, { "content-type": "application/json" }).end(answer)
        )
        yield* Effect.promise(async () =>
          (await post(here.url, "/v1/chat/completions", { model: "gpt-test", ...body })).text()
        )
        const { agents } = yield* until(figures(here.url), ({ agents }) => (agents[0]?.dollars ?? 0) > 0)
        const { inputTokens, outputTokens } = agents[0]!
        const counted = hasServerTools ? [used.prompt_tokens, used.completion_tokens] : [100_000, 10_000]
        assert.deepStrictEqual([inputTokens, outputTokens], counted)
      })
    )
  }
})

describe("a stream that its client has left", () => {
  const streams = {
    "of Anthropic, which says at once how long the prompt is": [
      "/v1/messages",
      { model: "claude-test" },
      started + content,
      25
    ],
    "of OpenAI, which counts only at the end": ["/v1/chat/completions", { model: "gpt-test" }, delta, 1]
  } as const
  for (const [whose, [path, body, text, input]] of Object.entries(streams)) {
    it.live(`is billed and shown with what was observed: ${whose}`, () =>
      Effect.gen(function* () {
        const here = yield* world(
          (_, response) => void response.writeHead(200, { "content-type": "text/event-stream" }).write(text)
        )
        const controller = new AbortController()
        yield* Effect.promise(async () => {
          const response = await post(here.url, path, { ...body, stream: true }, controller.signal)
          await response.body!.getReader().read()
          controller.abort()
        })
        const { agents, caps, minutes } = yield* until(
          figures(here.url),
          ({ caps }) => (caps[0]?.spent ?? 0) > 0 && caps[0]!.held === 0
        )
        const [agent] = agents
        assert.isAtLeast(agent!.inputTokens, input)
        assert.isAtLeast(agent!.outputTokens, text === delta ? 80 : 8)
        assert.closeTo(agent!.dollars, agent!.inputTokens / 1e6 + agent!.outputTokens / 1e4, 1e-9)
        assert.closeTo(caps[0]!.spent, agent!.dollars, 1e-9)
        assert.strictEqual(minutes.at(-1)!.tokens, agent!.inputTokens + agent!.outputTokens)
      })
    )
  }
})
