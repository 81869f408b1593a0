/** Whose a request is, by what its client sends. */
import { assert, describe, it } from "@effect/vitest"
import { protocols } from "floodgate/protocol"
import { Lineage } from "floodgate/internal"
import { recordedClients } from "../support/recordedHeaders.ts"

const { agentInHeaders, agentOf, jobSizeOf, lineageOf, namesOf } = Lineage

const reader = (headers: Readonly<Record<string, string>>) => (name: string) => headers[name]
const names = (headers: Readonly<Record<string, string>>) =>
  namesOf({ agentOf: agentInHeaders }, undefined, reader(headers))

describe("lineage", () => {
  for (const { calls, client } of recordedClients) {
    it(`is read from what ${client} sent`, () => {
      for (const { headers, lineage } of calls) {
        assert.deepStrictEqual(lineageOf(reader(headers), undefined), lineage)
        const agent = lineage?.subAgent === undefined ? lineage?.session : `${lineage.session}/${lineage.subAgent}`
        assert.deepStrictEqual(names(headers), { job: lineage?.session, agent, session: lineage?.session })
      }
    })
  }

  it("has the size of the job that a request states, if it is a number", () => {
    assert.strictEqual(jobSizeOf(reader({ "x-floodgate-job-size": "250000" })), 250_000)
    for (const bad of ["", " ", "-1", "1e400", "many", "1".repeat(13)])
      assert.isUndefined(jobSizeOf(reader({ "x-floodgate-job-size": bad })))
    assert.isUndefined(jobSizeOf(reader({})))
  })

  it("is that of old Codex, which wrote underscores", () => {
    const header = reader({ session_id: "s", conversation_id: "t" })
    assert.deepStrictEqual(lineageOf(header, undefined), { session: "s", subAgent: "t", parent: undefined })
    assert.strictEqual(lineageOf(reader({ conversation_id: "t" }), undefined)?.session, "t")
  })

  it("has the session of the body for a sub-agent of Claude Code without that header", () => {
    const header = reader({ "x-claude-code-agent-id": "a" })
    const body = { metadata: { user_id: JSON.stringify({ session_id: "s/1" }) } }
    assert.deepStrictEqual(namesOf(protocols.anthropic, body, header), { job: "s/1", agent: "s/1/a", session: "s/1" })
    assert.deepStrictEqual(names({ "x-claude-code-agent-id": "a" }), {
      job: undefined,
      agent: undefined,
      session: undefined
    })
  })

  it("leaves the agent to our own header, and the job to another one", () => {
    const sub = { "x-claude-code-session-id": "s", "x-claude-code-agent-id": "a" }
    assert.deepStrictEqual(names({ ...sub, "x-floodgate-agent": "a7" }), { job: "s", agent: "a7", session: "a7" })
    const claimed = { "x-floodgate-agent": "team/a", "x-claude-code-agent-id": "a" }
    assert.strictEqual(names(claimed).session, "team/a")
    assert.deepStrictEqual(names({ ...sub, "x-floodgate-job": "j" }), { job: "j", agent: "s/a", session: "s" })
    assert.deepStrictEqual(names({ "x-floodgate-job": "j" }), { job: "j", agent: undefined, session: undefined })
    assert.deepStrictEqual(names({ "x-floodgate-agent": "a7" }), { job: undefined, agent: "a7", session: "a7" })
  })

  it("leaves the agent to the body, if the headers of a session can be an application's own", () => {
    const header = reader({ "session-id": "s", "x-session-id": "x" })
    assert.strictEqual(agentOf(header, undefined, "bob"), "bob")
    for (const protocol of [protocols.openaiChat, protocols.openaiResponses]) {
      assert.deepStrictEqual(namesOf(protocol, { user: "bob" }, header), { job: "x", agent: "bob", session: "bob" })
    }
  })

  it("has no names that are empty or longer than 512 characters", () => {
    const long = "n".repeat(513)
    for (const bad of ["", long]) {
      const bare = {
        "x-floodgate-job": bad,
        "x-floodgate-agent": bad,
        "x-claude-code-session-id": bad,
        "x-claude-code-agent-id": bad,
        "x-session-id": bad,
        "session-id": bad,
        "thread-id": bad
      }
      assert.deepStrictEqual(names(bare), { job: undefined, agent: undefined, session: undefined })
    }
    const longest = "n".repeat(512)
    assert.strictEqual(names({ "x-floodgate-job": longest }).job, longest)
    // A name that is no name does not hide what the client says.
    assert.strictEqual(names({ "x-floodgate-job": long, "x-claude-code-session-id": "s" }).job, "s")
  })
})
