/**
 * Who may know whom. The tables below are the rule; docs/architecture.md gives the reasons. The linter keeps what needs
 * no table: the form of an import, and the globals that nobody uses.
 */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import ts from "typescript6"
import {
  circles,
  filesOf,
  functionsOf,
  importsOf,
  isExported,
  namesOf,
  namesOfSeveralTypes,
  packageFiles,
  parse,
  publicModules,
  root,
  sourceFiles,
  takenBy
} from "./support/modules.ts"

/** What is in which folder of the picture in docs/architecture.md, for the public modules of `src`. */
const fronts: Readonly<Record<string, string>> = {
  Accounting: "domain",
  Agents: "agents",
  Trees: "trees",
  Budget: "budget",
  BudgetStore: "sharing",
  Estimator: "call",
  Events: "domain",
  Forecast: "budget",
  Governor: "call",
  Limits: "domain",
  LlmClient: "LlmClient",
  LlmError: "protocol",
  LlmProvider: "protocol",
  Messages: "protocol",
  Places: "places",
  Presets: "domain",
  Prices: "domain",
  Retry: "call",
  Signals: "protocol",
  Spending: "money"
}

/** The part of the picture that a file belongs to. The index is a list of everything, and belongs to none. */
const partOf = (file: string): string | undefined => {
  const [, folder, name = ""] = /^src\/(?:(\w+)\/)?.*?(\w+)\.ts$/.exec(file) ?? []
  return folder ?? fronts[name]
}

interface Rule {
  readonly files: RegExp
  /** Packages it may import. `effect` is its stable top-level modules; `effect/*` is everything in it. */
  readonly packages: ReadonlyArray<
    | "effect"
    | "effect/*"
    | "node:"
    | "@anthropic-ai/sdk"
    | "@effect/platform-node"
    | "@effect/platform-node-shared"
    | "undici"
    | "redis"
    | "ioredis"
    | "floodgate"
    | "@floodgate/gateway"
    | "@floodgate/redis"
    | "@floodgate/lab"
    | "@observablehq/plot"
    | "linkedom"
    | "bottleneck"
    | "p-limit"
    | "p-queue"
  >
  /** Of other parts of its package, only these; where it is left out, what the picture allows. */
  readonly own?: ReadonlyArray<string>
}

/** The first rule that matches a file counts. */
const rules: ReadonlyArray<Rule> = [
  // The user's limits and the queue know nothing of what is learned of a provider.
  { files: /^src\/admission\//, packages: [] },
  // What is learned, and the decision over both: without time, chance or anything that runs.
  { files: /^src\/pacing\//, packages: [] },
  // What goes over the wire is pure; errors are schemas.
  { files: /^src\/protocol\/(errorReasons|signalSchemas|sdkErrors)\.ts$/, packages: ["effect"] },
  { files: /^src\/protocol\//, packages: [] },
  // The one file of core that names types of the SDK, and only types.
  { files: /^src\/LlmProvider\.ts$/, packages: ["effect", "@anthropic-ai/sdk"] },
  // Retries work without a budget.
  {
    files: /^src\/(Retry|call\/retry\w+)\.ts$/,
    own: ["src/LlmError.ts", "src/domain/", "src/call/retry"],
    packages: ["effect"]
  },
  { files: /^src\/adapters\/anthropic\//, packages: ["effect", "@anthropic-ai/sdk"] },
  { files: /^src\/adapters\/(ai|promise)\//, packages: ["effect/*"] },
  { files: /^src\/adapters\/breaker\.ts$/, packages: ["effect/*"] },
  // The AI SDK is met by its form alone.
  { files: /^src\/adapters\/aiSdk\//, packages: ["effect"] },
  {
    files: /^src\/testing\/server\//,
    packages: ["effect/*", "node:", "@effect/platform-node", "@anthropic-ai/sdk"]
  },
  { files: /^src\/testing\//, packages: ["effect", "@anthropic-ai/sdk"] },
  { files: /^src\//, packages: ["effect"] },

  // The other packages know the library by its public names, and by what src/internal.ts has for them.
  // What an installed command loads, it loads after it has checked the version of Node.
  {
    files: /^packages\/gateway\/src\/(command\/entry|terminal\/launch)\.ts$/,
    own: ["command/bin.ts", "command/version.ts", "terminal/launch.ts"].map((file) => `packages/gateway/src/${file}`),
    packages: []
  },
  // What all commands share knows nothing of the gateway.
  {
    files: /^packages\/gateway\/src\/terminal\//,
    own: ["packages/gateway/src/terminal/"],
    packages: ["effect/*", "node:", "@effect/platform-node-shared", "floodgate", "@floodgate/redis"]
  },
  {
    files: /^packages\/gateway\/src\/command\//,
    own: ["command/", "terminal/", "settings/", "index.ts"].map((place) => `packages/gateway/src/${place}`),
    packages: ["effect/*", "node:", "floodgate"]
  },
  {
    files: /^packages\/gateway\/src\/[\w/]+\.ts$/,
    own: ["packages/gateway/src/"],
    packages: ["effect/*", "node:", "undici", "floodgate"]
  },
  {
    files: /^packages\/redis\/src\//,
    own: ["packages/redis/src/"],
    packages: ["effect/*", "node:", "redis", "ioredis", "floodgate"]
  },
  {
    files: /^packages\/cli\/src\/(entry|bin)\.ts$/,
    own: ["packages/cli/src/bin.ts", "packages/cli/src/commands/"],
    packages: ["node:", "@floodgate/gateway"]
  },
  {
    files: /^packages\/cli\/src\/commands\//,
    own: ["packages/cli/src/commands/"],
    packages: [
      "effect/*",
      "node:",
      "@anthropic-ai/sdk",
      "floodgate",
      "@floodgate/gateway",
      "@floodgate/redis",
      "@floodgate/lab"
    ]
  },
  {
    files: /^packages\/lab\/src\//,
    own: ["packages/lab/src/"],
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
  // The subpath of version 0.4.
  { files: /^packages\/cli\/src\/lab\.ts$/, own: [], packages: ["@floodgate/lab"] }
]

const isStable = (module: string): boolean => {
  const path = join(root, "node_modules/effect/src", `${module.slice("effect/".length)}.ts`)
  if (!existsSync(path)) return false
  const text = readFileSync(path, "utf8")
  return text.slice(0, text.indexOf("*/")).includes("@stability stable")
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

const drawn = picture(readFileSync(join(root, "docs/architecture.md"), "utf8"))

/** Whether the picture has a way from one part to another. */
const reaches = (one: string, other: string): boolean =>
  [...(drawn.get(one) ?? [])].some((next) => next === other || reaches(next, other))

const allowsOwn = (rule: Rule, file: string, from: string): boolean => {
  if (rule.own !== undefined) return rule.own.some((place) => from.startsWith(place))
  const [one, other] = [partOf(file), partOf(from)]
  return one === undefined || (other !== undefined && (one === other || reaches(one, other)))
}

const allowsPackage = (rule: Rule, from: string): boolean => {
  if (from.startsWith("effect/")) {
    return rule.packages.includes("effect/*") || (rule.packages.includes("effect") && isStable(from))
  }
  return rule.packages.some((name) => (name === "node:" ? from.startsWith(name) : `${from}/`.startsWith(`${name}/`)))
}

const problemsOf = (file: string): Array<string> => {
  const rule = rules.find(({ files }) => files.test(file))
  if (rule === undefined) return [`${file}: no rule for this folder; add one to test/architecture.lint.test.ts`]
  return importsOf(file).flatMap(({ from, line, typeOnly }) => {
    const isAllowed = /^(src|packages)\//.test(from) ? allowsOwn(rule, file, from) : allowsPackage(rule, from)
    // Pure code takes only types from what is not pure.
    const isPure = file.startsWith("src/protocol/") && rule.packages.length === 0
    const isTyped = typeOnly || /^src\/(protocol|domain)\//.test(from)
    return isAllowed && (isTyped || !isPure) ? [] : [`${file}:${line}: may not import ${from}`]
  })
}

/** A test knows what is behind the public names only of the folder that it is named after, and of these. */
const insiders: ReadonlyArray<readonly [tests: RegExp, folders: ReadonlyArray<string>, why: string]> = [
  [/^test\/admission\//, ["domain"], "caps take rules"],
  [/^test\/pacing\//, ["admission", "domain"], "steps of the law take caps, rules and amounts"],
  [/^test\/agents\/counting\.test\.ts$/, ["domain"], "what an agent is charged is compared with what a pool charges"],
  [/^test\/budget\/store\.test\.ts$/, ["sharing"], "it damages what is stored"],
  [/^test\/sharing\//, ["packages/redis"], "storms run the client and the script of Redis"],
  [/^packages\/redis\//, ["sharing"], "it talks to the store of a layer"],
  [/^packages\/gateway\/test\/bodies\.system\.test\.ts$/, ["protocol"], "bodies are as large as the parser reads them"],
  [/^test\/docs\.lint\.test\.ts$/, ["budget", "protocol"], "a page lists all reasons of errors"]
]

/** More tests of insides than this are too many to rewrite when the insides change. */
const maxInsiders = 64

/** The folder of a source file: `budget` in the library, `packages/gateway` elsewhere. */
const folderOf = (file: string): string | undefined =>
  /^(?:src\/(\w+)\/|(packages\/\w+)\/src\/)/.exec(file)?.slice(1).find(Boolean)

/** A test of a public module may know the folder behind it. */
const mayKnow = (file: string, inside: string): boolean => {
  const [, own, part = ""] = /^(?:(packages\/\w+)\/)?test\/(\w+)/.exec(file) ?? []
  const folder = folderOf(inside)
  return (
    folder === (own ?? fronts[part] ?? part) ||
    insiders.some(([tests, folders]) => tests.test(file) && folders.includes(folder ?? ""))
  )
}

/** Names of several types, which are written with their module: `Agents.Cap`, `Spending.Cap`, `Cap.Cap` of admission. */
const toldApart = [
  "Agent",
  "Call",
  "CallOptions",
  "Cap",
  "Entry",
  "Latency",
  "Learned",
  "Meter",
  "Middleware",
  "Options",
  "Outcome",
  "Rule"
]

describe("architecture", () => {
  it("lets a source file import only what its folder allows", () => {
    assert.deepStrictEqual([...sourceFiles(), ...packageFiles()].flatMap(problemsOf), [])
  })

  it("has no import cycle, not even of types or between the files of a folder", () => {
    assert.deepStrictEqual(circles([...sourceFiles(), ...packageFiles()]), [])
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

  it("lets commands print only through the module that cleans text from outside", () => {
    const printers = packageFiles().filter((file) => importsOf(file).some(({ from }) => from === "effect/Console"))
    assert.deepStrictEqual(
      printers,
      ["help", "log", "print"].map((name) => `packages/gateway/src/terminal/${name}.ts`)
    )
  })

  it("lets a test import internals only of the folder that it is named after", () => {
    // Commands are programs, and their tests are of their parts.
    const tests = [...filesOf("test"), ...filesOf("packages/gateway/test"), ...filesOf("packages/redis/test")].filter(
      (file) =>
        file.endsWith(".test.ts") && !/^(test\/clients|packages\/gateway\/test\/(command|terminal))\//.test(file)
    )
    const taken = tests.flatMap((file) =>
      importsOf(file).flatMap(({ from }) => (/^(src|packages\/\w+\/src)\//.test(from) ? [{ file, from }] : []))
    )
    assert.deepStrictEqual(
      taken.filter(({ file, from }) => !mayKnow(file, from)),
      []
    )
    for (const [files, folders] of insiders) {
      const isNeeded = taken.some(({ file, from }) => files.test(file) && folders.includes(folderOf(from) ?? ""))
      assert.isTrue(isNeeded, `${files}: nobody needs it`)
    }
    assert.isAtMost(new Set(taken.map(({ file }) => file)).size, maxInsiders)
  })

  it("exports no unused value", () => {
    const folders = ["src", "test", "benchmark", "scripts", "examples", "packages"]
    const taken = new Set(folders.flatMap(filesOf).flatMap(takenBy))
    const entries = new Set(publicModules().map(({ file }) => file))
    const idle = [...sourceFiles(), ...packageFiles()].flatMap((file) =>
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

  it("gives each type a unique name, except types that are written with their module", () => {
    const shared = namesOfSeveralTypes([...sourceFiles(), ...packageFiles()]).map(([name]) => name)
    assert.deepStrictEqual(shared, toldApart)
  })

  it("has no function of 80 lines of code or more, and none that makes more than ten others", () => {
    const all = [...sourceFiles(), ...packageFiles()].flatMap(functionsOf)
    assert.isAbove(all.length, 3_000)
    assert.deepStrictEqual(
      all.filter(({ closures, lines }) => lines >= 80 || closures > 10),
      []
    )
  })

  it("matches the picture in docs/architecture.md: every arrow exists, and none points back", () => {
    const taken = new Set<string>()
    for (const file of sourceFiles()) {
      for (const { from } of importsOf(file)) {
        if (from.startsWith("src/")) taken.add(`${partOf(file)} --> ${partOf(from)}`)
      }
    }
    const arrows = [...drawn].flatMap(([one, others]) => [...others].map((other) => `${one} --> ${other}`))
    assert.deepStrictEqual(
      arrows.filter((arrow) => !taken.has(arrow)),
      [],
      "drawn, and not in the code"
    )
    assert.deepStrictEqual(
      [...drawn.keys()].filter((part) => reaches(part, part)),
      []
    )
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

  it("has every function that docs/architecture.md names, in the file that it names", () => {
    const page = readFileSync(join(root, "docs/architecture.md"), "utf8")
    const places = [...page.matchAll(/`(\w+)` in `((?:src|packages)\/[\w/]+\.ts)`/g)]
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
