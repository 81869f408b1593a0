/** Places of a governed fetch: where requests go, and with which address, credential and body. */
import { assert, describe, it } from "@effect/vitest"
import * as Floodgate from "floodgate/promise"

const completion = {
  id: "c1",
  model: "gpt-6",
  choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 10, completion_tokens: 5 }
}

interface Sent {
  readonly url: string
  readonly headers: Headers
  readonly body: string
}

type Answer = (sent: Sent, number: number) => Response | undefined

/** A floodgate whose providers record what they get. */
const world = (options: Floodgate.Options, answer: Answer = () => undefined) => {
  const sent: Array<Sent> = []
  const fetch: typeof globalThis.fetch = async (url, init) => {
    const request = { url: String(url), headers: new Headers(init?.headers), body: String(init?.body) }
    sent.push(request)
    return answer(request, sent.length) ?? Response.json(completion)
  }
  return { floodgate: Floodgate.create({ fetch, retry: { baseSeconds: 0.01 }, ...options }), sent }
}

const openai = "https://api.openai.com/v1/chat/completions"
const azureUrl = "https://res.openai.azure.com/openai/v1"
const azure = { name: "azure", url: azureUrl, key: "azure-key", model: "my-deployment" }
const first = { models: { "gpt-6": [{ name: "openai" }, azure] } }
const second = { models: { "gpt-6": [azure, { name: "openai" }] } }

const ask = (
  { fetch }: Floodgate.Floodgate,
  { body = {}, headers = {}, url = openai }: { body?: object; headers?: Record<string, string>; url?: string } = {}
) =>
  fetch(url, {
    method: "POST",
    headers: { authorization: "Bearer sk-caller", "openai-organization": "org-caller", ...headers },
    body: JSON.stringify({ model: "gpt-6", messages: [{ role: "user", content: "Hello" }], ...body })
  })

const overloaded = () => Response.json({ error: { message: "down" } }, { status: 503 })
const isAzure = ({ url }: Sent): boolean => url.startsWith(azureUrl)

describe("places of a governed fetch", () => {
  it("have the calls in flight that they state", async () => {
    const own = { name: "own", url: "http://127.0.0.1:8000/v1", key: null, concurrency: { measuredUpTo: 6 } }
    const { floodgate, sent } = world({ concurrency: 9, places: { models: { "gpt-6": [own, { name: "openai" }] } } })
    await (await ask(floodgate)).text()
    assert.strictEqual(sent[0]!.url, "http://127.0.0.1:8000/v1/chat/completions")
    const pools = Object.entries((await floodgate.status()).pools)
    const of = (host: string) => pools.find(([name]) => name.includes(host))![1]
    assert.deepInclude(of("127.0.0.1").measured, { max: 6 })
    assert.deepInclude(of("api.openai.com"), { allowed: 9, measured: undefined })
    await floodgate.dispose()
  })

  it("are refused with calls in flight that are no number", () => {
    const own = { name: "own", concurrency: "fast" as never }
    assert.throws(
      () => Floodgate.create({ places: { models: { m: [own] } } }),
      RangeError,
      'expected "measured", an integer >= 1, or { measuredUpTo }, got "fast"'
    )
  })

  it("leaves a request unchanged at its own place, and names that in the response", async () => {
    const { floodgate, sent } = world({ places: first })
    const response = await ask(floodgate)
    assert.strictEqual(response.headers.get("x-floodgate-place"), "openai")
    assert.strictEqual(sent[0]!.url, openai)
    assert.strictEqual(sent[0]!.headers.get("authorization"), "Bearer sk-caller")
    assert.strictEqual(sent[0]!.body, '{"model":"gpt-6","messages":[{"role":"user","content":"Hello"}]}')
    await floodgate.dispose()
  })

  it("sends a place its own credential, model and address, and none of the caller's credentials", async () => {
    const { floodgate, sent } = world({ places: second })
    const headers = { cookie: "session=1", "x-api-key": "also-secret", "x-trace": "kept" }
    const response = await ask(floodgate, { headers, url: `${openai}?key=in-query&a=1` })
    assert.strictEqual(response.headers.get("x-floodgate-place"), "azure")
    const [{ body, headers: got, url }] = sent as [Sent]
    assert.strictEqual(url, `${azureUrl}/chat/completions?a=1`)
    assert.strictEqual(got.get("api-key"), "azure-key")
    assert.strictEqual(got.get("x-trace"), "kept")
    for (const name of ["authorization", "x-api-key", "cookie", "openai-organization"])
      assert.isNull(got.get(name), name)
    assert.strictEqual(JSON.parse(body).model, "my-deployment")
    assert.notInclude(JSON.stringify([...got]) + url + body, "caller")
    await floodgate.dispose()
  })

  it("moves a call that fails, before the first content of a stream", async () => {
    for (const stream of [false, true]) {
      const event = `data: ${JSON.stringify({ ...completion, object: "chat.completion.chunk", choices: [{ index: 0, delta: { content: "Hi" } }] })}\n\ndata: [DONE]\n\n`
      const { floodgate, sent } = world({ places: first }, (request) => {
        if (!isAzure(request)) return overloaded()
        return stream ? new Response(event, { headers: { "content-type": "text/event-stream" } }) : undefined
      })
      const response = await ask(floodgate, { body: { stream } })
      assert.deepStrictEqual([response.status, response.headers.get("x-floodgate-place")], [200, "azure"])
      assert.include(await response.text(), "Hi")
      assert.deepStrictEqual(sent.map(isAzure), [false, true])
      // The usage of the stream was requested everywhere, beside the model of the place.
      if (stream)
        assert.deepInclude(JSON.parse(sent[1]!.body), {
          model: "my-deployment",
          stream_options: { include_usage: true }
        })
      await floodgate.dispose()
    }
  })

  it("moves a call whose place refuses the credential", async () => {
    const { floodgate, sent } = world({ places: second }, (request) =>
      isAzure(request) ? Response.json({ error: { message: "no" } }, { status: 401 }) : undefined
    )
    for (const place of ["openai", "openai"]) {
      const response = await ask(floodgate)
      assert.deepStrictEqual([response.status, response.headers.get("x-floodgate-place")], [200, place])
    }
    // The second call does not try the place again.
    assert.deepStrictEqual(sent.map(isAzure), [true, false, false])
    await floodgate.dispose()
  })

  it("never sends the caller's credential to another provider than the caller does", async () => {
    const places = { models: { "gpt-6": [{ name: "azure", url: azureUrl }, { name: "openai" }] } }
    const { floodgate, sent } = world({ places, retry: { attempts: 2, baseSeconds: 0.01 } }, (_, number) =>
      number <= 2 ? overloaded() : undefined
    )
    await ask(floodgate)
    assert.deepStrictEqual(sent.map(isAzure), [false, false])
    // A caller of that provider goes there.
    const { headers } = await ask(floodgate, { url: `${azureUrl}/chat/completions` })
    assert.strictEqual(headers.get("x-floodgate-place"), "azure")
    await floodgate.dispose()
  })

  it("sends requests for other models where their caller sends them", async () => {
    const { floodgate, sent } = world({ places: second })
    const response = await ask(floodgate, { body: { model: "gpt-5" } })
    assert.isNull(response.headers.get("x-floodgate-place"))
    assert.strictEqual(sent[0]!.url, openai)
    await floodgate.dispose()
  })

  it("waits in the pools of both places, each with its own limits", async () => {
    const one = { requests: { perMinute: 6, burst: 1 } }
    const places = {
      models: {
        "gpt-6": [
          { name: "openai", limits: one },
          { ...azure, limits: one }
        ]
      }
    }
    const { floodgate, sent } = world({ places })
    await Promise.all([ask(floodgate), ask(floodgate)])
    assert.deepStrictEqual(sent.map(isAzure), [false, true])
    const { pools } = await floodgate.status()
    assert.deepStrictEqual(
      Object.keys(pools).map((name) => name.replace(/[\da-f]{12}/, "HASH")),
      ["api.openai.com/HASH/gpt-6", "res.openai.azure.com/HASH/my-deployment"]
    )
    await floodgate.dispose()
  })

  it("keeps the tiers of one provider in pools of their own, and requests the tier", async () => {
    const places = { models: { "gpt-6": [{ name: "flex", tier: "flex" }, { name: "standard" }] } }
    const { floodgate, sent } = world({ places })
    await ask(floodgate)
    assert.strictEqual(JSON.parse(sent[0]!.body).service_tier, "flex")
    const pools = Object.keys((await floodgate.status()).pools)
    assert.isTrue(
      pools.some((name) => name.endsWith(" flex/gpt-6")),
      String(pools)
    )
    await floodgate.dispose()
  })

  it("restricts calls to the places that callOptions allow", async () => {
    const { floodgate, sent } = world({ places: first, callOptions: { places: ["azure"] } })
    await ask(floodgate)
    assert.isTrue(isAzure(sent[0]!))
    await floodgate.dispose()
  })

  for (const [options, header, goesTo] of [
    [{}, "azure", "azure"],
    [{}, " azure , other", "azure"],
    [{ callOptions: { places: ["openai", "azure"] } }, "azure", "azure"],
    // A caller cannot go where its operator does not allow it.
    [{ callOptions: { places: ["openai"] } }, "azure", "none"],
    [{}, "frankfurt", "none"]
  ] as const) {
    it(`goes to ${goesTo} with the header "${header}" and ${JSON.stringify(options)}, and does not send it`, async () => {
      const { floodgate, sent } = world({ places: first, ...options })
      const response = await ask(floodgate, { headers: { "x-floodgate-places": header } })
      assert.deepStrictEqual(sent.map(isAzure), goesTo === "azure" ? [true] : [])
      assert.strictEqual(response.status, goesTo === "azure" ? 200 : 503)
      for (const { headers } of sent) assert.isNull(headers.get("x-floodgate-places"))
      await floodgate.dispose()
    })
  }

  it("continues a stored answer at the place that stores it, although the first place would answer", async () => {
    let stored = 0
    const answer = () =>
      Response.json({
        id: `resp_${++stored}`,
        object: "response",
        status: "completed",
        model: "gpt-6",
        output: [{ type: "message", role: "assistant", content: [{ type: "output_text", text: "Hi" }] }],
        usage: { input_tokens: 10, output_tokens: 5 }
      })
    const { floodgate, sent } = world({ places: first }, answer)
    const respond = (body: object, headers: Record<string, string> = {}) =>
      floodgate.fetch("https://api.openai.com/v1/responses", {
        method: "POST",
        headers: { authorization: "Bearer sk-caller", ...headers },
        body: JSON.stringify({ model: "gpt-6", input: "Hello", ...body })
      })
    await (await respond({}, { "x-floodgate-places": "azure" })).text()
    await (await respond({ previous_response_id: "resp_1" })).text()
    await (await respond({})).text()
    assert.deepStrictEqual(sent.map(isAzure), [true, true, false])
    await floodgate.dispose()
  })

  it("replaces the model in a path", async () => {
    const gemini = "https://generativelanguage.googleapis.com/v1beta/models/gemini-3-pro:generateContent?key=secret"
    const places = { models: { "gemini-3-pro": [{ name: "other", key: "other-key", model: "gemini-3-pro-eu" }] } }
    const answer = {
      candidates: [{ content: { parts: [{ text: "Hi" }] }, finishReason: "STOP" }],
      usageMetadata: { promptTokenCount: 1, candidatesTokenCount: 1 }
    }
    const { floodgate, sent } = world({ places }, () => Response.json(answer))
    await floodgate.fetch(gemini, {
      method: "POST",
      body: JSON.stringify({ contents: [{ parts: [{ text: "Hello" }] }] })
    })
    assert.strictEqual(
      sent[0]!.url,
      "https://generativelanguage.googleapis.com/v1beta/models/gemini-3-pro-eu:generateContent"
    )
    assert.strictEqual(sent[0]!.headers.get("x-goog-api-key"), "other-key")
    await floodgate.dispose()
  })

  it("says in one line what is wrong with its configuration", () => {
    const throws = (places: NonNullable<Floodgate.Options["places"]>, text: string): void =>
      assert.throws(() => Floodgate.create({ places }), RangeError, text)
    throws({ models: { m: [{ name: "a", url: "api.openai.com" }] } }, "places.models.m[0].url: expected a URL such as")
    for (const url of [
      "https://:secret@api.example.com",
      "https://api.example.com/#v1",
      "https://api.example.com/#",
      "ftp://api.example.com"
    ]) {
      throws({ models: { m: [{ name: "a", url }] } }, "places.models.m[0].url: expected a URL such as")
    }
    throws(
      {
        models: {
          m: [
            { name: "a", url: azureUrl },
            { name: "b", url: "https://b.example" }
          ]
        }
      },
      `places.models["m"]: "b" needs a key, because the caller's goes to its own provider only: add it`
    )
    throws(
      {
        models: {
          m: [
            { name: "a", key: "k" },
            { name: "b", key: "k" }
          ]
        }
      },
      '"a" and "b" have one limit, because they are one provider, credential and tier: remove one'
    )
    throws({ models: { m: [{ name: "a" }] }, policy: "cheapest" }, 'the policy "cheapest" needs the price of "a"')
    throws({ models: { m: [{ name: "a", key: "" }] } }, "expected a key, got something else (not shown)")
  })
})
