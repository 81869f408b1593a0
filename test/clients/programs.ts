/** Agents' programs as processes, and what a conversation of Claude Code says. */
import type Anthropic from "@anthropic-ai/sdk"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { text } from "node:stream/consumers"

export type Message = Anthropic.MessageParam
type Block = Exclude<Message["content"], string>[number]

export const blocksOf = ({ content }: Message): ReadonlyArray<Block> =>
  typeof content === "string" ? [{ type: "text", text: content }] : content

/** What a block says, as the answer of a tool or as text. */
export const textOf = (block: Block): string => {
  if (block.type === "text") return block.text
  return block.type === "tool_result" ? JSON.stringify(block.content) : ""
}

/** The call that starts a sub-agent. */
export const task = (file: string) => ({
  type: "tool_use" as const,
  name: "Task",
  input: { description: `Review ${file}`, prompt: `Review ${file}`, subagent_type: "general-purpose" }
})

/** A folder for the files of a program, which is removed in the end. */
export const homeFor = (name: string): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const home = mkdtempSync(join(tmpdir(), `floodgate-${name}-`))
      mkdirSync(join(home, "tmp"))
      return home
    }),
    (home) => Effect.sync(() => rmSync(home, { recursive: true, force: true }))
  )

/** The environment of Claude Code, without anything of this machine. */
export const claudeCodeIn = (home: string, url: string): Record<string, string> => ({
  PATH: process.env["PATH"]!,
  HOME: home,
  TMPDIR: join(home, "tmp"),
  ANTHROPIC_BASE_URL: url,
  ANTHROPIC_AUTH_TOKEN: "any",
  CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1"
})

/** The environment of Codex, whose settings are written to its home. */
export const codexIn = (home: string, url: string, ...settings: ReadonlyArray<string>): Record<string, string> => {
  mkdirSync(join(home, ".codex"), { recursive: true })
  const config = [`openai_base_url = "${url}/v1"`, 'model = "gpt-5.2-codex"', ...settings]
  writeFileSync(join(home, ".codex", "config.toml"), config.join("\n"))
  return { PATH: process.env["PATH"]!, HOME: home, CODEX_API_KEY: "any" }
}

/** Longer than it takes, so that a program that hangs does not stay behind. */
export const maxMillis = 240_000

/** Runs a program in a folder until it ends. */
export const run = async (
  binary: string,
  args: ReadonlyArray<string>,
  home: string,
  env: Record<string, string>
): Promise<{ readonly code: number | null; readonly out: string }> => {
  const child = spawn(binary, args, { cwd: home, env, stdio: ["ignore", "pipe", "pipe"] })
  const slow = setTimeout(() => child.kill("SIGKILL"), maxMillis)
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve))
  const [out] = await Promise.all([text(child.stdout), text(child.stderr)])
  const code = await ended
  clearTimeout(slow)
  return { code, out }
}
