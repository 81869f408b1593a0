import { assert, describe, it } from "@effect/vitest"
import { Sessions } from "floodgate/testing"

const head = "session,path,pause,input,cached,output"

const turn = (fields: Partial<Sessions.SessionTurn>): Sessions.SessionTurn => ({
  inputTokens: 1,
  cachedTokens: 0,
  outputTokens: 0,
  pauseMillis: 0,
  subAgents: [],
  ...fields
})

describe("Sessions", () => {
  describe("parse", () => {
    it("reads turns, pauses and sub-agents", () => {
      const { sessions, unreadable } = Sessions.parse(
        [
          head,
          "a,0,0,100,0,5",
          ",0/7,0.25,40,0,3",
          ",0/7/2,0,20,0,1",
          ",0/7,,60,40,4",
          ",0,3,160,100,6",
          "b,,1,50,0,2"
        ].join("\n")
      )
      assert.deepStrictEqual(unreadable, [])
      const nested = { path: "0/7/2", turns: [turn({ inputTokens: 20, outputTokens: 1 })] }
      const sub = {
        path: "0/7",
        turns: [
          turn({ inputTokens: 40, outputTokens: 3, pauseMillis: 250, subAgents: [nested] }),
          turn({ inputTokens: 60, cachedTokens: 40, outputTokens: 4 })
        ]
      }
      assert.deepStrictEqual(sessions, [
        {
          name: "a",
          lead: {
            path: "0",
            turns: [
              turn({ inputTokens: 100, outputTokens: 5, subAgents: [sub] }),
              turn({ inputTokens: 160, cachedTokens: 100, outputTokens: 6, pauseMillis: 3_000 })
            ]
          }
        },
        { name: "b", lead: { path: "0", turns: [turn({ inputTokens: 50, outputTokens: 2, pauseMillis: 1_000 })] } }
      ])
    })

    it("reads columns by name, in any order, and ignores others, comments and empty lines", () => {
      const text =
        "\uFEFF# from a proxy\r\n\r\noutput,model,think_seconds,cached,path,session,input\r\n5,opus,2,0,0,a,100\r\n# end\r\n"
      assert.deepStrictEqual(Sessions.parse(text), {
        sessions: [
          { name: "a", lead: { path: "0", turns: [turn({ inputTokens: 100, outputTokens: 5, pauseMillis: 2_000 })] } }
        ],
        unreadable: []
      })
    })

    it("joins the turns of sessions whose lines are mixed", () => {
      const { sessions } = Sessions.parse([head, "a,0,0,10,0,1", "b,0,0,20,0,1", "a,0,0,30,10,1"].join("\n"))
      assert.deepStrictEqual(
        sessions.map(({ lead, name }) => [name, lead.turns.map(({ inputTokens }) => inputTokens)]),
        [
          ["a", [10, 30]],
          ["b", [20]]
        ]
      )
    })

    it("skips damaged lines and names each", () => {
      const damaged = [
        "a,0,0,0,0,1",
        "a,0,0,10,11,1",
        "a,0,0,10.5,0,1",
        "a,0,0,10,0,-1",
        "a,0,0,10,0",
        "a,0,soon,10,0,1",
        "a,0,1e9,10,0,1",
        "a,1,0,10,0,1",
        "a,0/3/1,0,10,0,1",
        "a,0/x,0,10,0,1",
        "a,0,0,1e12,0,1"
      ]
      const { sessions, unreadable } = Sessions.parse([head, "a,0,0,10,0,1", ...damaged, "a,0,0,20,10,1"].join("\n"))
      assert.deepStrictEqual(
        sessions.map(({ lead }) => lead.turns.length),
        [2]
      )
      assert.deepStrictEqual(
        unreadable.map(({ line }) => line),
        damaged.map((_, index) => index + 3)
      )
      assert.deepStrictEqual(
        unreadable.map(({ problem }) => problem.slice(0, problem.indexOf(":"))),
        ["input", "cached", "input", "output", "output", "pause", "pause", "path", "path", "path", "input"]
      )
      assert.include(unreadable.find(({ line }) => line === 11)?.problem, "a line of 0/3 above the first one of 0/3/1")
    })

    it("skips lines before the first session, and names them", () => {
      const { sessions, unreadable } = Sessions.parse([head, ",0,0,10,0,1"].join("\n"))
      assert.deepStrictEqual(sessions, [])
      assert.deepStrictEqual(unreadable, [{ line: 2, problem: "session: expected a name, got nothing" }])
    })

    it("expects the columns on the first line", () => {
      for (const text of ["", "TIMESTAMP,ContextTokens\n1,2", "session,path,pause,input,cached\na,0,0,1,0"]) {
        const { sessions, unreadable } = Sessions.parse(text)
        assert.deepStrictEqual(sessions, [])
        assert.deepStrictEqual(
          unreadable.map(({ line }) => line),
          [1]
        )
        assert.include(unreadable[0]?.problem, `expected the columns ${head}`)
      }
    })
  })

  describe("format", () => {
    it("writes what parse reads, and repeats nothing", () => {
      const text = `${head}\na,0,0,100,0,5\n,0/7,0.25,40,0,3\n,,1,60,40,4\n,0,3,160,100,6\nb,0,1,50,0,2\n,,2,70,50,2\n`
      assert.strictEqual(Sessions.format(Sessions.parse(text).sessions), text)
    })
  })
})
