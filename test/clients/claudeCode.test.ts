/**
 * Claude Code itself with the hook of examples/claude-code, through the gateway. A script takes the place of the model. It starts all
 * sub-agents in one message, and starts those again that the hook refused. `FLOODGATE_CLAUDE` names the binary; without it, nothing
 * runs. `FLOODGATE_AGENTS` is the number of sub-agents. With `FLOODGATE_TEST_SIZE=full`, its time is also compared with that without the
 * hook.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import type { LlmProvider } from "floodgate"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { ProviderServer } from "floodgate/testing/server"
import { writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { blocksOf, claudeCodeIn, homeFor, maxMillis, type Message, run, task, textOf } from "./programs.ts"

const claude = process.env["FLOODGATE_CLAUDE"]
const hook = resolve(import.meta.dirname, "../../examples/claude-code/before-sub-agent.mjs")
const count = Number(process.env["FLOODGATE_AGENTS"] ?? 8)
const isWhole = process.env["FLOODGATE_TEST_SIZE"] === "full"
const filesOf = (count: number) => Array.from({ length: count }, (_, index) => `file-${index + 1}.ts`)

/** What the lead agent has heard of each file: that its sub-agent has started, that it was refused, or its review. */
const heardOf = (messages: ReadonlyArray<Message>) => {
  const blocks = messages.flatMap(blocksOf)
  const fileOf = new Map<string, string>()
  const state = new Map<string, "started" | "refused" | "reviewed">()
  for (const block of blocks) {
    if (block.type === "tool_use") fileOf.set(block.id, (block.input as { prompt?: string }).prompt?.slice(7) ?? "none")
    if (block.type === "tool_result") {
      state.set(fileOf.get(block.tool_use_id)!, textOf(block).includes("launched successfully") ? "started" : "refused")
    }
    for (const [, file] of textOf(block).matchAll(/Reviewed (file-\d+\.ts)/g)) state.set(file!, "reviewed")
  }
  const latest = messages.slice(messages.findLastIndex(({ role }) => role === "assistant") + 1).flatMap(blocksOf)
  const refusal = latest.map(textOf).find((said) => said.includes("hook error"))
  return { state, refusal }
}

const sleep = (seconds: string) => ({
  type: "tool_use" as const,
  name: "Bash",
  input: { command: `sleep ${seconds}`, description: "Wait" }
})

/** The model of a sub-agent answers at once. That of the lead agent waits if the hook has refused some, as it says. */
const replying =
  (files: ReadonlyArray<string>) =>
  ({ messages }: LlmProvider.Params) => {
    const said = messages.flatMap(blocksOf).map(textOf).join("\n")
    if (!said.includes("Review all files"))
      return `Reviewed ${/Review (file-\d+\.ts)/.exec(said)?.[1]}. ${"A finding. ".repeat(100)}`
    const { refusal, state } = heardOf(messages)
    const isRunning = [...state.values()].includes("started")
    const open = files.filter((file) => !["started", "reviewed"].includes(state.get(file) ?? ""))
    if (open.length === 0) return isRunning ? "I wait." : "All files are reviewed."
    if (refusal === undefined) return open.map(task)
    return isRunning ? "I wait." : [sleep(/Wait for (\d+) s/.exec(refusal)![1]!)]
  }

/** An event of Claude Code, as far as it is of interest here. */
interface Told {
  readonly subtype?: string
  readonly description?: string
  readonly parent_tool_use_id?: string | null
  readonly message?: Message
}

/** The most sub-agents at once, and what happened, from the events that Claude Code prints. */
const historyOf = (out: string) => {
  let running = 0
  let most = 0
  const transcript: Array<string> = []
  for (const line of out.trim().split("\n")) {
    const told = JSON.parse(line) as Told
    if (told.subtype === "task_started") {
      most = Math.max(most, ++running)
      transcript.push(`started: ${told.description}`)
    }
    if (told.subtype === "api_retry") transcript.push(`failed: ${line}`)
    if (told.subtype === "task_notification") {
      running--
      transcript.push("ended: a sub-agent")
    }
    for (const block of told.message === undefined || told.parent_tool_use_id ? [] : blocksOf(told.message)) {
      if (block.type === "tool_use") transcript.push(`lead: ${block.name} ${JSON.stringify(block.input)}`)
      else if (block.type === "text") transcript.push(`lead: ${block.text}`)
      else if (textOf(block).includes("hook error")) transcript.push(`refused: ${textOf(block)}`)
    }
  }
  return { most, transcript }
}

/** What happened in a run of Claude Code. */
interface Ran {
  readonly seconds: number
  /** The most sub-agents at once. */
  readonly most: number
  readonly rejected: number
  /** The last conversation of the lead agent. */
  readonly messages: ReadonlyArray<Message>
  /** What each file's sub-agent has come to. */
  readonly states: ReadonlyArray<string | undefined>
  /** How many names the gateway has for sub-agents. */
  readonly names: number
}

type Rate = { readonly perSecond: number; readonly burst: number }

/** Runs Claude Code in front of a provider that counts all tokens, and starts a sub-agent for each file. */
const runOf = (count: number, rate: Rate, isHooked = true): Effect.Effect<Ran> =>
  Effect.gen(function* () {
    const files = filesOf(count)
    const limits = { tokens: rate }
    const asked: Array<LlmProvider.Params> = []
    const server = yield* ProviderServer.make({
      limits,
      reply: (params) => {
        asked.push(params)
        return replying(files)(params)
      }
    })
    const budget = Agents.layer.pipe(Layer.provide(Budget.layer({ limits })))
    const live = yield* Layer.build(Layer.provideMerge(Governor.layer(), budget))
    const { url } = yield* Effect.provide(Gateway.make({ upstreams: { anthropic: server.url } }), live)
    const home = yield* homeFor("claude")
    const settings = join(home, "settings.json")
    const command = `"${process.execPath}" "${hook}" --wait`
    const hooks = { PreToolUse: [{ matcher: "Task|Agent", hooks: [{ type: "command", command, timeout: 30 }] }] }
    writeFileSync(settings, JSON.stringify(isHooked ? { hooks } : {}))
    const began = performance.now()
    const options = [
      "--settings",
      settings,
      "--output-format",
      "stream-json",
      "--verbose",
      "--allowedTools",
      "Task,Agent,Bash(sleep:*)"
    ]
    const args = ["-p", "Review all files.", "--model", "claude-sonnet-5", ...options]
    // By itself, Claude Code runs at most 20 at once.
    const env = {
      ...claudeCodeIn(home, url),
      FLOODGATE_GATEWAY_URL: url,
      CLAUDE_CODE_MAX_CONCURRENT_SUBAGENTS: `${count}`
    }
    const { code, out } = yield* Effect.promise(() => run(claude!, args, home, env))
    const seconds = (performance.now() - began) / 1_000
    const { most, transcript } = historyOf(out)
    if (process.env["FLOODGATE_TABLE"] !== undefined) console.log(transcript.join("\n"))
    assert.strictEqual(code, 0, out.slice(-2_000))
    const { messages } = asked.findLast(({ messages }) => JSON.stringify(messages).includes("Review all files"))!
    const { state } = heardOf(messages)
    const names = yield* Effect.promise(async () => {
      const status = (await (await fetch(`${url}/floodgate/status`)).json()) as {
        readonly agents: ReadonlyArray<{ readonly name: string }>
      }
      return new Set(status.agents.map(({ name }) => name).filter((name) => name.includes("/"))).size
    })
    const { rejected } = yield* server.stats
    return { seconds, most, rejected, messages, states: files.map((file) => state.get(file)), names }
  }).pipe(Effect.scoped, Effect.orDie)

describe.skipIf(claude === undefined)("Claude Code with the hook", () => {
  it(
    "starts as many sub-agents as help, and the others a little later",
    () =>
      Effect.gen(function* () {
        // The conversation of the lead agent must fit, which is 22,000 tokens at its start.
        const rate = count > 8 ? { perSecond: 24_000, burst: 240_000 } : { perSecond: 8_000, burst: 80_000 }
        const { messages, most, names, rejected, seconds, states } = yield* runOf(count, rate)
        assert.deepStrictEqual(
          states,
          filesOf(count).map(() => "reviewed")
        )
        const said = messages.flatMap(blocksOf).map(textOf)
        assert.isTrue(
          said.some((each) => each.includes("Rate limits: ")),
          "advice reaches the conversation"
        )
        assert.isFalse(
          said.some((each) => each.includes("no further one would help")),
          "none is refused"
        )
        assert.strictEqual(names, Math.min(count, 49), "each sub-agent has a name of its own")
        console.log(`${count} sub-agents, at most ${most} at once, ${seconds.toFixed(1)} s, ${rejected} 429s`)
      }).pipe(Effect.runPromise),
    maxMillis + 10_000
  )

  // In real time, so on a machine that does nothing else. Sub-agents, burst and refill: a burst just above the lead agent's last conversation, or far above it; refilled slowly or quickly.
  const given = process.env["FLOODGATE_CELLS"]?.split(" ").map((cell) => cell.split("/").map(Number))
  const cells =
    given ??
    [8, 104].flatMap((agents) => {
      const bursts = agents === 8 ? [36_000, 200_000] : [150_000, 1_000_000]
      const rates = agents === 8 ? [8_000, 40_000] : [40_000, 100_000]
      return bursts.flatMap((burst) => rates.map((perSecond) => [agents, burst, perSecond]))
    })

  it.skipIf(!isWhole).for(cells)(
    "costs %i sub-agents at most a tenth of their time, and no 429s, with a burst of %i and a refill of %i a second",
    { timeout: 2 * maxMillis + 20_000 },
    ([agents = 0, burst = 0, perSecond = 0]) =>
      Effect.gen(function* () {
        const without = yield* runOf(agents, { burst, perSecond }, false)
        const hooked = yield* runOf(agents, { burst, perSecond })
        const ratio = hooked.seconds / without.seconds
        const shown = ({ most, rejected, seconds }: Ran) => `${seconds.toFixed(1)} s, ${most} at once, ${rejected} 429s`
        console.log(`${agents}/${burst}/${perSecond}: ${shown(without)}; hook: ${shown(hooked)}; ${ratio.toFixed(2)}`)
        for (const { states } of [without, hooked]) {
          assert.deepStrictEqual(
            states,
            filesOf(agents).map(() => "reviewed")
          )
        }
        assert.isAtMost(hooked.rejected, without.rejected)
        assert.isAtMost(ratio, 1.1)
      }).pipe(Effect.runPromise)
  )
})
