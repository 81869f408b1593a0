import { assert, describe, it } from "@effect/vitest"
import type { ServerResponse } from "node:http"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import { type ApiCall, apiCalls, bytesOf, isStreamed } from "../../../test/support/apis.ts"
import { until } from "../../../test/support/gateway.ts"
import { type Handler, serve } from "../../../test/support/httpServer.ts"

// The providers' own APIs at the gateway. These use real HTTP, so they run on the real clock, and wait only for conditions.

const quick = Retry.make({ base: "5 millis", jitter: "none", attempts: 2 })

const world = Effect.fnUntraced(function* (answer: Handler, options: Gateway.Options = {}) {
  const upstream = yield* serve(answer)
  const recorded: Array<Parameters<NonNullable<Gateway.Options["record"]>>[0]> = []
  const context = yield* Layer.build(
    Governor.layer({ retry: quick as never }).pipe(
      Layer.provideMerge(Budget.layer({ limits: { requests: { total: 1_000 } } })),
      Layer.provideMerge(Logger.layer([]))
    )
  )
  const names = ["anthropic", "openai", "gemini", "bedrock", "mistral", "cohere", "ollama", "llama-cpp"]
  const { url } = yield* Gateway.make({
    upstreams: Object.fromEntries(names.map((name) => [name, upstream.url])),
    drain: "20 millis",
    record: (call) => void recorded.push(call),
    ...options
  }).pipe(Effect.provideContext(context))
  const { status } = Context.get(context, Budget.TokenBudget)
  return { url, upstream, recorded, status }
})

const ask = (url: string, call: ApiCall) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/${call.upstream}${call.path}`, {
      method: "POST",
      headers: { authorization: "Bearer k", "content-type": "application/json" },
      body: JSON.stringify(call.body)
    })
    return { status: response.status, response, bytes: Buffer.from(await response.arrayBuffer()) }
  })

const answers =
  (call: ApiCall): Handler =>
  (_, response) => {
    response.writeHead(200, { "content-type": call.contentType })
    for (const piece of call.pieces) response.write(piece)
    response.end()
  }

describe("a call at the gateway", () => {
  for (const call of apiCalls) {
    it.live(`is counted to the token: ${call.name}${isStreamed(call) ? ", streamed" : ""}`, () =>
      Effect.gen(function* () {
        const here = yield* world(answers(call))
        const { bytes, response, status } = yield* ask(here.url, call)
        assert.strictEqual(status, 200)
        assert.deepStrictEqual(bytes, bytesOf(call))
        assert.strictEqual(response.headers.get("content-type"), call.contentType)
        yield* until(
          Effect.sync(() => here.recorded.length),
          (count) => count === 1
        )
        const [{ inputTokens, outputTokens }] = here.recorded as [(typeof here.recorded)[number]]
        const [input, cached, output] = call.used
        assert.deepStrictEqual([inputTokens, outputTokens], [input + cached, output])
        assert.strictEqual(here.upstream.requests[0]!.url, call.path)
      })
    )
  }

  it.live.each([
    [
      "a status",
      (response: ServerResponse) =>
        response.writeHead(400, { "content-type": "application/json" }).end('{"error":"no"}'),
      /^The provider answered with status 400: /
    ],
    [
      "a broken connection",
      (response: ServerResponse) => response.destroy(),
      /^No answer from the provider \(UND_ERR_SOCKET/
    ]
  ] as const)("of Ollama's is kept alive by space that its client skips, and gets %s as a line", ([, fail, error]) =>
    Effect.gen(function* () {
      const call = apiCalls.find((each) => each.name === "Ollama chat" && isStreamed(each))!
      // The client may hear that its call is kept alive before the provider is asked.
      const arrived = Promise.withResolvers<() => void>()
      let isLate = false
      const here = yield* world(
        (_, response) => {
          // A second attempt fails at once.
          if (isLate) fail(response)
          arrived.resolve(() => {
            isLate = true
            fail(response)
          })
        },
        { silence: "20 millis", keepAlive: "20 millis" }
      )
      const asked = yield* Effect.forkChild(
        Effect.promise(async () => {
          const response = await fetch(`${here.url}/ollama/api/chat`, {
            method: "POST",
            body: JSON.stringify(call.body)
          })
          const answer = await arrived.promise
          answer()
          return { type: response.headers.get("content-type"), text: await response.text() }
        })
      )
      const { text, type } = yield* Fiber.join(asked)
      assert.strictEqual(type, "application/x-ndjson")
      assert.match(text, /^ +\{.*\}\n$/)
      assert.match(JSON.parse(text).error, error)
    })
  )

  it.live("of Bedrock's gets nothing between its frames while it waits", () =>
    Effect.gen(function* () {
      const call = apiCalls.find(({ name }) => name === "Bedrock ConverseStream")!
      const held: Array<() => void> = []
      const here = yield* world(
        (request, response, body) => void held.push(() => answers(call)(request, response, body)),
        {
          silence: "5 millis",
          keepAlive: "5 millis"
        }
      )
      const asked = yield* Effect.forkChild(ask(here.url, call))
      yield* until(
        Effect.sync(() => held.length),
        (count) => count === 1
      )
      yield* Effect.sleep("50 millis")
      held[0]!()
      assert.deepStrictEqual((yield* Fiber.join(asked)).bytes, bytesOf(call))
    })
  )
})
