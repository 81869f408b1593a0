/**
 * Programs of agents under a cap on the agents of a job: each lead starts 40 sub-agents, and the gateway lets 20 agents begin. A script
 * takes the place of the model. `FLOODGATE_CLAUDE` and `FLOODGATE_CODEX` name the binaries of Claude Code and Codex, and
 * `FLOODGATE_AGENT_SDK` the module of the Agent SDK; without these, nothing runs.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Gateway from "@floodgate/gateway"
import type { LlmProvider } from "floodgate"
import { ProviderServer } from "floodgate/testing/server"
import { gatewayTo } from "../support/gateway.ts"
import { serve } from "../support/httpServer.ts"
import { blocksOf, claudeCodeIn, codexIn, homeFor, maxMillis, run, task, textOf } from "./programs.ts"

const { FLOODGATE_AGENT_SDK: sdk, FLOODGATE_CLAUDE: claude, FLOODGATE_CODEX: codex } = process.env

const count = 40
/** With the lead. */
const cap = 20
const begun = cap - 1
const refused = count - begun

const order = "Review all files."
const limits = { requests: { perMinute: 1e6 } }

interface Seen {
  readonly agents: number
  readonly refused: number
  readonly depth: number
}

/** A gateway that caps the agents of a job, and the only job's agents so far. */
const capped = Effect.fnUntraced(function* (upstream: string, agents: number, rules?: Gateway.Options["rules"]) {
  const { url } = yield* gatewayTo(upstream, { rules: rules ?? [{ capPerJob: { agents } }] }, limits)
  const seen = Effect.promise(async () => {
    const { trees } = (await (await fetch(`${url}/floodgate/status`)).json()) as { readonly trees: ReadonlyArray<Seen> }
    return trees.map(({ agents, depth, refused }) => ({ agents, refused, depth }))
  })
  return { url, seen }
})

/** How often calls of each agent were refused that had any refused. */
const refusals = (url: string) =>
  Effect.promise(async () => {
    const { agents } = (await (await fetch(`${url}/floodgate/status`)).json()) as {
      readonly agents: ReadonlyArray<{ readonly refused: number }>
    }
    return agents.map(({ refused }) => refused).filter((refused) => refused > 0)
  })

const times = (said: string, text: string | RegExp): number => said.split(text).length - 1

// -----------------------------------------------------------------------------
// Claude Code and the Agent SDK
// -----------------------------------------------------------------------------

/** How a conversation has heard of sub-agents: of those that the lead starts later, of those of a sub-agent as answers of its tool. */
const heardOf = (said: string) => ({
  ended: times(said, "<status>completed</status>"),
  refused: times(
    said,
    /Agent terminated early due to an API error: API Error: 400 the job \S+ of \S+ may have at most 20/
  )
})

/** The lead waits for all, and does what was refused itself. With `nested`, 8 sub-agents start 4 each. */
const scripted = (nested: boolean, asked: Array<string>) => {
  const first = nested ? 8 : count
  return ({ messages }: LlmProvider.Params) => {
    const blocks = messages.flatMap(blocksOf)
    const said = blocks.map(textOf).join("\n")
    asked.push(said)
    const isNew = blocks.every(({ type }) => type !== "tool_result")
    if (!said.includes(order)) {
      const file = /Review (file-\S+)/.exec(said)?.[1]
      const starts = nested && isNew && !/-\d+-/.test(file!)
      return starts ? Array.from({ length: 4 }, (_, index) => task(`${file}-${index + 1}`)) : `Reviewed ${file}.`
    }
    if (isNew) return Array.from({ length: first }, (_, index) => task(`file-${index + 1}`))
    const heard = heardOf(said)
    if (heard.ended + heard.refused < first) return "I wait."
    return `${heard.ended} files were reviewed by agents, and ${heard.refused} by me.`
  }
}

type Start = (home: string, env: Record<string, string>) => Promise<string>

/** A lead whose own call is refused ends with an error. */
const throughCli: Start = async (home, env) => {
  const options = ["--output-format", "stream-json", "--verbose", "--allowedTools", "Task,Agent"]
  const { out } = await run(claude!, ["-p", order, "--model", "claude-sonnet-5", ...options], home, env)
  return out
}

const throughSdk: Start = async (cwd, env) => {
  const { query } = (await import(sdk!)) as { readonly query: (asked: object) => AsyncIterable<unknown> }
  const options = { cwd, env, model: "claude-sonnet-5", allowedTools: ["Task", "Agent"] }
  let out = ""
  try {
    for await (const message of query({ prompt: order, options })) out += `${JSON.stringify(message)}\n`
  } catch (error) {
    out += String(error)
  }
  return out
}

interface OfClaude {
  readonly out: string
  readonly seen: ReadonlyArray<Seen>
  readonly asked: ReadonlyArray<string>
  readonly url: string
}

/** Runs a lead, and returns what it printed, the agents that the gateway has seen, and the last conversation of each agent. */
const ofClaude = Effect.fnUntraced(function* (
  start: Start,
  {
    agents = cap,
    nested = false,
    rules
  }: { readonly agents?: number; readonly nested?: boolean; readonly rules?: Gateway.Options["rules"] } = {}
): Effect.fn.Return<OfClaude, never, Scope.Scope> {
  const asked: Array<string> = []
  const server = yield* Effect.orDie(ProviderServer.make({ limits, reply: scripted(nested, asked) }))
  const { seen, url } = yield* Effect.orDie(capped(server.url, agents, rules))
  const home = yield* homeFor("trees")
  // Claude Code itself runs 20 sub-agents at once at most.
  const env = { ...claudeCodeIn(home, url), CLAUDE_CODE_MAX_CONCURRENT_SUBAGENTS: "100" }
  const out = yield* Effect.promise(() => start(home, env))
  return { out, seen: yield* seen, asked, url }
})

for (const [name, start, program] of [
  ["Claude Code", throughCli, claude],
  ["the Agent SDK", throughSdk, sdk]
] as const) {
  describe.skipIf(program === undefined)(`agents of ${name}`, () => {
    it.live(
      "sends no refused sub-agent again, tells its lead why, and goes on",
      () =>
        Effect.gen(function* () {
          const { asked, out, seen } = yield* ofClaude(start)
          assert.deepStrictEqual(seen, [{ agents: cap, refused, depth: 1 }])
          const told = asked.findLast((said) => said.includes(order))!
          assert.deepStrictEqual(heardOf(told), { ended: begun, refused })
          assert.include(told, "may not start: do the rest yourself, or with the agents that run")
          assert.include(out, `${begun} files were reviewed by agents, and ${refused} by me.`)
        }),
      maxMillis
    )

    it.live(
      "tells the sub-agents that start others, too",
      () =>
        Effect.gen(function* () {
          const { asked, out, seen } = yield* ofClaude(start, { nested: true })
          assert.deepStrictEqual(seen, [{ agents: cap, refused, depth: 2 }])
          const parents = asked.filter((said) => !said.includes(order) && said.includes("terminated early"))
          assert.strictEqual(
            parents.reduce((sum, said) => sum + heardOf(said).refused, 0),
            refused
          )
          assert.include(out, "8 files were reviewed by agents, and 0 by me.")
        }),
      maxMillis
    )

    it.live(
      "sends no call again of a job that has spent what it may",
      () =>
        Effect.gen(function* () {
          const { out, url } = yield* ofClaude(start, { rules: [{ capPerJob: { calls: 10 } }] })
          assert.include(out, "end your work with what you have")
          const all = (yield* refusals(url)).sort((one, other) => other - one)
          assert.isAtLeast(all.length, 2)
          // The lead begins a turn for agents that have ended, and each of its turns is refused.
          assert.isAtMost(all[0]!, 5)
          assert.deepStrictEqual(new Set(all.slice(1)), new Set([1]))
        }),
      maxMillis
    )

    it.live(
      "is never refused under a generous cap",
      () =>
        Effect.gen(function* () {
          const { out, seen } = yield* ofClaude(start, { agents: 100 })
          assert.deepStrictEqual(seen, [{ agents: 1 + count, refused: 0, depth: 1 }])
          assert.include(out, `${count} files were reviewed by agents, and 0 by me.`)
        }),
      maxMillis
    )
  })
}

// -----------------------------------------------------------------------------
// Codex
// -----------------------------------------------------------------------------

interface ResponsesRequest {
  readonly input: unknown
}

/** The tools of Codex have a namespace. */
const use = (name: string, input: object, id: number) => ({
  type: "function_call",
  id: `fc_${id}`,
  call_id: `call_${id}`,
  namespace: "multi_agent_v1",
  name,
  arguments: JSON.stringify(input),
  status: "completed"
})

/** The lead starts all agents, and waits until each has ended or failed. */
const codexReply = (said: string, id: number): ReadonlyArray<object> => {
  const answer = (text: string) => [
    {
      type: "message",
      id: `msg_${id}`,
      role: "assistant",
      status: "completed",
      content: [{ type: "output_text", text, annotations: [] }]
    }
  ]
  if (!said.includes(order)) return answer("Reviewed.")
  const started = [...said.matchAll(/agent_id[\\":]+([\w-]+)/g)].map(([, agent]) => agent!)
  if (started.length === 0) {
    const messages = Array.from({ length: count }, (_, index) => `Review file-${index + 1}`)
    return messages.map((message, index) => use("spawn_agent", { message }, id + index))
  }
  const ended = new Set([...said.matchAll(/agent_path[\\":]+([\w-]+)/g)].map(([, agent]) => agent))
  const targets = started.filter((agent) => !ended.has(agent))
  return targets.length === 0 ? answer("All have ended.") : [use("wait_agent", { targets, timeout_ms: 10_000 }, id)]
}

describe.skipIf(codex === undefined)("Codex", () => {
  const lead = Effect.fnUntraced(function* (agents: number, rules?: Gateway.Options["rules"]) {
    let told = ""
    let id = 0
    const { url: upstream } = yield* serve((_, response, body) => {
      const said = JSON.stringify((JSON.parse(body) as ResponsesRequest).input)
      if (said.includes(order)) told = said
      id += 100
      const output = codexReply(said, id)
      const usage = { input_tokens: 100, output_tokens: 5, total_tokens: 105 }
      const events = [
        { type: "response.created", response: { id: `resp_${id}`, status: "in_progress" } },
        ...output.map((item, index) => ({ type: "response.output_item.done", output_index: index, item })),
        { type: "response.completed", response: { id: `resp_${id}`, status: "completed", output, usage } }
      ]
      response.writeHead(200, { "content-type": "text/event-stream" })
      response.end(events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join(""))
    })
    const { seen, url } = yield* capped(upstream, agents, rules)
    const home = yield* homeFor("codex")
    const env = codexIn(home, url, "[agents]", "max_threads = 60")
    const args = ["exec", "--json", "--skip-git-repo-check", order]
    const { code, out } = yield* Effect.promise(() => run(codex!, args, home, env))
    return { url, code, told, out, seen: yield* seen }
  })

  it.live(
    "sends no refused sub-agent again, and tells its lead why",
    () =>
      Effect.gen(function* () {
        const { code, out, seen, told } = yield* lead(cap)
        assert.strictEqual(code, 0, out.slice(-2_000))
        assert.deepStrictEqual(seen, [{ agents: cap, refused, depth: 1 }])
        const failed = new Set(
          [...told.matchAll(/agent_path[\\":]+([\w-]+)[\\",]+status[\\":{]+errored/g)].map(([, id]) => id)
        )
        assert.strictEqual(failed.size, refused)
        assert.isAtLeast(times(told, "may not start: do the rest yourself, or with the agents that run"), refused)
        assert.include(out, "All have ended.")
      }),
    maxMillis
  )

  it.live(
    "is never refused under a generous cap",
    () =>
      Effect.gen(function* () {
        const { out, seen } = yield* lead(100)
        assert.deepStrictEqual(seen, [{ agents: 1 + count, refused: 0, depth: 1 }])
        assert.include(out, "All have ended.")
      }),
    maxMillis
  )

  it.live(
    "sends no call again for which a cap in dollars has no room",
    () =>
      Effect.gen(function* () {
        const { out, url } = yield* lead(100, [{ cap: { dollars: 1e-6 } }])
        assert.match(out, /the cap for all callers cannot be enforced/)
        assert.deepStrictEqual(yield* refusals(url), [1])
      }),
    maxMillis
  )

  it.live(
    "sends no call again of a job that has spent what it may",
    () =>
      Effect.gen(function* () {
        const { out, url } = yield* lead(100, [{ capPerJob: { calls: 10 } }])
        assert.include(out, "end your work with what you have")
        const all = yield* refusals(url)
        assert.isAtLeast(all.length, 2)
        assert.isTrue(
          all.every((refused) => refused === 1),
          String(all)
        )
      }),
    maxMillis
  )
})
