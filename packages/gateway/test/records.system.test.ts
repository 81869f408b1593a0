/** What a gateway records of the calls of sessions: whose they are, what was cached, the pauses; and that it records no name. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Gateway from "@floodgate/gateway"
import { ask, world } from "./world.ts"

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
  const recorded: Array<Parameters<NonNullable<Gateway.Options["record"]>>[0]> = []
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

/** The headers as Claude Code 2.1.332 and Codex 0.171 were seen to send them. */
const claude = { "x-claude-code-session-id": "s" }
const codex = { "session-id": "s", "thread-id": "s" }

/** The calls of a lead, of a sub-agent, of one that this starts, and of the lead again. */
const trees = {
  "Claude Code": [
    claude,
    { ...claude, "x-claude-code-agent-id": "a" },
    { ...claude, "x-claude-code-agent-id": "b", "x-claude-code-parent-agent-id": "a" },
    claude
  ],
  "Claude Code, whose session only the body names": [
    {},
    { "x-claude-code-agent-id": "a" },
    { "x-claude-code-agent-id": "b", "x-claude-code-parent-agent-id": "a" },
    {}
  ],
  Codex: [
    codex,
    { ...codex, "thread-id": "t", "x-codex-parent-thread-id": "s" },
    { ...codex, "thread-id": "u", "x-codex-parent-thread-id": "t" },
    codex
  ]
}

describe("the records of a gateway", () => {
  for (const [who, tree] of Object.entries(trees)) {
    it.live(`have the tree of agents that the headers of ${who} name`, () =>
      Effect.gen(function* () {
        const { call, recorded } = yield* recording
        const metadata = { user_id: JSON.stringify({ device_id: "d", session_id: "s" }) }
        for (const headers of tree) yield* call({ "x-api-key": "k", ...headers }, { metadata })
        const [lead, sub, nested, again] = recorded
        assert.strictEqual(new Set(recorded.map(({ sessionId }) => sessionId)).size, 1)
        assert.strictEqual(new Set(recorded.map(({ agentId }) => agentId)).size, 3)
        assert.deepStrictEqual(
          [lead!.parentId, sub!.parentId, nested!.parentId, again!.agentId],
          [undefined, lead!.agentId, sub!.agentId, lead!.agentId]
        )
      })
    )
  }

  it.live(
    "have a session for each agent that any other client names, and one for the calls of a key without names",
    () =>
      Effect.gen(function* () {
        const { call, recorded } = yield* recording
        for (const name of ["a7", "a8", "a7"]) yield* call({ "x-api-key": "k", "x-floodgate-agent": name })
        for (const key of ["k", "k"]) yield* call({ "x-api-key": key })
        // What Codex called a session and a conversation before.
        yield* call({ "x-api-key": "k", session_id: "s", conversation_id: "s" })
        const sessions = recorded.map(({ sessionId }) => sessionId)
        assert.deepStrictEqual(
          sessions.map((id) => sessions.indexOf(id)),
          [0, 1, 0, 3, 3, 5]
        )
        assert.isTrue(recorded.every(({ parentId }) => parentId === undefined))
      })
  )

  it.live("have the cached tokens, and the pause since the agent's previous answer", () =>
    Effect.gen(function* () {
      const { call, recorded } = yield* recording
      for (const name of ["a", "b", "a"]) yield* call({ "x-api-key": "k", "x-floodgate-agent": name })
      const [first, other, again] = recorded
      assert.deepStrictEqual([first!.pauseMillis, other!.pauseMillis], [undefined, undefined])
      const ended = first!.at + first!.waitedMillis + first!.answeredMillis
      assert.strictEqual(again!.pauseMillis, again!.at - ended)
      const { cacheWrittenTokens, cachedTokens, inputTokens, outputTokens } = first!
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
})
