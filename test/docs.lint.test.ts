import { assert, describe, it } from "@effect/vitest"
import { Bounds } from "floodgate/internal"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join, normalize } from "node:path"
import { pathToFileURL } from "node:url"
import { BudgetErrorReason } from "../src/budget/errors.ts"
import { LlmErrorReason } from "../src/protocol/errorReasons.ts"
import { render } from "../scripts/api.ts"
import * as Page from "../scripts/pageScripts.ts"
import * as Paths from "../scripts/gatewayPaths.ts"
import * as Settings from "../scripts/gatewaySettings.ts"
import { linksIn, withoutFences } from "./support/links.ts"
import { packageFiles, publicModules, root, sourceFiles } from "./support/modules.ts"

const read = (file: string): string => readFileSync(join(root, file), "utf8")

const pages = [
  "examples/README.md",
  "skills/floodgate/SKILL.md",
  ...readdirSync(root),
  ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" }).map((file) => join("docs", file))
].filter((file) => file.endsWith(".md"))

/** The anchors of a page's headings, as GitHub makes them. */
const anchorsOf = (text: string): Set<string> =>
  new Set(
    Array.from(withoutFences(text).matchAll(/^#+ (.*)$/gm), ([, heading]) =>
      heading!
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-")
    )
  )

const brokenLinks = (page: string): Array<string> =>
  linksIn(read(page))
    .filter((link) => {
      const [path, anchor] = link.split("#") as [string, string | undefined]
      const target = path === "" ? page : normalize(join(dirname(page), path))
      if (!existsSync(join(root, target))) return true
      return anchor !== undefined && !anchorsOf(read(target)).has(anchor)
    })
    .map((link) => `${page}: ${link}`)

const errorTags = async (): Promise<Array<string>> => {
  const tags = new Set<string>()
  for (const { file } of publicModules()) {
    const exports = (await import(pathToFileURL(join(root, file)).href)) as Record<string, unknown>
    const values = Object.values(exports).flatMap((value) =>
      Object.prototype.toString.call(value) === "[object Module]" ? Object.values(value as object) : [value]
    )
    for (const value of values) {
      if (typeof value === "function" && value.prototype instanceof Error) tags.add(value.name)
    }
  }
  return [...tags]
}

describe("documentation", () => {
  it("has no broken links", () => {
    assert.deepStrictEqual(pages.flatMap(brokenLinks), [])
  })

  it("lists the metrics of the code", () => {
    const namesIn = (texts: ReadonlyArray<string>, name: RegExp): ReadonlyArray<string> =>
      [...new Set(texts.flatMap((text) => text.match(name) ?? []))].sort()
    const pages = namesIn(["docs/guides/observability.md", "docs/gateway.md"].map(read), /\bfloodgate_[a-z_]+\b/g)
    const code = namesIn([...sourceFiles(), ...packageFiles()].map(read), /(?<=")floodgate_[a-z_]+(?=")/g)
    assert.deepStrictEqual(
      pages,
      code,
      "state a metric in the table of docs/guides/observability.md or docs/gateway.md"
    )
  })

  it("names every error on the page of failures", async () => {
    const page = read("docs/failures.md")
    const tags = await errorTags()
    assert.include(tags, "RateLimited")
    const sections = new Map(
      page.split(/^#+ /m).map((text) => [text.slice(0, text.indexOf("\n")).split(" ").at(-1)!, text])
    )
    const missing = tags.filter((tag) => !sections.has(tag))
    assert.deepStrictEqual(missing, [], "say the cause, what Floodgate does, and what the reader does")
    const wrappers = ["LlmError", "BudgetError"]
    const incomplete = tags.filter(
      (tag) =>
        !wrappers.includes(tag) &&
        !["Cause", "Floodgate", "You"].every((part) => sections.get(tag)!.includes(`- **${part}**: `))
    )
    assert.deepStrictEqual(incomplete, [])
    for (const [wrapper, { members }] of [
      ["LlmError", LlmErrorReason],
      ["BudgetError", BudgetErrorReason]
    ] as const) {
      assert.match(page, new RegExp(`^\\| \\[\`${wrapper}\`\\].* one of ${members.length} classes \\|$`, "m"))
    }
  })

  it("states the defaults as the code has them, even those that no example shows", () => {
    const page = read("docs/failures.md")
    const sectionOf = (heading: string): string => page.slice(page.indexOf(`## ${heading}\n`)).split(/\n#{2,3} /)[0]!
    for (const [heading, file, code, row] of [
      ["Calls", "src/protocol/messages.ts", "longestWaitMillis = 600_000", "| `timeout` of an attempt | 10 minutes |"],
      [
        "Calls",
        "src/adapters/anthropic/provider.ts",
        'options.idleTimeout ?? "1 minute"',
        "| `idleTimeout` of a stream | 1 minute "
      ],
      ["Calls", "src/call/warmup.ts", "patienceMillis = 60_000", "for at most a minute"],
      ["Retry", "src/Retry.ts", "attempts ?? 5", "| `attempts` | 5 failures of the call itself | They span 30 s "],
      ["Retry", "src/Retry.ts", 'base = "2 seconds"', "| `base`, `factor` | 2 s, x 2 |"],
      ["Retry", "src/Retry.ts", 'cap = "60 seconds"', "| `cap` | 60 s |"],
      ["Retry", "src/Retry.ts", 'maxElapsed ?? "10 minutes"', "| `maxElapsed` | 10 minutes "],
      ["Circuit breaker", "src/adapters/breaker.ts", "failures = 10", "| `failures` in a row that open it | 10 |"],
      ["Retry budget", "src/call/retryBudget.ts", "minPerSecond = 2, ratio = 0.2", "| `ratio` | 0.2 per call |"],
      ["Retry budget", "src/call/retryBudget.ts", "minPerSecond = 2, ratio = 0.2", "| `minPerSecond` | 2, "],
      ["Estimates", "src/Estimator.ts", "firstOutput = 4_096", "| output, for the first 30 calls | 4,096; "],
      ["Estimates", "src/Estimator.ts", "firstOutputThinking = 4 * firstOutput", "16,384 with thinking"],
      ["Estimates", "src/Estimator.ts", "enough = 30", "| output, for the first 30 calls |"],
      ["Estimates", "src/Estimator.ts", "margin = 1.15", "the last 256 calls x 1.15"],
      [
        "Circuit breaker",
        "src/adapters/breaker.ts",
        'Schedule.exponential("5 seconds")',
        "| `openFor` | 5 s, doubled "
      ],
      ["Redis", "src/BudgetStore.ts", '{ wait: "30 seconds" }', "| `whenAway` | wait up to 30 s"],
      ["Redis", "src/BudgetStore.ts", 'lease = "20 seconds"', "| `lease` | 20 s "],
      ["Redis", "src/BudgetStore.ts", 'lost = "keep"', "| `lost` | keep |"],
      ["Redis", "src/BudgetStore.ts", 'timeout = "2 seconds"', "| `timeout` | 2 s "],
      ["Redis", "packages/redis/src/index.ts", 'defaultPrefix = "floodgate"', '| `prefix` | "floodgate" |']
    ] as const) {
      assert.include(read(file), code, `${file}: then docs/failures.md says it wrong`)
      assert.include(sectionOf(heading), row)
    }
  })

  it("refers only to existing tests and laws for each guarantee", () => {
    const [guarantees] = read("docs/evidence.md").split("### Bounds") as [string]
    const tables = guarantees.split("\n").filter((line) => line.startsWith("| "))
    const shown = tables.flatMap((line) => line.split(" | ")[2] ?? []).join("\n")
    const files = Array.from(shown.matchAll(/`(test\/[^`]+)`/g), ([, file]) => file!)
    const proven = Array.from(shown.matchAll(/"([^"]+)"/g), ([, law]) => law!)
    const laws = Array.from(shown.matchAll(/\blaws? (\d+)(?: and (\d+))?/g), ([, ...numbers]) => numbers).flat()
    assert.isAbove(Math.min(files.length, proven.length, laws.length), 5)
    assert.deepStrictEqual(
      files.filter((file) => !existsSync(join(root, file))),
      []
    )
    const proof = ["laws.ts", "search.ts"].map((file) => read(`test/proof/${file}`)).join()
    assert.deepStrictEqual(
      proven.filter((law) => !proof.includes(`"${law}"`) && !proof.includes(`\n  ${law},`)),
      []
    )
    const histories = read("test/support/laws.ts")
    assert.deepStrictEqual(
      laws.filter((law) => law !== undefined && !histories.includes(`"law ${law}, `)),
      []
    )
  })

  it("states in both places the bounds that the code has", () => {
    for (const page of ["SECURITY.md", "docs/evidence.md"]) {
      assert.include(
        readFileSync(join(root, page), "utf8"),
        Bounds.boundsTable(),
        `${page}: copy the table of src/domain/bounds.ts`
      )
    }
  })

  it("has a current reference of the API", () => {
    assert.strictEqual(read("docs/api.md"), render(), "npm run docs:api writes it")
  })

  it("has a current table of what becomes of requests at the gateway", () => {
    assert.strictEqual(read("docs/figures/paths.md"), Paths.render(), "npm run docs:paths writes it")
  })

  it("has a current table of the gateway's settings, and comments of its options", () => {
    for (const [file, text] of Object.entries(Settings.render())) {
      assert.strictEqual(read(file), text, `${file}: npm run docs:settings writes it`)
    }
  })

  it("has a current script of the gateway's page", async () => {
    for (const [file, text] of Object.entries(await Page.render())) {
      assert.strictEqual(read(file), text, `${file}: npm run page writes it`)
    }
  })

  it("has each request with a body that the installed SDKs make in that table", () => {
    const sdks = {
      Anthropic: "node_modules/@anthropic-ai/sdk/src/resources",
      OpenAI: "node_modules/openai/src/resources"
    }
    for (const [provider, folder] of Object.entries(sdks)) {
      const sources = readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      const asked = sources
        .filter((name) => name.endsWith(".ts"))
        .flatMap((name) =>
          Array.from(read(`${folder}/${name}`).matchAll(/_client\.(?:post|put|patch)\(\s*(?:path`|['"])([^'"`?]+)/g))
        )
        .map(([, path]) => path!.replaceAll(/\$\{[^}]+\}/g, "id_1").replace(/^(?!\/v1)/, "/v1"))
      assert.isAbove(asked.length, 20, provider)
      const patterns = Paths.known[provider]!.map((path) => {
        const escaped = path.replaceAll(/[.*+?^$()|[\]\\]/g, "\\$&").replaceAll("{id}", "[^/]+")
        return new RegExp(`^${escaped.replace("/\\.\\.\\.", "(?:/.*)?")}$`)
      })
      const missing = asked.filter((path) => !patterns.some((pattern) => pattern.test(path)))
      assert.deepStrictEqual([...new Set(missing)], [], provider)
    }
  })
})
