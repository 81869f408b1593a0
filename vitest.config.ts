import { globSync, readFileSync } from "node:fs"
import { defineConfig } from "vitest/config"

// Tests import the package by its own name; this condition makes that mean the sources.
const resolve = { conditions: ["@floodgate/source", "module", "node", "import", "default"] }
const ssr = { resolve }

/** Whole programs: child processes, a browser, a packed package. They take longer, and `npm run verify` runs them. */
const system = [
  "packages/cli/test/commands/endToEnd.test.ts",
  "packages/cli/test/commands/parent.test.ts",
  "packages/cli/test/commands/redis.test.ts",
  "packages/cli/test/commands/report.test.ts",
  "packages/cli/test/lab/report.test.ts",
  "packages/cli/test/security/**/*.test.ts",
  "test/examples.test.ts",
  "packages/gateway/test/page.test.ts",
  "test/packaging/**/*.test.ts"
]

/** Files of which `npm test` does a small part: `test/support/size.ts`. `npm run test:full` does all of them. */
const searches = globSync(["test/**/*.test.ts", "packages/*/test/**/*.test.ts"], {
  exclude: ["test/clients/**", "**/node_modules/**"]
}).filter((file) => readFileSync(file, "utf8").includes("support/size.ts"))

interface ProjectOptions {
  readonly exclude?: Array<string>
  readonly isolate?: boolean
  readonly env?: Record<string, string>
}

const project = (
  name: string,
  include: Array<string>,
  testTimeout: number,
  { exclude = [], isolate = true, env = {} }: ProjectOptions = {}
) => ({
  resolve,
  ssr,
  test: {
    name,
    include,
    exclude,
    testTimeout,
    isolate,
    env,
    setupFiles: ["test/setup.ts"],
    environment: "node" as const
  }
})

export default defineConfig({
  test: {
    // Every worker loads and compiles everything once more: with two for each core the tests take a fifth more processor time.
    maxWorkers: "100%",
    // What was compiled once is not compiled again by the next run.
    fsModuleCache: true,
    projects: [
      // Files share their modules: half of the time went into loading them again. A timeout is for what hangs: a busy
      // machine may take ten times as long as a quiet one.
      project("unit", ["test/**/*.test.ts", "packages/*/test/**/*.test.ts", "examples/**/*.test.ts"], 60_000, {
        exclude: [...system, "test/clients/**"],
        isolate: false
      }),
      project("full", searches, 300_000, { isolate: false, env: { FLOODGATE_TEST_SIZE: "full" } }),
      project("system", system, 120_000),
      project("docs", [".doctest/*.test.ts"], 60_000, { isolate: false }),
      // Packages of test/clients' own lock file: `npm run test:clients` installs them.
      project("clients", ["test/clients/*.test.ts"], 120_000),
      project("soak", ["test/**/*.soak.ts", "packages/*/test/**/*.soak.ts"], 900_000, { exclude: ["test/clients/**"] })
    ],
    reporters: process.env.CI ? ["default", ["json", { outputFile: ".vitest/results.json" }]] : ["default"],
    coverage: {
      provider: "v8",
      include: ["src/**/*.ts", "packages/*/src/**/*.ts"],
      exclude: ["packages/cli/src/bin.ts", "packages/cli/src/entry.ts"],
      reporter: ["text-summary", "html", "json-summary"],
      // The core, taken together. Child processes, such as those of the command, are not seen.
      thresholds: {
        "src/{*.ts,{admission,budget,call,domain,pacing,protocol,sharing}/**,adapters/breaker.ts}": {
          lines: 95,
          branches: 95
        }
      }
    }
  }
})
