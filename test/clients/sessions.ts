/**
 * Agents of real packages at work: each makes turn after turn, with a tool that takes its time in between. A script takes the place of the
 * model. All of them speak Anthropic's protocol, so they share one limit.
 */
import { createAnthropic } from "@ai-sdk/anthropic"
import Anthropic from "@anthropic-ai/sdk"
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema"
import type { BaseMessageLike } from "@langchain/core/messages"
import type { ToolCall } from "@langchain/core/messages/tool"
import { tool } from "@langchain/core/tools"
import { ChatAnthropic } from "@langchain/anthropic"
import { Agent } from "@mastra/core/agent"
import type { MastraModelConfig } from "@mastra/core/llm"
import { createTool } from "@mastra/core/tools"
import { generateText, stepCountIs, tool as aiTool } from "ai"
import type { LlmProvider } from "floodgate"
import type { ProviderServer } from "floodgate/testing/server"
import { spawn } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { text } from "node:stream/consumers"
import { z } from "zod"

/** How much every agent does. */
export interface Effort {
  /** Turns of an agent that is cached; the others make a quarter of them, because all of their input counts. */
  readonly turns: number
  /** Seconds of a tool, from and to. */
  readonly pause: readonly [from: number, to: number]
}

/** Where the agents call, and with what. */
export interface Work extends Effort {
  readonly url: string
  readonly key: string
}

/** An agent: it resolves when it is done. */
export interface WorkingAgent {
  readonly name: string
  readonly run: (work: Work) => Promise<unknown>
}

const model = "claude-sonnet-5"
const resultLength = 8_000
const few = (turns: number): number => Math.max(2, Math.round(turns / 4))

// -----------------------------------------------------------------------------
// The model
// -----------------------------------------------------------------------------

type Block = Exclude<Anthropic.MessageParam["content"], string>[number]

const blocksOf = ({ content }: Anthropic.MessageParam): ReadonlyArray<Block> =>
  typeof content === "string" ? [{ type: "text", text: content }] : content

/** What the model is told in the first message: to work in so many steps, with or without help. */
const orderOf = (turns: number, helpers = 0): string => `Work in ${turns} steps with ${helpers} helpers.`
const ordered = /Work in (\d+) steps with (\d+) helpers\./

/** A number in [0, 1) that is the same in each run. */
const drawn = (seed: number): number => Math.abs(Math.sin(seed * 12.9898 + 78.233) * 43_758.5453) % 1

/**
 * The script: one tool for each step, and a helper in the third and the tenth step of a lead. Claude Code has its own tools; in any
 * other request the only one is `work`.
 */
export const script =
  ({ pause: [from, to] }: Effort): ProviderServer.Options["reply"] =>
  ({ messages, tools = [] }: LlmProvider.Params) => {
    const blocks = messages.flatMap(blocksOf)
    const said = blocks.flatMap((block) => (block.type === "text" ? [block.text] : [])).join("\n")
    const [, turns = "0", helpers = "0"] = ordered.exec(said) ?? []
    const done = blocks.filter(({ type }) => type === "tool_use").length
    if (done >= Number(turns)) return "Done."
    const seconds = (from + drawn(done + said.length) * (to - from)).toFixed(1)
    if (!tools.some((each) => "name" in each && each.name === "Bash"))
      return ["I work.", { type: "tool_use", name: "work", input: { seconds } }]
    if (done === 2 || done === 9) {
      if (Number(helpers) > 0)
        return Array.from({ length: Number(helpers) }, (_, number) => ({
          type: "tool_use" as const,
          name: "Task",
          input: {
            description: `Helper ${number}`,
            prompt: `Helper ${number}. ${orderOf(few(Number(turns)))}`,
            subagent_type: "general-purpose"
          }
        }))
    }
    const command = `sleep ${seconds}; head -c ${resultLength} notes.txt`
    return ["I work.", { type: "tool_use", name: "Bash", input: { command, description: "Work", timeout: 120_000 } }]
  }

const result = "What the tool has found on this page of the report. ".repeat(200).slice(0, resultLength)

const work = async (seconds: string, length = resultLength): Promise<string> => {
  await new Promise((resolve) => setTimeout(resolve, Number(seconds) * 1_000))
  return result.slice(0, length)
}

// -----------------------------------------------------------------------------
// The agents
// -----------------------------------------------------------------------------

/** Claude Code as a process, in a folder of its own and without anything of this machine in its environment. */
const claudeCode =
  (binary: string, helpers: number): WorkingAgent["run"] =>
  async ({ key, turns, url }) => {
    const home = mkdtempSync(join(tmpdir(), "floodgate-claude-"))
    mkdirSync(join(home, "tmp"))
    writeFileSync(join(home, "notes.txt"), result)
    const args = ["-p", orderOf(turns, helpers), "--model", model, "--allowedTools", "Task,Agent,Bash"]
    const child = spawn(binary, args, {
      cwd: home,
      env: {
        PATH: process.env["PATH"]!,
        HOME: home,
        TMPDIR: join(home, "tmp"),
        ANTHROPIC_BASE_URL: url,
        ANTHROPIC_AUTH_TOKEN: key,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1"
      },
      stdio: ["ignore", "pipe", "pipe"]
    })
    const ended = new Promise<number | null>((resolve) => child.on("close", resolve))
    const [out, errors] = await Promise.all([text(child.stdout), text(child.stderr)])
    const code = await ended
    rmSync(home, { recursive: true, force: true })
    if (code !== 0) throw new Error(`Claude Code ended with ${String(code)}: ${`${out}${errors}`.slice(-1_000)}`)
  }

const description = "Works for some seconds, and returns a page."
const named = (name: string) => ({ "x-floodgate-agent": name })

const toolRunner =
  (name: string): WorkingAgent["run"] =>
  async ({ key, turns, url }) => {
    const client = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 2, defaultHeaders: named(name) })
    await client.beta.messages.toolRunner({
      model,
      max_tokens: 2_000,
      cache_control: { type: "ephemeral" },
      messages: [{ role: "user", content: orderOf(turns) }],
      tools: [
        betaTool({
          name: "work",
          description,
          inputSchema: { type: "object", properties: { seconds: { type: "string" } }, required: ["seconds"] },
          run: ({ seconds }) => work(seconds as string)
        })
      ]
    })
  }

const aiSdk =
  (name: string): WorkingAgent["run"] =>
  async ({ key, turns, url }) => {
    const anthropic = createAnthropic({ baseURL: `${url}/v1`, apiKey: key, headers: named(name) })
    await generateText({
      model: anthropic(model),
      prompt: orderOf(few(turns)),
      stopWhen: stepCountIs(few(turns) + 1),
      tools: {
        work: aiTool({
          description,
          inputSchema: z.object({ seconds: z.string() }),
          execute: ({ seconds }) => work(seconds, resultLength / 2)
        })
      }
    })
  }

const mastra =
  (name: string): WorkingAgent["run"] =>
  async ({ key, turns, url }) => {
    const anthropic = createAnthropic({ baseURL: `${url}/v1`, apiKey: key, headers: named(name) })
    const agent = new Agent({
      id: "worker",
      name: "worker",
      instructions: "Work in steps.",
      // Mastra declares models of the AI SDK in a form of its own.
      model: anthropic(model) as unknown as MastraModelConfig,
      tools: {
        work: createTool({
          id: "work",
          description,
          inputSchema: z.object({ seconds: z.string() }),
          execute: ({ seconds }) => work(seconds, resultLength / 2)
        })
      }
    })
    await agent.generate(orderOf(few(turns)), { maxSteps: few(turns) + 1 })
  }

const langChain =
  (name: string): WorkingAgent["run"] =>
  async ({ key, turns, url }) => {
    const page = tool(({ seconds }: { readonly seconds: string }) => work(seconds, resultLength / 2), {
      name: "work",
      description,
      schema: z.object({ seconds: z.string() })
    })
    const chat = new ChatAnthropic({
      model,
      apiKey: key,
      maxTokens: 2_000,
      anthropicApiUrl: url,
      clientOptions: { defaultHeaders: named(name) }
    }).bindTools([page])
    const messages: Array<BaseMessageLike> = [{ role: "user", content: orderOf(few(turns)) }]
    for (;;) {
      const answer = await chat.invoke(messages)
      const called = answer.tool_calls ?? []
      if (called.length === 0) return
      messages.push(answer, ...(await Promise.all(called.map((each) => page.invoke(each as ToolCall)))))
    }
  }

/** All agents. `binary` is that of Claude Code, without which its own are left out. */
export const agents = (binary: string | undefined): ReadonlyArray<WorkingAgent> => [
  ...(binary === undefined
    ? []
    : [
        { name: "Claude Code with helpers", run: claudeCode(binary, 2) },
        { name: "Claude Code, second", run: claudeCode(binary, 0) },
        { name: "Claude Code, third", run: claudeCode(binary, 0) }
      ]),
  ...[1, 2, 3].map((number) => ({ name: `Anthropic SDK ${number}`, run: toolRunner(`sdk-${number}`) })),
  { name: "AI SDK", run: aiSdk("ai-sdk") },
  { name: "Mastra", run: mastra("mastra") },
  { name: "LangChain", run: langChain("langchain") }
]
