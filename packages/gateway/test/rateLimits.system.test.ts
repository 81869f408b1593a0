/** The caps of a caller in the header fields of every answer, over real HTTP. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Gateway from "@floodgate/gateway"
import { createHash } from "node:crypto"
import { dial, requestOf, until } from "../../../test/support/gateway.ts"
import type { Handler } from "../../../test/support/httpServer.ts"
import { type Item, listOf } from "./support/structuredFields.ts"
import { answers, chat, completion, events, json, world } from "./world.ts"

/** A call with 900 tokens of prompt and 30 of output costs 0.0012 dollars, and reserves as much as it may cost. */
const prices = { "gpt-6": { input: 1, output: 10, maxOutput: 1_000 } }
const cost = 1_200
const body = { max_completion_tokens: 100 }

const perDay = { dollars: 1, per: "day" } as const
const rules: Gateway.Options["rules"] = [{ name: "team", cap: { dollars: 5 }, capPerKey: perDay, capPerAgent: perDay }]

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  /** The remaining micro-dollars by policy; undefined without the fields. */
  readonly left: Readonly<Record<string, number>> | undefined
  readonly limits: ReadonlyArray<Item>
}

/** The fields of an answer. Both name the same policies, or both are missing. */
const read = (policy: string | null, limit: string | null): Pick<Answer, "left" | "limits"> => {
  assert.strictEqual(policy === null, limit === null)
  if (policy === null || limit === null) return { left: undefined, limits: [] }
  const [policies, limits] = [listOf(policy), listOf(limit)]
  const identityOf = ({ parameters: { pk }, value }: Item) => ({ pk, value })
  assert.deepStrictEqual(policies.map(identityOf), limits.map(identityOf))
  for (const { parameters } of policies) assert.strictEqual(parameters["qu"], "microdollars")
  const left = limits.map(({ parameters, value }) => [String(value), parameters["r"] as number] as const)
  return { left: Object.fromEntries(left), limits }
}

const asked = (url: string, path = "/v1/chat/completions", init: RequestInit = chat(body)) =>
  Effect.promise(async (signal): Promise<Answer> => {
    const response = await fetch(`${url}${path}`, { signal, ...init })
    const { headers, status } = response
    return {
      status,
      headers,
      text: await response.text(),
      ...read(headers.get("ratelimit-policy"), headers.get("ratelimit"))
    }
  })

const by = (key: string, agent = "a", more: object = {}) =>
  chat({ ...body, ...more }, { authorization: `Bearer ${key}`, "x-floodgate-agent": agent })

describe("the RateLimit fields of a gateway", () => {
  it.live("say in every answer what is left of the caps of its caller, and of nobody else's", () =>
    Effect.gen(function* () {
      const { url } = yield* world(answers, { prices, rules })
      const first = yield* asked(url, undefined, by("sk-one"))
      assert.deepStrictEqual([first.status, first.text], [200, completion])
      assert.sameMembers(Object.keys(first.left!), ["team", "per agent (team)", "per key (team)"])
      const second = yield* asked(url, undefined, by("sk-two"))
      // Both keys have the agent and the rule in common.
      assert.deepStrictEqual(second.left, {
        team: 5_000_000 - 2 * cost,
        "per agent (team)": 1_000_000 - 2 * cost,
        "per key (team)": 1_000_000 - cost
      })
      const names = ["sk-one", "sk-two", "key-", '"a"']
      const fields = first.headers.get("ratelimit-policy")! + second.headers.get("ratelimit")
      for (const name of names) assert.notInclude(fields, name)
      const [, agents, keys] = second.limits
      assert.notProperty(second.limits[0]!.parameters, "pk")
      assert.notDeepEqual(agents!.parameters["pk"], keys!.parameters["pk"])
      assert.isAtMost(keys!.parameters["t"] as number, 86_400)
    })
  )

  it.live("are those of the rules for the model and the agent that a body names", () =>
    Effect.gen(function* () {
      const { url } = yield* world(answers, {
        prices,
        rules: [
          { name: "sixes", model: "gpt-6", cap: perDay },
          { name: "others", model: "gpt-7", cap: perDay },
          { name: "batch", agent: "nightly-*", cap: perDay }
        ]
      })
      assert.deepStrictEqual((yield* asked(url)).left, { sixes: 1_000_000 - cost })
      const nightly = yield* asked(url, undefined, chat({ ...body, user: "nightly-1" }))
      assert.deepStrictEqual(nightly.left, { sixes: 1_000_000 - 2 * cost, batch: 1_000_000 - cost })
    })
  )

  it.live("agree with what is refused next, and are in that refusal too", () =>
    Effect.gen(function* () {
      const capPerKey = { dollars: 0.003, reserve: "expected" } as const
      const { upstream, url } = yield* world(answers, { prices, rules: [{ capPerKey }] })
      let left = Infinity
      for (let calls = 0; calls < 20; calls++) {
        const { headers, status, ...answer } = yield* asked(url)
        const [now] = Object.values(answer.left!)
        assert.isAtLeast(now!, 0)
        assert.isAtMost(now!, left)
        if (status === 402) {
          assert.strictEqual(now, left, "a refusal spends nothing")
          assert.strictEqual(headers.get("x-should-retry"), "false")
          assert.strictEqual(3_000 - left, upstream.requests.length * cost)
          return
        }
        left = now!
      }
      assert.fail("no call was refused")
    })
  )

  it.live("begin a stream, with what its call has reserved", () =>
    Effect.gen(function* () {
      let goOn = () => {}
      const { url } = yield* world(
        (_, response) => {
          response.writeHead(200, { "content-type": "text/event-stream" }).write(events[0])
          goOn = () => void response.end(events.slice(1).join(""))
        },
        { prices, rules }
      )
      const response = yield* Effect.promise(() => fetch(`${url}/v1/chat/completions`, by("sk", "a", { stream: true })))
      const { left } = read(response.headers.get("ratelimit-policy"), response.headers.get("ratelimit"))
      // 100 tokens of output are reserved, and the prompt.
      assert.isAtMost(left!["per key (team)"]!, 1_000_000 - 1_000)
      goOn()
      assert.include(yield* Effect.promise(() => response.text()), "[DONE]")
    })
  )

  it.live("are in an answer that began before its outcome was known, and in raw bytes on the wire", () =>
    Effect.gen(function* () {
      let goOn: (() => void) | undefined
      const { url } = yield* world(
        (_, response) => {
          goOn = () => json(response, 200, completion)
        },
        { prices, rules, silence: "20 millis", keepAlive: "20 millis" }
      )
      const { arrived, read: start } = yield* dial(
        url,
        requestOf("POST", "/v1/chat/completions", { authorization: "Bearer sk" }, chat(body).body as string)
      )
      start()
      yield* until(Effect.sync(arrived), (text) => text.includes("\r\n\r\n"))
      const headOf = (name: string) => new RegExp(`^${name}: (.*)\\r$`, "m").exec(arrived())![1]!
      assert.include(arrived(), "HTTP/1.1 200")
      const { limits } = read(headOf("ratelimit-policy"), headOf("ratelimit"))
      assert.lengthOf(limits, 3)
      yield* until(
        Effect.sync(() => goOn),
        (given) => given !== undefined
      )
      goOn!()
      yield* until(Effect.sync(arrived), (text) => text.includes("prompt_tokens"))
    })
  )

  it.live("replace those of the provider, whose other headers pass, for requests that are no calls as well", () =>
    Effect.gen(function* () {
      const own = {
        "anthropic-ratelimit-tokens-remaining": "7",
        "x-ratelimit-remaining-requests": "8",
        ratelimit: '"theirs";r=1',
        "ratelimit-policy": '"theirs";q=2',
        "ratelimit-remaining": "9"
      }
      const answer: Handler = (_, response) => json(response, 200, completion, own)
      const capped = yield* world(answer, { prices, rules })
      const free = yield* world(answer, { prices })
      const off = yield* world(answer, { prices, rules, rateLimitHeaders: false })
      for (const [path, init] of [
        ["/v1/chat/completions", by("sk")],
        ["/v1/models", { headers: { authorization: "Bearer sk" } }]
      ] as const) {
        const { headers, left } = yield* asked(capped.url, path, init)
        assert.include(Object.keys(left!), "per key (team)")
        for (const name of [
          "anthropic-ratelimit-tokens-remaining",
          "x-ratelimit-remaining-requests",
          "ratelimit-remaining"
        ] as const) {
          assert.strictEqual(headers.get(name), own[name])
        }
        // Without a cap, or with the setting, the gateway has nothing to say, and passes on what the provider says.
        for (const { url } of [free, off]) {
          const response = yield* Effect.promise(() => fetch(`${url}${path}`, init))
          yield* Effect.promise(() => response.text())
          assert.deepStrictEqual(
            [response.headers.get("ratelimit"), response.headers.get("ratelimit-policy")],
            [own.ratelimit, own["ratelimit-policy"]]
          )
        }
      }
    })
  )

  it.live("are in refusals of all kinds, and only for callers with a cap", () =>
    Effect.gen(function* () {
      const key = "fg-a-key-of-the-gateway"
      const keys = ["search", "free"].map((name) => ({
        name,
        sha256: createHash("sha256")
          .update(key + name)
          .digest("hex")
      }))
      const { close, url } = yield* world(answers, {
        prices,
        keys,
        credentials: { anthropic: null, openai: null, gemini: null },
        rules: [{ name: "searchers", key: "search", cap: perDay }],
        maxBodyBytes: 1_000
      })
      const refusals: ReadonlyArray<readonly [status: number, path: string, init: RequestInit]> = [
        [400, "/v1/chat/completions", { method: "POST", body: "no JSON" }],
        [413, "/v1/chat/completions", { method: "POST", body: "x".repeat(2_000) }],
        [400, "/v1/chat/completions", { method: "PUT", body: "{}" }],
        [402, "/v1/batches", { method: "POST", body: '{"model":"gpt-6"}' }],
        [402, "/v1/chat/completions", { method: "POST", body: '{"model":"nobody-knows-its-price","messages":[]}' }]
      ]
      for (const [status, path, init] of refusals) {
        const named = yield* asked(url, path, { ...init, headers: { authorization: `Bearer ${key}search` } })
        assert.deepStrictEqual([named.status, named.left], [status, { searchers: 1_000_000 }], path)
        const free = yield* asked(url, path, { ...init, headers: { authorization: `Bearer ${key}free` } })
        assert.isUndefined(free.left)
      }
      const stranger = yield* asked(url, undefined, chat(body))
      assert.deepStrictEqual([stranger.status, stranger.left], [401, undefined])
      yield* close
    })
  )
})
