/**
 * Measures the way from an empty folder to the first governed call, for each client: commands, lines and seconds. It packs
 * this repository, installs it beside the client with npm, and runs the program against the simulated provider.
 *
 *     npm run build && npm run example scripts/firstCall.ts [client]...
 *
 * It needs a package registry. `--docs` writes the table in docs/figures/clients.md.
 */
import { execFileSync, spawn, spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { seconds } from "../src/domain/words.ts"
import { environmentAt } from "../test/support/recipes.ts"

const root = join(import.meta.dirname, "..")
const at = mkdtempSync(join(tmpdir(), "floodgate-"))

/** A client: the packages installed beside Floodgate, and the whole program. */
interface First {
  readonly packages: ReadonlyArray<string>
  readonly program: string
}

const around = (imports: string, call: string): string => `${imports}
import * as Floodgate from "floodgate/promise"
const floodgate = Floodgate.create()
${call}
await floodgate.dispose()
`

const effect = `import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
const ask = LlmClient.create({ model: "claude-sonnet-5", max_tokens: 100, messages: [{ role: "user", content: "Why?" }] })
const live = LlmClient.layerConfig().pipe(Layer.provide(Budget.layer()))
console.log(LlmClient.text(await Effect.runPromise(Effect.provide(ask, live))))
`

const firsts: Readonly<Record<string, First>> = {
  "@anthropic-ai/sdk": {
    packages: ["@anthropic-ai/sdk"],
    program: around(
      `import Anthropic from "@anthropic-ai/sdk"`,
      `const client = new Anthropic({ middleware: [floodgate.middleware] })
const messages = [{ role: "user", content: "Why?" }]
console.log((await client.messages.create({ model: "claude-sonnet-5", max_tokens: 100, messages })).content)`
    )
  },
  openai: {
    packages: ["openai"],
    program: around(
      `import OpenAI from "openai"`,
      `const client = new OpenAI({ fetch: floodgate.fetch, maxRetries: 0 })
console.log((await client.responses.create({ model: "gpt-6", input: "Why?" })).output_text)`
    )
  },
  "ai, @ai-sdk/anthropic": {
    packages: ["ai", "@ai-sdk/anthropic"],
    program: around(
      `import { generateText } from "ai"
import { createAnthropic } from "@ai-sdk/anthropic"`,
      `const anthropic = createAnthropic({ fetch: floodgate.fetch, baseURL: process.env.ANTHROPIC_BASE_URL + "/v1" })
console.log((await generateText({ model: anthropic("claude-sonnet-5"), prompt: "Why?", maxRetries: 0 })).text)`
    )
  },
  "@langchain/openai": {
    packages: ["@langchain/openai", "@langchain/core"],
    program: around(
      `import { ChatOpenAI } from "@langchain/openai"`,
      `const model = new ChatOpenAI({ model: "gpt-6", configuration: { fetch: floodgate.fetch }, maxRetries: 0 })
console.log((await model.invoke("Why?")).content)`
    )
  },
  "@google/genai": {
    packages: ["@google/genai"],
    program: around(
      `import { GoogleGenAI } from "@google/genai"`,
      `const ai = new GoogleGenAI({ apiKey: process.env.GEMINI_API_KEY, httpOptions: { fetch: floodgate.fetch } })
console.log((await ai.models.generateContent({ model: "gemini-3-flash", contents: "Why?" })).text)`
    )
  },
  "@llamaindex/openai": {
    packages: ["@llamaindex/openai", "@llamaindex/core", "@llamaindex/env"],
    program: around(
      `import { OpenAI } from "@llamaindex/openai"`,
      `const llm = new OpenAI({ model: "gpt-6", maxRetries: 0, additionalSessionOptions: { fetch: floodgate.fetch } })
console.log((await llm.complete({ prompt: "Why?" })).text)`
    )
  },
  "Effect, with @anthropic-ai/sdk": { packages: ["@anthropic-ai/sdk"], program: effect }
}

const run = (command: string, args: ReadonlyArray<string>, cwd: string, env = process.env) => {
  const start = performance.now()
  const { status, stderr, stdout } = spawnSync(command, args, { cwd, encoding: "utf8", env, timeout: 300_000 })
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${status}\n${stdout}\n${stderr}`)
  return { seconds: (performance.now() - start) / 1_000, stdout }
}

/** The simulated provider as a process of its own, and the number of requests it has answered. */
const provider = async () => {
  const child = spawn(
    process.execPath,
    ["--conditions=@floodgate/source", join(root, "packages/cli/src/bin.ts"), "provider", "--port", "0", "--any"],
    { stdio: ["ignore", "pipe", "ignore"] }
  )
  const url = await new Promise<string>((resolve) =>
    child.stdout.once("data", (data: Buffer) => resolve(/http:\S+/.exec(data.toString())![0]))
  )
  const asked = async (): Promise<number> => {
    const stats = (await (await fetch(`${url}/stats`)).json()) as { readonly completed: number }
    return stats.completed
  }
  return { url, asked, stop: () => child.kill("SIGTERM") }
}

const names = process.argv.slice(2).filter((name) => name !== "--docs")
const pack = execFileSync("npm", ["pack", "--silent", "--pack-destination", at], { cwd: root, encoding: "utf8" })
const tarball = join(at, pack.trim().split("\n").at(-1)!)
const { asked, stop, url } = await provider()

const rows = ["| client | commands | lines | `npm i` | first call |", "| --- | ---: | ---: | ---: | ---: |"]
try {
  for (const [name, { packages, program }] of Object.entries(firsts)) {
    if (names.length > 0 && !names.includes(name)) continue
    const folder = join(at, String(rows.length))
    mkdirSync(folder)
    const before = await asked()
    const installed = run("npm", ["i", "--no-audit", "--no-fund", "--silent", tarball, "effect", ...packages], folder)
    writeFileSync(join(folder, "ask.mjs"), program)
    const called = run(process.execPath, ["ask.mjs"], folder, environmentAt(url))
    if ((await asked()) !== before + 1)
      throw new Error(`${name}: expected one request to the provider\n${called.stdout}`)
    const lines = program.split("\n").filter((line) => line !== "").length
    rows.push(`| ${name} | 2 | ${lines} | ${seconds(installed.seconds)} | ${seconds(called.seconds)} |`)
    console.log(rows.at(-1))
  }
} finally {
  stop()
  rmSync(at, { recursive: true, force: true })
}

if (process.argv.includes("--docs")) {
  const page = join(root, "docs/figures/clients.md")
  const text = readFileSync(page, "utf8")
  const [begin, end] = ["<!-- first -->", "<!-- /first -->"]
  const [before, after] = [text.indexOf(begin), text.indexOf(end)]
  if (before === -1 || after === -1) throw new Error(`${page} has no place for the table`)
  writeFileSync(page, `${text.slice(0, before + begin.length)}\n\n${rows.join("\n")}\n\n${text.slice(after)}`)
}
