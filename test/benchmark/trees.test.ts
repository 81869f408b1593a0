/** Recorded sessions as jobs under caps: `npm run bench -- sessions --trees` plays all of them. */
import { assert, describe, it } from "@effect/vitest"
import { Sessions } from "floodgate/testing"
import { readFileSync } from "node:fs"
import { generous, play } from "../../benchmark/sessions/trees.ts"
import { sized } from "../support/size.ts"

const text = readFileSync(new URL("../../packages/lab/src/sessions/table.ts", import.meta.url), "utf8")
const shipped = Sessions.parse(/`(session,[^`]*)`/.exec(text)![1]!).sessions
const starting = shipped.filter(({ lead }) => lead.turns.some(({ subAgents }) => subAgents.length > 0))
const sessions = sized(starting, shipped)

const turnsOf = (): number => sessions.reduce((sum, { lead }) => sum + lead.turns.length, 0)

describe("recorded sessions under caps on their jobs", () => {
  it("are never refused by generous ones, with their sub-agents", async () => {
    const played = await play(sessions, generous)
    assert.deepStrictEqual(played.refused, [])
    assert.deepStrictEqual([starting.length, played.jobs, played.used.depth], [2, sessions.length, 1])
    assert.isAbove(played.calls, turnsOf())
    assert.isAtLeast(played.subAgents, 5)
    assert.isAbove(played.used.dollars, 1)
  })

  it("are refused by caps that are too narrow for them", async () => {
    const { refused } = await play(sessions, { agents: 2, calls: 20 })
    assert.isTrue(refused.some((message) => message.includes("may have at most 2 agents in all")))
    assert.isTrue(refused.some((message) => message.includes("so no further call was sent")))
  })
})
