/**
 * A team's gateways as processes: clients with keys of three teams, through two gateways and one Redis. What each team got, by the
 * metrics and the page of both gateways, must be what the clients were told and what the provider has counted.
 *
 * `FLOODGATE_CLAUDE` and `FLOODGATE_CODEX` name the binaries of Claude Code and Codex, which then take part.
 */
import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import { GoogleGenAI } from "@google/genai"
import * as Effect from "effect/Effect"
import { ProviderServer } from "floodgate/testing/server"
import { type ChildProcess, spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import OpenAI from "openai"
import { skipped, start } from "../../packages/redis/test/server.ts"

const teams = ["search", "ads", "research"] as const
type Team = (typeof teams)[number]
const keyOf = (team: Team): string => `fg-${team}-0123456789`
const token = "0123456789abcdef"
const bin = join(import.meta.dirname, "../../packages/cli/src/bin.ts")

interface Usage {
  readonly input: number
  readonly output: number
}

/** A client's calls through a gateway, and the usage that it was told; undefined if it does not say. */
interface Member {
  readonly name: string
  readonly team: Team
  readonly work: (url: string, key: string) => Promise<Usage | undefined>
}

const calls = 3
const text = "What must an operator know about rate limits? ".repeat(40)

/** Adds up the usage of calls that run together. */
const together = async (call: () => Promise<Usage>): Promise<Usage> => {
  const all = await Promise.all(Array.from({ length: calls }, call))
  return {
    input: all.reduce((sum, { input }) => sum + input, 0),
    output: all.reduce((sum, { output }) => sum + output, 0)
  }
}

const messages = [{ role: "user" as const, content: text }]

const anthropic = (url: string, key: string) => new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 })
const openai = (url: string, key: string) => new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 })

const create = (url: string, key: string) =>
  together(async () => {
    const { usage } = await anthropic(url, key).messages.create({ model: "claude-sonnet-5", max_tokens: 100, messages })
    return { input: usage.input_tokens, output: usage.output_tokens }
  })

const streamed = (url: string, key: string) =>
  together(async () => {
    const stream = anthropic(url, key).messages.stream({ model: "claude-sonnet-5", max_tokens: 100, messages })
    const { usage } = await stream.finalMessage()
    return { input: usage.input_tokens, output: usage.output_tokens }
  })

const chat = (url: string, key: string) =>
  together(async () => {
    const { usage } = await openai(url, key).chat.completions.create({ model: "gpt-6-sol", messages })
    return { input: usage!.prompt_tokens, output: usage!.completion_tokens }
  })

const responses = (url: string, key: string) =>
  together(async () => {
    const { usage } = await openai(url, key).responses.create({ model: "gpt-6-sol", input: text })
    return { input: usage!.input_tokens, output: usage!.output_tokens }
  })

const embeddings = (url: string, key: string) =>
  together(async () => {
    const input = [text, text]
    const { usage } = await openai(url, key).embeddings.create({ model: "text-embedding-3-small", input })
    return { input: usage.prompt_tokens, output: 0 }
  })

const gemini = (url: string, key: string) =>
  together(async () => {
    const client = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: url } })
    const { usageMetadata } = await client.models.generateContent({ model: "gemini-2.5-flash", contents: text })
    return { input: usageMetadata!.promptTokenCount!, output: usageMetadata!.candidatesTokenCount! }
  })

const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 20))
}

/** Runs an agent's program once, without anything of this machine in its environment. */
const program =
  (binary: string, args: ReadonlyArray<string>, env: Record<string, string>) => async (): Promise<undefined> => {
    const home = mkdtempSync(join(tmpdir(), "floodgate-agent-"))
    const child = spawn(binary, args, {
      cwd: home,
      env: { PATH: process.env["PATH"]!, HOME: home, ...env },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let said = ""
    child.stdout.on("data", (chunk) => (said += chunk))
    child.stderr.on("data", (chunk) => (said += chunk))
    const code = await new Promise((resolve) => child.on("close", resolve))
    rmSync(home, { recursive: true, force: true })
    if (code !== 0) throw new Error(`${binary} ended with ${String(code)}: ${said.slice(-1_000)}`)
  }

const claudeCode = (url: string, key: string) =>
  program(process.env["FLOODGATE_CLAUDE"]!, ["-p", "Say hello.", "--model", "claude-sonnet-5"], {
    ANTHROPIC_BASE_URL: url,
    ANTHROPIC_AUTH_TOKEN: key,
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1"
  })()

const codex = (url: string, key: string) => {
  const home = mkdtempSync(join(tmpdir(), "floodgate-codex-"))
  mkdirSync(home, { recursive: true })
  writeFileSync(join(home, "config.toml"), `openai_base_url = "${url}/v1"\nmodel = "gpt-6-sol"\n`)
  return program(process.env["FLOODGATE_CODEX"]!, ["exec", "--skip-git-repo-check", "Say hello."], {
    CODEX_HOME: home,
    OPENAI_API_KEY: key,
    CODEX_API_KEY: key
  })()
}

const members: ReadonlyArray<Member> = [
  { name: "Anthropic SDK, create", team: "search", work: create },
  { name: "Anthropic SDK, create, again", team: "search", work: create },
  { name: "Anthropic SDK, streamed", team: "search", work: streamed },
  { name: "openai, chat", team: "ads", work: chat },
  { name: "openai, chat, again", team: "ads", work: chat },
  { name: "openai, responses", team: "ads", work: responses },
  { name: "openai, embeddings", team: "research", work: embeddings },
  { name: "genai", team: "research", work: gemini },
  { name: "genai, again", team: "research", work: gemini },
  { name: "Anthropic SDK, streamed, of research", team: "research", work: streamed },
  ...(process.env["FLOODGATE_CLAUDE"] === undefined
    ? []
    : [{ name: "Claude Code", team: "search" as const, work: claudeCode }]),
  ...(process.env["FLOODGATE_CODEX"] === undefined ? [] : [{ name: "Codex", team: "ads" as const, work: codex }])
]

/** Starts a gateway. */
const gateway = async (folder: string, redis: string, children: Array<ChildProcess>): Promise<string> => {
  const args = ["gateway", "--port", "0", "--config", join(folder, "gateway.json"), "--redis", redis]
  const child = spawn(process.execPath, ["--conditions=@floodgate/source", bin, ...args], {
    cwd: folder,
    env: { PATH: process.env["PATH"]!, FLOODGATE_GATEWAY_TOKEN: token, KEY: "sk-provider-0123456789" },
    stdio: ["ignore", "pipe", "pipe"]
  })
  children.push(child)
  let said = ""
  child.stdout.on("data", (chunk) => (said += chunk))
  child.stderr.on("data", (chunk) => (said += chunk))
  await until(() => /listening on http:\/\/\S+\n/.test(said) || child.exitCode !== null)
  const [, url] = /listening on (http:\/\/\S+)/.exec(said) ?? []
  if (url === undefined) throw new Error(said)
  return url
}

/** What a gateway has counted by team: tokens, from its metrics, and dollars, from its metrics and from its page. */
const counted = async (url: string) => {
  const headers = { "x-floodgate-token": token }
  const metrics = await (await fetch(`${url}/metrics`, { headers })).text()
  const sum = (name: string, team: Team, label = ""): number =>
    [...metrics.matchAll(new RegExp(`^${name}\\{(.*)\\} (\\S+)$`, "gm"))]
      .filter(([, labels = ""]) => labels.includes(`key="${team}"`) && labels.includes(label))
      .reduce((sum, [, , value]) => sum + Number(value), 0)
  const page = (await (await fetch(`${url}/floodgate/status`, { headers })).json()) as {
    readonly keys: ReadonlyArray<{ readonly name: string; readonly inputTokens: number; readonly dollars: number }>
  }
  return (team: Team) => ({
    input: sum("floodgate_gateway_tokens", team, 'direction="input"'),
    output: sum("floodgate_gateway_tokens", team, 'direction="output"'),
    dollars: sum("floodgate_gateway_cost_dollars", team),
    page: page.keys.find(({ name }) => name === team)
  })
}

describe.skipIf(skipped !== undefined)("a team's gateways", () => {
  it("count for each team what its clients were told, and together what the provider has counted", async () => {
    const redis = await start()
    const children: Array<ChildProcess> = []
    const folder = mkdtempSync(join(tmpdir(), "floodgate-team-"))
    const run = Effect.gen(function* () {
      const provider = yield* ProviderServer.make({
        limits: { requests: { perMinute: 600, burst: 10 } },
        latency: { baseMillis: 20, perInputTokenMillis: 0, perOutputTokenMillis: 1 },
        outputTokens: 40,
        headers: "exact"
      })
      const sha256 = (key: string) => createHash("sha256").update(key).digest("hex")
      writeFileSync(
        join(folder, "gateway.json"),
        JSON.stringify({
          upstreams: { anthropic: provider.url, openai: provider.url, gemini: provider.url },
          credentials: { anthropic: "env:KEY", openai: "env:KEY", gemini: "env:KEY" },
          keys: teams.map((name) => ({ name, sha256: sha256(keyOf(name)) })),
          rules: teams.map((name) => ({ name, key: name, cap: { dollars: 100, per: "day", reserve: "expected" } }))
        })
      )
      yield* Effect.promise(async () => {
        const urls = [await gateway(folder, redis.url, children), await gateway(folder, redis.url, children)]
        const told = await Promise.all(
          members.map(async ({ name, team, work }, index) => {
            const usage = await work(urls[index % 2]!, keyOf(team)).catch((error: unknown) => {
              throw new Error(`${name}: ${String(error)}`)
            })
            return { team, usage }
          })
        )
        const both = await Promise.all(urls.map(counted))
        const stats = await Effect.runPromise(provider.stats)
        const total = { input: 0, output: 0 }
        for (const team of teams) {
          const found = both.map((of) => of(team))
          const sum = (of: (one: (typeof found)[number]) => number) => found.reduce((sum, one) => sum + of(one), 0)
          const got = { input: sum(({ input }) => input), output: sum(({ output }) => output) }
          const own = told.filter((one) => one.team === team).map(({ usage }) => usage)
          if (!own.includes(undefined)) {
            const input = own.reduce((sum, usage) => sum + usage!.input, 0)
            assert.deepStrictEqual(got, { input, output: own.reduce((sum, usage) => sum + usage!.output, 0) }, team)
          }
          assert.strictEqual(
            sum(({ page }) => page?.inputTokens ?? 0),
            got.input,
            `${team}: the page`
          )
          const difference = sum(({ page }) => page?.dollars ?? 0) - sum(({ dollars }) => dollars)
          assert.isBelow(Math.abs(difference), 1e-9, `${team}: dollars of the page`)
          assert.isAbove(
            sum(({ dollars }) => dollars),
            0,
            team
          )
          total.input += got.input
          total.output += got.output
          if (process.env["FLOODGATE_TABLE"] !== undefined) {
            console.log(team, { ...got, dollars: sum(({ dollars }) => dollars) })
          }
        }
        if (process.env["FLOODGATE_TABLE"] !== undefined) console.log("provider", stats)
        assert.deepStrictEqual(total, { input: stats.inputTokens, output: stats.outputTokens })
      })
    }).pipe(Effect.scoped)
    try {
      await Effect.runPromise(run)
    } finally {
      for (const child of children) child.kill("SIGKILL")
      rmSync(folder, { recursive: true, force: true })
      await redis.stop()
    }
  })
})
