import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { defineConfig } from "vitest/config"

// Tests import the package by its own name, which this condition resolves to the sources.
const resolve = { conditions: ["@floodgate/source", "module", "node", "import", "default"] }
const ssr = { resolve }

/** Tests of whole programs: processes, a browser, packed packages. They take longer; `npm run verify` runs them. */
const system = [
  "packages/cli/test/commands/compose.test.ts",
  "packages/cli/test/commands/endToEnd.test.ts",
  "packages/cli/test/commands/mcp.test.ts",
  "packages/cli/test/commands/parent.test.ts",
  "packages/cli/test/commands/redis.test.ts",
  "packages/cli/test/commands/report.test.ts",
  "packages/cli/test/lab/report.test.ts",
  "packages/cli/test/security/**/*.test.ts",
  "test/examples.test.ts",
  "packages/gateway/test/failover.test.ts",
  "packages/gateway/test/page.test.ts",
  "packages/redis/test/failover.test.ts",
  "test/packaging/**/*.test.ts"
]

/** Files of which `npm test` runs a small size (`test/support/size.ts`). `npm run test:full` runs them whole. */
const searches = globSync(["test/**/*.test.ts", "packages/*/test/**/*.test.ts"], {
  exclude: ["test/clients/**", "**/node_modules/**"]
}).filter((file) => /(support\/size|fuzz\/kept|\.\/kept)\.ts"/.test(readFileSync(file, "utf8")))

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
}

const project = (
  name: string,
  include: Array<string>,
  testTimeout: number,
  { exclude = [], isolate = true, env = {}, setup = [] }: ProjectOptions = {}
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
    environment: "node" as const
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
      project(
        "unit",
        ["test/**/*.test.ts", "packages/*/test/**/*.test.ts", "examples/**/*.test.ts", ".doctest/*.test.ts"],
        60_000,
        { exclude: [...system, "test/clients/**", "packages/docs/test/site.test.ts"], isolate: false }
      ),
      project("full", searches, 300_000, { isolate: false, env: { FLOODGATE_TEST_SIZE: "full" } }),
      project("effect", entryPoints, 60_000, {
        // It has a ceiling for the other driver.
        exclude: [...system, "test/client/path.test.ts"],
        isolate: false,
        setup: ["test/onlyEffect.ts"]
      }),
      project("system", system, 120_000),
      // These need packages from test/clients' own lock file, which `npm run test:clients` installs.
      project("clients", ["test/clients/*.test.ts"], 120_000),
      // It looks at the site that `npm run test:site` builds with packages of its own.
      project("site", ["packages/docs/test/site.test.ts"], 120_000),
      project("soak", ["test/**/*.soak.ts", "packages/*/test/**/*.soak.ts"], 900_000, { exclude: ["test/clients/**"] })
    ],
    reporters: process.env.CI ? ["default", ["json", { outputFile: ".vitest/results.json" }]] : ["default"],
    coverage: {
      provider: "v8",
      include: ["src/**/*.ts", "packages/*/src/**/*.ts"],
      exclude: ["packages/cli/src/bin.ts", "packages/cli/src/entry.ts"],
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
