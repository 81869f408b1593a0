/** What a prompt of `effect/ai` or of the AI SDK has in common with an earlier one. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Prompt from "effect/ai/Prompt"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Spending from "floodgate/Spending"
import * as Ai from "../../src/adapters/ai/describe.ts"
import * as AiSdk from "../../src/adapters/aiSdk/describe.ts"
import type { Description } from "floodgate/protocol"

type Prefixes = NonNullable<Description["prefixes"]>

const common = (one: Prefixes, other: Prefixes): number => {
  let n = 0
  while (n < one.fingerprints.length && one.fingerprints[n] === other.fingerprints[n]) n++
  return n
}

interface Result {
  readonly prefixes?: Prefixes | undefined
  readonly bytes: number
}

const mark = { anthropic: { cacheControl: { type: "ephemeral", ttl: "1h" } } }
const call = { type: "tool-call", toolCallId: "call_1", toolName: "read", input: { path: "/a" } }
const result = (value: string) => ({
  type: "tool-result",
  toolCallId: "call_1",
  toolName: "read",
  output: { type: "text", value }
})

const sdk = (provider: string, results: ReadonlyArray<string>, options?: object): Result =>
  AiSdk.describe(
    {
      prompt: [
        { role: "system", content: "You are careful.", ...options },
        { role: "user", content: [{ type: "text", text: "What is in the file?" }] },
        { role: "assistant", content: [call] },
        ...results.map((value) => ({ role: "tool", content: [result(value)] }))
      ],
      tools: [{ type: "function", name: "read", inputSchema: {} }]
    },
    { provider, modelId: "m" },
    false
  ).call

const effect = (provider: string, results: ReadonlyArray<string>, options?: object): Result =>
  Ai.describe(
    {
      prompt: Prompt.make([
        { role: "system", content: "You are careful.", ...options },
        { role: "user", content: "What is in the file?" },
        {
          role: "assistant",
          content: [Prompt.toolCallPart({ id: "call_1", name: "read", params: {}, providerExecuted: false })]
        },
        ...results.map((result) => ({
          role: "tool" as const,
          content: [
            Prompt.toolResultPart({ id: "call_1", name: "read", isFailure: false, providerExecuted: false, result })
          ]
        }))
      ] as Parameters<typeof Prompt.make>[0]),
      tools: []
    },
    { provider, model: "m" }
  )

/** Makes a call that costs a dollar a token, and returns what it has reserved. Its answer reports so many tokens. */
const reserved = Effect.fnUntraced(function* ({ bytes, prefixes }: Result, inputTokens: number) {
  const governor = yield* Governor.Governor
  const purse = Spending.make("us", { dollars: 1e6 })
  const attempt = () =>
    Effect.map(purse.status, ({ held }) => ({ value: held, actual: { inputTokens, outputTokens: 0 } }))
  return yield* governor.run({ model: "m", bytes, prefixes }, attempt, { purses: [purse] })
})

const priced = Layer.provide(Governor.layer({ prices: { m: { input: 1e6, output: 0 } } }), Budget.layer())

const ways = {
  "the AI SDK": {
    of: sdk,
    name: "anthropic.messages",
    other: "openai.chat",
    options: { providerOptions: mark },
    shared: 2
  },
  "effect/ai": { of: effect, name: "anthropic", other: "openai", options: { options: mark }, shared: 1 }
} as const

for (const [way, { name, of, options, other, shared }] of Object.entries(ways)) {
  describe(`the prefixes of a prompt of ${way}`, () => {
    const [none, one, two] = [[], ["text"], ["text", "more text"]].map((results) => of(name, results))

    it("continue in the next request", () => {
      assert.strictEqual(none!.prefixes!.fingerprints.length, shared + 2)
      assert.strictEqual(common(none!.prefixes!, one!.prefixes!), shared + 2)
      assert.strictEqual(common(one!.prefixes!, two!.prefixes!), shared + 3)
      assert.strictEqual(two!.prefixes!.shared, shared)
      assert.strictEqual(two!.prefixes!.bytes.at(-1), two!.bytes)
    })

    it.effect("cost at most what was counted for them", () =>
      Effect.gen(function* () {
        const [asked, next] = [of(name, ["text"]), of(name, ["text", "more text"])]
        assert.strictEqual(yield* reserved(asked, 20), asked.bytes + 1_000)
        assert.strictEqual(yield* reserved(next, 22), 20 + next.bytes - asked.bytes + 1_000)
        const other = of(name, ["texts", "more text"])
        const before = of(name, [])
        assert.strictEqual(yield* reserved(other, 22), 20 + other.bytes - before.bytes + 1_000)
      }).pipe(Effect.provide(Layer.fresh(priced)))
    )

    it("end where another result of a tool begins", () => {
      assert.strictEqual(common(one!.prefixes!, of(name, ["another text"]).prefixes!), shared + 2)
    })

    it("are cached where Anthropic is asked to, and by others without being asked", () => {
      assert.deepStrictEqual([one!.prefixes!.marks, one!.prefixes!.automatic], [[], undefined])
      const marked = of(name, ["text"], options).prefixes!
      assert.deepStrictEqual(marked.marks, [{ index: shared - 1, life: 3_600_000 }])
      assert.strictEqual(common(marked, one!.prefixes!), shared + 3)
      assert.strictEqual(of(other, []).prefixes!.automatic, 300_000)
    })
  })
}
