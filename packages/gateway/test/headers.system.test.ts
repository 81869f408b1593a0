import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { dial, gatewayTo, requestOf } from "../../../test/support/gateway.ts"
import { type Handler, serve } from "../../../test/support/httpServer.ts"

// Which headers are passed on in both directions. These use real HTTP, so they run on the real clock.

const completion = JSON.stringify({
  model: "m",
  choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 9, completion_tokens: 3 }
})

describe("headers that concern one connection only", () => {
  const answers: Handler = (_, response) =>
    void response
      .writeHead(200, {
        "content-type": "application/json",
        connection: "keep-alive, X-Answer-Hop",
        "x-answer-hop": "1",
        "x-answer": "2",
        "alt-svc": 'h2="elsewhere.test:443"'
      })
      .end(completion)

  for (const [what, method, path, body] of [
    ["a call", "POST", "/v1/chat/completions", '{"model":"m","messages":[]}'],
    ["a request that is passed on", "GET", "/v1/models", ""]
  ] as const) {
    // If it were passed on, the provider would accept a credential that the gateway has not counted.
    it.live(`are not passed on, even if "connection" names them: ${what}`, () =>
      Effect.gen(function* () {
        const upstream = yield* serve(answers)
        const here = yield* gatewayTo(upstream.url)
        const given = {
          authorization: "Bearer sk-real",
          "x-api-key": "sk-made-up",
          "openai-project": "p1",
          "x-mine": "3",
          "proxy-authorization": "Basic eHg6eHg=",
          te: "trailers",
          connection: "close, X-Api-Key,openai-project"
        }
        const { read, response } = yield* dial(here.url, requestOf(method, path, given, body))
        read()
        const text = yield* Effect.promise(() => response)
        assert.match(text, /^HTTP\/1\.1 200 /)
        const { headers } = upstream.requests[0]!
        for (const name of ["x-api-key", "openai-project", "proxy-authorization", "te"]) {
          assert.isUndefined(headers[name], name)
        }
        assert.deepStrictEqual([headers.authorization, headers["x-mine"]], ["Bearer sk-real", "3"])
        assert.match(text, /^x-answer: 2\r$/m)
        assert.notMatch(text, /^(?:x-answer-hop|alt-svc):/im)
      })
    )
  }
})

describe("the length of an answer", () => {
  const event = (data: object) => `data: ${JSON.stringify(data)}\n\n`
  const events = [
    event({ id: "c1", choices: [{ index: 0, delta: { content: "Hi" } }] }),
    event({ id: "c1", choices: [{ index: 0, delta: {}, finish_reason: "stop" }] })
  ]
  const usage = event({ id: "c1", choices: [], usage: { prompt_tokens: 9, completion_tokens: 3 } })
  const end = "data: [DONE]\n\n"

  it.live("differs from the provider's if usage that the client did not request is left out", () =>
    Effect.gen(function* () {
      const upstream = yield* serve((_, response, body) => {
        assert.include(body, '"include_usage":true')
        const text = [...events, usage, end].join("")
        response
          .writeHead(200, { "content-type": "text/event-stream", "content-length": Buffer.byteLength(text) })
          .end(text)
      })
      const here = yield* gatewayTo(upstream.url)
      const got = yield* Effect.tryPromise(async () => {
        const body = JSON.stringify({ model: "m", messages: [], stream: true })
        const response = await fetch(`${here.url}/v1/chat/completions`, { method: "POST", body })
        return response.text()
      })
      assert.strictEqual(got, [...events, end].join(""))
    })
  )
})
