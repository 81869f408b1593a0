/** Questions about agents, over HTTP. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { PlainAdvice } from "floodgate/promise"
import { createHash } from "node:crypto"
import { gatewayTo } from "../../../test/support/gateway.ts"
import { serve } from "../../../test/support/httpServer.ts"

const limits = { tokens: { perSecond: 60_000, burst: 200_000 } }
const incident = "calls=5&firstInputTokens=149800&inputTokens=13800&outputTokens=200"

const completion = JSON.stringify({
  model: "gpt-6",
  choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 900, completion_tokens: 30 }
})

const upstream = serve(
  (_, response) => void response.writeHead(200, { "content-type": "application/json" }).end(completion)
)

const ask = (url: string, path: string, headers: Record<string, string> = {}) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/floodgate/${path}`, { headers })
    return { status: response.status, type: response.headers.get("content-type"), body: await response.json() }
  })

const call = (url: string, agent: string, messages: ReadonlyArray<object> = []) =>
  Effect.promise(async () => {
    const headers = { "x-floodgate-agent": agent, authorization: "Bearer key" }
    const body = JSON.stringify({ model: "gpt-6", messages })
    await (await fetch(`${url}/v1/chat/completions`, { method: "POST", headers, body })).text()
  })

const token = "token-0123456789"
const withToken = { "x-floodgate-token": token }

/** A gateway with keys of its own and two equal places of a model, and the advice that it gives about that. */
const withPlaces = Effect.gen(function* () {
  const { url: here } = yield* upstream
  const { url: there } = yield* upstream
  const options = {
    upstreams: { openai: here, azure: there },
    keys: [{ name: "caller", sha256: createHash("sha256").update("key").digest("hex") }],
    credentials: { openai: Redacted.make("sk-openai"), azure: Redacted.make("azure-secret") },
    places: {
      "gpt-6": [
        { upstream: "openai", limits },
        { upstream: "azure", limits }
      ]
    },
    token
  }
  const { reload, url } = yield* gatewayTo(here, options)
  const about = (query = "") =>
    Effect.map(
      ask(url, `advice?agents=104&model=gpt-6&${incident}${query}`, withToken),
      ({ body }) => body as PlainAdvice
    )
  return { about, options, reload, url }
})

describe("a gateway", () => {
  describe("GET /floodgate/advice", () => {
    it.live("says how many agents help, in plain numbers and a sentence", () =>
      Effect.gen(function* () {
        const { url } = yield* gatewayTo((yield* upstream).url, {}, limits)
        const { body, status, type } = yield* ask(url, `advice?agents=104&${incident}`)
        assert.strictEqual(status, 200)
        assert.strictEqual(type, "application/json")
        assert.deepInclude(body, { pool: "default", agents: 5, job: 104, running: 0, binding: "tokens" })
        assert.match((body as { text: string }).text, /^Start 5 of 104 agents now: .*tokens are the limit/)
      })
    )

    it.live("does not promise the same room to two askers", () =>
      Effect.gen(function* () {
        const { url } = yield* gatewayTo((yield* upstream).url, {}, limits)
        const agents = (asker: string) =>
          Effect.map(
            ask(url, `advice?agents=104&${incident}&asker=${asker}`),
            ({ body }) => (body as { agents: number }).agents
          )
        assert.strictEqual(yield* agents("one"), 5)
        assert.strictEqual(yield* agents("one"), 5)
        assert.isAtMost(yield* agents("two"), 1)
      })
    )

    it.live("knows what earlier agents did, and finds their pool", () =>
      Effect.gen(function* () {
        const { url } = yield* gatewayTo((yield* upstream).url, {}, limits)
        for (const agent of ["doc-1", "doc-1", "doc-2", "doc-2"]) yield* call(url, agent)
        const { body } = yield* ask(url, "advice?agents=9&like=doc-*&model=gpt-6")
        const { each, pool } = body as { pool: string; each: { calls: number; first: object } }
        assert.match(pool, /^127\.0\.0\.1/)
        // The agents have just made two calls each, so they count as halfway.
        assert.strictEqual(each.calls, 4)
        assert.deepInclude(each.first, { inputTokens: 900, outputTokens: 30 })
      })
    )

    it.live("foresees the sub-agents that the lead of a session usually starts", () =>
      Effect.gen(function* () {
        const { url } = yield* gatewayTo((yield* upstream).url, {}, limits)
        const send = (session: string, agent?: string) =>
          Effect.promise(async () => {
            const named = agent === undefined ? {} : { "x-claude-code-agent-id": agent }
            const headers = { "x-claude-code-session-id": session, authorization: "Bearer key", ...named }
            const body = JSON.stringify({ model: "gpt-6", messages: [] })
            await (await fetch(`${url}/v1/chat/completions`, { method: "POST", headers, body })).text()
          })
        for (const session of ["one", "two"]) {
          yield* send(session)
          for (const agent of ["a", "b", "c"]) yield* send(session, agent)
        }
        const assumed = (query: string) =>
          Effect.map(
            ask(url, `advice?agents=2&${query}`),
            ({ body }) => (body as { assumptions: Array<string> }).assumptions
          )
        const expected = "Each is expected to start 3 sub-agents, as earlier ones did"
        assert.include(yield* assumed("like=one"), expected)
        // A lead that asks is advised about its sub-agents, and so may be whoever is not known.
        for (const query of ["asker=two", "asker=mcp-1", "like=one/*"])
          assert.notInclude(yield* assumed(query), expected)
      })
    )

    it.live("takes prompts that grow as they are stated", () =>
      Effect.gen(function* () {
        const { url } = yield* gatewayTo((yield* upstream).url, {}, limits)
        const each = (query: string) =>
          Effect.map(ask(url, `advice?${query}`), ({ body }) => {
            const { each } = body as PlainAdvice
            return [each.first.inputTokens, each.later.inputTokens, each.growthTokens, each.cachedShare]
          })
        assert.deepStrictEqual(yield* each("calls=9&firstInputTokens=7000&growthTokens=2000"), [
          7_000,
          9_000,
          2_000,
          undefined
        ])
        assert.deepStrictEqual(
          yield* each("calls=9&inputTokens=7000&growthTokens=2000&cachedShare=1"),
          [7_000, 9_000, 2_000, 1]
        )
        assert.deepStrictEqual(yield* each("firstInputTokens=7000&inputTokens=500&growthTokens=20"), [
          7_000,
          500,
          20,
          undefined
        ])
        const { body, status } = yield* ask(url, "advice?cachedShare=2")
        assert.strictEqual(status, 400)
        assert.match((body as { error: string }).error, /cachedShare: expected a number from 0 to 1, got 2/)
      })
    )

    it.live("has seen how the conversations of a pool grow", () =>
      Effect.gen(function* () {
        const counting = serve((_, response, body) => {
          const { messages } = JSON.parse(body) as { messages: ReadonlyArray<unknown> }
          const usage = { prompt_tokens: 3_000 + 700 * messages.length, completion_tokens: 30 }
          response.writeHead(200, { "content-type": "application/json" })
          response.end(JSON.stringify({ ...(JSON.parse(completion) as object), usage }))
        })
        const { url } = yield* gatewayTo((yield* counting).url, {}, limits)
        for (const agent of ["a", "b", "c"]) {
          for (let turn = 1; turn <= 4; turn++) {
            const messages = Array.from({ length: 2 * turn - 1 }, (_, index) => ({
              role: index % 2 === 0 ? "user" : "assistant",
              content: `${agent} says ${index}. `.repeat(50)
            }))
            yield* call(url, agent, messages)
          }
        }
        const { each } = (yield* ask(url, "advice?agents=9&model=gpt-6")).body as PlainAdvice
        assert.deepInclude(each, { growthTokens: 1_400, cachedShare: 0 })
        assert.deepStrictEqual([each.first.inputTokens, each.later.inputTokens], [3_700, 5_100])
      })
    )

    it.live("says for how many agents the caps of all callers have room", () =>
      Effect.gen(function* () {
        const rules = [
          { name: "everybody", cap: { dollars: 10, per: "day" } },
          { name: "others", agent: "other-*", cap: { dollars: 1 } }
        ] as const
        const { url } = yield* gatewayTo((yield* upstream).url, { rules }, limits)
        const { body } = yield* ask(url, `advice?agents=200&model=claude-sonnet-5&${incident}`)
        const { caps, text } = body as { text: string; caps: ReadonlyArray<{ name: string; agents: number }> }
        assert.deepStrictEqual(
          caps.map(({ name }) => name),
          ["everybody"]
        )
        assert.isBelow(caps[0]!.agents, 200)
        assert.match(
          text,
          /but \$10\.00 of the cap "everybody" is left until .* UTC, enough for \d+ agents of this kind\./
        )
      })
    )

    it.live("counts all places of a model, or those that the agents may call", () =>
      Effect.gen(function* () {
        const { about, url } = yield* withPlaces
        const early = yield* about("&places=azure")
        assert.include(
          early.assumptions,
          "The places of gpt-6 are known from its first call on, so they are not counted yet"
        )
        yield* call(`${url}/openai`, "doc-1")
        const all = yield* about()
        assert.deepStrictEqual(
          all.places.map(({ name }) => name),
          ["openai", "azure"]
        )
        assert.isTrue(all.places.every(({ agents }) => agents >= 4 && agents <= 6))
        assert.match(all.text, /^Start \d+ of 104 agents now, \d at openai and \d at azure: /)
        assert.sameMembers(Object.keys(all), Object.keys(early))
        const restricted = yield* about("&places=azure")
        assert.deepInclude(restricted, { agents: 5, job: 104 })
        assert.isAbove(restricted.endSeconds!, 1.8 * all.endSeconds!)
        const { body: forecast, status } = yield* ask(url, "forecast?agents=1&model=gpt-6&calls=1", withToken)
        assert.strictEqual(status, 200)
        assert.match(JSON.stringify(forecast), /If 1 agent starts now, all end in /)
        const unknown = yield* ask(url, "advice?model=gpt-6&places=paris", withToken)
        assert.strictEqual(unknown.status, 503)
        assert.match(JSON.stringify(unknown.body), /No place of .*gpt-6.* can take the call/)
      })
    )

    it.live("counts the places of a model only as long as its configuration has them", () =>
      Effect.gen(function* () {
        const { about, options, reload, url } = yield* withPlaces
        yield* call(`${url}/openai`, "doc-1")
        const names = Effect.map(about(), ({ places }) => places.map(({ name }) => name))
        assert.deepStrictEqual(yield* names, ["openai", "azure"])
        yield* reload({ ...options, rules: [{ agent: "nightly-*", priority: -5 }] })
        assert.deepStrictEqual(yield* names, ["openai", "azure"])
        yield* reload({ ...options, places: {} })
        assert.deepStrictEqual(yield* names, [])
      })
    )

    it.live("explains a question that it cannot answer", () =>
      Effect.gen(function* () {
        const { url } = yield* gatewayTo((yield* upstream).url, {}, { pools: { "opus-5": limits } })
        for (const [query, status, error] of [
          ["agents=0", 400, "advice: agents: expected an integer from 1 to 10000, got 0"],
          ["agents=many", 400, 'advice: agents: expected an integer from 1 to 10000, got "many"'],
          ["agnets=1", 400, 'advice: unknown option "agnets": did you mean "agents"?'],
          ["like=doc&calls=2", 400, "advice: calls: does not apply, because like says what each agent does"],
          [
            "pool=opus-5&places=a",
            400,
            "advice: places: does not apply, because pool says where the agents call: leave out one of the two"
          ],
          ["model=claude-haiku-5", 404, 'No pool is known for "claude-haiku-5": known are "opus-5"'],
          ["pool=opus", 404, 'No pool is known for "opus": did you mean "opus-5"?']
        ] as const) {
          const answer = yield* ask(url, `advice?${query}`)
          assert.deepStrictEqual([answer.status, answer.body], [status, { error }], query)
        }
      })
    )

    it.live("assumes, and says so, if nothing is known", () =>
      Effect.gen(function* () {
        const { url } = yield* gatewayTo((yield* upstream).url)
        const { body } = yield* ask(url, "advice?agents=104")
        assert.deepInclude(body, { agents: 1, binding: "unknown", rangeSeconds: null })
        assert.match(JSON.stringify(body), /No earlier agent of this pool is known.*No limit of this pool is known/)
      })
    )

    it.live("requires the token, and refuses websites as the status does", () =>
      Effect.gen(function* () {
        const secret = yield* gatewayTo((yield* upstream).url, { token: "0123456789abcdef" }, limits)
        const open = yield* gatewayTo((yield* upstream).url, {}, limits)
        for (const path of ["advice?agents=1", "forecast?agents=1"]) {
          const status = (url: string, headers: Record<string, string> = {}) =>
            Effect.promise(async () => (await fetch(`${url}/floodgate/${path}`, { headers })).status)
          assert.strictEqual(yield* status(secret.url), 401)
          assert.strictEqual(yield* status(secret.url, { "x-floodgate-token": "0123456789abcdef" }), 200)
          assert.strictEqual(yield* status(`${secret.url}/token/0123456789abcdef`), 200)
          assert.strictEqual(yield* status(open.url, { origin: "https://evil.test" }), 403)
          assert.strictEqual(yield* status(open.url), 200)
        }
      })
    )
  })

  describe("GET /floodgate/forecast", () => {
    it.live("says when all agents would end if they started now", () =>
      Effect.gen(function* () {
        const { url } = yield* gatewayTo((yield* upstream).url, {}, limits)
        const { body } = yield* ask(url, `forecast?agents=12&${incident}`)
        const { binding, endSeconds, text } = body as { binding: string; endSeconds: number; text: string }
        assert.strictEqual(binding, "tokens")
        assert.isAtLeast(endSeconds, (12 * 206_000 - 200_000) / 60_000)
        assert.match(
          text,
          /^If 12 agents start now, all end in 42 s \(how exactly is not known yet\), because tokens are the limit\./
        )
      })
    )
  })
})
