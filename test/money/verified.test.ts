/** Caps in dollars reserve the tokens that the provider has counted for the beginning of a prompt, and never less than it can cost. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { type Protocol, protocols } from "floodgate/protocol"
import * as Spending from "floodgate/Spending"

/** A thousandth of a dollar for a token of input. */
const price = { input: 1_000, output: 0, cacheRead: 100, cacheWrite: 2_000, cacheWriteLong: 4_000 }
const prices = { m: price, n: price, "ever-other": price }

const live = Layer.fresh(Layer.provideMerge(Governor.layer({ prices }), Budget.layer()))

/** What the provider may add to a prompt, and what may change where two texts meet. */
const allowance = 1_000

type Body = Readonly<Record<string, unknown>>

/** A text of so many bytes, which this provider counts as a quarter as many tokens. */
const text = (bytes: number, salt = ""): string => salt.padEnd(bytes, "The agent reads a file. ")
const user = (content: unknown) => ({ role: "user", content })
const assistant = (content: unknown) => ({ role: "assistant", content })
const bodyOf = (...messages: ReadonlyArray<object>): Body => ({ model: "m", max_tokens: 10, messages })

const callOf = (
  body: Body,
  { path, protocol }: { readonly path: string; readonly protocol: Protocol } = {
    path: "/v1/messages",
    protocol: protocols.anthropic
  }
): Governor.Call => {
  const description = protocol.describe(body, protocol.match("POST", path)!)!
  const { bytes, continues, maxTokens, prefixes, stored, textBytes } = description
  return { model: "m", bytes, textBytes, continues, maxTokens, prefixes, stored }
}

const tokensOf = (call: Governor.Call): number => Math.ceil(call.bytes / 4)

interface Asked {
  readonly purse?: Spending.Purse | undefined
  readonly call?: Partial<Governor.Call>
  readonly caller?: string
  /** What the answer reports. @default a quarter of the bytes */
  readonly tokens?: number
  readonly model?: string
  readonly actual?: Accounting.Actual
  readonly fails?: boolean
}

/** Makes a call that pays, and returns how many tokens at the price of the cache it has reserved. */
const ask = (
  given: Body | Governor.Call,
  {
    actual,
    call: more,
    caller,
    fails = false,
    model = "m-1",
    purse = Spending.make("us", { dollars: 1e6 }),
    tokens
  }: Asked = {}
) =>
  Effect.gen(function* () {
    const governor = yield* Governor.Governor
    const call = { ...("bytes" in given ? (given as Governor.Call) : callOf(given)), ...more }
    let reserved = 0
    const attempt = () =>
      Effect.gen(function* () {
        const { held } = yield* purse.status
        reserved = Math.round(held * 500_000) / 1_000
        if (fails) return yield* Effect.fail("broken" as const)
        const usage = actual ?? { inputTokens: tokens ?? tokensOf(call), outputTokens: 0 }
        return { value: reserved, actual: usage, response: { model } }
      })
    yield* Effect.exit(governor.run(call, attempt, { purses: [purse], caller }))
    return reserved
  })

/** What a call reserves of which nothing is known. */
const unknown = (body: Body): number => callOf(body).bytes + allowance

/** What a call reserves that begins with a prompt of so many tokens. */
const known = (body: Body, before: Body, tokens = tokensOf(callOf(before))): number =>
  tokens + callOf(body).bytes - callOf(before).bytes + allowance

const first = bodyOf(user(text(40_000)))
const second = bodyOf(user(text(40_000)), assistant("Done."), user("And now?"))
const third = bodyOf(user(text(40_000)), assistant("Done."), user("And now?"), assistant("Also done."), user("More?"))

const test = <A, E>(name: string, effect: Effect.Effect<A, E, Governor.Governor | Budget.TokenBudget>) =>
  it.effect(name, () => Effect.provide(effect, live))

describe("the maximum cost of a call", () => {
  test(
    "has the tokens of a prompt that was answered, and a token a byte for what follows",
    Effect.gen(function* () {
      assert.strictEqual(yield* ask(first), unknown(first))
      assert.strictEqual(yield* ask(second), known(second, first))
      assert.strictEqual(yield* ask(third), known(third, second))
      // The same prompt again: no byte of it is new.
      assert.strictEqual(yield* ask(third), known(third, third))
      // A branch of the conversation.
      const branch = bodyOf(user(text(40_000)), assistant("Done."), user("Something else?"))
      const common = bodyOf(user(text(40_000)), assistant("Done."))
      assert.strictEqual(yield* ask(branch), known(branch, common, tokensOf(callOf(second))))
    })
  )

  test(
    "knows a prompt whose marks have moved, and whose texts are blocks",
    Effect.gen(function* () {
      const mark = { cache_control: { type: "ephemeral" } }
      const block = { type: "text", text: text(40_000) }
      const marked = bodyOf(user([{ ...block, ...mark }]))
      const moved = bodyOf(user([block]), assistant("Done."), user([{ type: "text", text: "And?", ...mark }]))
      yield* ask(marked)
      assert.strictEqual(yield* ask(moved), known(moved, marked))
    })
  )

  test(
    "has the price of a cache for an hour only if the request may ask for one",
    Effect.gen(function* () {
      const asking = (ttl: string | undefined) =>
        bodyOf(user([{ type: "text", text: text(4_000), cache_control: { type: "ephemeral", ttl } }]))
      const bytes = callOf(asking("5m")).bytes + allowance
      assert.strictEqual(yield* ask(asking(undefined)), bytes)
      assert.strictEqual(yield* ask(asking("5m")), callOf(asking("5m")).bytes / 4 + allowance)
      assert.strictEqual(yield* ask({ ...asking("1h"), system: "s" }), 2 * (bytes + 1))
      const within = {
        type: "tool_result",
        tool_use_id: "t",
        content: [
          { type: "text", text: text(4_000), cache_control: { type: "ephemeral", ttl: "1h" } },
          { type: "text", text: "b", cache_control: { type: "ephemeral" } }
        ]
      }
      assert.isAbove(yield* ask(bodyOf(user([within]))), 2 * bytes)
      const tools = [
        { name: "a", input_schema: {}, cache_control: { type: "ephemeral", ttl: "1h" } },
        { name: "b", input_schema: {} }
      ]
      assert.isAbove(yield* ask({ ...asking("5m"), tools }), 2 * bytes)
      assert.isAbove(
        yield* ask({ ...asking("5m"), system: "t", cache_control: { type: "ephemeral", ttl: "1h" } }),
        2 * bytes
      )
      // Nothing tells what such a call asks for.
      assert.strictEqual(yield* ask({ model: "m", bytes: 4_000, maxTokens: 1 }), 2 * (4_000 + allowance))
    })
  )

  const others: Readonly<Record<string, Effect.Effect<number, never, Governor.Governor>>> = {
    "another model": ask(callOf(second), { call: { model: "n" } }),
    "another account": ask(callOf(second), { call: { account: "theirs" } }),
    "another caller": ask(callOf(second), { caller: "them" }),
    "another tier": ask(callOf(second), { call: { tier: "fast" } })
  }
  for (const [what, other] of Object.entries(others)) {
    test(
      `knows nothing of what was said to ${what}`,
      Effect.gen(function* () {
        yield* ask(first)
        assert.strictEqual(yield* other, unknown(second))
        assert.strictEqual(yield* ask(second), known(second, first))
      })
    )
  }

  const changes: Readonly<Record<string, Body>> = {
    tools: { ...second, tools: [{ name: "read", input_schema: { type: "object" } }] },
    "a system prompt": { ...second, system: "You are careful." },
    "the choice of a tool": { ...second, tool_choice: { type: "any" } },
    thinking: { ...second, thinking: { type: "enabled", budget_tokens: 1_024 } },
    "what is left out": { ...second, context_management: { edits: [] } },
    "an edited history": bodyOf(user(text(40_000, "B")), assistant("Done."), user("And now?")),
    "a letter that no sample sees": bodyOf(
      user(`${text(40_000).slice(0, 25_001)}?${text(40_000).slice(25_002)}`),
      assistant("Done."),
      user("And now?")
    )
  }
  for (const [what, body] of Object.entries(changes)) {
    test(
      `knows nothing of a prompt with ${what}`,
      Effect.gen(function* () {
        yield* ask(first)
        assert.strictEqual(yield* ask(body), unknown(body))
      })
    )
  }

  test(
    "never believes a sample: prompts that only differ where none is taken",
    Effect.gen(function* () {
      const between = (letter: string) =>
        bodyOf(
          ...[1, 2, 3, 4].map((n) => user(`${n}`)),
          user(text(10_000)),
          user(`${text(12_000)}${letter}${text(8_000)}`)
        )
      const [one, other] = [between("a"), between("b")].map((body) => callOf(body))
      assert.deepStrictEqual(one!.prefixes!.fingerprints, other!.prefixes!.fingerprints)
      // What is before the last message is in both, and has at most the tokens of the whole.
      const last = 20_001 + "user".length
      yield* ask(one!, { tokens: 5_000 })
      assert.strictEqual(yield* ask(other!, { tokens: 20_000 }), 5_000 + last + allowance)
      assert.strictEqual(yield* ask(between("b")), 20_000 + allowance)
      // The last one is known, and the one before is forgotten.
      assert.strictEqual(yield* ask(between("a")), 5_000 + last + allowance)
    })
  )

  test(
    "has at most the tokens of an answered prompt for what both begin with: a system prompt, a history",
    Effect.gen(function* () {
      const system = text(30_000)
      const of = (...messages: ReadonlyArray<object>): Body => ({ ...bodyOf(...messages), system })
      const rest = (body: Body) => callOf(body).bytes - system.length
      const [one, other] = [of(user("Read a.")), of(user("Write a long report about b."))]
      assert.strictEqual(yield* ask(one, { tokens: 7_510 }), unknown(one))
      assert.strictEqual(yield* ask(other, { tokens: 7_520 }), 7_510 + rest(other) + allowance)
      // A long conversation, of which all but the first question is dropped.
      const long = of(user("Read a."), assistant(text(20_000)), user("And?"))
      yield* ask(long, { tokens: 12_600 })
      const compacted = of(user("Read a."), assistant("It was read."), user("And?"))
      assert.strictEqual(yield* ask(compacted), known(compacted, one, 7_510))
      // An answer that was edited, long before the end.
      const longer = of(user("Read a."), assistant(text(20_000)), user("And?"), assistant("b"), user("c"))
      const edited = of(user("Read a."), assistant(text(20_000)), user("And!"), assistant("b"), user("c"))
      yield* ask(longer, { tokens: 12_700 })
      assert.strictEqual(yield* ask(edited), known(edited, of(user("Read a."), assistant(text(20_000))), 12_600))
    })
  )

  test(
    "knows no prefix that ends within a message, where a token may span its end",
    Effect.gen(function* () {
      const part = (letter: string) => ({ type: "text", text: text(4_000, letter) })
      yield* ask(bodyOf(user([part("a")])))
      const longer = bodyOf(user([part("a"), part("b")]))
      assert.strictEqual(yield* ask(longer), unknown(longer))
    })
  )

  test(
    "knows nothing of a call that was not answered, or whose answer has no usage",
    Effect.gen(function* () {
      yield* ask(first, { fails: true })
      assert.strictEqual(yield* ask(first, { actual: { inputTokens: 0, outputTokens: 3 } }), unknown(first))
      assert.strictEqual(yield* ask(second), unknown(second))
    })
  )

  test(
    "knows nothing of calls that did not pay, which are not read",
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const actual = { inputTokens: 10_000, outputTokens: 0 }
      yield* governor.run(callOf(first), () => Effect.succeed({ value: "", actual }))
      assert.strictEqual(yield* ask(second), unknown(second))
      const expected = Spending.make("expected", { dollars: 1e6, reserve: "expected" })
      yield* governor.run(callOf(third), () => Effect.succeed({ value: "", actual }), { purses: [expected] })
      assert.strictEqual(yield* ask(third), known(third, second))
    })
  )
})

describe("what a picture, a file or the result of a tool costs", () => {
  const data = "AAAA".repeat(2_000)
  const picture = (source: object) => ({ type: "image", source })
  const base64 = { type: "base64", media_type: "image/png", data }

  test(
    "is known of a picture in the request by its content",
    Effect.gen(function* () {
      const seen = bodyOf(user([picture(base64)]))
      const next = (source: object) => bodyOf(user([picture(source)]), assistant("A cat."), user("Sure?"))
      yield* ask(seen, { tokens: 1_600 })
      // A fifth more of what follows, because it might have been a picture.
      const rest = callOf(next(base64)).bytes - callOf(seen).bytes
      assert.strictEqual(yield* ask(next(base64)), 1_600 + 1.2 * rest + allowance)
      const other = { ...base64, data: `${data.slice(0, 4_001)}B${data.slice(4_002)}` }
      const { bytes, textBytes = 0 } = callOf(next(other))
      assert.strictEqual(yield* ask(next(other)), textBytes + 1.2 * (bytes - textBytes) + allowance)
    })
  )

  test(
    "is a guess for a picture that follows what is known",
    Effect.gen(function* () {
      yield* ask(first)
      const shown = bodyOf(user(text(40_000)), assistant("Done."), user([picture(base64)]))
      const { bytes, textBytes = 0 } = callOf(shown)
      const rest = textBytes - 40_000 - "user".length + 1.2 * (bytes - textBytes)
      assert.strictEqual(yield* ask(shown), tokensOf(callOf(first)) + rest + allowance)
    })
  )

  test(
    "is never known of what is elsewhere",
    Effect.gen(function* () {
      const document = { type: "document", source: { type: "url", url: "https://a/b.pdf" } }
      for (const block of [picture({ type: "url", url: "https://a/b.png" }), document]) {
        const asks = bodyOf(user([{ type: "text", text: text(4_000) }, block]), assistant("A cat."), user("Sure?"))
        assert.strictEqual(yield* ask(asks), yield* ask(asks))
      }
    })
  )

  test(
    "is known of calls of tools and their results, whatever names they have in them",
    Effect.gen(function* () {
      const turn = (more: object, result: string) => [
        user("Read the file."),
        assistant([{ type: "tool_use", id: "toolu_1", name: "read", input: { path: "/a", ...more } }]),
        user([{ type: "tool_result", tool_use_id: "toolu_1", content: result }])
      ]
      const seen = bodyOf(...turn({}, text(20_000)))
      const next = (more: object, result: string) => bodyOf(...turn(more, result), assistant("Read."), user("And?"))
      yield* ask(seen)
      assert.strictEqual(yield* ask(next({}, text(20_000))), known(next({}, text(20_000)), seen))
      const cache = { cache_control: { type: "ephemeral" } }
      assert.strictEqual(yield* ask(next(cache, text(20_000))), unknown(next(cache, text(20_000))))
      assert.strictEqual(yield* ask(next({}, text(20_001))), unknown(next({}, text(20_001))))
    })
  )
})

describe("an answer that cannot be believed", () => {
  test(
    "bounds no later call if the provider may have run tools",
    Effect.gen(function* () {
      const serverTools = { call: { serverTools: true } }
      yield* ask(first, { ...serverTools, tokens: 9_000 })
      assert.strictEqual(yield* ask(second), unknown(second))
      assert.strictEqual(yield* ask(third, serverTools), unknown(third))
    })
  )

  test(
    "bounds no later call if it continues a stored conversation, or leaves out what was cached",
    Effect.gen(function* () {
      yield* ask(first, { call: { stored: true } })
      yield* ask(first, { tokens: 4_000 })
      assert.strictEqual(yield* ask(second), unknown(second))
    })
  )

  test(
    "has no fewer tokens than the prompt that it begins with",
    Effect.gen(function* () {
      yield* ask(first, { tokens: 10_000 })
      yield* ask(second, { tokens: 6_000 })
      assert.strictEqual(yield* ask(third), known(third, second, 10_000))
    })
  )

  test(
    "counts the most of what was reported for one prompt",
    Effect.gen(function* () {
      yield* ask(first, { tokens: 10_000 })
      yield* ask(first, { tokens: 10_900 })
      yield* ask(first, { tokens: 10_000 })
      assert.strictEqual(yield* ask(second), known(second, first, 10_900))
    })
  )

  test(
    "ends the belief in all others if it has more tokens than the bound",
    Effect.gen(function* () {
      yield* ask(first, { tokens: 10_000 })
      assert.strictEqual(yield* ask(first, { tokens: 11_000 }), known(first, first, 10_000))
      assert.strictEqual(yield* ask(first, { tokens: 12_001 }), known(first, first, 11_000))
      assert.strictEqual(yield* ask(first), unknown(first))
      // What is known of others is not affected.
      yield* ask(first, { caller: "them" })
      assert.strictEqual(yield* ask(second, { caller: "them" }), known(second, first))
    })
  )

  test(
    "ends it, too, if another model gave it, which counts otherwise",
    Effect.gen(function* () {
      yield* ask(first)
      assert.strictEqual(yield* ask(second, { model: "m-2" }), known(second, first))
      assert.strictEqual(yield* ask(third, { model: "m-2" }), unknown(third))
    })
  )
})

describe("a refusal", () => {
  test(
    "says which part of the prompt was answered before, and what is assumed of the rest",
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      yield* ask(first)
      const purse = Spending.make("us", { dollars: 20 })
      const refused = governor.run(callOf(second), () => Effect.die("sent"), { purses: [purse] })
      const { message } = yield* Effect.flip(refused)
      assert.match(
        message,
        /^The call may cost \$22\.\d+ at most \(about \$\S+ is expected; 10,001 tokens of its prompt were answered before, each byte of the rest is taken for a token, and nothing is assumed to be read from the cache\), but only \$20\.00 is left/
      )
    })
  )

  test(
    "never lets two processes exceed a cap, each of which knows its own conversations",
    Effect.gen(function* () {
      const purse = Spending.make("us", { dollars: 100 })
      const other = Effect.provide(
        ask(second, { purse }),
        Layer.fresh(Layer.provide(Governor.layer({ prices }), Budget.layer()))
      )
      yield* ask(first, { purse })
      assert.strictEqual(yield* other, unknown(second))
      assert.strictEqual(yield* ask(second, { purse }), known(second, first))
      const { spent } = yield* purse.status
      assert.isAtMost(spent, 100)
    })
  )
})
