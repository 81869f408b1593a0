import { assert, describe, it } from "@effect/vitest"
import { Stepwise } from "floodgate/internal"
import type { Sessions } from "floodgate/testing"
import { sized } from "../../../test/support/size.ts"
import { Recorded } from "../src/internal.ts"

const head =
  "TIMESTAMP,ContextTokens,GeneratedTokens,Model,Agent,WaitSeconds,Session,Parent,CachedTokens,CacheWrittenTokens,PauseSeconds,AnswerSeconds"

interface Line {
  readonly at: number
  readonly agent?: string
  readonly parent?: string
  readonly session?: string
  readonly model?: string
  readonly input?: number
  readonly cached?: number
  readonly written?: number
  readonly output?: number
  readonly wait?: number
  readonly answer?: number
}

/** A line; times are in seconds since the first. */
const line = ({
  agent = "a",
  answer = 2,
  at,
  cached = 0,
  input = 1_000,
  model = "claude-sonnet-5",
  output = 10,
  parent = "",
  session = "s",
  wait = 0,
  written = 0
}: Line): string => {
  const time = new Date(Date.UTC(2026, 11, 1) + 1_000 * at).toISOString().replace("T", " ").replace("Z", "")
  return [
    time,
    input,
    output,
    model,
    agent,
    wait.toFixed(3),
    session,
    parent,
    cached,
    written,
    "",
    answer.toFixed(3)
  ].join()
}

const read = (...lines: ReadonlyArray<Line | string>) =>
  Stepwise.drained(
    Recorded.parseSteps(`${[head, ...lines.map((one) => (typeof one === "string" ? one : line(one)))].join("\n")}\n`)
  )

/** An agent as a text: its turns as `pause:input/cached`, each with the sub-agents under it. */
const shown = ({ path, turns, turnsMeanwhile = 0 }: Sessions.SessionAgent): string => {
  const each = turns.map(({ cachedTokens, inputTokens, pauseMillis, subAgents }) =>
    [`${pauseMillis / 1_000}:${inputTokens}/${cachedTokens}`, ...subAgents.map((agent) => `(${shown(agent)})`)].join("")
  )
  return `${path}${turnsMeanwhile === 0 ? "" : `+${turnsMeanwhile}`} ${each.join(" ")}`
}

const leads = (...lines: ReadonlyArray<Line>): ReadonlyArray<string> =>
  read(...lines).sessions.map(({ lead }) => shown(lead))

describe("Recorded", () => {
  it("reads turns, the pauses between them, and when sessions began", () => {
    assert.deepStrictEqual(
      leads(
        { at: 0, wait: 1, answer: 4 },
        { at: 12, input: 3_000, cached: 1_000 },
        { at: 3, session: "t", agent: "b" }
      ),
      ["0 0:1000/0 7:3000/1000", "0 3:1000/0"]
    )
  })

  it("says how long the sessions took, and which models they used", () => {
    const { meanEndSeconds, models, seconds } = read(
      { at: 0, answer: 4 },
      { at: 10, wait: 5, answer: 5, model: "claude-haiku-5", session: "t" },
      { at: 6, answer: 4 }
    )
    assert.deepStrictEqual([seconds, meanEndSeconds], [20, 15])
    assert.deepStrictEqual(models, ["claude-sonnet-5", "claude-haiku-5"])
  })

  it("puts a sub-agent under the turn that started it, and lets the next turn wait for it", () => {
    const sub = { agent: "b", parent: "a" }
    assert.deepStrictEqual(leads({ at: 0 }, { at: 3, ...sub }, { at: 8, ...sub }, { at: 11 }), [
      // The turn comes one second after the end of the sub-agent.
      "0 0:1000/0(0/1 1:1000/0 3:1000/0) 1:1000/0"
    ])
  })

  it("takes a turn that comes much later than the end of a sub-agent for one that waited for something else", () => {
    const sub = { agent: "b", parent: "a" }
    assert.deepStrictEqual(leads({ at: 0 }, { at: 3, ...sub }, { at: 60 }), ["0 0:1000/0(0/1 1:1000/0) 58:1000/0"])
  })

  it("knows sub-agents of sub-agents, and those whose parent is not in the file", () => {
    assert.deepStrictEqual(
      leads(
        { at: 0 },
        { at: 3, agent: "b", parent: "a" },
        { at: 6, agent: "c", parent: "b" },
        { at: 20, agent: "d", parent: "gone" }
      ),
      ["0 0:1000/0(0/1+Infinity 1:1000/0(0/1/1+Infinity 1:1000/0))(0/2+Infinity 18:1000/0)"]
    )
  })

  it("lets an agent make turns while a sub-agent works in the background", () => {
    assert.deepStrictEqual(
      leads({ at: 0 }, { at: 2.5, agent: "b", parent: "a", answer: 10 }, { at: 3 }, { at: 6 }, { at: 13 }),
      ["0 0:1000/0(0/1+2 0.5:1000/0) 1:1000/0 1:1000/0 0.5:1000/0"]
    )
  })

  it("plays calls of one agent that overlap, and those of another model, at its side", () => {
    assert.deepStrictEqual(
      leads({ at: 0 }, { at: 1, input: 50 }, { at: 4 }, { at: 4.5, input: 60 }, { at: 7, model: "claude-haiku-5" }),
      ["0 0:1000/0(0/1+Infinity 0:50/0 1.5:60/0) 2:1000/0(0/2+Infinity 1:1000/0)"]
    )
  })

  it("takes a prompt that is not shorter for a continued one after the cache has forgotten it", () => {
    const conversation = (pause: number, input: number) => [
      { at: 0, input: 5_000, written: 5_000 },
      { at: 2 + pause, input, cached: 0, written: input }
    ]
    assert.deepStrictEqual(leads(...conversation(300, 6_000)), ["0 0:5000/0 300:6000/5000"])
    // A compaction, a rewrite, and a client that does not cache.
    assert.deepStrictEqual(leads(...conversation(300, 4_000)), ["0 0:5000/0 300:4000/0"])
    assert.deepStrictEqual(leads(...conversation(299, 6_000)), ["0 0:5000/0 299:6000/0"])
    assert.deepStrictEqual(leads({ at: 0, input: 5_000 }, { at: 400, input: 6_000 }), ["0 0:5000/0 398:6000/0"])
  })

  it("has no circles, whatever parents a file names", () => {
    const [one] = leads({ at: 0, agent: "a", parent: "b" }, { at: 5, agent: "b", parent: "a" }, { at: 9, agent: "a" })
    assert.strictEqual(one, "0 0:1000/0(0/1 3:1000/0) 2:1000/0")
  })

  it("is not overwhelmed by a long chain of agents, or by many at once", () => {
    const length = sized(2_000, 5_000)
    const chain = Array.from({ length }, (_, at) => ({ at, agent: `a${at}`, parent: `a${at - 1}`, answer: 0.5 }))
    const many = Array.from({ length }, (_, at) => ({ at: 1 + at / 1_000, agent: "lead", answer: 100 }))
    for (const lines of [chain, [{ at: 0, agent: "lead" }, ...many]]) {
      const count = ({ turns }: Sessions.SessionAgent): number =>
        turns.reduce((sum, { subAgents }) => subAgents.reduce((all, agent) => all + count(agent), sum + 1), 0)
      assert.strictEqual(count(read(...lines).sessions[0]!.lead), lines.length)
    }
  })

  it("fits the latency to the answers", () => {
    const { latency } = read({ at: 0, output: 100, answer: 3.5 }, { at: 5, output: 300, answer: 6.5 })
    assert.deepStrictEqual([latency?.baseMillis, latency?.perOutputTokenMillis], [2_000, 15])
    // Neither part is below zero.
    const odd = read({ at: 0, output: 100, answer: 5 }, { at: 9, output: 300, answer: 1 }).latency!
    assert.deepStrictEqual(odd, { baseMillis: 3_000, perOutputTokenMillis: 0 })
    const steep = read({ at: 0, output: 100, answer: 1 }, { at: 9, output: 200, answer: 9 }).latency!
    assert.strictEqual(steep.baseMillis, 0)
  })

  it("skips damaged lines, and names each with what is wrong", () => {
    const good = line({ at: 0 })
    const { sessions, unreadable } = read(
      good,
      "torn,1",
      good.replace("2026-12-01 00", "yesterday 00"),
      good.replace(",1000,", ",many,"),
      good.replace(",s,", ",,"),
      good.replace(/\d\.\d+$/, "-1"),
      good.replace(",0,0,", ",1001,0,"),
      "",
      line({ at: 9 })
    )
    assert.strictEqual(sessions[0]?.lead.turns.length, 2)
    assert.deepStrictEqual(
      unreadable.map(({ line, problem }) => `${line} ${problem.slice(0, 40)}`),
      [
        "3 expected 12 cells, got 2",
        "4 TIMESTAMP: expected a time such as 2026-",
        "5 ContextTokens: expected a whole number o",
        "6 Session: expected a name, got nothing",
        "7 AnswerSeconds: expected a number of seco",
        "8 CachedTokens: expected at most the 1000 "
      ]
    )
  })

  it("reads any text without an error, and columns in any order", () => {
    for (const text of ["", head, `${head}\n\n`, "\uFEFF", `${head}\n,,,,,,,,,,,`, `${head}\n${"x".repeat(1e6)}`]) {
      assert.deepStrictEqual(Stepwise.drained(Recorded.parseSteps(text)).sessions, [])
    }
    const swapped = [head, line({ at: 0 })].map((one) => one.split(",").reverse().join(",")).join("\n")
    assert.deepStrictEqual(Stepwise.drained(Recorded.parseSteps(swapped)).sessions, read({ at: 0 }).sessions)
  })

  it("tells recordings from traces and tables", () => {
    assert.strictEqual(Recorded.kindOf(head), "recording")
    assert.strictEqual(Recorded.kindOf("TIMESTAMP,ContextTokens,GeneratedTokens,Model,Agent,WaitSeconds\n"), "trace")
    assert.strictEqual(Recorded.kindOf("Timestamp,Model,Request tokens,Response tokens\n"), "trace")
    assert.strictEqual(Recorded.kindOf("session,path,pause,input,cached,output\n"), "other")
  })
})
