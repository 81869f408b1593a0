/**
 * Who may know whom. The tables below are the rule; docs/architecture.md gives the reasons. The linter keeps what needs
 * no table: the form of an import, and the globals that nobody uses.
 */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import ts from "typescript6"
import {
  cliFiles,
  filesOf,
  functionsOf,
  importsOf,
  isExported,
  namesOf,
  parse,
  publicModules,
  root,
  sourceFiles,
  takenBy
} from "./support/modules.ts"

interface Rule {
  readonly files: RegExp
  /**
   * Own files it may import. `core` is src/*.ts except index; `core/models` its pure values; the rest, folders and files of
   * its package's src.
   */
  readonly own: ReadonlyArray<"core" | "core/models" | `${string}/` | `${string}.ts`>
  /** Packages it may import. `effect` is its stable top-level modules; `effect/*` is everything in it. */
  readonly packages: ReadonlyArray<
    | "effect"
    | "effect/*"
    | "node:"
    | "@anthropic-ai/sdk"
    | "@effect/platform-node"
    | "redis"
    | "ioredis"
    | "floodgate"
    | "@observablehq/plot"
    | "linkedom"
    | "bottleneck"
    | "p-limit"
    | "p-queue"
  >
}

/** The first rule that matches a file counts. */
const rules: ReadonlyArray<Rule> = [
  { files: /^src\/index\.ts$/, own: ["core"], packages: [] },
  // The client's own layers are over the official SDK; who brings a provider needs only the port.
  {
    files: /^src\/LlmClient\.ts$/,
    own: ["core", "input/", "governor/", "protocol/", "providers/"],
    packages: ["effect"]
  },
  {
    files: /^src\/[^/]+\.ts$/,
    own: [
      "core",
      "agents/",
      "budget/",
      "budgetStore/",
      "estimator/",
      "forecast/",
      "governor/",
      "input/",
      "limits/",
      "llmError/",
      "prices/",
      "protocol/",
      "retry/",
      "signals/",
      "spending/"
    ],
    packages: ["effect"]
  },
  { files: /^src\/prices\//, own: ["core/models", "input/", "limits/", "prices/"], packages: [] },
  { files: /^src\/spending\//, own: ["input/", "spending/"], packages: ["effect"] },
  // The user's limits and the queue know nothing of what is learned of a provider.
  { files: /^src\/admission\//, own: ["limits/", "admission/"], packages: [] },
  // What is learned, and the decision over both: without time, chance or anything that runs.
  { files: /^src\/pacing\//, own: ["Limits.ts", "limits/", "admission/", "pacing/"], packages: [] },
  // What goes over the wire: no Effect, no package, and of the core only types.
  { files: /^src\/protocol\//, own: ["core/models", "limits/", "protocol/"], packages: [] },
  { files: /^src\/input\//, own: ["input/"], packages: ["effect"] },
  { files: /^src\/limits\//, own: ["input/", "limits/"], packages: ["effect"] },
  { files: /^src\/llmError\//, own: ["core/models", "limits/", "llmError/"], packages: ["effect"] },
  { files: /^src\/signals\//, own: ["core/models", "llmError/", "protocol/", "signals/"], packages: ["effect"] },
  { files: /^src\/estimator\//, own: ["estimator/"], packages: [] },
  { files: /^src\/retry\//, own: ["input/", "retry/"], packages: ["effect"] },
  {
    files: /^src\/agents\//,
    own: ["core", "input/", "limits/", "admission/", "agents/", "budget/"],
    packages: ["effect"]
  },
  {
    files: /^src\/forecast\//,
    own: ["core/models", "input/", "limits/", "admission/", "pacing/", "forecast/"],
    packages: ["effect"]
  },
  {
    files: /^src\/governor\//,
    own: [
      "core",
      "input/",
      "limits/",
      "budget/",
      "estimator/",
      "governor/",
      "prices/",
      "protocol/",
      "retry/",
      "spending/"
    ],
    packages: ["effect"]
  },
  {
    files: /^src\/budget\//,
    own: ["core", "input/", "limits/", "budget/", "budgetStore/", "admission/", "pacing/"],
    packages: ["effect"]
  },
  {
    files: /^src\/budgetStore\//,
    own: ["core/models", "input/", "limits/", "admission/", "pacing/", "budgetStore/"],
    packages: ["effect"]
  },
  {
    files: /^src\/providers\//,
    own: ["core", "input/", "protocol/", "providers/", "signals/"],
    packages: ["effect/*", "@anthropic-ai/sdk"]
  },
  {
    files: /^src\/fetch\//,
    own: ["core", "input/", "estimator/", "governor/", "protocol/", "signals/", "fetch/"],
    packages: ["effect"]
  },
  {
    files: /^src\/gateway\//,
    own: [
      "core",
      "input/",
      "budget/",
      "limits/",
      "estimator/",
      "protocol/",
      "retry/",
      "spending/",
      "fetch/",
      "gateway/"
    ],
    packages: ["effect/*", "node:", "@effect/platform-node"]
  },
  {
    files: /^src\/anthropic\//,
    own: ["core", "input/", "fetch/", "governor/", "protocol/", "anthropic/"],
    packages: ["effect", "@anthropic-ai/sdk"]
  },
  // For programs without Effect: all ways in that share a budget.
  {
    files: /^src\/promise\//,
    own: [
      "core",
      "input/",
      "aiSdk/",
      "budget/",
      "anthropic/",
      "fetch/",
      "governor/",
      "protocol/",
      "signals/",
      "spending/",
      "promise/"
    ],
    packages: ["effect/*"]
  },
  {
    files: /^src\/ai\//,
    own: ["core", "input/", "signals/", "governor/", "protocol/", "ai/"],
    packages: ["effect/*"]
  },
  // The AI SDK is met by its form alone.
  {
    files: /^src\/aiSdk\//,
    own: ["core", "input/", "signals/", "governor/", "protocol/", "aiSdk/"],
    packages: ["effect"]
  },
  { files: /^src\/breaker\//, own: ["core", "input/", "governor/", "breaker/"], packages: ["effect/*"] },
  {
    files: /^src\/redis\//,
    own: ["core", "input/", "budgetStore/", "redis/"],
    packages: ["effect/*", "node:", "redis", "ioredis"]
  },
  {
    files: /^src\/testing\/server\//,
    own: ["core", "input/", "protocol/", "testing/"],
    packages: ["effect/*", "node:", "@effect/platform-node", "@anthropic-ai/sdk"]
  },
  {
    files: /^src\/testing\//,
    own: ["core", "input/", "forecast/latency.ts", "limits/", "testing/"],
    packages: ["effect/*", "@anthropic-ai/sdk"]
  },

  // The command knows the library by its public names.
  // What it loads, it loads after it has checked the version of Node.
  { files: /^packages\/cli\/src\/entry\.ts$/, own: ["bin.ts"], packages: [] },
  {
    files: /^packages\/cli\/src\/bin\.ts$/,
    own: ["commands/", "launcher.ts"],
    packages: ["effect/*", "@effect/platform-node", "node:"]
  },
  {
    files: /^packages\/cli\/src\/commands\//,
    own: ["commands/", "lab/", "dimensions.ts", "latency.ts", "stepwise.ts", "words.ts"],
    packages: ["effect/*", "node:", "@anthropic-ai/sdk", "floodgate"]
  },
  {
    files: /^packages\/cli\/src\/lab\//,
    own: ["lab/", "dimensions.ts", "invalid.ts", "latency.ts", "stepwise.ts", "words.ts"],
    packages: [
      "effect/*",
      "node:",
      "@anthropic-ai/sdk",
      "floodgate",
      "@observablehq/plot",
      "linkedom",
      "bottleneck",
      "p-limit",
      "p-queue"
    ]
  },
  { files: /^packages\/cli\/src\/[^/]+\.ts$/, own: [], packages: ["effect", "floodgate"] }
]

/** Within core: what a module may not import. The rest is free, and no-cycle keeps it a tree. */
const strangers: Record<string, ReadonlyArray<string>> = {
  Limits: ["Agents", "Budget", "Estimator", "Forecast", "Governor", "LlmClient", "LlmError", "LlmProvider", "Retry"],
  LlmError: ["Agents", "Budget", "Estimator", "Forecast", "Governor", "LlmClient", "LlmProvider", "Retry"],
  Budget: ["Agents", "Estimator", "Forecast", "Governor", "LlmClient", "LlmProvider", "Retry"],
  Retry: ["Agents", "Budget", "Estimator", "Forecast", "Governor", "LlmClient", "LlmProvider"],
  Prices: ["Agents", "Budget", "Estimator", "Forecast", "Governor", "LlmClient", "LlmProvider", "Retry", "Spending"],
  Spending: ["Agents", "Budget", "Estimator", "Forecast", "Governor", "LlmClient", "LlmProvider", "Retry"],
  Estimator: ["Agents", "Budget", "Forecast", "Governor", "LlmClient", "LlmProvider", "Retry"],
  LlmProvider: ["Agents", "Budget", "Estimator", "Forecast", "Governor", "LlmClient", "Retry"],
  Governor: ["Agents", "Forecast", "LlmClient"],
  LlmClient: ["Agents", "Forecast"]
}

/** Core that is only values. */
const models = new Set(["src/Accounting.ts", "src/Limits.ts", "src/LlmError.ts", "src/Messages.ts"])

/** The one file of core that names types of the SDK, and only types. */
const speaksMessages = /^src\/LlmProvider\.ts/

const isCore = (file: string): boolean => /^src\/[^/]+\.ts$/.test(file) && !file.endsWith("/index.ts")

const isStable = (module: string): boolean => {
  const path = join(root, "node_modules/effect/src", `${module.slice("effect/".length)}.ts`)
  if (!existsSync(path)) return false
  const text = readFileSync(path, "utf8")
  return text.slice(0, text.indexOf("*/")).includes("@stability stable")
}

const allowed = (rule: Rule, file: string, from: string, typeOnly: boolean): boolean => {
  if (from.startsWith("packages/")) return rule.own.some((own) => from.startsWith(`packages/cli/src/${own}`))
  if (from.startsWith("src/")) {
    return rule.own.some((own) => {
      if (own === "core") return isCore(from)
      return own === "core/models" ? models.has(from) : from.startsWith(`src/${own}`)
    })
  }
  if (from.startsWith("effect/")) {
    return rule.packages.includes("effect/*") || (rule.packages.includes("effect") && isStable(from))
  }
  if (from.startsWith("@anthropic-ai/sdk") && typeOnly && speaksMessages.test(file)) return true
  return rule.packages.some((name) => (name === "node:" ? from.startsWith(name) : `${from}/`.startsWith(`${name}/`)))
}

const problemsOf = (file: string): Array<string> => {
  const rule = rules.find(({ files }) => files.test(file))
  if (rule === undefined) return [`${file}: no rule for this folder; add one to test/architecture.test.ts`]
  const name = file.slice("src/".length, -".ts".length)
  return importsOf(file).flatMap(({ from, line, typeOnly }) => {
    const banned =
      !allowed(rule, file, from, typeOnly) ||
      (strangers[name] ?? []).some((stranger) => from === `src/${stranger}.ts`) ||
      (file.startsWith("src/protocol/") && !from.startsWith("src/protocol/") && !typeOnly)
    return banned ? [`${file}:${line}: may not import ${from}`] : []
  })
}

/** A test knows what is behind the public names only of the folder that it is named after, and of these. */
const insiders: ReadonlyArray<readonly [tests: RegExp, folders: ReadonlyArray<string>, why: string]> = [
  [/^test\/admission\//, ["limits"], "caps take rules"],
  [/^test\/pacing\//, ["admission", "limits"], "steps of the law take caps, rules and amounts"],
  [/^test\/agents\//, ["limits"], "what an agent is charged is compared with what a pool is"],
  [/^test\/budget\/store\.test\.ts$/, ["budgetStore"], "it damages what is stored"],
  [/^test\/sharing\//, ["budgetStore", "redis"], "what processes share has no public names"],
  [/^test\/redis\//, ["budgetStore"], "it talks to the store of a layer"],
  [/^test\/protocol\/errors\.test\.ts$/, ["signals"], "it reads the same answers by status and by what was thrown"],
  [/^test\/gateway\/bodies\.test\.ts$/, ["protocol"], "bodies are as large as the parser reads them"],
  [/^test\/gateway\/purses\.test\.ts$/, ["spending"], "it spends as the governor does"],
  [/^test\/docs\.test\.ts$/, ["budget", "llmError"], "a page lists all reasons of errors"]
]

/** More tests of insides than this are too many to rewrite when the insides change. */
const mostInsiders = 60

/** What a test imports of the sources by a path. */
const insidesOf = (file: string): ReadonlyArray<string> => {
  const text = readFileSync(join(root, file), "utf8")
  return Array.from(text.matchAll(/(?:from |import\()"(?:\.\.\/)+(src\/[^"]+)"/g), ([, from = ""]) => from)
}

const mayKnow = (file: string, inside: string): boolean => {
  const [, part = ""] = /^test\/(\w+)/.exec(file) ?? []
  const [, folder] = /^src\/(\w+)\//.exec(inside) ?? []
  const own = part.charAt(0).toLowerCase() + part.slice(1)
  return folder === own || insiders.some(([tests, folders]) => tests.test(file) && folders.includes(folder ?? ""))
}

/** The part of the picture that a file belongs to. What everybody says belongs to none. */
const partOf = (file: string): string | undefined => {
  const [, folder, name] = /^src\/(?:(\w+)\/)?.*?(\w+)\.ts$/.exec(file) ?? []
  if (folder === undefined) return name === "index" ? undefined : name
  if (folder === "input") return undefined
  const module = folder.slice(0, 1).toUpperCase() + folder.slice(1)
  return existsSync(join(root, "src", `${module}.ts`)) ? module : folder
}

/** The arrows of a page's flowchart: `a & b --> c & d`. */
const picture = (page: string): Map<string, Set<string>> => {
  const arrows = new Map<string, Set<string>>()
  const chart = /```mermaid\nflowchart TD\n([\s\S]*?)```/.exec(page)?.[1] ?? ""
  for (const line of chart.trim().split("\n")) {
    const [from = [], to = []] = line.split(" --> ").map((side) => side.trim().split(" & "))
    for (const one of from) arrows.set(one, new Set([...(arrows.get(one) ?? []), ...to]))
  }
  return arrows
}

describe("architecture", () => {
  it("lets every source file import only what its folder may know", () => {
    assert.deepStrictEqual([...sourceFiles(), ...cliFiles()].flatMap(problemsOf), [])
  })

  it("keeps Node and HTTP out of the core and of the simulated provider", () => {
    const seen = new Set<string>()
    const found: Array<string> = []
    const follow = (file: string): void => {
      if (seen.has(file)) return
      seen.add(file)
      for (const { from, typeOnly } of importsOf(file)) {
        if (/^(node:|@effect\/|effect\/http\/)/.test(from) && !typeOnly) found.push(`${file}: ${from}`)
        if (from.startsWith("src/")) follow(from)
      }
    }
    for (const entry of ["src/index.ts", "src/testing/index.ts"]) follow(entry)
    assert.isAbove(seen.size, 50)
    assert.deepStrictEqual(found, [])
  })

  it("lets commands print through one module only, which cleans what comes from outside", () => {
    const printers = cliFiles().filter((file) => importsOf(file).some(({ from }) => from === "effect/Console"))
    assert.deepStrictEqual(
      printers,
      ["help", "log", "print"].map((name) => `packages/cli/src/commands/${name}.ts`)
    )
  })

  it("lets a test know the insides only of what it is named after", () => {
    const tests = filesOf("test").filter((file) => file.endsWith(".test.ts") && !file.startsWith("test/clients/"))
    const taken = tests.flatMap((file) => insidesOf(file).map((from) => ({ file, from })))
    assert.deepStrictEqual(
      taken.filter(({ file, from }) => !mayKnow(file, from)),
      []
    )
    for (const [files, folders] of insiders) {
      const isNeeded = taken.some(({ file, from }) => files.test(file) && folders.includes(from.split("/")[1]!))
      assert.isTrue(isNeeded, `${files}: nobody needs it`)
    }
    assert.isAtMost(new Set(taken.map(({ file }) => file)).size, mostInsiders)
  })

  it("exports no value that nobody takes", () => {
    const folders = ["src", "test", "benchmark", "scripts", "examples", "packages/cli/src", "packages/cli/test"]
    const taken = new Set(folders.flatMap(filesOf).flatMap(takenBy))
    const entries = new Set(publicModules().map(({ file }) => file))
    const idle = [...sourceFiles(), ...cliFiles()].flatMap((file) =>
      entries.has(file) || taken.has(`${file} *`)
        ? []
        : parse(file)
            .statements.filter((node) => ts.isVariableStatement(node) && isExported(node))
            .flatMap(namesOf)
            .filter((name) => !taken.has(`${file} ${name}`))
            .map((name) => `${file}: nobody takes ${name}`)
    )
    assert.deepStrictEqual(idle, [])
  })

  it("has no function of 80 lines of code or more, and none that makes more than ten others", () => {
    const all = [...sourceFiles(), ...cliFiles()].flatMap(functionsOf)
    assert.isAbove(all.length, 3_000)
    assert.deepStrictEqual(
      all.filter(({ closures, lines }) => lines >= 80 || closures > 10),
      []
    )
  })

  it("is as the picture in docs/architecture.md has it", () => {
    const drawn = picture(readFileSync(join(root, "docs/architecture.md"), "utf8"))
    const taken = new Map<string, Set<string>>()
    for (const file of sourceFiles()) {
      for (const { from } of importsOf(file)) {
        const [one, other] = [partOf(file), partOf(from)]
        if (one === undefined || other === undefined || one === other) continue
        taken.set(one, (taken.get(one) ?? new Set()).add(other))
      }
    }
    const imagined = [...drawn].flatMap(([one, others]) =>
      [...others].filter((other) => taken.get(one)?.has(other) !== true).map((other) => `${one} --> ${other}`)
    )
    assert.deepStrictEqual(imagined, [], "drawn, and not in the code")
    const reaches = (one: string, other: string): boolean =>
      [...(drawn.get(one) ?? [])].some((next) => next === other || reaches(next, other))
    const missing = [...taken].flatMap(([one, others]) =>
      [...others].filter((other) => !reaches(one, other)).map((other) => `${one} --> ${other}`)
    )
    assert.deepStrictEqual(missing, [], "in the code, and neither drawn nor implied")
  })

  it("has every folder in the tables of docs/architecture.md and AGENTS.md", () => {
    const folders = new Set(sourceFiles().flatMap((file) => /^src\/(\w+)\//.exec(file)?.[1] ?? []))
    for (const page of ["docs/architecture.md", "AGENTS.md"]) {
      const rows = readFileSync(join(root, page), "utf8").match(/^\| `src\/.*$/gm)!
      const named = new Set(
        rows.flatMap((row) => [...row.split("|")[1]!.matchAll(/(\w+)\/`/g)].map(([, name]) => name))
      )
      assert.deepStrictEqual(
        [...folders].filter((folder) => !named.has(folder)),
        [],
        page
      )
    }
  })

  it("has what the way of a call names, where it says", () => {
    const page = readFileSync(join(root, "docs/architecture.md"), "utf8")
    const places = [...page.matchAll(/`(\w+)` in `(src\/[\w/]+\.ts)`/g)]
    assert.isAbove(places.length, 15)
    const lost = places.filter(
      ([, name, file]) =>
        !new RegExp(`(const|class) ${name}\\b|^ +(private )?(readonly )?${name}: |^  \\*?${name}(<.*>)?\\(`, "m").test(
          readFileSync(join(root, file!), "utf8")
        )
    )
    assert.deepStrictEqual(
      lost.map(([text]) => text),
      []
    )
  })

  it("keeps the index a list of namespaces, in alphabetical order", () => {
    const code = readFileSync(join(root, "src/index.ts"), "utf8").replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, "")
    const lines = code.split("\n").filter((line) => line.trim() !== "")
    for (const line of lines) assert.match(line, /^export \* as (\w+) from "\.\/\1\.ts"$/)
    assert.deepStrictEqual(lines, [...lines].sort())
  })
})
