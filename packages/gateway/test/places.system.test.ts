import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import type * as Gateway from "@floodgate/gateway"
import { createHash } from "node:crypto"
import { gatewayTo, until } from "../../../test/support/gateway.ts"
import { type Handler, serve } from "../../../test/support/httpServer.ts"

// Places of a gateway. These use real HTTP, so they run on the real clock.

const caller = "fg-caller-0123456789"
const keys = [{ name: "caller", sha256: createHash("sha256").update(caller).digest("hex") }]
const credentials = { openai: Redacted.make("sk-openai"), azure: Redacted.make("azure-secret") }

interface Got {
  readonly path: string
  readonly headers: Record<string, unknown>
  readonly model: string
}

/** An upstream that answers, or fails with a status, and records what it gets. */
const upstream = Effect.fnUntraced(function* (statusOf: (number: number) => number = () => 200) {
  const got: Array<Got> = []
  const handler: Handler = (request, response, body) => {
    const { model } = JSON.parse(body) as Got
    got.push({ path: request.url!, headers: request.headers, model })
    const status = statusOf(got.length)
    const choices = [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }]
    const answer = { id: "c1", model, choices, usage: { prompt_tokens: 9, completion_tokens: 3 } }
    response.writeHead(status, { "content-type": "application/json" })
    response.end(JSON.stringify(status === 200 ? answer : { error: { message: "no" } }))
  }
  const { url } = yield* serve(handler)
  return { got, url }
})

const places: Gateway.Options["places"] = {
  "gpt-6": [{ upstream: "openai" }, { upstream: "azure", model: "my-deployment" }]
}

const ask = (url: string, { model = "gpt-6", key = caller, places = "" } = {}) =>
  Effect.promise(async (signal) => {
    const response = await fetch(`${url}/openai/v1/chat/completions`, {
      method: "POST",
      signal,
      headers: {
        authorization: `Bearer ${key}`,
        "content-type": "application/json",
        cookie: "session=1",
        ...(places === "" ? {} : { "x-floodgate-places": places })
      },
      body: JSON.stringify({ model, max_tokens: 9, messages: [] })
    })
    return { status: response.status, place: response.headers.get("x-floodgate-place"), text: await response.text() }
  })

const world = Effect.fnUntraced(function* (options: Gateway.Options = {}, statusOf?: (number: number) => number) {
  const openai = yield* upstream(statusOf)
  const azure = yield* upstream()
  const upstreams = { openai: openai.url, azure: `${azure.url}/openai/v1` }
  const all = { upstreams, keys, credentials, places, ...options }
  return { openai, azure, all, ...(yield* gatewayTo(openai.url, all)) }
})

describe("places of a gateway", () => {
  describe.each(["constructor", "__proto__", "toString"])("do not concern the model %s", (model) => {
    it.live("whose call is answered", () =>
      Effect.gen(function* () {
        const { openai, url } = yield* world()
        assert.deepInclude(yield* ask(url, { model }), { status: 200, place: null })
        assert.strictEqual(openai.got.length, 1)
      })
    )

    // Regression: an error in a listener of the connection would end the process.
    it.live("whose client hangs up", () =>
      Effect.gen(function* () {
        const hanging = yield* serve(() => {})
        const upstreams = { openai: hanging.url, azure: hanging.url }
        const { inFlight, open, url } = yield* gatewayTo(hanging.url, { upstreams, keys, credentials, places })
        const asked = yield* Effect.forkChild(ask(url, { model }))
        yield* until(inFlight, (count) => count === 1)
        yield* Fiber.interrupt(asked)
        yield* until(open, (count) => count === 0)
        assert.strictEqual(yield* inFlight, 0)
      })
    )
  })

  it.live("names the place of a reply, and sends each upstream its own credential only", () =>
    Effect.gen(function* () {
      const { azure, openai, url } = yield* world({}, () => 503)
      const { place, status } = yield* ask(url)
      assert.deepStrictEqual([status, place], [200, "azure"])
      assert.deepInclude(openai.got[0]!, { path: "/v1/chat/completions", model: "gpt-6" })
      assert.strictEqual(openai.got[0]!.headers["authorization"], "Bearer sk-openai")
      const [{ headers, model, path }] = azure.got as [Got]
      assert.deepStrictEqual([path, model], ["/openai/v1/chat/completions", "my-deployment"])
      assert.strictEqual(headers["authorization"], "Bearer azure-secret")
      assert.notMatch(JSON.stringify(headers), /sk-openai|fg-caller|session/)
    })
  )

  it.live("says in its status why calls go to a place, or do not", () =>
    Effect.gen(function* () {
      const { azure, openai, url } = yield* world({}, () => 401)
      for (let n = 0; n < 2; n++) assert.strictEqual((yield* ask(url)).place, "azure")
      assert.deepStrictEqual([openai.got.length, azure.got.length], [1, 2])
      const { places } = yield* Effect.promise(async () => {
        const response = await fetch(`${url}/floodgate/status`)
        return (await response.json()) as { places: ReadonlyArray<Record<string, unknown>> }
      })
      const by = (state: string) => places.filter((place) => place["state"] === state)
      assert.strictEqual(places.length, 2)
      assert.isAbove(by("refused")[0]!["triedAt"] as number, Date.now())
      assert.isAtLeast(by("open")[0]!["answerMillis"] as number, 0)
    })
  )

  it.live("measures the calls in flight of the place that says so", () =>
    Effect.gen(function* () {
      const own = { upstream: "azure", concurrency: { measuredUpTo: 6 } } as const
      const { url } = yield* world({ places: { "gpt-6": [own, { upstream: "openai" }] } })
      assert.strictEqual((yield* ask(url)).place, "azure")
      const { pools } = yield* Effect.promise(async () => {
        const response = await fetch(`${url}/floodgate/status`)
        return (await response.json()) as { pools: ReadonlyArray<{ name: string; measured?: { max: number } }> }
      })
      assert.deepStrictEqual(pools.map(({ measured }) => measured?.max).sort(), [6, undefined])
    })
  )

  it.live("sends a request only to the places that its header names", () =>
    Effect.gen(function* () {
      const { azure, openai, url } = yield* world()
      const named = yield* ask(url, { places: "azure" })
      assert.deepStrictEqual([named.status, named.place], [200, "azure"])
      assert.notProperty(azure.got[0]!.headers, "x-floodgate-places")
      const { status, text } = yield* ask(url, { places: "frankfurt" })
      assert.strictEqual(status, 503)
      assert.include(text, "is not among the places that the call may go to")
      assert.strictEqual(openai.got.length, 0)
    })
  )

  it.live("leaves requests for other models where they are sent", () =>
    Effect.gen(function* () {
      const { openai, url } = yield* world()
      const { place } = yield* ask(url, { model: "gpt-5" })
      assert.isNull(place)
      assert.strictEqual(openai.got.length, 1)
    })
  )

  it.live("keeps the tiers of an upstream as places without keys of the gateway", () =>
    Effect.gen(function* () {
      const tiers = { "gpt-6": [{ upstream: "openai", tier: "flex" }, { upstream: "openai" }] }
      const { openai, url } = yield* world({ keys: undefined, credentials: undefined, places: tiers }, (number) =>
        number === 1 ? 429 : 200
      )
      const { place, status } = yield* ask(url, { key: "sk-mine" })
      assert.deepStrictEqual([status, place], [200, "openai"])
      assert.deepStrictEqual(
        openai.got.map(({ headers }) => headers["authorization"]),
        ["Bearer sk-mine", "Bearer sk-mine"]
      )
    })
  )

  it.live("drains a place by a reload", () =>
    Effect.gen(function* () {
      const { all, openai, reload, url } = yield* world()
      assert.strictEqual((yield* ask(url)).place, "openai")
      const drained = { "gpt-6": [{ upstream: "openai", drain: true }, { upstream: "azure" }] }
      yield* reload({ ...all, places: drained })
      assert.strictEqual((yield* ask(url)).place, "azure")
      yield* reload({ ...all, places: { "gpt-6": drained["gpt-6"].slice(0, 1) } })
      const { status, text } = yield* ask(url)
      assert.strictEqual(status, 503)
      assert.include(text, `The place \\"openai\\" is being drained: it takes no new calls`)
      assert.strictEqual(openai.got.length, 1)
    })
  )

  it.live("waits for the cheapest place no longer than a call may take", () =>
    Effect.gen(function* () {
      const one = { requests: { perSecond: 0.2, burst: 1, window: "bucket" as const } }
      const { url } = yield* world({
        placePolicy: "cheapest",
        placeWithin: "1 second",
        places: {
          "gpt-6": [
            { upstream: "openai", model: "gpt-5.6-luna", limits: one },
            { upstream: "azure", model: "gpt-5.6-terra" }
          ]
        }
      })
      assert.deepInclude(yield* ask(url), { status: 200, place: "openai" })
      // The cheaper place has room again in 5 seconds.
      assert.deepInclude(yield* ask(url), { status: 200, place: "azure" })
    })
  )

  it.live("says in one line what is wrong with its configuration", () =>
    Effect.gen(function* () {
      const { all, reload } = yield* world()
      const wrong = (options: Gateway.Options) =>
        Effect.map(Effect.sandbox(Effect.exit(reload({ ...all, ...options }))), (exit) => String(exit))
      const says = (text: string, options: Gateway.Options) =>
        Effect.map(wrong(options), (got) => assert.include(got, text))
      yield* says(`places["gpt-6"][0].upstream: no upstream has this name: did you mean "openai"?`, {
        places: { "gpt-6": [{ upstream: "opanai" }] }
      })
      yield* says(
        '"openai" and "again" have one limit, because they are one provider, credential and tier: remove one',
        {
          places: { "gpt-6": [{ upstream: "openai" }, { upstream: "openai", name: "again" }] }
        }
      )
      yield* says(
        '"azure" needs a key, because the caller\'s goes to its own provider only: set `keys` for the callers, and `credentials` for',
        { keys: undefined, credentials: undefined }
      )
      yield* says('the policy "cheapest" needs the price of "openai", and none is published for "gpt-6"', {
        placePolicy: "cheapest"
      })
      yield* says('places["gpt-6"]: expected at least one place, got none', { places: { "gpt-6": [] } })
    })
  )
})
