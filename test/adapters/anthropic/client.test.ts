/** Clients of the SDK with the middleware, and clients that would ignore it. */
import Anthropic from "@anthropic-ai/sdk"
import Between from "@anthropic-ai/sdk-between"
import Oldest from "@anthropic-ai/sdk-oldest"
import { assert, describe, it } from "@effect/vitest"
import * as Floodgate from "floodgate/promise"

const params = { model: "claude-sonnet-5", max_tokens: 50, messages: [{ role: "user" as const, content: "Hi" }] }
const answer = {
  type: "message",
  id: "m",
  role: "assistant",
  model: "claude-sonnet-5",
  stop_reason: "end_turn",
  content: [{ type: "text", text: "Hello" }],
  usage: { input_tokens: 700, output_tokens: 5 }
}
const upstream: typeof fetch = async () => Response.json(answer)
const limits = { inputTokens: { total: 100_000 } }

const used = async (floodgate: Floodgate.Floodgate) =>
  Object.values((await floodgate.status()).pools).reduce(
    (sum, { dimensions }) => sum + 100_000 - dimensions.inputTokens!.level,
    0
  )

/** Versions with different types, all of which are accepted. */
const versions: Record<string, typeof Anthropic> = {
  newest: Anthropic,
  "1.0": Between as unknown as typeof Anthropic,
  "0.103": Oldest as unknown as typeof Anthropic
}
export const typed = (floodgate: Floodgate.Floodgate): readonly [Between, Oldest] => [
  floodgate.anthropic(new Between()),
  floodgate.anthropic(new Oldest())
]

describe("floodgate.anthropic", () => {
  for (const [name, Client] of Object.entries(versions)) {
    it(`governs the calls of a client once each: SDK ${name}`, async () => {
      await using floodgate = Floodgate.create({ limits })
      const plain = new Client({ apiKey: "any", fetch: upstream })
      const client = floodgate.anthropic(plain)
      assert.instanceOf(client, Client)
      // Adding it twice adds it once.
      const twice = floodgate.anthropic(client)
      const answer = await twice.messages.create(params)
      assert.strictEqual(answer.usage.input_tokens, 700)
      assert.strictEqual(await used(floodgate), 700)
      await plain.messages.create(params)
      assert.strictEqual(await used(floodgate), 700, "the client itself stays as it was")
    })
  }

  it("keeps a client's own middlewares around it", async () => {
    await using floodgate = Floodgate.create({ limits })
    let seen = 0
    const plain = new Anthropic({
      apiKey: "any",
      fetch: upstream,
      middleware: [
        (request, next) => {
          seen++
          return next(request)
        }
      ]
    })
    const client = floodgate.anthropic(plain)
    await client.messages.create(params)
    assert.strictEqual(seen, 1)
    assert.strictEqual(await used(floodgate), 700)
  })

  it("refuses a client that would ignore it, and names the alternative", async () => {
    // As SDK 0.58 has it: no middleware, in a copy either.
    class Old {
      readonly messages = { create: upstream }
      withOptions(): this {
        return this
      }
    }
    await using floodgate = Floodgate.create({ limits })
    for (const client of [undefined, null, "key", Anthropic]) {
      assert.throws(
        () => floodgate.anthropic(client as never),
        RangeError,
        /^Floodgate\.anthropic: expected a client, such as new Anthropic\(\), got (?!.*"key")/
      )
    }
    for (const client of [new Old(), {}]) {
      assert.throws(
        // @ts-expect-error its type has no middleware
        () => floodgate.anthropic(client),
        RangeError,
        /Floodgate\.anthropic: this client has no middleware, .* before 0\.103: .*`fetch: floodgate\.fetch/
      )
    }
  })
})
