/** Small programs without Floodgate, one for each recipe of the skill, and a run of each after its recipe was applied. */
import * as Effect from "effect/Effect"
import type * as Budget from "floodgate/Budget"
import { ProviderServer } from "floodgate/testing/server"
import { execFile } from "node:child_process"
import { applyRecipe } from "../../scripts/applyRecipe.ts"

const around = (setup: string, call: string): string => `${setup}\n\nconst prompt = "Why?"\n${call}\n`

const messages = `const request = { model: "claude-sonnet-5", max_tokens: 50, messages: [{ role: "user", content: prompt }] }`

/** Programs of the promise API print the status of their floodgate at the end. */
const promised = `
console.log(JSON.stringify(await floodgate.status()))
await floodgate.dispose()
`

/** The status of a budget lives as long as its layer, so this makes the call again under a layer of its own. */
const inEffect = `
const status = Effect.andThen(program, Effect.flatMap(Budget.TokenBudget, ({ status }) => status))
console.log(JSON.stringify(await Effect.runPromise(Effect.provide(status, Layer.merge(live, budget)))))
`

interface Small {
  readonly recipe: string
  readonly program: string
  /** Code that prints the status of the budget. */
  readonly probe: string
  /** How many calls the provider sees, with those of the probe. */
  readonly calls: number
}

export const inRoot: ReadonlyArray<Small> = [
  {
    recipe: "Anthropic's SDK",
    program: around(
      `import Anthropic from "@anthropic-ai/sdk"\n\nconst client = new Anthropic()`,
      `${messages}\nawait client.messages.create(request)`
    ),
    probe: promised,
    calls: 1
  },
  {
    recipe: "openai",
    program: around(
      `import OpenAI from "openai"\n\nconst client = new OpenAI()`,
      `await client.responses.create({ model: "gpt-6", input: prompt })`
    ),
    probe: promised,
    calls: 1
  },
  {
    recipe: "Effect",
    program: around(
      `import * as Effect from "effect/Effect"\nimport Anthropic from "@anthropic-ai/sdk"\n\nconst client = new Anthropic()`,
      `${messages}
const ask = (request) => Effect.tryPromise(() => client.messages.create(request))
const program = ask(request)
await Effect.runPromise(program)`
    ),
    probe: inEffect,
    calls: 2
  }
]

export const inClients: ReadonlyArray<Small> = [
  {
    recipe: "AI SDK and Mastra",
    program: around(
      `import { generateText } from "ai"\nimport { anthropic } from "@ai-sdk/anthropic"`,
      `const { text } = await generateText({ model: anthropic("claude-sonnet-5"), prompt })`
    ),
    probe: promised,
    calls: 1
  },
  {
    recipe: "LangChain with OpenAI",
    program: around(
      `import { ChatOpenAI } from "@langchain/openai"\n\nconst gpt = new ChatOpenAI({ model: "gpt-6" })`,
      `await gpt.invoke(prompt)`
    ),
    probe: promised,
    calls: 1
  },
  {
    recipe: "LangChain with Anthropic",
    program: around(
      `import { ChatAnthropic } from "@langchain/anthropic"\n\nconst claude = new ChatAnthropic({ model: "claude-sonnet-5" })`,
      `await claude.invoke(prompt)`
    ),
    probe: promised,
    calls: 1
  },
  {
    recipe: "Google genai",
    program: around(
      `const apiKey = "any"\nimport { GoogleGenAI } from "@google/genai"\n\nconst ai = new GoogleGenAI({ apiKey })`,
      `await ai.models.generateContent({ model: "gemini-3-flash", contents: prompt })`
    ),
    probe: promised,
    calls: 1
  }
]

/** The settings with which each client finds a provider, or a gateway. */
export const environmentAt = (url: string): NodeJS.ProcessEnv => ({
  ...process.env,
  ANTHROPIC_API_KEY: "any",
  ANTHROPIC_BASE_URL: url,
  OPENAI_API_KEY: "any",
  OPENAI_BASE_URL: `${url}/v1`,
  GEMINI_API_KEY: "any",
  GOOGLE_GEMINI_BASE_URL: url
})

/** Runs a command in a folder, and returns what it prints. */
export const run = (command: string, args: ReadonlyArray<string>, cwd: string, env: NodeJS.ProcessEnv) =>
  Effect.callback<string, Error>((resume) => {
    const child = execFile(command, args, { cwd, env, timeout: 60_000 }, (error, stdout) =>
      resume(error === null ? Effect.succeed(stdout) : Effect.fail(error))
    )
    return Effect.sync(() => child.kill())
  })

/** Limits that do not refill, so that what is left shows how many calls a budget has counted. */
export const limits = { requests: { total: 5 } }

export const counted = (status: Budget.BudgetStatus): number =>
  Object.values(status.pools).reduce(
    (sum, { dimensions }) => sum + limits.requests.total - dimensions.requests!.level,
    0
  )

/**
 * Makes the program's call against a simulated provider, after its recipe was applied. Returns how many calls the provider has
 * seen, and how many the budget has counted.
 */
export const applied = Effect.fnUntraced(function* ({ probe, program, recipe }: Small, folder: string) {
  const provider = yield* ProviderServer.make({})
  const options = `{ limits: ${JSON.stringify(limits)} }`
  const text = applyRecipe(recipe, program).replace(/(Floodgate\.create|Budget\.layer)\(\)/, `$1(${options})`)
  const args = ["--conditions=@floodgate/source", "--input-type=module", "-e", text + probe]
  const printed = yield* run(process.execPath, args, folder, environmentAt(provider.url))
  return { seen: (yield* provider.stats).completed, counted: counted(JSON.parse(printed) as Budget.BudgetStatus) }
})
