import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { format, inputTokens } from "floodgate/internal/testing"
import { LlmProvider } from "floodgate/LlmProvider"
import { ProviderSim, Sessions, Simulation } from "floodgate/testing"

const head = "session,path,pause,input,cached,output"

type SessionTurn = Sessions.SessionAgent["turns"][number]
type ScriptedCall = Sessions.AgentScript["calls"][number]

const turn = (fields: Partial<SessionTurn>): SessionTurn => ({
  inputTokens: 1,
  cachedTokens: 0,
  outputTokens: 0,
  pauseMillis: 0,
  subAgents: [],
  ...fields
})

const flat = ({ calls }: Sessions.AgentScript): ReadonlyArray<ScriptedCall> =>
  calls.flatMap((call) => [call, ...call.subAgents.flatMap(flat)])

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

    it("takes any name for a session, and bounds how deep sub-agents are", () => {
      const deep = (levels: number) => Array.from({ length: levels }, (_, level) => `,0${"/1".repeat(level)},0,10,0,1`)
      const text = [head, "__proto__,0,0,10,0,1", "constructor,0,0,10,0,1", "a,0,0,10,0,1", ...deep(50)].join("\n")
      const { sessions, unreadable } = Sessions.parse(text)
      assert.deepStrictEqual(
        sessions.map(({ name }) => name),
        ["__proto__", "constructor", "a"]
      )
      assert.strictEqual(unreadable.length, 50 - 33)
      assert.strictEqual(flat(Sessions.script(sessions[2]!)).length, 1 + 33)
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
      assert.strictEqual(format(Sessions.parse(text).sessions), text)
    })
  })

  /** A lead whose second turn starts two sub-agents, and whose conversation is rewritten in its fourth turn and again in its fifth. */
  const table = `${head}
job,0,1,16000,0,300
,,5,17000,15936,200
,0/1,0,12000,0,100
,,2,14000,11968,100
,0/2,0,13000,0,100
,0,20,19000,16960,250
,,3,18000,15000,150
,,3,9000,0,150`

  const session = Sessions.parse(table).sessions[0]!

  const textsOf = ({ messages }: ScriptedCall["params"]): ReadonlyArray<string> =>
    messages.flatMap(({ content }) =>
      typeof content === "string" ? [content] : content.map((block) => (block.type === "text" ? block.text : ""))
    )

  describe("script", () => {
    it("makes prompts of the sizes of the table, which repeat what is cached", () => {
      const calls = flat(Sessions.script(session))
      assert.deepStrictEqual(
        calls.map(({ agent, index, inputTokens, outputTokens }) => [agent, index, inputTokens, outputTokens]),
        [
          ["job", 0, 16_000, 300],
          ["job", 1, 17_000, 200],
          ["job/1", 0, 12_000, 100],
          ["job/1", 1, 14_000, 100],
          ["job/2", 0, 13_000, 100],
          ["job", 2, 19_000, 250],
          ["job", 3, 18_000, 150],
          ["job", 4, 9_000, 150]
        ]
      )
      for (const call of calls) assert.strictEqual(inputTokens(call.params), call.inputTokens)
      const [first, second, , , , third, rewritten, other] = calls.map(({ params }) => textsOf(params))
      assert.deepStrictEqual(second!.slice(0, 1), first)
      assert.deepStrictEqual(third!.slice(0, 3), second)
      // Tools and system prompt are the same until less than them is cached.
      assert.strictEqual(rewritten!.length, 1)
      assert.notStrictEqual(rewritten![0], first![0])
      const systemOf = (index: number) => JSON.stringify(calls[index]!.params.system)
      for (const index of [1, 2, 4, 6]) assert.strictEqual(systemOf(index), systemOf(0))
      assert.notStrictEqual(systemOf(7), systemOf(0))
      assert.strictEqual(other!.length, 1)
    })

    it("sets a breakpoint at the last tool, at the system prompt, and at the last two messages of the user", () => {
      const { params } = flat(Sessions.script(session))[5]!
      const marked = (value: unknown): boolean => JSON.stringify(value).includes("cache_control")
      assert.deepStrictEqual(params.tools?.map(marked), [...Array.from({ length: 7 }, () => false), true])
      assert.deepStrictEqual((params.system as ReadonlyArray<unknown>).map(marked), [true])
      assert.deepStrictEqual(
        params.messages.map((message) => [message.role, marked(message)]),
        [
          ["user", false],
          ["assistant", false],
          ["user", true],
          ["assistant", false],
          ["user", true]
        ]
      )
    })

    it("shares tools and system prompt within a session only", () => {
      const one = Sessions.script(session)
      const other = Sessions.script({ ...session, name: "other" })
      assert.notDeepEqual(one.calls[0]!.params.tools, other.calls[0]!.params.tools)
      assert.notDeepEqual(one.calls[0]!.params.system, other.calls[0]!.params.system)
    })

    it("scales sizes, caps pauses and names the model", () => {
      const [first, second] = Sessions.script(session, {
        scale: 10,
        maxPause: "2 seconds",
        model: "claude-opus-5"
      }).calls
      assert.deepStrictEqual(
        [first!.inputTokens, second!.inputTokens, second!.outputTokens, second!.params.max_tokens],
        [1_600, 1_700, 20, 3_200]
      )
      assert.deepStrictEqual(
        [first!.pauseMillis, second!.pauseMillis, second!.params.model],
        [1_000, 2_000, "claude-opus-5"]
      )
    })

    it("refuses invalid options", () => {
      assert.throws(
        () => Sessions.script(session, { scale: 0 }),
        /Sessions.script: scale: expected a finite number > 0, got 0/
      )
      assert.throws(
        () => Sessions.script(session, { maxPause: "soon" as never }),
        /Sessions.script: maxPause: expected/
      )
    })
  })

  describe("run", () => {
    const script = Sessions.script(session)

    it("waits for pauses and sub-agents, and starts sub-agents of a turn at once", () =>
      Effect.runPromise(
        Effect.gen(function* () {
          const starts: Array<[string, number]> = []
          const { value } = yield* Simulation.run(
            Effect.gen(function* () {
              const start = yield* Clock.currentTimeMillis
              yield* Sessions.run(script, ({ agent, index }) =>
                Effect.flatMap(Clock.currentTimeMillis, (now) => {
                  starts.push([`${agent}/${index}`, (now - start) / 1_000])
                  return Effect.sleep(index === 1 && agent === "job/1" ? "30 seconds" : "1 second")
                })
              )
              return ((yield* Clock.currentTimeMillis) - start) / 1_000
            })
          )
          assert.deepStrictEqual(starts, [
            ["job/0", 1],
            ["job/1", 7],
            ["job/1/0", 8],
            ["job/2/0", 8],
            ["job/1/1", 11],
            // The pause of 20 seconds would be over at 28.
            ["job/2", 41],
            ["job/3", 45],
            ["job/4", 49]
          ])
          assert.strictEqual(value, 50)
        })
      ))

    it("lets an agent go on while sub-agents work in the background", () =>
      Effect.runPromise(
        Effect.gen(function* () {
          const small = turn({ inputTokens: 1_000 })
          const slow = (path: string, turnsMeanwhile: number) => ({ path, turns: [small], turnsMeanwhile })
          const turns = [turn({ inputTokens: 1_000, subAgents: [slow("0/1", 1), slow("0/2", Infinity)] }), small, small]
          const starts: Array<[string, number]> = []
          const { duration } = yield* Simulation.run(
            Sessions.run(Sessions.script({ name: "job", lead: { path: "0", turns } }), ({ agent, index }) =>
              Effect.flatMap(Clock.currentTimeMillis, (now) => {
                starts.push([`${agent}/${index}`, now])
                const lasts = { "job/1": "10 seconds", "job/2": "50 seconds" } as const
                return Effect.sleep(agent === "job" ? "1 second" : lasts[agent as keyof typeof lasts])
              })
            )
          )
          const begin = starts[0]![1]
          assert.deepStrictEqual(
            starts.map(([name, at]) => [name, (at - begin) / 1_000]),
            [
              ["job/0", 0],
              ["job/1", 1],
              ["job/1/0", 1],
              ["job/2/0", 1],
              // It waits for the first of them, and not for the second.
              ["job/2", 11]
            ]
          )
          assert.strictEqual(Duration.toSeconds(duration), 51)
        })
      ))

    it("reads from the cache of the provider what it says, and answers as long as the table says", () =>
      Effect.runPromise(
        Effect.gen(function* () {
          const { value: log } = yield* Simulation.run(
            Effect.gen(function* () {
              const { create } = yield* LlmProvider
              yield* Sessions.run(script, ({ params }) => create(params))
              return yield* (yield* ProviderSim.ProviderSim).log
            }).pipe(Effect.provide(ProviderSim.layer({ cache: "breakpoints", ...Sessions.providerOptions([script]) })))
          )
          const byName = new Map(flat(script).map((call) => [`${call.agent} ${call.inputTokens}`, call]))
          assert.strictEqual(log.length, byName.size)
          for (const { agent, cacheReadTokens = 0, inputTokens, outputTokens } of log) {
            const call = byName.get(`${agent} ${inputTokens + cacheReadTokens}`)
            assert.deepStrictEqual([cacheReadTokens, outputTokens], [call?.cachedTokens, call?.outputTokens])
          }
          const reads = flat(script).map(({ cachedTokens }) => cachedTokens)
          const shared = reads[2]!
          assert.isAbove(shared, 10_000)
          assert.deepStrictEqual(reads, [0, 16_000, shared, 12_000, shared, 17_000, shared, 0])
        })
      ))

    it("ends with the first failure", () =>
      Effect.runPromise(
        Effect.gen(function* () {
          const made: Array<string> = []
          const { value } = yield* Simulation.run(
            Effect.flip(
              Sessions.run(script, ({ agent, index }) => {
                made.push(`${agent}/${index}`)
                return agent === "job/2" ? Effect.fail("lost") : Effect.void
              })
            )
          )
          assert.strictEqual(value, "lost")
          assert.deepStrictEqual(made, ["job/0", "job/1", "job/1/0", "job/2/0"])
        })
      ))
  })
})
