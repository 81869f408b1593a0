/** Each way to a second place of one body format, as a configuration over real HTTP: every place accepts only its own key and model name. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Floodgate from "floodgate/promise"
import { ProviderServer } from "floodgate/testing/server"
import { createHash } from "node:crypto"
import { gatewayTo } from "../support/gateway.ts"

/** A second place: its path and model name, and whether it is another organisation at the same server. */
const seconds = {
  "a resource of Azure": { base: "/openai/v1", model: "my-deployment", isSameServer: false },
  "a second organisation": { base: "/v1", model: "gpt-6", isSameServer: true },
  "a mirror": { base: "/v1", model: "openai/gpt-6", isSameServer: false }
}
type Second = (typeof seconds)[keyof typeof seconds]

/** Asks at one place through what a client sees, and returns the status and the place. */
type Ask = (place: string) => Promise<readonly [number, string | null]>

const asking =
  (fetch: typeof globalThis.fetch, url: string, apiKey: string): Ask =>
  async (place) => {
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json", "x-floodgate-places": place },
      body: JSON.stringify({ model: "gpt-6", messages: [{ role: "user", content: "Hello" }] })
    })
    await response.arrayBuffer()
    return [response.status, response.headers.get("x-floodgate-place")]
  }

const byFetch = Effect.fnUntraced(function* (first: string, second: string, { base, model }: Second) {
  const floodgate = Floodgate.create({
    places: {
      models: { "gpt-6": [{ name: "first" }, { name: "second", url: `${second}${base}`, key: "KEY-2", model }] }
    }
  })
  yield* Effect.addFinalizer(() => Effect.promise(() => floodgate.dispose()))
  return asking(floodgate.fetch, first, "KEY-1")
})

const byGateway = Effect.fnUntraced(function* (first: string, second: string, { base, model }: Second) {
  const apiKey = "fg-caller-0123456789"
  const { url } = yield* gatewayTo(first, {
    upstreams: { openai: first, second: `${second}${base}` },
    keys: [{ name: "caller", sha256: createHash("sha256").update(apiKey).digest("hex") }],
    credentials: { openai: Redacted.make("KEY-1"), second: Redacted.make("KEY-2") },
    places: {
      "gpt-6": [
        { name: "first", upstream: "openai" },
        { name: "second", upstream: "second", model }
      ]
    }
  })
  return asking(globalThis.fetch, `${url}/openai`, apiKey)
})

describe("a second place", () => {
  for (const [name, second] of Object.entries(seconds)) {
    for (const [way, open] of [
      ["the governed fetch", byFetch],
      ["the gateway", byGateway]
    ] as const) {
      it.live(`that is ${name}, through ${way}`, () =>
        Effect.gen(function* () {
          const { isSameServer, model } = second
          const one = yield* ProviderServer.make({
            keys: isSameServer ? ["KEY-1", "KEY-2"] : ["KEY-1"],
            models: (asked) => asked === "gpt-6"
          })
          const other = isSameServer
            ? one
            : yield* ProviderServer.make({ keys: ["KEY-2"], models: (asked) => asked === model })
          const ask = yield* open(one.url, other.url, second)
          for (const place of ["first", "second"]) {
            assert.deepStrictEqual(yield* Effect.promise(() => ask(place)), [200, place])
          }
        })
      )
    }
  }
})
