/** What a gateway counts for each key, rule and model. It uses real HTTP, so it runs on the real clock. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Redacted from "effect/Redacted"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import { createHash } from "node:crypto"
import { until } from "../../../test/support/gateway.ts"
import { event, message } from "../../../test/support/httpProvider.ts"
import { type Handler, serve } from "../../../test/support/httpServer.ts"

const prices = { "m-*": { input: 1, output: 10, maxOutput: 1_000 } }

const world = Effect.fnUntraced(function* (answer: Handler, options: Gateway.Options = {}) {
  const upstream = yield* serve(answer)
  const context = yield* Layer.build(
    Governor.layer({ prices, retry: Retry.make({ base: "5 millis", attempts: 3 }) as never }).pipe(
      Layer.provideMerge(Budget.layer()),
      Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map()))
    )
  )
  const { url } = yield* Gateway.make({ upstreams: { anthropic: upstream.url }, drain: "20 millis", ...options }).pipe(
    Effect.provideContext(context)
  )
  const ask = (key: string, model: string, headers: Record<string, string> = {}) =>
    Effect.promise(async () => {
      const body = JSON.stringify({ model, max_tokens: 1_000, messages: [{ role: "user", content: "Hi" }] })
      const response = await fetch(`${url}/v1/messages`, {
        method: "POST",
        body,
        headers: { "x-api-key": key, ...headers }
      })
      await response.text()
      return response.status
    })
  /** The values of a metric by its labels, in their order. */
  const counted = (name: string, ...labels: ReadonlyArray<string>) =>
    Effect.promise(async () => {
      const text = await (await fetch(`${url}/metrics`)).text()
      const series = text.matchAll(new RegExp(`^${name}\\{(.*)\\} (\\S+)$`, "gm"))
      return Object.fromEntries(
        Array.from(series, ([, given = "", value]) => {
          const of = (label: string) => new RegExp(`${label}="([^"]*)"`).exec(given)?.[1] ?? "?"
          return [labels.map(of).join(" "), Math.round(Number(value) * 1e6) / 1e6]
        })
      )
    })
  return { ask, counted, upstream, url }
})

const json = { "content-type": "application/json" }
const sha256 = (key: string) => createHash("sha256").update(key).digest("hex")

describe("the bills of a gateway", () => {
  it.live("count tokens and dollars by key, rule and model, as the provider has counted them", () =>
    Effect.gen(function* () {
      let calls = 0
      const here = yield* world(
        (_, response) => {
          calls++
          // A rejection costs nothing, and its retry is billed once.
          if (calls === 1) response.writeHead(529, { ...json, "retry-after": "0" }).end("{}")
          else response.writeHead(200, json).end(JSON.stringify(message(100, 20, "m")))
        },
        {
          keys: ["search", "ads"].map((name) => ({ name, sha256: sha256(name) })),
          credentials: { anthropic: Redacted.make("sk-provider") },
          rules: [
            { key: "search", weight: 2 },
            { name: "searchers", key: "search" },
            { name: "everybody", cap: { dollars: 100 } }
          ]
        }
      )
      for (const [key, model] of [
        ["search", "m-1"],
        ["search", "m-2"],
        ["search", "m-2"],
        ["ads", "m-1"],
        ["ads", "x"]
      ] as const) {
        const expected = model === "x" ? 402 : 200
        assert.strictEqual(yield* here.ask(key, model), expected)
      }
      assert.deepStrictEqual(yield* here.counted("floodgate_gateway_tokens", "key", "rule", "model", "direction"), {
        "search searchers m-1 input": 100,
        "search searchers m-1 output": 20,
        "search searchers m-2 input": 200,
        "search searchers m-2 output": 40,
        "ads everybody m-1 input": 100,
        "ads everybody m-1 output": 20
      })
      assert.deepStrictEqual(yield* here.counted("floodgate_gateway_cost_dollars", "key", "rule", "model"), {
        "search searchers m-1": 0.0003,
        "search searchers m-2": 0.0006,
        "ads everybody m-1": 0.0003
      })
      assert.deepStrictEqual(yield* here.counted("floodgate_gateway_dollars", "agent"), { search: 0.0009, ads: 0.0003 })
    }).pipe(Effect.scoped)
  )

  it.live("count tokens of models without a price, and what arrived of an answer that was cut off", () =>
    Effect.gen(function* () {
      const here = yield* world((_, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.write(event("message_start", { message: { id: "m", usage: { input_tokens: 700, output_tokens: 1 } } }))
        response.write(event("content_block_delta", { index: 0, delta: { type: "text_delta", text: "x".repeat(270) } }))
      })
      yield* Effect.promise(async () => {
        const body = JSON.stringify({ model: "x", max_tokens: 1_000, stream: true, messages: [] })
        const controller = new AbortController()
        const { signal } = controller
        const response = await fetch(`${here.url}/v1/messages`, {
          method: "POST",
          body,
          signal,
          headers: { "x-api-key": "k" }
        })
        const reader = response.body!.getReader()
        let text = ""
        while (!text.includes("xxx")) text += new TextDecoder().decode((await reader.read()).value)
        controller.abort()
      })
      const tokens = yield* until(
        here.counted("floodgate_gateway_tokens", "model", "direction"),
        (found) => "x input" in found
      )
      assert.strictEqual(tokens["x input"], 700)
      assert.isAbove(tokens["x output"]!, 90)
      assert.deepStrictEqual(yield* here.counted("floodgate_gateway_cost_dollars", "model"), {})
    }).pipe(Effect.scoped)
  )

  it.live("have a bounded number of series, whatever models callers invent", () =>
    Effect.gen(function* () {
      const here = yield* world(
        (_, response) => void response.writeHead(200, json).end(JSON.stringify(message(10, 1, "m")))
      )
      const calls = 1_100
      const ask = (n: number) => here.ask("k", `m-${n}`)
      yield* Effect.forEach(
        Array.from({ length: calls }, (_, n) => n),
        ask,
        { concurrency: 50 }
      )
      const tokens = yield* here.counted("floodgate_gateway_tokens", "key", "model", "direction")
      assert.strictEqual(Object.keys(tokens).length, 2 * (1_000 + 1))
      assert.strictEqual(tokens["other other input"], 10 * (calls - 1_000))
    }).pipe(Effect.scoped)
  )
})
