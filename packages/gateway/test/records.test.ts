/** What a gateway records of the calls of sessions: whose they are, what was cached, the pauses; and that it records no name. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Gateway from "@floodgate/gateway"
import { lineageOf } from "../src/lineage.ts"
import { makeRecorder, makeSessions } from "../src/records.ts"
import { ask, world } from "./world.ts"

const header = (headers: Readonly<Record<string, string>>) => (name: string) => headers[name] ?? null

const lineage = (headers: Readonly<Record<string, string>>, named: { agent?: string; session?: string } = {}) =>
  lineageOf({ agent: named.agent, session: named.session ?? named.agent, header: header(headers) }, "key-1")

describe("the lineage of a call", () => {
  // The headers as Claude Code 2.1.332 and Codex 0.171 were seen to send them.
  const claude = { "x-claude-code-session-id": "s" }
  const codex = { "session-id": "s", "thread-id": "s" }
  for (const [who, headers, expected] of [
    ["Claude Code", claude, ["s", "s", undefined]],
    ["a sub-agent of it", { ...claude, "x-claude-code-agent-id": "a" }, ["s", "a", "s"]],
    [
      "a nested one",
      { ...claude, "x-claude-code-agent-id": "b", "x-claude-code-parent-agent-id": "a" },
      ["s", "b", "a"]
    ],
    ["Codex", codex, ["s", "s", undefined]],
    ["a thread of it", { ...codex, "thread-id": "t", "x-codex-parent-thread-id": "s" }, ["s", "t", "s"]],
    ["a thread below a thread", { ...codex, "thread-id": "u", "x-codex-parent-thread-id": "t" }, ["s", "u", "t"]],
    ["an older Codex", { session_id: "s", conversation_id: "s" }, ["s", "s", undefined]],
    ["a client without a name", {}, ["key-1", "key-1", undefined]]
  ] as const) {
    it(`is read from the headers of ${who}`, () => {
      const { agent, parent, session } = lineage(headers)
      assert.deepStrictEqual([session, agent, parent], [...expected])
    })
  }

  it("is the agent that other clients name, and the session in the body where no header has it", () => {
    assert.deepStrictEqual(lineage({}, { agent: "a7" }), { session: "a7", agent: "a7", parent: undefined })
    const sub = lineage({ "x-claude-code-agent-id": "a" }, { agent: "body-session/a", session: "body-session" })
    assert.deepStrictEqual(sub, { session: "body-session", agent: "a", parent: "body-session" })
  })
})

const usage = { input_tokens: 3, cache_read_input_tokens: 900, cache_creation_input_tokens: 100, output_tokens: 40 }
const message = {
  id: "m1",
  type: "message",
  role: "assistant",
  model: "claude-sonnet-5",
  content: [{ type: "text", text: "MARK-answer" }],
  stop_reason: "end_turn",
  usage
}

/** A gateway that records, and a function that makes a call through it. */
const recording = Effect.gen(function* () {
  const recorded: Array<Gateway.Recorded> = []
  const here = yield* world(
    (_, response) => void response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(message)),
    { record: (call) => void recorded.push(call) }
  )
  const call = (headers: Readonly<Record<string, string>>, more: object = {}) =>
    ask(`${here.url}/v1/messages`, {
      method: "POST",
      headers: { "content-type": "application/json", "anthropic-version": "2023-06-01", ...headers },
      body: JSON.stringify({
        model: "claude-sonnet-5",
        max_tokens: 100,
        messages: [{ role: "user", content: "MARK-prompt" }],
        ...more
      })
    })
  return { recorded, call }
})

describe("the records of a gateway", () => {
  it.live("have sessions, parents, cached tokens and pauses", () =>
    Effect.gen(function* () {
      const { call, recorded } = yield* recording
      const headers = { "x-api-key": "k", "x-claude-code-session-id": "s" }
      yield* call(headers)
      yield* call({ ...headers, "x-claude-code-agent-id": "a" })
      yield* call({ ...headers, "x-claude-code-agent-id": "b", "x-claude-code-parent-agent-id": "a" })
      yield* call(headers)
      const [lead, sub, nested, again] = recorded
      assert.strictEqual(new Set(recorded.map(({ sessionId }) => sessionId)).size, 1)
      assert.deepStrictEqual(
        [lead!.parentId, sub!.parentId, nested!.parentId],
        [undefined, lead!.agentId, sub!.agentId]
      )
      assert.strictEqual(again!.agentId, lead!.agentId)
      assert.deepStrictEqual([lead!.pauseMillis, sub!.pauseMillis], [undefined, undefined])
      const ended = lead!.at + lead!.waitedMillis + lead!.answeredMillis
      assert.strictEqual(again!.pauseMillis, again!.at - ended)
      const { cacheWrittenTokens, cachedTokens, inputTokens, outputTokens } = lead!
      assert.deepStrictEqual([inputTokens, cachedTokens, cacheWrittenTokens, outputTokens], [1_003, 900, 100, 40])
    })
  )

  it.live("keep callers apart who choose the same name, and know one again", () =>
    Effect.gen(function* () {
      const { call, recorded } = yield* recording
      for (const key of ["one", "two", "one"]) yield* call({ "x-api-key": key, "x-floodgate-agent": "reviewer" })
      const [one, two, again] = recorded.map(({ sessionId }) => sessionId)
      assert.notStrictEqual(one, two)
      assert.strictEqual(again, one)
    })
  )

  it.live("have other hashes in another gateway, so that nobody finds a name by guessing", () =>
    Effect.gen(function* () {
      const ids = yield* Effect.forEach([1, 2], () =>
        Effect.gen(function* () {
          const { call, recorded } = yield* recording
          yield* call({ "x-api-key": "k", "x-floodgate-agent": "nightly" })
          return recorded[0]!.sessionId
        })
      )
      assert.notStrictEqual(ids[0], ids[1])
    })
  )

  it.live("contain nothing that a caller or the provider wrote, apart from the model and the name in the program", () =>
    Effect.gen(function* () {
      const { call, recorded } = yield* recording
      const marked = (name: string) => `MARK-${name}`
      const names = [
        "x-api-key",
        "authorization",
        "x-floodgate-agent",
        "x-claude-code-session-id",
        "x-claude-code-agent-id",
        "x-claude-code-parent-agent-id",
        "session-id",
        "thread-id",
        "session_id",
        "conversation_id",
        "x-codex-parent-thread-id"
      ]
      for (const without of [[], ...names.map((name) => [name]), names.slice(3), names.slice(2), names]) {
        const headers = Object.fromEntries(
          names.filter((name) => !without.includes(name)).map((name) => [name, marked(name)])
        )
        yield* call(headers, { metadata: { user_id: "MARK-user" }, system: "MARK-system" })
      }
      assert.strictEqual(recorded.length, names.length + 4)
      for (const { agent: _, ...record } of recorded) {
        assert.notInclude(JSON.stringify(record), "MARK")
        for (const id of [record.sessionId, record.agentId, record.parentId ?? "0".repeat(16)]) {
          assert.match(id, /^[\da-f]{16}$/)
        }
      }
    })
  )

  it("remember a bounded number of agents", () => {
    const sessions = makeSessions()
    const recorder = makeRecorder(
      () => {},
      sessions,
      () => 0
    )
    for (let index = 0; index < 10_500; index++) {
      const request = { url: "/", protocol: "anthropic", model: "m", agent: `a${index}`, session: `a${index}` }
      const planned = { request: { ...request, header: () => null }, terms: { _tag: "Failure" } } as never
      recorder.came(planned, 0)
      recorder.used(planned)({ inputTokens: 1, outputTokens: 1 })
    }
    assert.strictEqual(sessions.answered.size, 10_000)
  })
})
