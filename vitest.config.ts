import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { defineConfig } from "vitest/config"

// Tests import the package by its own name, which this condition resolves to the sources.
const resolve = { conditions: ["@floodgate/source", "module", "node", "import", "default"] }
const ssr = { resolve }

/**
 * A test file's name says its tier, and a test that is slow although its file is quick has the tag `full`:
 *
 * - `*.test.ts`: `npm test`. No socket, no process, at most 300 ms of processor time for a test, 600 for an example: see `test/tiers.ts`.
 * - `*.system.test.ts`: `npm run test:system`. Sockets, Redis, processes, a browser, packed packages.
 * - `*.full.test.ts`, and the tag: `npm run test:full`. Searches, mutants, races of the lab, ratios to the oracle, tests of tests.
 * - `*.lint.test.ts`: `npm run lint`. What the sources, the documentation and the public names must look like.
 * - `*.soak.ts`: `npm run test:soak`, which takes minutes.
 */
const tests = (tier: string): Array<string> => [`test/**/*${tier}.test.ts`, `packages/*/test/**/*${tier}.test.ts`]
const elsewhere = [
  ...["system", "full", "lint"].flatMap((tier) => tests(`.${tier}`)),
  ".doctest/*.system.test.ts",
  "test/clients/**",
  "packages/docs/test/site.test.ts"
]

/** Files with tests of the tag, or of which `npm test` runs a small size (`test/support/size.ts`). `npm run test:full` runs them whole. */
const searches = globSync(tests(""), { exclude: [...elsewhere, "**/node_modules/**"] }).filter((file) =>
  /(support\/size|fuzz\/kept|\.\/kept)\.ts"|tags: "full"/.test(readFileSync(file, "utf8"))
)

/** Processes that tests start keep their compiled code here: compiling takes half the time of a short one. */
const compiled = { NODE_COMPILE_CACHE: join(import.meta.dirname, "node_modules/.cache/compiled") }

/** The tests of all entry points, which `npm run test:effect` runs a second time, with every call through Effect. */
const entryPoints = [
  "test/{Agents,Budget,Governor,LlmClient,Places,Retry,Spending}.test.ts",
  "test/{adapters,budget,call,client,http,proof}/**/*.test.ts",
  "packages/gateway/test/**/*.test.ts"
]

interface ProjectOptions {
  readonly setup?: Array<string>
  readonly exclude?: Array<string>
  readonly isolate?: boolean
  readonly env?: Record<string, string>
  /** A tag whose tests it leaves out. */
  readonly without?: string
  readonly retry?: { readonly count: number; readonly condition: RegExp }
}

const project = (
  name: string,
  include: Array<string>,
  testTimeout: number,
  { exclude = [], isolate = true, env = {}, retry, setup = [], without }: ProjectOptions = {}
) => ({
  resolve,
  ssr,
  test: {
    name,
    include,
    exclude,
    testTimeout,
    isolate,
    env: { ...compiled, ...env },
    setupFiles: ["test/setup.ts", ...setup],
    environment: "node" as const,
    tags: [{ name: "full", description: "A slow test of a quick file: npm run test:full." }],
    ...(without !== undefined && { tagsFilter: [`!${without}`] }),
    ...(retry !== undefined && { retry })
  }
})

export default defineConfig({
  test: {
    // Each worker loads and compiles everything again: two for each core would take a fifth more processor time.
    maxWorkers: "100%",
    // Keeps what was compiled for the next run.
    fsModuleCache: true,
    projects: [
      // Files share loaded modules: loading them for each file took half of the time. Timeouts only end what hangs, because
      // a busy machine may take ten times as long as a quiet one.
      project("unit", [...tests(""), "examples/**/*.test.ts", ".doctest/*.test.ts"], 60_000, {
        exclude: elsewhere,
        isolate: false,
        setup: ["test/tiers.ts"],
        retry: { count: 2, condition: /of processor time/ },
        without: "full"
      }),
      project("full", [...tests(".full"), ...searches], 300_000, {
        isolate: false,
        env: { FLOODGATE_TEST_SIZE: "full" }
      }),
      project("effect", entryPoints, 60_000, {
        // It has a ceiling for the other driver.
        exclude: ["test/client/path.system.test.ts", ...tests(".full")],
        isolate: false,
        setup: ["test/onlyEffect.ts"],
        without: "full"
      }),
      project("system", [...tests(".system"), ".doctest/*.system.test.ts"], 120_000),
      project("lint", tests(".lint"), 60_000, { isolate: false }),
      // These need packages from test/clients' own lock file, which `npm run test:clients` installs.
      project("clients", ["test/clients/*.test.ts"], 120_000),
      // It looks at the site that `npm run test:site` builds with packages of its own.
      project("site", ["packages/docs/test/site.test.ts"], 120_000),
      project("soak", ["test/**/*.soak.ts", "packages/*/test/**/*.soak.ts"], 900_000, { exclude: ["test/clients/**"] })
    ],
    // Several runs may be under way at the same time, so each names its file.
    reporters: process.env.CI
      ? ["default", ["json", { outputFile: `.vitest/${process.env.FLOODGATE_TEST_RESULTS ?? "results"}.json` }]]
      : ["default"],
    coverage: {
      provider: "v8",
      include: ["src/**/*.ts", "packages/*/src/**/*.ts"],
      exclude: ["packages/*/src/**/{bin,entry}.ts"],
      reporter: ["text-summary", "html", "json-summary"],
      // For the core as a whole. Child processes, such as the command's, are not measured.
      thresholds: {
        "src/{*.ts,{admission,budget,call,domain,pacing,protocol,sharing}/**,adapters/breaker.ts}": {
          lines: 95,
          branches: 95
        }
      }
    }
  }
})
